"""The training loss: token cross-entropy, exact whatever the accumulation, ranks and units.

The mean over the target tokens of a whole optimizer step is wanted. Micro-batches (and DDP ranks)
hold different numbers of tokens, so the mean of their means is something else. `StepLoss` divides
each micro-batch's sum by a reference count and corrects the gradients once, before the step.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.data.batch import IGNORED, TranslationBatch
from polylect.models.families import FAMILIES

# Their output head is the linear layer and nothing but it, Gemma 2's soft cap apart.
_KNOWN = {kind for family in FAMILIES.values() for kind in family.model_types}


def target_losses(
    backbone: nn.Module, batch: TranslationBatch
) -> tuple[Float[Tensor, " targets"], Int[Tensor, " targets"]]:
    """Return the negative log-likelihood in nats of every target token, and the row of each.

    The output head runs on the positions that predict a target only: prompt and padding cost
    nothing there, which for a vocabulary of 256,000 is most of the memory. A head with adapters has
    to see whole rows, since it goes by their directions.
    """
    labels = batch.labels[:, 1:]
    rows, positions = torch.nonzero(labels != IGNORED, as_tuple=True)
    return losses_at(backbone, batch, rows, positions, labels[rows, positions]), rows


def losses_at(
    backbone: nn.Module,
    batch: TranslationBatch,
    rows: Int[Tensor, " targets"],
    positions: Int[Tensor, " targets"],
    targets: Int[Tensor, " targets"],
) -> Float[Tensor, " targets"]:
    """Return `target_losses` where it is known which positions predict which targets."""
    logits = _logits(backbone, batch, rows, positions)
    return F.cross_entropy(logits, targets, reduction="none")


def _logits(
    backbone: nn.Module,
    batch: TranslationBatch,
    rows: Int[Tensor, " targets"],
    positions: Int[Tensor, " targets"],
) -> Float[Tensor, "targets vocabulary"]:
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if backbone.config.model_type not in _KNOWN:  # who knows what lies behind its output head
        return _at_least_float32(backbone(**inputs, use_cache=False).logits[rows, positions])
    hidden = backbone.base_model(**inputs, use_cache=False).last_hidden_state
    head = backbone.get_output_embeddings()
    if type(head) is nn.Linear:
        logits = _at_least_float32(head(hidden[rows, positions]))
    else:
        logits = _at_least_float32(head(hidden)[rows, positions])
    cap = getattr(backbone.config, "final_logit_softcapping", None)  # Gemma 2
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _at_least_float32(
    logits: Float[Tensor, "targets vocabulary"],
) -> Float[Tensor, "targets vocabulary"]:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class StepLoss:
    """Sums over one optimizer step, kept per unit.

    A unit is a set of parameters that learns from its own rows alone: an adapter of LoRA-switch.
    Each is divided by its own tokens, so that it learns what it would learn alone. Strategies
    without such sets have one unit.
    """

    def __init__(self, units: int) -> None:
        self.units = units
        self.reset()

    def reset(self) -> None:
        """Begin the next optimizer step."""
        self.added = 0  # micro-batches so far
        self.first: Tensor | None = None  # tokens of the micro-batch that first held the unit
        self.total: Tensor | None = None  # tokens of the whole step, over all ranks
        self.sums: Tensor | None = None  # losses of this rank, for the log

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far, for a checkpoint between two optimizer steps."""
        return {name: getattr(self, name) for name in ("added", "first", "total", "sums")}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on with the sums of `state_dict`."""
        self.added = state["added"]
        self.first, self.total, self.sums = (
            state[name].to(device) for name in ("first", "total", "sums")
        )

    def add(
        self,
        losses: Float[Tensor, " targets"],
        units: Int[Tensor, " targets"],
        auxiliary: Float[Tensor, "*units"],
    ) -> Float[Tensor, ""]:
        """Return the value to differentiate for this micro-batch.

        Args:
            losses: of the target tokens of this process.
            units: the unit that learns from each.
            auxiliary: what is added to the loss of every token of a unit, so that the step has its
                mean weighted by tokens. With several units one value for each, which reaches the
                parameters of that unit alone; a strategy with one unit may give a scalar.

        Raises:
            ValueError: a scalar to learn from, with several units.
        """
        if auxiliary.requires_grad and auxiliary.dim() == 0 and self.units > 1:
            raise ValueError(
                f"auxiliary_loss gave one value for {self.units} units: give one for each, in the "
                "order of their numbers in units()."
            )
        self.added += 1
        sums = losses.new_zeros(self.units).index_add(0, units, losses)
        own = losses.new_zeros(self.units).index_add(0, units, torch.ones_like(losses.detach()))
        counts = own.clone()
        ranks = dist.get_world_size() if dist.is_initialized() else 1
        if ranks > 1:
            dist.all_reduce(counts)
        if self.first is None or self.total is None or self.sums is None:
            self.first, self.total, self.sums = counts, counts, sums.detach()
        else:
            self.first = torch.where(self.first == 0, counts, self.first)
            self.total, self.sums = self.total + counts, self.sums + sums.detach()
        present = self.first > 0
        share = torch.where(present, ranks / self.first.clamp(min=1), 0)
        return ((sums + auxiliary * own) * share).sum()

    def mean(self) -> Float[Tensor, ""]:
        """Return the loss per target token of the step so far, for the log."""
        total, sums = self.total, self.sums
        if total is None or sums is None:
            raise RuntimeError("StepLoss.mean needs at least one call of add in the step.")
        sums = sums.sum()
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(sums)
        return sums / total.sum().clamp(min=1)

    def factors(self) -> list[float]:
        """Return what takes the gradients of each unit from the reference count to the step's."""
        if self.added < 2 or self.first is None or self.total is None:
            return [1.0] * self.units  # one micro-batch is its own reference
        return torch.where(self.total > 0, self.first / self.total.clamp(min=1), 1).tolist()

    @torch.no_grad()
    def correct(self, groups: Iterable[dict]) -> None:
        """Scale the gradients from the reference count to the whole step's, in place.

        `groups` are the optimizer's parameter groups; a group's `unit` is its index here.
        """
        if self.added < 2:
            return
        factors = self.factors()
        for group in groups:
            factor = factors[group.get("unit", 0)]
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if factor != 1 and gradients:
                torch._foreach_mul_(gradients, factor)


class RunningLosses:
    """The loss of each direction over its latest micro-batches, for one alone says little.

    Older micro-batches count less and less, by half after fourteen. Nothing leaves the device
    before somebody asks.

    Args:
        directions: all that may come.
    """

    DECAY = 0.95

    def __init__(self, directions: Sequence[str]) -> None:
        self._index = {direction: i for i, direction in enumerate(directions)}
        self._sums: Tensor | None = None

    def add(
        self,
        directions: Sequence[str],
        losses: Float[Tensor, " targets"],
        rows: Int[Tensor, " targets"],
    ) -> None:
        """Counts in a micro-batch: the loss of each target, its row, the direction of each row."""
        if self._sums is None:
            self._sums = torch.zeros(2, len(self._index), device=losses.device)
        own = torch.tensor([self._index[d] for d in directions], device=losses.device)[rows]
        values = torch.stack([losses.detach().float(), torch.ones_like(losses).float()])
        self._sums.mul_(self.DECAY).index_add_(1, own, values)

    def means(self) -> dict[str, float]:
        """Return nats per target token by direction, of this process.

        Directions that were not seen yet are left out.
        """
        if self._sums is None:
            return {}
        sums, counts = self._sums.tolist()
        return {d: sums[i] / counts[i] for d, i in self._index.items() if counts[i] > 0}
