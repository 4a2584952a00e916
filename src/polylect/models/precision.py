"""Number formats of the weights: dtypes, what the machine computes fast in, and 4 bits.

Held in 4 bits: NF4 of bitsandbytes (QLoRA, arXiv 2305.14314), on CUDA devices only.
"""

import importlib.util
import os
from typing import Any

import torch

from polylect.did_you_mean import check_known

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "checkpoint": "auto",  # the word of transformers
}


def known_dtype(dtype: str) -> str:
    """Return a name of DTYPES: `dtype`, or what "auto" stands for on this machine.

    Raises ValueError for any other.
    """
    check_known("model.dtype", dtype, ("auto", *DTYPES))
    if dtype != "auto":
        return dtype
    return "bfloat16" if bfloat16_units()[0] else "float32"


def bfloat16_units(accelerator: Any = "auto") -> tuple[bool, str]:
    """Return whether hardware computes in bfloat16 here, and in a clause what was found.

    A processor without such units computes them in software, which can take hundreds of times as
    long as float32.

    Args:
        accelerator: as Lightning's Trainer takes it; "cpu" leaves a GPU unasked.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        if torch.cuda.get_device_capability() >= (8, 0):
            return True, f"{name} has bfloat16 units"
        return False, f"{name} has no bfloat16 units"
    if accelerator not in ("auto", "cpu"):
        return False, f"what accelerator={accelerator} does in bfloat16 is not known"
    if torch.cpu._is_amx_tile_supported():
        return True, "the processor has AMX"
    if torch.cpu._is_avx512_bf16_supported():
        return True, "the processor has AVX512-BF16"
    return False, "the processor has neither AMX nor AVX512-BF16"


def check_4bit_works() -> None:
    """Raises RuntimeError where a package or a CUDA device is lacking."""
    missing = [p for p in ("bitsandbytes", "accelerate") if importlib.util.find_spec(p) is None]
    if missing:
        raise RuntimeError(
            f"model.quantize=4bit needs the package {' and '.join(missing)}: "
            "pip install 'polylect[quant]', or leave model.quantize=null."
        )
    if not torch.cuda.is_available():
        raise RuntimeError(
            "model.quantize=4bit needs a CUDA device and this machine shows none: "
            "leave model.quantize=null."
        )


def four_bits(compute: torch.dtype) -> dict[str, Any]:
    """Return options of `from_pretrained` that load 4-bit weights and compute in `compute`."""
    from transformers import BitsAndBytesConfig

    local_rank = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        ),
        # Quantised weights are made on the device; under DDP each process has its own.
        "device_map": {"": int(local_rank)},
    }
