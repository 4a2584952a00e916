"""Feed-forward networks as mixtures of two groups of experts, LM and MT (Mix-MoE).

A feed-forward network is a sum over its neurons, so slices of it are experts that sum to it. LM
experts are such slices, and stay where the base has them: they are its own parameters, under its
own names. Copies of the whole network, and MT experts, are neurons that the layer gains beside it.

Where all experts run, nothing is dispatched: all their neurons are computed and multiplied by their
expert's weight, which is three large products for each group. Where only the best run, tokens are
sorted by expert.
"""

from collections.abc import Mapping
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.layers.context import RoutingContext
from polylect.layers.experts.bank import AddedExperts, Experts
from polylect.layers.experts.routers import Router, Routing
from polylect.layers.tokens import Tokens

PARTS = ("lm_experts", "lm_router", "mt_experts", "mt_router")
"""What of a layer trains or is frozen by itself; the gate between the groups is in the last."""

MT_STARTS = ("zero", "random", "copies")


class ExpertFFN(nn.Module):
    """What a base model's feed-forward network becomes, in place; see `attach_experts`.

    y = sum over experts of weight · expert(x), plus the down projection's bias, which belongs to no
    expert. The router decides the weights.
    """

    projections: Mapping[str, str]
    nonlinearity: str
    slices: int
    context: RoutingContext
    layer_name: str
    expert_router: Router
    expert_lm: AddedExperts | None
    expert_mt: AddedExperts | None
    expert_order: Tensor | None

    def forward(self, x: Float[Tensor, "rows length d"], *residual: Tensor) -> Tensor:
        """Works as the base's network; BLOOM's takes the residual too, added after dropout."""
        tokens = self.context.tokens
        if tokens is None:
            raise RuntimeError(
                f"{self.layer_name} does not know its tokens: "
                "call the backbone inside strategy.routing(batch)"
            )
        routing = self.context.routings[self.layer_name] = self.expert_router(x, tokens)
        experts = self.experts()
        y = reduce(torch.add, (self._run(e, x.flatten(0, 1), routing) for e in experts))
        bias = experts[0].down.bias
        y = (y if bias is None else y + bias.to(y.dtype)).view(x.shape)
        if not residual:
            return y
        return residual[0] + F.dropout(y, self.hidden_dropout, self.training)

    def _run(
        self, experts: Experts, x: Float[Tensor, "tokens d"], routing: Routing
    ) -> Float[Tensor, "tokens d"]:
        router = self.expert_router
        if router.top is None:
            return experts.forward_dense(self.activation, x, routing.weights)
        columns = slice(None)
        if router.gated:  # each group has chosen its own, LM experts first
            is_lm = experts.numbers.start < router.experts[0]
            columns = slice(0, router.top) if is_lm else slice(router.top, None)
        selected = routing.indices[:, columns], routing.weights[:, columns]
        return experts.forward_topk(self.activation, x, *selected)

    @property
    def activation(self) -> nn.Module:
        """The base's non-linearity."""
        return getattr(self, self.nonlinearity)

    def experts(self) -> list[Experts]:
        """Return all experts in the order of their numbers.

        The first group lies in the base's weights.
        """
        base = {"gate": None} | {n: getattr(self, path) for n, path in self.projections.items()}
        parts = [Experts(range(self.slices), **base, order=self.expert_order)]
        lm, mt = self.expert_router.experts
        for added, end in ((self.expert_lm, lm), (self.expert_mt, lm + mt)):
            if added is not None:
                numbers = range(parts[-1].numbers.stop, end)
                parts.append(Experts(numbers, added.gate, added.up, added.down))
        return parts

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by `PARTS`; lists may be empty."""
        router = self.expert_router
        base = [getattr(self, path) for path in self.projections.values()]
        modules = {
            "lm_experts": [*base, self.expert_lm],
            "lm_router": [router.lm],
            "mt_experts": [self.expert_mt],
            "mt_router": [router.mt, router.gate],
        }
        return {
            name: [p for m in ms if m is not None for p in m.parameters()]
            for name, ms in modules.items()
        }

    def copy_to_mt(self) -> None:
        """Make the MT experts copies of the LM experts as they are now."""
        lm, mt = self.expert_router.experts
        if self.expert_mt is not None:
            self.expert_mt.copy([e for e in self.experts() if e.numbers.stop <= lm], mt)

    @torch.no_grad()
    def constant_weights(self) -> Float[Tensor, " experts"] | None:
        """Return each expert's weight if it is the same for every token, else None."""
        router = self.expert_router
        lm, mt = router.experts
        if router.top is not None:
            return None
        read = [(router.lm, lm + mt), (router.mt, lm + mt)]
        if router.gated:
            read = [(router.lm, lm), (router.mt, mt), (router.gate, 1 + mt)]
        # A softmax over one expert is 1, whatever its logit.
        if any(head is not None and n > 1 and not head.is_zero() for head, n in read):
            return None
        weight = self.experts()[0].up.weight
        one = torch.ones(1, 1, dtype=torch.long, device=weight.device)
        return router(
            weight.new_zeros(1, 1, weight.shape[1]), Tokens.from_mask(one, one[0])
        ).weights[0]


def attach_experts(
    ffn: nn.Module,
    projections: Mapping[str, str],
    activation: str,
    router: Router,
    context: RoutingContext,
    name: str,
    *,
    copies: bool = False,
    order: Int[Tensor, " neurons"] | None = None,
    mt_start: str = "zero",
    mt_width: int | None = None,
    seed: int = 0,
) -> ExpertFFN:
    """Make a feed-forward network a mixture of as many experts as the router has, in place.

    Args:
        ffn: of two linear layers or, with a gate, three, and a non-linearity.
        projections: names of its linear layers: "gate" where there is one, "up" and "down".
        activation: name of its non-linearity.
        context: has the tokens (see `watch_tokens`) and gets the routings.
        name: of the layer, for messages and numbers.
        copies: LM experts are copies of the whole network, the first in the base's own weights;
            else they are slices of it.
        order: the slices' neurons, see `neuron_order`.
        mt_start: MT experts begin with a down projection of "zero", with all weights "random", or
            as "copies" of the LM experts.
        mt_width: neurons of an MT expert, by default those of the network over the number of LM
            experts; of copies, those of an LM expert.
        seed: of random weights.

    Raises:
        ValueError: a projection is no ordinary linear layer in floating point, or widths do not
            fit.
    """
    for what, path in projections.items():
        layer = getattr(ffn, path)
        if type(layer) is not nn.Linear or not layer.weight.is_floating_point():
            raise ValueError(
                f"{name}: the {what} projection is a {type(layer).__name__} in "
                f"{layer.weight.dtype}; experts need an unquantised torch.nn.Linear."
            )
    lm, mt = router.experts
    weight = getattr(ffn, projections["up"]).weight
    neurons, device = weight.shape[0], weight.device
    if neurons % lm and not copies:
        raise ValueError(f"{name}: {lm} experts cannot share {neurons} neurons evenly.")
    width = neurons if copies else neurons // lm
    if mt_start != "copies":
        width = mt_width or max(1, neurons // lm)
    elif mt_width not in (None, width):
        raise ValueError(f"{name}: copies of LM experts have {width} neurons, not {mt_width}.")

    ffn.__class__ = ExpertFFN
    ffn.projections, ffn.nonlinearity = dict(projections), activation
    ffn.context, ffn.layer_name = context, name
    ffn.slices = 1 if copies else lm
    ffn.register_buffer("expert_order", None if order is None else order.to(device))
    ffn.expert_router = router.to(device)
    ffn.expert_lm = ffn.expert_mt = None
    base = ffn.experts()[0]
    if copies and lm > 1:
        ffn.expert_lm = AddedExperts((lm - 1) * neurons, base)
        ffn.expert_lm.copy([base], lm - 1)
    if mt:
        ffn.expert_mt = AddedExperts(mt * width, base)
        if mt_start == "copies":
            ffn.copy_to_mt()
        else:
            generator = torch.Generator().manual_seed(seed)
            ffn.expert_mt.draw(generator, down=mt_start == "random")
    return ffn


def expert_layers(model: nn.Module) -> dict[str, ExpertFFN]:
    """Return the layers with experts, by name."""
    return {m.layer_name: m for m in model.modules() if isinstance(m, ExpertFFN)}
