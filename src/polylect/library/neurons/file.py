"""The file of a detection: scores of all FFN neurons, and their owners."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors.torch import save_file
from torch import Tensor

from polylect.files import load_tensors, whole_file
from polylect.finite import find_nonfinite
from polylect.layers.tokens import SIDES

_KEY = "polylect_neurons"  # of the metadata; one key, since safetensors writes several in any order
_AWARENESS = "awareness."
_AXES = {
    "selected": "kP",
    "general": "km",
    "specific": "kPm",
    "relevance": "PL",
    "activation": "PLm",
    **{f"{_AWARENESS}{side}": "PLm" for side in SIDES},
}


@dataclass(frozen=True)
class NeuronFile:
    """Scores of every layer, and categories of the k chosen ones.

    A direction owns a neuron of a chosen layer if it uses that layer and the neuron is general or
    specific to it. A neuron that is neither belongs to nobody.

    Attributes:
        directions: in the order of the axis `directions`.
        layers: the chosen ones, ascending, counted from 0; the order of the axis `chosen`.
        selected: which direction uses which chosen layer.
        general: neurons that learn from all directions.
        specific: neurons with their owners; none of them is general.
        awareness: mean |h dL/dh| in nats over the tokens of "source" (the prompt) and "target"; or
            what each side has in the sum over sentences of such means, see `is_sum`.
        relevance: difference of each layer's FFN from the next one's; 0 for the last.
        activation: share of tokens with a positive activation.
        base_fingerprint: of the base model that the scores belong to.
        about: settings, data hashes, versions; must be JSON. "tokens" has for each side the number
            of tokens by direction, over which awareness is a mean.
    """

    directions: tuple[str, ...]
    layers: tuple[int, ...]
    selected: Bool[Tensor, "chosen directions"]
    general: Bool[Tensor, "chosen neurons"]
    specific: Bool[Tensor, "chosen directions neurons"]
    awareness: Mapping[str, Float[Tensor, "directions layers neurons"]]
    relevance: Float[Tensor, "directions layers"]
    activation: Float[Tensor, "directions layers neurons"]
    base_fingerprint: str
    about: Mapping[str, Any]

    def write(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all; equal contents give equal bytes.

        Raises ValueError where a score is NaN or infinite.
        """
        write_tensors(path, self.tensors(), self.header())

    @classmethod
    def read(cls, path: str | Path) -> "NeuronFile":
        """Read a file that `write` has written.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is something else, or a score is NaN or infinite.
        """
        header, stored = read_tensors(path)
        return cls.from_tensors(Path(path), header, stored)

    @classmethod
    def from_tensors(
        cls, path: Path, header: Mapping[str, Any], stored: Mapping[str, Tensor]
    ) -> "NeuronFile":
        """Build what a file at `path` holds; raises as `read`."""
        try:
            tensors = {name: stored[name] for name in _AXES}
            directions, layers = tuple(header["directions"]), tuple(header["layers"])
            fingerprint, about = header["base_fingerprint"], header["about"]
        except (KeyError, TypeError) as error:
            raise _damaged(path) from error
        _check(path, directions, layers, tensors)
        if wrong := find_nonfinite(tensors):
            raise ValueError(f"{path}: {wrong}; `polylect detect` writes another.")
        return cls(
            directions=directions,
            layers=layers,
            awareness={side: tensors.pop(f"{_AWARENESS}{side}") for side in SIDES},
            base_fingerprint=fingerprint,
            about=about,
            **tensors,
        )

    def check_base(self, fingerprint: str) -> None:
        """Raises ValueError unless the scores belong to the base with this fingerprint.

        That of a base without weights is empty, and nothing is known of it.
        """
        if fingerprint and fingerprint != self.base_fingerprint:
            raise ValueError(
                "the neuron file belongs to another base model: fingerprint "
                f"{self.base_fingerprint[:12]}, this base has {fingerprint[:12]}; run "
                "`polylect detect` on this base, in this precision."
            )

    def scores(self, positions: str = "all") -> Float[Tensor, "directions layers neurons"]:
        """Return mean awareness over the tokens of one side, "source" or "target", or "all".

        Of a file of sums over sentences it is the sum.
        """
        if positions != "all":
            return self.awareness[positions]
        if self.is_sum:
            return sum(self.awareness[side].double() for side in SIDES)
        counted = self.about["tokens"]
        tokens = {side: torch.tensor(counted[side])[:, None, None] for side in SIDES}
        total = sum(tokens[side] * self.awareness[side].double() for side in SIDES)
        return total / sum(tokens.values())

    @property
    def is_sum(self) -> bool:
        """Whether awareness is a sum over sentences of means over their tokens."""
        return self.about.get("measured", {}).get("average") == "sentences"

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many neurons each direction owns, over the chosen layers that it uses.

        "alone" counts the specific ones that no other direction owns, "of" all neurons there.
        """
        counts = {}
        owners = (self.specific & self.selected[:, :, None]).sum(1)
        for i, direction in enumerate(self.directions):
            used = self.selected[:, i]
            specific = self.specific[used, i]
            counts[direction] = {
                "general": int(self.general[used].sum()),
                "specific": int(specific.sum()),
                "alone": int((specific & (owners[used] == 1)).sum()),
                "of": self.general[used].numel(),
            }
        return counts

    def header(self) -> dict[str, Any]:
        """Return what is written beside the tensors."""
        return {
            "directions": self.directions,
            "layers": self.layers,
            "base_fingerprint": self.base_fingerprint,
            "about": dict(self.about),
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return what is written, by name."""
        named = {f"{_AWARENESS}{side}": self.awareness[side] for side in SIDES}
        return named | {name: getattr(self, name) for name in _AXES if name not in named}


def positions_of(about: Mapping[str, Any]) -> str:
    """Return the tokens whose awareness sorted the neurons; "all" if that is not known."""
    return about.get("chosen", {}).get("categories", {}).get("positions", "all")


def check_detection(path: str, wanted: Mapping[str, Any] | None, about: Mapping[str, Any]) -> None:
    """Raises ValueError unless a file was detected with these settings.

    Args:
        wanted: some settings of `polylect detect`; None for any.
        about: of the file.
    """
    had = {**about.get("measured", {}), **about.get("chosen", {})}
    for key, value in (wanted or {}).items():
        inner = value if isinstance(value, Mapping) else {None: value}
        for name, expected in inner.items():
            where = key if name is None else f"{key}.{name}"
            found = had.get(key) if name is None else (had.get(key) or {}).get(name)
            if found != expected:
                raise ValueError(
                    f"{path} was detected with {where}={found}, and strategy.detection has "
                    f"{where}={expected}: detect so, or give strategy.detection=null."
                )


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]
) -> None:
    """Write a neuron file, whole or not at all; raises ValueError where a score is not finite."""
    if wrong := find_nonfinite(tensors):
        raise ValueError(f"{path} is not written: {wrong}.")
    metadata = {_KEY: json.dumps(header, ensure_ascii=False)}
    with whole_file(Path(path)) as partial:
        save_file({name: t.contiguous() for name, t in tensors.items()}, partial, metadata)


def read_tensors(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return header and tensors of a neuron file.

    Raises FileNotFoundError where there is none, ValueError where it is something else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `polylect detect` writes such a file.")
    stored, metadata = load_tensors(path, "a neuron file")
    try:
        header = json.loads(metadata[_KEY])
    except (KeyError, TypeError, json.JSONDecodeError, RecursionError) as error:
        raise _damaged(path) from error
    if not isinstance(header, dict):
        raise _damaged(path)
    return header, stored


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"{path} is not a neuron file, or a damaged one: `polylect detect` writes another."
    )


def _check(
    path: Path, directions: tuple[str, ...], layers: tuple[int, ...], tensors: Mapping[str, Tensor]
) -> None:
    """Raises ValueError where sizes or numbers do not fit together."""
    sizes = {"k": len(layers), "P": len(directions)}
    for name, tensor in tensors.items():
        axes, shape = _AXES[name], tensor.shape
        if len(axes) != len(shape) or any(
            sizes.setdefault(axis, size) != size for axis, size in zip(axes, shape, strict=True)
        ):
            raise ValueError(
                f"{path}: {name} has the shape {list(shape)}, which does not fit "
                f"{len(directions)} directions, {len(layers)} chosen layers and the other scores."
            )
    both = tensors["general"][:, None] & tensors["specific"]
    if list(layers) != sorted(set(layers) & set(range(sizes["L"]))) or bool(both.any()):
        raise ValueError(
            f"{path}: layers must ascend from 0 to {sizes['L'] - 1} at most, and no neuron can be "
            "general and specific."
        )
