"""What was measured of directions' gradients over a training, and the files that tell of it."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

ALL_LAYERS = "all"
FOLDER = "ledger"  # of a run folder
COSINES = ("step", "layer", "direction", "other", "cosine")
UPDATES = ("step", "layer", "direction", "norm", "cancelled")


@dataclass
class History:
    """Inner products of the directions' gradients, layer by layer, at some steps of a training.

    Attributes:
        directions, layers: what the entries stand for, in their order.
        steps: optimizer steps that the weights had behind them.
        grams: one (layers, directions, directions) for each of the steps, in float32; a direction
            that was not seen has NaN.
    """

    directions: Sequence[str]
    layers: Sequence[str]
    steps: list[int] = field(default_factory=list)
    grams: list[Float[Tensor, "layers directions directions"]] = field(default_factory=list)

    def add(self, step: int, gram: Float[Tensor, "layers directions directions"]) -> None:
        """Appends a measurement."""
        self.steps.append(step)
        self.grams.append(gram.float().cpu())

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as plain values and tensors."""
        named = {"directions": list(self.directions), "layers": list(self.layers)}
        return named | {"steps": list(self.steps), "grams": list(self.grams)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the measurements of `state_dict`; raises ValueError if they are of others."""
        for what in ("directions", "layers"):
            if state[what] != list(getattr(self, what)):
                raise ValueError(
                    f"the ledger in the checkpoint is of other {what}: go on without it, with "
                    "'~callbacks.ledger'."
                )
        self.steps, self.grams = list(state["steps"]), list(state["grams"])

    def write(self, folder: Path, first: int = 0) -> None:
        """Write the measurements from the `first` on: `ledger/cosines.csv`, `ledger/updates.csv`.

        With `first` 0 the files are made anew, else rows are appended. Cells without a value are
        empty.
        """
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        for name, columns in (("cosines", COSINES), ("updates", UPDATES)):
            path = folder / FOLDER / f"{name}.csv"
            with path.open("a" if first else "w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file)
                if not first:
                    writer.writerow(columns)
                for step, gram in zip(self.steps[first:], self.grams[first:], strict=True):
                    rows = self._cosine_rows if name == "cosines" else self._update_rows
                    writer.writerows([step, *row] for row in rows(gram))

    def _cosine_rows(self, gram: Tensor) -> Iterator[list[Any]]:
        for layer, values in zip(self._rows(), cosines(with_total(gram)).tolist(), strict=True):
            for i, j in combinations(range(len(self.directions)), 2):
                yield [layer, self.directions[i], self.directions[j], _cell(values[i][j])]

    def _update_rows(self, gram: Tensor) -> Iterator[list[Any]]:
        gram = with_total(gram)
        parts = norms(gram).tolist(), cancelled(gram).tolist()
        for layer, lengths, shares in zip(self._rows(), *parts, strict=True):
            for direction, norm, share in zip(self.directions, lengths, shares, strict=True):
                yield [layer, direction, _cell(norm), _cell(share)]

    def _rows(self) -> list[str]:
        return [*self.layers, ALL_LAYERS]

    def last_values(self) -> dict[str, float]:
        """Return the last measurement over all layers, for loggers.

        Names are `ledger/cosine/<direction>/<other>` and `ledger/cancelled/<direction>`.
        """
        gram = with_total(self.grams[-1])
        cosine, share = cosines(gram)[-1].tolist(), cancelled(gram)[-1].tolist()
        values = {
            f"ledger/cosine/{self.directions[i]}/{self.directions[j]}": cosine[i][j]
            for i, j in combinations(range(len(self.directions)), 2)
        }
        shares = zip(self.directions, share, strict=True)
        values |= {f"ledger/cancelled/{direction}": value for direction, value in shares}
        return {name: value for name, value in values.items() if value == value}  # not NaN

    def means(self) -> dict[str, dict[str, Any]]:
        """Return the means over the steps by layer, "all" the last.

        "cosine" is by direction and other direction, "norm" and "cancelled" are by direction; None
        where there is no value.
        """
        if not self.grams:
            return {}
        grams = [with_total(gram) for gram in self.grams]
        measures = {"cosine": cosines, "norm": norms, "cancelled": cancelled}
        parts = {
            name: torch.stack([of(gram) for gram in grams]).nanmean(0)
            for name, of in measures.items()
        }
        return {
            layer: {name: self._named(values[i]) for name, values in parts.items()}
            for i, layer in enumerate(self._rows())
        }

    def _named(self, values: Tensor) -> dict[str, Any]:
        pairs = zip(self.directions, values, strict=True)
        return {
            direction: self._named(value) if value.dim() else _number(value.item())
            for direction, value in pairs
        }


def with_total(
    gram: Float[Tensor, "layers directions directions"],
) -> Float[Tensor, "more directions directions"]:
    """Return the inner products of each layer, and those over all layers as the last."""
    return torch.cat([gram, gram.sum(0, keepdim=True)])


def norms(
    gram: Float[Tensor, "layers directions directions"],
) -> Float[Tensor, "layers directions"]:
    """Return the lengths of the gradients."""
    return gram.diagonal(dim1=-2, dim2=-1).sqrt()


def cosines(
    gram: Float[Tensor, "layers directions directions"],
) -> Float[Tensor, "layers directions directions"]:
    """Return the cosines of the gradients (PCGrad, Yu et al. 2020); NaN where one is zero."""
    length = norms(gram)
    product = length.unsqueeze(-1) * length.unsqueeze(-2)
    return torch.where(product > 0, (gram / product).clamp(-1, 1), torch.nan)


def cancelled(
    gram: Float[Tensor, "layers directions directions"],
) -> Float[Tensor, "layers directions"]:
    """Return the share of each direction's gradient that the sum of the others' takes back.

    Of direction d with gradient g, whose others sum to o, it is -<g, o> / |g|², between 0 (the
    others do not work against it) and 1 (along g nothing is left of it); NaN where g is zero.
    """
    own = gram.diagonal(dim1=-2, dim2=-1)
    others = gram.nansum(-1) - own
    return torch.where(own > 0, (others / own).clamp(-1, 0).abs(), torch.nan)


def _cell(value: float) -> str:
    return f"{value:.6g}" if value == value else ""


def _number(value: float) -> float | None:
    return round(value, 6) if value == value else None
