"""The awareness of every layer and FFN neuron of a direction, added up over a corpus.

A neuron is one dimension of the input h of a layer's down projection: its activation after the
non-linearity and, in a gated FFN, after the product with the up projection. Its awareness of a
direction is the mean over tokens of |h dL/dh|, the first-order change of the loss if it were
removed at that token (LANDeRMT, ACL 2024, equation 2; Xie et al., ACL 2021), where L is the sum of
the negative log-likelihoods of the target tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from polylect.did_you_mean import check_known
from polylect.layers.neurons.row_awareness import (
    Positions,
    RowMeter,
    begin_graph,
    flat,
    weighted_sum,
)
from polylect.layers.tokens import SIDES

FORMS = ("vector", "scalar", "normalised", "block")


class AwarenessMeter:
    """Adds up activations, FFN outputs and gradients batch by batch, in float64.

    One forward and one backward pass per batch serve all neurons of all layers. The backward pass
    goes down to the activation of the first layer and to nothing else: no weight gets a gradient,
    whether it asks for one or not. Sums are over tokens and sentences, so that neither batch size
    nor order matters beyond rounding; padding is in none of them.

    Args:
        downs: the down projection of every layer, in order. Dropout must be off.
        directions: how many are told apart.
        blocks: all layers, whose outputs are looked at for `relevance("block")`.
        rows: modules whose output rows are measured in the same pass.
        by_sentence: awareness is a sum over sentences of means over the tokens of each, as the code
            of LANDeRMT's authors has it, in which tokens of short sentences weigh more; else it is
            the mean over all tokens.

    Raises:
        ValueError: no layers, or layers of different sizes.
    """

    def __init__(
        self,
        downs: Sequence[nn.Module],
        directions: int,
        blocks: Sequence[nn.Module] = (),
        rows: RowMeter | None = None,
        by_sentence: bool = False,
    ) -> None:
        sizes = {(down.in_features, down.out_features) for down in downs}
        if len(sizes) != 1:
            raise ValueError(
                "the down projections of all layers must have one shape, got "
                f"{', '.join(f'{out} x {width}' for width, out in sorted(sizes)) or 'none'}."
            )
        ((neurons, hidden),) = sizes
        self.downs, self.blocks, self.rows = tuple(downs), tuple(blocks), rows
        self.by_sentence = by_sentence
        layers = len(self.downs)
        self._sums = {
            "awareness": torch.zeros(directions, len(SIDES), layers, neurons, dtype=torch.float64),
            "active": torch.zeros(directions, layers, neurons, dtype=torch.float64),
            "output": torch.zeros(directions, layers, hidden, dtype=torch.float64),
            "size": torch.zeros(directions, layers, dtype=torch.float64),
            "block": torch.zeros(directions, layers, dtype=torch.float64),
            "tokens": torch.zeros(directions, len(SIDES), dtype=torch.float64),
            "sentences": torch.zeros(directions, dtype=torch.float64),
        }
        device = self.downs[0].weight.device
        self._sums = {name: total.to(device) for name, total in self._sums.items()}
        if rows is not None:
            self._sums |= rows.sums

    def add(
        self,
        direction: int,
        source: Bool[Tensor, "rows length"],
        target: Bool[Tensor, "rows length"],
        loss: Callable[[], Float[Tensor, ""]],
    ) -> float:
        """Count one batch of a direction in; returns its loss.

        Args:
            direction: its index.
            source, target: the positions that hold a token of the prompt, and of the target;
                padding is in neither.
            loss: runs the model on the batch once and gives the sum of the negative
                log-likelihoods of the target tokens in nats. A mean would make the scores depend
                on what else is in the batch.

        Raises:
            RuntimeError: the model did not run every down projection once.
        """
        batch = Positions.from_masks(source, target, self.by_sentence)
        activations: list[Tensor] = []
        beginnings: list[Tensor] = []  # what is watched of the first layer
        rows = nullcontext() if self.rows is None else self.rows.watch(direction, batch, beginnings)
        with torch.enable_grad(), rows, self._watch(direction, batch, activations, beginnings):
            value = loss()
            if len(activations) != len(self.downs):
                raise RuntimeError(
                    f"the model ran {len(activations)} down projections in one pass and has "
                    f"{len(self.downs)}: its neurons cannot be watched."
                )
            torch.autograd.grad(value, beginnings)
        self._sums["tokens"][direction] += batch.counts
        self._sums["sentences"][direction] += batch.sentences
        return float(value.detach())

    @contextmanager
    def _watch(
        self,
        direction: int,
        batch: Positions,
        activations: list[Tensor],
        beginnings: list[Tensor],
    ) -> Iterator[None]:
        """Within it, what passes through the down projections is added to the sums."""
        handles: list[RemovableHandle] = []
        try:
            for layer, down in enumerate(self.downs):
                handles += [
                    down.register_forward_pre_hook(
                        self._activation(direction, layer, batch, activations, beginnings)
                    ),
                    down.register_forward_hook(self._output(direction, layer, batch)),
                ]
            for layer, block in enumerate(self.blocks):
                handles.append(block.register_forward_hook(self._block(direction, layer, batch)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _activation(
        self,
        direction: int,
        layer: int,
        batch: Positions,
        activations: list[Tensor],
        beginnings: list[Tensor],
    ) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        awareness = self._sums["awareness"][direction, :, layer]
        active, size = self._sums["active"][direction, layer], self._sums["size"][direction, layer]

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            h = inputs[0] if layer else begin_graph(inputs[0], beginnings)
            activation = h.detach()  # a hook that held h itself would keep it alive
            value = flat(activation)
            active.add_(weighted_sum(batch.tokens, (value > 0).to(value.dtype)))
            size.add_(
                weighted_sum(batch.means, torch.linalg.vector_norm(value, 1, dim=1))
                / value.shape[1]
            )

            def gradient(grad: Tensor) -> None:
                awareness.add_(weighted_sum(batch.sides, (flat(activation) * flat(grad)).abs_()))

            h.register_hook(gradient)
            activations.append(h)
            return (h, *inputs[1:])

        return hook

    def _output(
        self, direction: int, layer: int, batch: Positions
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        total = self._sums["output"][direction, layer]

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            total.add_(weighted_sum(batch.means, flat(output.detach())))

        return hook

    def _block(
        self, direction: int, layer: int, batch: Positions
    ) -> Callable[[nn.Module, tuple[Tensor, ...], Any], None]:
        total = self._sums["block"][direction, layer]

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
            states = output if isinstance(output, Tensor) else output[0]
            total.add_(weighted_sum(batch.means, flat(states.detach()).mean(1)))

        return hook

    def awareness(self) -> dict[str, Float[Tensor, "directions layers neurons"]]:
        """Return the mean |h dL/dh| in nats over the tokens of each side, "source" and "target".

        With `by_sentence` it is what each side has in the sum over sentences.
        """
        means = self._sums["awareness"] / self._divisors()[..., None, None]
        return {side: means[:, i] for i, side in enumerate(SIDES)}

    def row_awareness(self, kind: str) -> dict[str, Float[Tensor, "directions layers rows"]]:
        """Return the same of |y dL/dy| for the output rows of a module; see `RowMeter`."""
        if self.rows is None:
            raise ValueError(f"the rows of {kind} were not measured.")
        return self.rows.awareness(kind, self._divisors())

    def _divisors(self) -> Float[Tensor, "directions sides"]:
        """What the sums of awareness of each side are divided by."""
        tokens = self._sums["tokens"]
        return torch.ones_like(tokens) if self.by_sentence else tokens.clamp(min=1)

    def nbytes(self) -> int:
        """Return what the sums take in memory."""
        return sum(total.nbytes for total in self._sums.values())

    def activation(self) -> Float[Tensor, "directions layers neurons"]:
        """Return the share of the tokens of both sides at which an activation is positive."""
        return self._sums["active"] / self._sums["tokens"].sum(1).clamp(min=1)[:, None, None]

    def tokens(self) -> dict[str, list[int]]:
        """Return the tokens counted of each side, by direction."""
        return {s: self._sums["tokens"][:, i].long().tolist() for i, s in enumerate(SIDES)}

    def relevance(self, form: str = "vector") -> Float[Tensor, "directions layers"]:
        """Return how much the FFN of a layer differs from that of the next, per direction.

        D_l = | mean_n A_{l,n} - mean_n A_{l+1,n} | over sentences n (LANDeRMT, equation 1), zero
        for the last layer, which has no next.

        Args:
            form: what A is. "vector": the mean over a sentence's tokens of the FFN's output, and D
                the mean over its dimensions; "normalised": the same of vectors divided by their
                root mean square over the dimensions, since outputs grow with depth; "scalar": the
                mean over tokens and neurons of |h|; "block": the mean over tokens and dimensions
                of the whole layer's output, with its sign, as the code of LANDeRMT's authors has
                it.
        """
        check_form(form)
        sentences = self._sums["sentences"].clamp(min=1)[:, None]
        if form in ("scalar", "block"):
            sums = self._sums["size" if form == "scalar" else "block"]
            difference = (sums / sentences).diff(dim=1).abs()
        else:
            mean = self._sums["output"] / sentences[..., None]
            if form == "normalised":
                mean = nn.functional.rms_norm(mean, mean.shape[2:], eps=1e-30)
            difference = mean.diff(dim=1).abs().mean(2)
        return nn.functional.pad(difference, (0, 1))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the sums so far, on the CPU."""
        return {name: total.cpu().clone() for name, total in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the sums of `state_dict`."""
        for name, total in self._sums.items():
            total.copy_(state[name])


def check_form(form: str) -> None:
    """Raises ValueError, with the nearest, for a form of relevance that does not exist."""
    check_known("layers.form", form, FORMS)
