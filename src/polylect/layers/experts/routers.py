"""Routers of a mixture with two groups of experts: LM experts for a language, MT for translation.

K LM and as many MT experts (numbers may differ); LM experts come first. A router scores expert e by
the logit z_e = W_s,e x + W_f,e f: x is the layer's input, f its `RouterFeatures`. The reference
(Mix-MoE, arXiv 2605.24681) was not found to give its equation; this one is ours. Stage 1 of the
method makes a router without MT experts; stage 2 adds `mt` and `gate` and keeps the names of `lm`.
Logits and weights are computed in float32 or better, under autocast too.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from polylect.did_you_mean import check_known
from polylect.layers.experts.features import RouterFeatures, router_features
from polylect.layers.experts.router_head import RouterHead, router_logits
from polylect.layers.tokens import Tokens

GATINGS = ("group", "joint")

_STD = 0.02
"""Of initial weights where only the best experts run: from zeros, all tokens would take the same.

A usual initial spread of a transformer's weights; the normalised x gives logits near 0.5."""


@dataclass(frozen=True)
class Routing:
    """Which experts work on each token.

    Attributes:
        indices: experts in use, LM experts first.
        weights: what each one's output is multiplied by.
        logits: of all experts; a group's share its softmax, "joint" routing has one softmax.
        gate: logarithm of the odds of the MT group, whose share is sigmoid(gate); None without one.
    """

    indices: Int[Tensor, "tokens k"]
    weights: Float[Tensor, "tokens k"]
    logits: Float[Tensor, "tokens experts"]
    gate: Float[Tensor, " tokens"] | None = None


class Router(nn.Module, ABC):
    """Base of the routers; its submodules `lm`, `mt` and `gate` can each be frozen alone.

    Args:
        features: None for the placebo "uniform": no parameters, all experts alike; where only some
            experts run, they take turns from token to token.
        lm: LM experts.
        mt: MT experts, 0 for the first stage.
        top: experts that run per token (and group, in a `GroupRouter`); None for all.
        lm_scale: factor of the LM experts' weights; None for `lm`, which makes slices of a dense
            network that network again; 1 is for copies of it.
        mt_scale: factor of the MT experts' weights; None for `mt`.
        seed: of initial weights that are not zero.
    """

    gated = True

    def __init__(
        self,
        features: RouterFeatures | None,
        lm: int,
        mt: int = 0,
        *,
        top: int | None = None,
        lm_scale: float | int | None = None,
        mt_scale: float | int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if lm < 1 or mt < 0:
            raise ValueError(f"{lm} LM and {mt} MT experts: at least 1 LM expert is needed")
        most = min(lm, mt or lm) if self.gated else lm + mt
        if top is not None and not 1 <= top <= most:
            raise ValueError(f"top {top} of {lm} LM and {mt} MT experts: take 1 to {most}, or all")
        self.experts = (lm, mt)
        self.top = top
        self.scales = (lm if lm_scale is None else lm_scale, mt if mt_scale is None else mt_scale)
        self.features = features
        self.lm = self.mt = self.gate = None
        if features is not None:
            generator = torch.Generator().manual_seed(seed)
            std = 0.0 if top is None else _STD
            self.lm = RouterHead(lm, features, std=std, generator=generator)
            if mt:
                self.mt = RouterHead(mt, features, std=std, generator=generator)
            if mt and self.gated:
                self.gate = RouterHead(1, features, bias=True, generator=generator)

    def forward(self, x: Float[Tensor, "rows length d"], tokens: Tokens) -> Routing:
        """Routes every token, padding too, in the order of x.flatten(0, 1)."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            if self.features is None:
                logits = x.new_zeros(x.shape[0] * x.shape[1], sum(self.experts) + 1)
            else:
                heads = [head for head in (self.lm, self.mt, self.gate) if head is not None]
                f = self.features(x, tokens)
                logits = router_logits(heads, x.flatten(0, 1), f.flatten(0, 1))
            lm, mt, gate = logits.tensor_split([self.experts[0], sum(self.experts)], dim=1)
            if self.gate is not None:
                gate = gate + self.gate.bias.to(gate.dtype)
            return self.route(lm, mt, gate, tokens.positions.flatten())

    @abstractmethod
    def route(
        self,
        lm: Float[Tensor, "tokens lm"],
        mt: Float[Tensor, "tokens mt"],
        gate: Float[Tensor, "tokens gates"],
        turn: Int[Tensor, " tokens"],
    ) -> Routing:
        """Chooses experts and weights by the logits; `turn` decides where routing is uniform."""

    def _top_experts(
        self, logits: Float[Tensor, "tokens experts"], turn: Int[Tensor, " tokens"]
    ) -> Int[Tensor, "tokens k"]:
        """Return the `top` experts of highest logit; all of them in order where `top` is None."""
        tokens, experts = logits.shape
        if self.top is None:
            return torch.arange(experts, device=turn.device).expand(tokens, -1)
        if self.features is None:
            return (turn[:, None] + torch.arange(self.top, device=turn.device)) % experts
        return logits.topk(self.top, dim=1).indices


class GroupRouter(Router):
    """A softmax within each group, and a gate between them.

    y = c_LM sum_e a_e LM_e(x) + s(x) c_MT sum_e b_e MT_e(x), where a and b are the softmax of the
    groups' logits, s(x) = sigmoid(w x + w' f + c), and c_LM, c_MT the scales. The LM group is
    always on. With all experts running and weights at zero, a = b = 1/K and s = 1/2: slices that
    sum to the dense network, beside MT experts that put out zero, are the dense network.
    With `top`, only the most probable experts of each group run, with the same a and b (as Switch
    Transformers, arXiv 2101.03961), so that the router gets a gradient from one expert too.
    """

    def route(
        self,
        lm: Float[Tensor, "tokens lm"],
        mt: Float[Tensor, "tokens mt"],
        gate: Float[Tensor, "tokens gates"],
        turn: Int[Tensor, " tokens"],
    ) -> Routing:
        logits, weights = [lm], [lm.softmax(dim=1) * self.scales[0]]
        if self.experts[1]:
            logits.append(mt)
            weights.append(mt.softmax(dim=1) * (self.scales[1] * torch.sigmoid(gate)))
        every = torch.cat(logits, dim=1)
        if self.top is None:
            indices = self._top_experts(every, turn)
        else:
            by_group = [self._top_experts(group, turn) for group in logits]
            weights = [w.gather(1, at) for w, at in zip(weights, by_group, strict=True)]
            # The second group's experts have the numbers that follow the first's.
            indices = torch.cat([at + k * self.experts[0] for k, at in enumerate(by_group)], dim=1)
        odds = gate[:, 0] if self.experts[1] else None
        return Routing(indices, torch.cat(weights, dim=1), every, odds)


class JointRouter(Router):
    """One softmax over the experts of both groups, of which the `top` most probable run.

    Their probabilities are divided by their sum, unless there is one (as Mixtral, arXiv
    2401.04088), and multiplied by the scale of each one's group. No gate and, since a token may
    miss LM experts, not the dense network at the start.
    """

    gated = False

    def route(
        self,
        lm: Float[Tensor, "tokens lm"],
        mt: Float[Tensor, "tokens mt"],
        gate: Float[Tensor, "tokens gates"],
        turn: Int[Tensor, " tokens"],
    ) -> Routing:
        logits = torch.cat([lm, mt], dim=1)
        indices = self._top_experts(logits, turn)
        weights = logits.softmax(dim=1).gather(1, indices)
        if self.top != 1:
            weights = weights / weights.sum(dim=1, keepdim=True)
        scales = weights.new_tensor(self.scales)
        weights = weights * scales[(indices >= self.experts[0]).long()]
        odds = mt.logsumexp(dim=1) - lm.logsumexp(dim=1) if self.experts[1] else None
        return Routing(indices, weights, logits, odds)


def make_router(
    d: int,
    lm: int,
    mt: int = 0,
    *,
    gating: str = "group",
    top: int | None = None,
    features: str = "fft",
    size: int | None = None,
    window: int = 32,
    lm_scale: float | int | None = None,
    mt_scale: float | int | None = None,
    seed: int = 0,
) -> Router:
    """Return a router by the names of its gating ("group" or "joint") and features.

    Args:
        d: width of the layer's input.
        features: see `polylect.layers.experts.features`; or "uniform", the placebo that does not
            route.
        size, window: of the features.
        lm, mt, top, lm_scale, mt_scale, seed: see `Router`.

    Raises:
        ValueError: an unknown name, or numbers that do not fit.
    """
    check_known("gating", gating, GATINGS)
    feature_module = None
    if features != "uniform":
        feature_module = router_features(features, d, size=size, window=window, seed=seed)
    kind = GroupRouter if gating == "group" else JointRouter
    return kind(feature_module, lm, mt, top=top, lm_scale=lm_scale, mt_scale=mt_scale, seed=seed)
