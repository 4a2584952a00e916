"""A mixture of experts as a plain model of the base's architecture, where it is one."""

import copy

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, PreTrainedModel

from polylect.layers.experts.ffn import ExpertFFN
from polylect.models.families import family_of


@torch.no_grad()
def dense_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a plain model that computes what a mixture does whose routers are constant.

    An expert's weight goes into its down projection. MT experts, and copies, widen the feed-forward
    networks of all layers; what a layer does not fill is zero.

    Raises:
        ValueError: a router decides token by token, or the architecture has no width to set.
    """
    family, config = family_of(model.config), copy.deepcopy(model.config)
    blocks = model.get_submodule(family.layers)
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not any(part.startswith("expert_") for part in name.split("."))
    }
    for number, block in enumerate(blocks):
        ffn = block.get_submodule(family.ffn)
        if isinstance(ffn, ExpertFFN):
            prefix = f"{family.layers}.{number}.{family.ffn}."
            state |= {prefix + name: tensor for name, tensor in _join_experts(ffn).items()}
    base = blocks[0].get_submodule(family.up).out_features
    layers = [f"{family.layers}.{number}" for number in range(len(blocks))]
    width = max(len(state[f"{layer}.{family.up}.weight"]) for layer in layers)
    if width > base:
        if getattr(config, "intermediate_size", None) != base:
            raise ValueError(
                f"the experts have {width} neurons, and a {config.model_type} model has always "
                f"{base}: use the folder that training has exported, or merge before MT experts "
                "are added."
            )
        config.intermediate_size = width
    inward = family.projections[:-1]
    axes = {f"{path}.{kind}": 0 for path in inward for kind in ("weight", "bias")}
    axes[f"{family.down}.weight"] = 1
    for layer in layers:
        for name, axis in axes.items():
            if (key := f"{layer}.{name}") in state:
                state[key] = _pad(state[key], width, axis)
    plain = AutoModelForCausalLM.from_config(config, dtype=model.dtype)
    plain.load_state_dict(state)
    plain.generation_config = copy.deepcopy(model.generation_config)
    return plain.to(model.device).eval()


def _join_experts(ffn: ExpertFFN) -> dict[str, Tensor]:
    """Return the weights of the feed-forward network that all experts of a layer together are."""
    weights = ffn.constant_weights()
    if weights is None:
        raise ValueError(
            f"the router of {ffn.layer_name} decides token by token, so its experts are no plain "
            "feed-forward network: use the folder that training has exported, or polylect export "
            "form=model."
        )
    pieces: dict[str, list[Tensor]] = {}
    for experts in ffn.experts():
        weight = weights[experts.numbers.start : experts.numbers.stop][experts.owners()]
        for name, path in ffn.projections.items():
            layer = getattr(experts, name)
            if name == "down":
                pieces.setdefault(f"{path}.weight", []).append(layer.weight * weight)
                continue
            pieces.setdefault(f"{path}.weight", []).append(layer.weight)
            if layer.bias is not None:
                pieces.setdefault(f"{path}.bias", []).append(layer.bias)
    down = f"{ffn.projections['down']}.weight"
    return {name: torch.cat(parts, 1 if name == down else 0) for name, parts in pieces.items()}


def _pad(tensor: Tensor, width: int, axis: int) -> Tensor:
    missing = width - tensor.shape[axis]
    return F.pad(tensor, (0, missing) if axis == tensor.dim() - 1 else (0, 0, 0, missing))
