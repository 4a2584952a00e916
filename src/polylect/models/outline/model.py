"""A model from its configuration alone."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from polylect.models.backbone import read_tokenizer
from polylect.models.gradient_checkpointing import checkpoint_layers
from polylect.models.outline.sizes import SIZES, published_config
from polylect.models.precision import DTYPES, known_dtype
from polylect.models.source import locate, read_config


@dataclass(frozen=True)
class Outline:
    """A base model without weights.

    Attributes:
        model: on the meta device.
        tokenizer: None where it cannot be had.
        origin: where the shapes are from, in words.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    origin: str


def outline_backbone(
    path: str,
    *,
    dtype: str = "float32",
    revision: str | None = None,
    gradient_checkpointing: bool = False,
    **_: Any,
) -> Outline:
    """Return the model on torch's meta device, and its tokenizer if that is at hand.

    Takes the settings of `load_backbone`. The configuration is that of the folder, of the hub or
    its cache, or of `SIZES`. Weights that would be held in 4 bits have the size of `dtype`.

    Raises:
        FileNotFoundError: none of them has it.
        ValueError: a bad setting, a model that is no causal language model or would need code that
            comes with it, a tokenizer without an end token.
    """
    options: dict[str, Any] = {"trust_remote_code": False, "revision": revision}
    where = locate(path)
    try:
        config, origin = read_config(where, options), "its configuration"
    except FileNotFoundError as error:
        config, origin = _known_config(where, error), "its published sizes, its files are not here"
        options["local_files_only"] = True  # the hub has been waited for once
    kind = DTYPES[known_dtype(dtype)]
    if kind == "auto":
        kind = getattr(config, "dtype", None) or torch.float32
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=kind)
    if gradient_checkpointing:
        checkpoint_layers(model)
    model.config._name_or_path = path
    return Outline(model, _tokenizer(where, options), origin)


def _known_config(where: str, error: FileNotFoundError) -> PretrainedConfig:
    if where in SIZES:
        return published_config(where)
    raise FileNotFoundError(
        f"{error} Sizes are known without files of {', '.join(sorted(SIZES))}."
    ) from error


def _tokenizer(where: str, options: dict[str, Any]) -> PreTrainedTokenizerBase | None:
    try:
        return read_tokenizer(where, options)
    except ValueError as error:
        if error.__cause__ is None:  # there is one, and it would not do
            raise
        return None
