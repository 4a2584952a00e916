"""The gradients of directions in one measurement: of parts of batches, or as training leaves them.

Training is not touched: gradients go into no parameter, and the random state is as before.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polylect.data.batch import IGNORED, TranslationBatch
from polylect.run.interference.sketch import GradientSketch, generator_of
from polylect.strategies.loss import target_losses


class Measurement:
    """Sums over the steps in which the directions are measured.

    A direction that learns a set of parameters alone has its gradient in them when the step is
    about to be made. Directions that share parameters have a backward pass each, of some of their
    rows, in the first step that holds them.

    Args:
        module: a strategy with a base.
        groups: the optimizer's parameter groups.
        share: of the rows of a batch that the passes of all directions together may take.
        size, seed: of the sketches; the seed also draws the rows.

    Attributes:
        begun: number of the optimizer step with which a measurement has begun; None outside of one.
    """

    def __init__(
        self, module: Any, groups: list[dict[str, Any]], share: float, size: int, seed: int
    ) -> None:
        self.module, self.share, self.seed = module, share, seed
        units = module.units()
        counts = Counter(units[direction] for direction in module.directions)
        self._unit = torch.tensor([units[direction] for direction in module.directions])
        self._own = [len(counts) > 1 and counts[u] == 1 for u in self._unit.tolist()]
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        self._parameters: dict[str, nn.Parameter] = {}
        self._of_unit: dict[int, dict[str, nn.Parameter]] = {}
        for group in groups:
            own = {names[id(p)]: p for p in group["params"] if p.requires_grad}
            self._parameters |= own
            self._of_unit.setdefault(group.get("unit", 0), {}).update(own)
        self.sketch = GradientSketch(self._parameters, size, seed)
        self.begun: int | None = None

    def begin(self, step: int) -> None:
        """Begin a measurement with an optimizer step."""
        directions = len(self.module.directions)
        self.begun = step
        self._sums = torch.zeros(directions, self.sketch.length, device=self.module.device)
        self._tokens = torch.zeros(3, directions, dtype=torch.float64, device=self.module.device)
        # The tokens of which `_sums` are, all those of the training batches, and of these the ones
        # in the step that is running.

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of a measurement that goes on."""
        if self.begun is None:
            return {}
        return {"begun": self.begun, "sums": self._sums, "tokens": self._tokens}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the sums of `state_dict`."""
        if state:
            self.begin(state["begun"])
            self._sums.copy_(state["sums"])
            self._tokens.copy_(state["tokens"])

    def take_batch(self, trainer: Any, batch: TranslationBatch, number: int) -> None:
        """Measures the directions of a training batch that share parameters.

        Args:
            number: of the batch, for the draw of rows.
        """
        index = {direction: i for i, direction in enumerate(self.module.directions)}
        by_row = (batch.labels[:, 1:] != IGNORED).sum(1).tolist()
        rows: dict[int, list[int]] = {}
        for row, direction in enumerate(batch.directions):
            rows.setdefault(index[direction], []).append(row)
        generator = generator_of(self.seed, number)
        quota = max(1, round(self.share * batch.rows / len(index)))
        for i, own in sorted(rows.items()):
            seen_before = self._tokens[1, i] > self._tokens[2, i]
            self._tokens[1:, i] += sum(by_row[row] for row in own)
            if self._own[i] or seen_before:
                continue
            drawn = [own[k] for k in torch.randperm(len(own), generator=generator)[:quota]]
            self._add_gradient(trainer, i, rows_of(batch, sorted(drawn)))
            self._tokens[0, i] += sum(by_row[row] for row in drawn)

    def _add_gradient(self, trainer: Any, direction: int, part: TranslationBatch) -> None:
        device = part.input_ids.device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), trainer.precision_plugin.train_step_context():
            with self.module.routing(part):
                losses, _ = target_losses(self.module.backbone, part)
            reached = self._of_unit[int(self._unit[direction])]
            if not losses.requires_grad:  # nothing that is trained reaches this direction
                return
            gradients = torch.autograd.grad(losses.sum(), list(reached.values()), allow_unused=True)
        pairs = zip(reached, gradients, strict=True)
        own = {name: gradient for name, gradient in pairs if gradient is not None}
        self.sketch.add(self._sums[direction], own)

    def take_step(self, factors: list[float]) -> None:
        """Measures directions that learn parameters alone, of the gradients that lie in them.

        Args:
            factors: of the gradients of each unit, which make them those of the step's mean loss.
        """
        for i, unit in enumerate(self._unit.tolist()):
            in_step = self._tokens[2, i]
            if self._own[i] and in_step > 0 and self._tokens[0, i] == 0:
                parameters = self._of_unit.get(unit, {})
                own = {n: p.grad for n, p in parameters.items() if p.grad is not None}
                self.sketch.add(self._sums[i], own, factors[unit])
                self._tokens[0, i] += 1  # the gradient of a mean
        self._tokens[2] = 0

    def end(self, trainer: Any, last: bool) -> Tensor | None:
        """Return the inner products of the gradients, (layers, directions, directions).

        None if a direction has not been seen yet and there is time; with several processes all
        come to the same conclusion. A direction's gradient is that of its part of the mean loss:
        its mean over its tokens, times its share of the tokens of those that it learns with.

        Args:
            last: whether this is the last step of the measurement.
        """
        tokens = trainer.strategy.reduce(self._tokens.clone(), reduce_op="sum")
        if not last and not bool((tokens[0] > 0).all()):
            return None
        sums = trainer.strategy.reduce(self._sums, reduce_op="sum")
        measured, seen = tokens[0], tokens[1]
        unit = self._unit.to(seen.device)
        total = torch.zeros(int(unit.max()) + 1, dtype=seen.dtype, device=seen.device)
        share = seen / total.index_add_(0, unit, seen)[unit]
        gradients = sums.double() * (share / measured).unsqueeze(1)
        gradients[measured == 0] = torch.nan
        self.begun = None
        parts = (gradients[:, place] for place in self.sketch.layers.values())
        return torch.stack([part @ part.T for part in parts])


def rows_of(batch: TranslationBatch, rows: list[int]) -> TranslationBatch:
    """Return some rows of a batch that is padded on the right, without columns of padding alone."""
    index = torch.tensor(rows, device=batch.input_ids.device)
    length = int(batch.attention_mask[index].sum(1).max())
    return TranslationBatch(
        batch.input_ids[index, :length],
        batch.attention_mask[index, :length],
        batch.labels[index, :length],
        *(tuple(part[row] for row in rows) for part in (batch.directions, batch.sources)),
        tuple(batch.references[row] for row in rows),
        tuple(batch.adapters[row] for row in rows) if batch.adapters else (),
    )
