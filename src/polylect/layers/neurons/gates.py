"""Gates between language-general and language-specific neurons.

The token gate is the conditional awareness-based router of LANDeRMT (ACL 2024) in the form of CLSR
(ICLR 2021): sigmoid(G(x) + a(t) e), G a linear, a ReLU and a linear layer, e Gaussian noise whose
factor a(t) grows over the training, so that G learns values far from zero and can be cut to 0 or 1
afterwards. The openness g is the weight of general neurons, 1 - g that of specific ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


class AwarenessGate(nn.Module):
    """Openness of the general neurons for every token; one for all neurons or one for each.

    The last layer starts at zero: half open, whatever the token.

    Args:
        hidden: width of the token's state.
        width: of the gate's hidden layer.
        neurons: 1 for one value per token, or the number of neurons of the FFN.
        soft: keep values between 0 and 1 outside training; else they are cut to 0 or 1.

    Attributes:
        noise: factor of the noise, used in training mode.
    """

    def __init__(self, hidden: int, width: int, neurons: int, soft: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(hidden, width), nn.ReLU(), nn.Linear(width, neurons))
        nn.init.zeros_(self.body[2].weight)
        nn.init.zeros_(self.body[2].bias)
        self.soft = soft
        self.noise = 0.0

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch neurons"]:
        """Return the openness for every token, between 0 and 1."""
        logits = self.body(x.to(self.body[0].weight.dtype))
        if self.training:
            if self.noise:
                logits = logits + self.noise * torch.randn_like(logits)
        elif not self.soft:
            return (logits >= 0).to(x.dtype)
        return torch.sigmoid(logits).to(x.dtype)


class ConstantGate(nn.Module):
    """The same openness for every token; learns nothing.

    Args:
        value: between 0, specific neurons only, and 1, general neurons only.
    """

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch 1"]:
        """Return the constant for every token."""
        return x.new_full((*x.shape[:-1], 1), self.value)


@dataclass(frozen=True)
class GateForm:
    """What gates a strategy has.

    Attributes:
        kind: "token", "neuron", "constant" or "none".
        names: one gate each.
        width, soft: see `AwarenessGate`.
        openness: of constant gates.
    """

    kind: str
    names: Sequence[str]
    width: int
    soft: bool
    openness: float

    def make(self, hidden: int, neurons: int) -> dict[str, nn.Module]:
        """Make the gates of one layer, by name."""
        if self.kind == "none":
            return {}
        if self.kind == "constant":
            return {name: ConstantGate(self.openness) for name in self.names}
        outputs = neurons if self.kind == "neuron" else 1
        return {n: AwarenessGate(hidden, self.width, outputs, self.soft) for n in self.names}
