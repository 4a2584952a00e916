"""The paths of a base model's layers and projections, family by family."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polylect.did_you_mean import did_you_mean

_SPLIT_ATTENTION = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
)


@dataclass(frozen=True)
class Family:
    """Module paths of one kind of base model.

    `layers` is a path in the causal language model; every other path is relative to one layer.
    The input of `down` is the neuron activation: after the non-linearity and, in gated FFNs, after
    the product with `up`.

    Attributes:
        name: of the family, as in `FAMILIES`.
        model_types: values of `config.model_type` that belong to it.
        attention: linear layers of the attention.
        ffn: the feed-forward block; BLOOM's takes the residual as a second argument and adds it.
        gate: gate projection, None where the FFN has none.
        activation: the FFN's non-linearity, a module.
        layers: the list of decoder layers.
        heads_first: whether norms of heads see (rows, heads, length, size), not (rows, length,
            heads, size).
    """

    name: str
    model_types: tuple[str, ...]
    attention: tuple[str, ...] = _SPLIT_ATTENTION
    ffn: str = "mlp"
    gate: str | None = "mlp.gate_proj"
    up: str = "mlp.up_proj"
    down: str = "mlp.down_proj"
    activation: str = "mlp.act_fn"
    layers: str = "model.layers"
    heads_first: bool = False

    @property
    def projections(self) -> tuple[str, ...]:
        """Linear layers of the FFN, in the order in which they are computed."""
        return tuple(path for path in (self.gate, self.up, self.down) if path is not None)

    def targets(self, which: str = "all") -> tuple[str, ...]:
        """Return the names of the linear layers to adapt: "attention", "ffn" or "all".

        They are suffixes at a dot, the rule of PEFT's `target_modules`: "mlp.up_proj" means the
        up projection of every layer. The output head and the embedding are never among them.
        Raises ValueError for another word.
        """
        choices = {
            "attention": self.attention,
            "ffn": self.projections,
            "all": self.attention + self.projections,
        }
        if which not in choices:
            raise ValueError(f"targets {which!r} do not exist; {did_you_mean(which, choices)}")
        return choices[which]


def _by_name(*families: Family) -> dict[str, Family]:
    return {family.name: family for family in families}


FAMILIES = _by_name(
    Family("llama", ("llama",)),
    Family("qwen2", ("qwen2",)),
    Family("qwen3", ("qwen3",)),
    Family("gemma2", ("gemma2",)),
    Family("gemma3", ("gemma3_text",), heads_first=True),
    Family("mistral", ("mistral",)),
    Family(
        "bloom",
        ("bloom",),
        attention=("self_attention.query_key_value", "self_attention.dense"),
        gate=None,
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
        activation="mlp.gelu_impl",
        layers="transformer.h",
    ),
    Family(
        "gpt_neox",
        ("gpt_neox",),
        attention=("attention.query_key_value", "attention.dense"),
        gate=None,
        up="mlp.dense_h_to_4h",
        down="mlp.dense_4h_to_h",
        activation="mlp.act",
        layers="gpt_neox.layers",
    ),
)


def family(name: str) -> Family:
    """Return the family of that name; raises ValueError with the nearest known one."""
    if name not in FAMILIES:
        raise ValueError(f"model family {name!r} does not exist; {did_you_mean(name, FAMILIES)}")
    return FAMILIES[name]


def family_of(config: Any) -> Family:
    """Return the family of a base model, from its configuration (`config.model_type`).

    Raises ValueError listing the known model types. A model of no known family still trains and
    translates; only what needs module paths by family does not work with it.
    """
    kind = config.model_type
    for candidate in FAMILIES.values():
        if kind in candidate.model_types:
            return candidate
    model_types: Sequence[str] = [t for f in FAMILIES.values() for t in f.model_types]
    raise ValueError(
        f"model type {kind!r} belongs to no known family (known: {', '.join(model_types)}); "
        "name the layers to adapt in strategy.targets, as in [q_proj,v_proj]."
    )
