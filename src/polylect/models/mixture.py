"""Base models whose feed-forward networks are mixtures of LM and MT experts: made, saved, loaded.

    model, tokenizer = load_mixture("runs/mix_moe_stage2/TIME/model")
    model.generate(**tokenizer(prompt, return_tensors="pt", add_special_tokens=False))

A saved mixture is a folder with the tokenizer and all weights. Its config.json is the base's, but
for a model type that transformers does not know: loaded as a plain model it would be another one
without a word. `load_mixture` needs this module and `polylect.layers`, nothing that trains.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from polylect.did_you_mean import check_known
from polylect.files import check_whole, read_json
from polylect.finite import check_written, find_nonfinite
from polylect.layers.context import RoutingContext
from polylect.layers.experts.features import FEATURES
from polylect.layers.experts.ffn import MT_STARTS, attach_experts
from polylect.layers.experts.routers import Router, make_router
from polylect.layers.experts.slicing import SLICINGS, neuron_order
from polylect.layers.tokens import Tokens, watch_tokens
from polylect.models.families import family_of

MODEL_TYPE = "polylect_mixture"
_FILES = ("config.json", "model.safetensors")


_SHARED = ("layers", "lm_experts", "slicing", "features", "feature_size", "window", "top")
"""Settings that a stage must have in common with the one before."""


@dataclass(frozen=True)
class Mixture:
    """How the feed-forward networks of a base become mixtures of experts.

    Attributes:
        layers: 1 for all layers, n for every n-th, or their numbers from 0.
        lm_experts, mt_experts: in each of these layers; no MT experts is fine.
        slicing: the neurons of each LM expert: "contiguous", "interleaved", "random" or
            "clustered" slices of the base's network; or "copies" of the whole.
        mt_start: MT experts begin with a down projection of "zero", with all weights "random", or
            as "copies" of the LM experts.
        mt_width: neurons of an MT expert; None for those of a slice.
        gating, top, features, feature_size, window: of the router, see `make_router`.
        seed: of random weights, projections and slices.

    Raises:
        ValueError: an unknown name, or numbers that do not fit.
    """

    layers: int | Sequence[int] = 1
    lm_experts: int = 2
    mt_experts: int = 2
    slicing: str = "contiguous"
    mt_start: str = "zero"
    mt_width: int | None = None
    gating: str = "group"
    top: int | None = None
    features: str = "fft"
    feature_size: int | None = None
    window: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        check_known("slicing", self.slicing, (*SLICINGS, "copies"))
        check_known("mt_start", self.mt_start, MT_STARTS)
        check_known("features", self.features, (*FEATURES, "uniform"))
        if self.mt_width is not None and self.mt_width < 1:
            raise ValueError(f"mt_width must be at least 1, got {self.mt_width}.")
        if isinstance(self.layers, int) and self.layers < 1:
            raise ValueError(f"layers must be at least 1 (every layer), got {self.layers}.")
        make_router(8, **self._router(), features="uniform")  # which fit every width

    def check_stage_before(self, before: Mapping[str, Any]) -> None:
        """Raises ValueError where a stage before, of these settings, lacks what both must share."""
        for key in _SHARED:
            here = getattr(self, key)
            if before and before[key] != here:
                raise ValueError(
                    f"the stage before was trained with strategy.{key}={before[key]}, this one has "
                    f"{here}: give both the same."
                )

    @property
    def starts_as_base(self) -> bool:
        """Whether the mixture computes what the base does, until it is trained."""
        silent = not self.mt_experts or self.mt_start == "zero"
        loses_experts = self.gating == "joint" and self.slicing == "copies"  # see `router`
        return self.top is None and silent and not loses_experts

    def layer_numbers(self, count: int) -> list[int]:
        """Return the numbers of the layers with experts in a model of `count` layers.

        Raises:
            ValueError: there are none, or a layer that the model does not have.
        """
        setting = self.layers
        numbers = (
            range(setting - 1, count, setting) if isinstance(setting, int) else sorted(setting)
        )
        if not numbers or not set(numbers) <= set(range(count)):
            raise ValueError(
                f"layers={self.layers} does not fit a model of {count} layers: take every n-th up "
                f"to the {count}th, or a list of distinct numbers from 0 to {count - 1}."
            )
        return list(dict.fromkeys(numbers))

    def _router(self) -> dict[str, Any]:
        """Return arguments of `make_router`, scaled so that equal experts give the base."""
        lm, mt, top, joint = self.lm_experts, self.mt_experts, self.top, self.gating == "joint"
        alike = lm + mt if joint else lm
        if self.slicing != "copies":
            scale = alike if top is None else lm
        elif joint:
            scale = {None: alike / max(lm, 1), 1: alike}.get(top, 1)
        else:
            scale = lm / (top or lm or 1)
        return {"lm": lm, "mt": mt, "gating": self.gating, "top": top, "lm_scale": scale}

    def router(self, d: int, layer: int) -> Router:
        """Return the router of one layer for inputs of width d."""
        router = make_router(
            d,
            **self._router(),
            features=self.features,
            size=self.feature_size,
            window=self.window,
            seed=self.seed + layer,
        )
        if self.slicing == "copies":  # alike, and with a router of zeros they would learn alike
            generator = torch.Generator().manual_seed(self.seed + layer)
            for head in (router.lm, router.mt):
                if head is not None:
                    nn.init.normal_(head.semantic, std=0.02, generator=generator)
        return router


def put_experts(
    model: nn.Module,
    mixture: Mixture,
    context: RoutingContext,
    activations: Float[Tensor, "layers neurons features"] | None = None,
) -> None:
    """Make feed-forward networks of a base model mixtures, in place.

    The context has to be told of the tokens of each forward pass: see `watch_tokens`.

    Args:
        activations: for "clustered" slices. Without them the slices are contiguous until a
            checkpoint brings others.

    Raises:
        ValueError: the model's family is not known, or its sizes do not fit.
    """
    family = family_of(model.config)
    prefix = f"{family.ffn}."
    projections = {"gate": family.gate, "up": family.up, "down": family.down}
    projections = {name: p.removeprefix(prefix) for name, p in projections.items() if p}
    blocks = model.get_submodule(family.layers)
    for number in mixture.layer_numbers(len(blocks)):
        ffn = blocks[number].get_submodule(family.ffn)
        neurons, d = getattr(ffn, projections["up"]).weight.shape
        attach_experts(
            ffn,
            projections,
            family.activation.removeprefix(prefix),
            mixture.router(d, number),
            context,
            f"layer_{number}",
            copies=mixture.slicing == "copies",
            order=_order(mixture, neurons, number, activations),
            mt_start=mixture.mt_start,
            mt_width=mixture.mt_width,
            seed=mixture.seed + number,
        )


def _order(mixture: Mixture, neurons: int, layer: int, activations: Tensor | None) -> Tensor | None:
    if mixture.slicing == "copies":
        return None
    if mixture.slicing == "clustered" and activations is None:
        return torch.arange(neurons)
    return neuron_order(
        mixture.slicing,
        neurons,
        mixture.lm_experts,
        activations=None if activations is None else activations[layer],
        seed=mixture.seed + layer,
    )


def save_mixture(
    model: PreTrainedModel,
    mixture: Mixture,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
) -> None:
    """Write a model made by `put_experts`, for `load_mixture`; files there are overwritten.

    Raises ValueError where a weight is NaN or infinite.
    """
    folder = Path(folder)
    check_written(str(folder), model.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.to_dict()
    config |= {"model_type": MODEL_TYPE, "base_model_type": model.config.model_type}
    config |= {"architectures": None, "mixture": dataclasses.asdict(mixture)}
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (folder / _FILES[0]).write_text(text, encoding="utf-8")
    save_model(model, str(folder / _FILES[1]), {"format": "pt"})
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load_mixture(
    folder: str | Path, *, dtype: torch.dtype = torch.float32, attention: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load what `save_mixture` wrote: a transformers model for use, frozen, and its tokenizer.

    It generates by itself, batches and beams included. The features "fft_prompt" take for the
    source prompt what the first forward pass is given.

    Args:
        dtype: of the base's weights; the router and added experts have float32 or better.
        attention: implementation, as in transformers.

    Raises:
        FileNotFoundError: files are missing.
        ValueError: it is something else, damaged, or has weights that are NaN or infinite.
    """
    folder = Path(folder)
    if missing := [name for name in _FILES if not (folder / name).is_file()]:
        raise FileNotFoundError(f"{folder} has no {missing[0]}: it is no saved mixture.")
    config = read_json(folder / _FILES[0], "the configuration of a model")
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        raise ValueError(f"{folder} is a plain model: load it with transformers.")
    mixture = Mixture(**config.pop("mixture"))
    base = CONFIG_MAPPING[config.pop("base_model_type")]
    config = base.from_dict(config | {"model_type": base.model_type})
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    context = RoutingContext()
    put_experts(model, mixture, context)
    check_whole(folder / _FILES[1], "the weights of a model")
    try:
        load_model(model, str(folder / _FILES[1]))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{folder / _FILES[1]} is damaged or of another mixture ({reason}): copy it again."
        ) from error
    if wrong := find_nonfinite(model.state_dict()):
        raise ValueError(f"{folder}: {wrong}; its training has diverged, take another.")
    model.generation_config = GenerationConfig.from_pretrained(folder)

    def put(tokens: Tokens) -> None:
        later = tokens.past_length > 0
        context.tokens = replace(tokens, prompt=tokens.prompt & False) if later else tokens

    every = torch.iinfo(torch.long).max
    watch_tokens(
        model.base_model, lambda rows: torch.full((rows,), every, device=model.device), put
    )
    return model.eval().requires_grad_(False), AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False
    )
