"""Adapters in the files of PEFT: adapter_config.json and adapter_model.safetensors.

Only what this package computes is read; everything else is refused by name, since an adapter that
is loaded in part gives translations that are wrong without a sign.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from polylect.files import load_tensors, read_json
from polylect.finite import find_nonfinite
from polylect.library.adapter import LowRank
from polylect.library.fields import CONFIG_FIELDS, check_fields
from polylect.library.targets import by_pattern, is_target

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
_READ = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_PREFIX = "base_model.model."
_KEY = re.compile(
    rf"{re.escape(_PREFIX)}(?!{re.escape(_PREFIX)})(?P<path>.+)\.lora_(?P<factor>[AB])\.weight"
)
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")

_REFUSED: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "DoRA (use_dora)": lambda c: c.get("use_dora"),
    "trained biases (bias, lora_bias)": lambda c: (
        c.get("bias", "none") != "none" or c.get("lora_bias")
    ),
    "fully trained modules (modules_to_save)": lambda c: c.get("modules_to_save"),
    "trained tokens (trainable_token_indices)": lambda c: c.get("trainable_token_indices"),
    "Conv1D layers (fan_in_fan_out)": lambda c: c.get("fan_in_fan_out"),
    "single parameters as targets (target_parameters)": lambda c: c.get("target_parameters"),
    "replicated layers (layer_replication)": lambda c: c.get("layer_replication"),
    "Activated LoRA (alora_invocation_tokens)": lambda c: c.get("alora_invocation_tokens"),
    "QALoRA (use_qalora)": lambda c: c.get("use_qalora"),
    "BD-LoRA (use_bdlora)": lambda c: c.get("use_bdlora"),
    "Arrow routing (arrow_config)": lambda c: c.get("arrow_config"),
    "VeLoRA (velora_config)": lambda c: c.get("velora_config"),
    "MonteCLoRA (monteclora_config)": lambda c: c.get("monteclora_config"),
    "KaSA (kasa_config)": lambda c: c.get("kasa_config"),
    "an initialisation that changes the base (init_lora_weights)": lambda c: (
        str(c.get("init_lora_weights", "")).lower().startswith(_CHANGES_BASE)
    ),
}


def write_peft(folder: Path, modules: Mapping[str, LowRank], base_model: str) -> None:
    """Writes both files into an existing folder; any PEFT of today loads them."""
    ranks = {path: update.a.shape[0] for path, update in modules.items()}
    alphas = {path: _alpha(update) for path, update in modules.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "target_modules": sorted(modules),
        "rank_pattern": {path: r for path, r in ranks.items() if r != rank},
        "alpha_pattern": {path: value for path, value in alphas.items() if value != alpha},
    }
    tensors = {}
    for path, update in modules.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = update.a.contiguous()
        tensors[f"base_model.model.{path}.lora_B.weight"] = update.b.contiguous()
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def read_peft(folder: Path) -> tuple[dict[str, LowRank], dict[str, Any]]:
    """Return the updates by module path, and PEFT's configuration.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a kind of adapter that is not supported, or files that contradict each other.
    """
    config = read_config(folder)
    factors = _factors(folder, config)
    modules = {}
    for path, pair in factors.items():
        if set(pair) != {"A", "B"}:
            raise ValueError(
                f"{folder / WEIGHTS} has lora_{min(pair)} of {path} but not the other: it is not "
                "whole, save or download it again"
            )
        if config.get("target_modules") and not is_target(config, path):
            raise ValueError(
                f"{folder / WEIGHTS} has tensors for {path}, which target_modules in {CONFIG} does "
                "not name: the two files do not belong together"
            )
        modules[path] = LowRank(pair["A"], pair["B"], _scaling(folder, config, path, pair))
    if not modules:
        raise ValueError(f"{folder / WEIGHTS} holds no tensors: save or download it again")
    return modules, config


def read_config(folder: Path) -> dict[str, Any]:
    """Read PEFT's configuration, and make sure that it describes a LoRA of the supported kind."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no adapter folder: it has no {CONFIG}, copy or download the whole folder"
        )
    config = read_json(path, "the configuration of an adapter")
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise ValueError(
            f"{path} describes an adapter of type {kind}: only LORA is supported, train it as that"
        )
    for words, used in _REFUSED.items():
        if used(config):
            raise ValueError(
                f"{path} uses {words}, which is not supported: train it again as plain LoRA"
            )
    check_fields(path, config, CONFIG_FIELDS)
    return config


def _factors(folder: Path, config: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    path = folder / WEIGHTS
    if not path.is_file():
        way = "copy or download the whole folder"
        if (folder / PICKLED).is_file():
            way = f"save it again as safetensors, pickled weights ({PICKLED}) are not read"
        elif any(folder.glob("adapter_model-*.safetensors")):
            way = "it is in parts, save it again in one file"
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}: {way}")
    tensors, _ = load_tensors(path, "the weights of an adapter")
    factors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match is None or tensor.dim() != 2:
            raise ValueError(f"{path} holds {key}: {_refusal(key, tensor, config)}")
        if tensor.dtype not in _READ:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(
                f"{path} holds {key} in {kind}: save it again in float32, float16 or bfloat16"
            )
        factors.setdefault(match["path"], {})[match["factor"]] = tensor
    if wrong := find_nonfinite(tensors):
        raise ValueError(f"{path}: {wrong}; its training has diverged, train or save it again")
    return factors


def _refusal(key: str, tensor: Tensor, config: Mapping[str, Any]) -> str:
    if "lora_magnitude_vector" in key:
        return "DoRA is not supported"
    if "embed" in key:
        tied = config.get("ensure_weight_tying")
        how = "; train it again with ensure_weight_tying=False" if tied else ""
        return f"adapters on embeddings and trained embeddings are not supported{how}"
    if ".base_layer." in key:
        return (
            "a weight of the base itself, which PEFT adds to adapters of the output head; save it "
            "again with save_embedding_layers=False"
        )
    if key.endswith("bias"):
        return "trained biases are not supported"
    if tensor.dim() > 2:
        return "adapters on convolutions are not supported"
    if "lora" in key.lower() and _KEY.fullmatch(key) is None:
        return f"{_difference(key)}; save it again with save_pretrained of PEFT"
    return "fully trained modules and other tuners are not supported, only LoRA on linear layers"


def _difference(key: str) -> str:
    """Return, as a clause, how the name of a LoRA tensor differs from one that PEFT writes."""
    if named := re.search(r"\.lora_[AB]\.(.+)\.weight$", key):
        return (
            f"the adapter's own name, {named[1]!r}, stands in it, as in what state_dict() gives: "
            f"files of PEFT are without the .{named[1]}"
        )
    if key.startswith(2 * _PREFIX):
        return f"{_PREFIX} stands at its beginning twice, as of a PEFT model within another"
    if re.search(r"\.lora_[AB]\.weight$", key) and not key.startswith("lora_"):  # Kohya's do
        return f"the name lacks {_PREFIX} at its beginning"
    return f"no name of PEFT's, which are {_PREFIX}PATH.lora_A.weight and …lora_B.weight"


def _scaling(folder: Path, config: dict[str, Any], path: str, pair: dict[str, Tensor]) -> float:
    rank = by_pattern(config.get("rank_pattern"), path, config.get("r"))
    alpha = by_pattern(config.get("alpha_pattern"), path, config.get("lora_alpha"))
    if pair["A"].shape[0] != rank or pair["B"].shape[1] != rank:
        raise ValueError(
            f"{folder / WEIGHTS} has A {tuple(pair['A'].shape)} and B {tuple(pair['B'].shape)} "
            f"for {path}, but {CONFIG} gives it rank {rank}: the two files do not belong together"
        )
    if alpha is None:
        raise ValueError(f"{folder / CONFIG} gives {path} no lora_alpha")
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def _alpha(update: LowRank) -> float | int:
    """Return the lora_alpha that gives the scaling; an int where it is one, as PEFT writes it."""
    alpha = round(update.scaling * update.a.shape[0], 10)
    return int(alpha) if alpha == int(alpha) else alpha
