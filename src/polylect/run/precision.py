"""`trainer.precision=auto`: the precision that this machine trains fast in."""

from typing import Any

import torch
from omegaconf import DictConfig


def settle_precision(cfg: DictConfig) -> str | None:
    """Put the precision in place of `trainer.precision=auto`, so that a run keeps it when resumed.

    Returns what was chosen and why, for the user; None where nothing was left to choose.
    """
    if cfg.trainer.get("precision") != "auto":
        return None
    precision, why = training_precision(cfg.trainer.get("accelerator", "auto"))
    cfg.trainer.precision = precision
    return f"trainer.precision=auto is {precision}: {why}."


def training_precision(accelerator: Any = "auto") -> tuple[str, str]:
    """Lightning's name of a precision, and in a clause why it is the right one here.

    bf16-mixed where products in bfloat16 are computed by hardware. A processor without such units
    computes them in software, which can take hundreds of times as long as float32.

    Args:
        accelerator: as Lightning's Trainer takes it; "cpu" leaves a GPU unasked.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.get_device_capability() >= (8, 0):
            return "bf16-mixed", f"{name} has bfloat16 units"
        return "32-true", f"{name} has no bfloat16 units"
    if accelerator not in ("auto", "cpu"):
        return "32-true", f"what accelerator={accelerator} does in bfloat16 is not known"
    if torch.cpu._is_amx_tile_supported():
        return "bf16-mixed", "the processor has AMX"
    if torch.cpu._is_avx512_bf16_supported():
        return "bf16-mixed", "the processor has AVX512-BF16"
    return "32-true", "the processor has neither AMX nor AVX512-BF16"
