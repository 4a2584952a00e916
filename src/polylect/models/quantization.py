"""Weights held in 4 bits: NF4 of bitsandbytes (QLoRA, arXiv 2305.14314), on CUDA devices only."""

import importlib.util
import os
from typing import Any

import torch


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
    """Options of `from_pretrained` that load weights in 4 bits and compute in `compute`."""
    from transformers import BitsAndBytesConfig

    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        ),
        # Quantised weights are made on the device; under DDP each process has its own.
        "device_map": {"": int(os.environ.get("LOCAL_RANK", "0"))},
    }
