"""LoRA adapters on linear layers, a different one for every row of a batch if need be."""

import math
import re

import torch
from jaxtyping import Float
from torch import Tensor, nn

from polylect.did_you_mean import did_you_mean
from polylect.finite import find_nonfinite
from polylect.layers.context import RoutingContext
from polylect.layers.lora.low_rank import (
    FrozenLinearUpdate,
    Plan,
    add_update,
    gather_factors,
    stack_factors,
)

RESERVED = frozenset(dir(nn.ParameterDict()))
"""Names a ParameterDict cannot hold, since it keeps its entries as attributes."""

DECODE_TOKENS = 8
"""With at most so many tokens per row the gathered factors are kept for the rest of the route.

A generation step with one token per row spends more on gathering than on multiplying; a long input
gains little and would keep the copies of all layers alive."""


def check_adapter_name(name: str) -> None:
    """Raises a ValueError unless `name` can name a parameter, a folder and a PEFT adapter."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueError(
            f"adapter name {name!r}: use letters, digits, '_' and '-' only, as in "
            f"{nearest_name(name)!r}"
        )
    if name in RESERVED:
        raise ValueError(
            f"adapter name {name!r} is reserved by torch, take another, say 'lp_{name}'"
        )


def nearest_name(name: str) -> str:
    """Return the name with "-" for what a name cannot hold."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "NAME"


_Factors = tuple[Tensor, Tensor, Tensor | None]


class LoRALayer(nn.Module):
    """What `attach_lora` adds to a linear layer; the layer's own parameters stay as they are.

    The name of each row's adapter comes from the `RoutingContext`. A row whose adapter other layers
    have and this one has not, or whose name is "", gets the base's output; an adapter that no layer
    has is an error. Ranks may differ between adapters.

    Attributes:
        lora_a: A of every adapter, (rank, in).
        lora_b: B of every adapter, (out, rank).
        scaling: the factor of B A, by adapter.
        dropout: share of the update's input dropped in training, by adapter.
        context: names the rows.
        layer_name: the layer's path in its model, for messages.
        revision: how often weights changed or may have.
    """

    lora_a: nn.ParameterDict
    lora_b: nn.ParameterDict
    scaling: dict[str, float]
    dropout: dict[str, float]
    context: RoutingContext
    layer_name: str
    revision: int
    plain_base = False

    def add(
        self,
        adapter: str,
        rank: int,
        alpha: float | int,
        *,
        rslora: bool = False,
        dropout: float | int = 0.0,
        init_scale: float | int = 1.0,
        train_a: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        """Add a trainable adapter that changes nothing yet: A uniform as PEFT draws it, B zero.

        Args:
            adapter: letters, digits, "_" and "-".
            rank: at least 1.
            alpha: the update is scaled by alpha / rank, or alpha / sqrt(rank) with `rslora`
                (arXiv 2312.03732).
            rslora: see alpha.
            dropout: share of the update's input that is dropped in training mode.
            init_scale: factor of A as it is drawn.
            train_a: whether A is trained, too; B is.
            generator: where the random numbers come from, on the CPU.
        """
        check_adapter_name(adapter)
        if adapter in self.lora_a:
            raise ValueError(f"adapter {adapter!r} exists already in {self.layer_name}")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout}")
        if init_scale <= 0:  # with A and B zero nothing would ever move
            raise ValueError(f"init_scale must be positive, got {init_scale}")
        a = torch.empty(rank, self.in_features, dtype=torch.float32)
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator).mul_(init_scale)
        b = torch.zeros(self.out_features, rank)
        self.set(adapter, a, b, alpha / (math.sqrt(rank) if rslora else rank), trainable=True)
        self.lora_a[adapter].requires_grad_(train_a)
        self.dropout[adapter] = float(dropout)

    def set(
        self,
        adapter: str,
        a: Float[Tensor, "rank in"],
        b: Float[Tensor, "out rank"],
        scaling: float | int,
        *,
        trainable: bool = False,
    ) -> None:
        """Puts an adapter's weights here, in place of those of the same name.

        They move to the base's device in the precision they have; half precision becomes float32
        if they are to be trained.

        Raises:
            ValueError: a shape does not fit, or a value is NaN or infinite.
        """
        check_adapter_name(adapter)
        expected = (self.in_features, self.out_features)
        if (a.shape[1], b.shape[0]) != expected or a.shape[0] != b.shape[1]:
            raise ValueError(
                f"adapter {adapter!r} has A {tuple(a.shape)} and B {tuple(b.shape)} for "
                f"{self.layer_name}, which takes (rank, {expected[0]}) and ({expected[1]}, rank)"
            )
        if wrong := find_nonfinite({"A": a, "B": b, "the scaling": torch.tensor(float(scaling))}):
            raise ValueError(f"adapter {adapter!r} for {self.layer_name} is not finite: {wrong}")
        self.context.adapters[adapter] += adapter not in self.lora_a
        for factors, factor in ((self.lora_a, a), (self.lora_b, b)):
            dtype = torch.promote_types(factor.dtype, torch.float32) if trainable else factor.dtype
            moved = factor.detach().to(self.weight.device, dtype, copy=True)
            factors[adapter] = nn.Parameter(moved.contiguous(), requires_grad=trainable)
        self.scaling[adapter] = float(scaling)
        self.dropout[adapter] = 0.0
        self.revision += 1

    def remove(self, adapter: str) -> None:
        """Takes an adapter out; the others and the base are not touched.

        Raises ValueError if there is none of this name, or a row of an open route has it.
        """
        if adapter not in self.lora_a:
            hint = did_you_mean(adapter, self.lora_a)
            raise ValueError(f"no adapter {adapter!r} in {self.layer_name}: {hint}")
        self.context.check_unused(adapter)
        for by_name in (self.lora_a, self.lora_b, self.scaling, self.dropout):
            del by_name[adapter]
        self.context.adapters[adapter] -= 1
        self.revision += 1

    def forward(self, x: Float[Tensor, "rows *length in"]) -> Float[Tensor, "rows *length out"]:
        """Send each row through the base and its own adapter."""
        if not torch.is_grad_enabled():
            return self._infer(x)
        self.revision += 1  # a training step may follow: nothing gathered before it may be reused
        plan = self._plan(x)
        if not plan.adapters:
            return super().forward(x)
        factors = [*_factors_in_use(self.lora_a, plan), *_factors_in_use(self.lora_b, plan)]
        dtype = _compute_dtype(x)
        if self._can_fuse(plan, dtype):
            return FrozenLinearUpdate.apply(
                x.to(dtype), self.weight, self.bias, plan.scaling, plan.order, *factors
            )
        return self._define(x, plan, factors)

    def _infer(self, x: Tensor) -> Tensor:
        """Compute the output without gradients; the update is added to the base's in place."""
        y = super().forward(x)
        if x.numel() <= DECODE_TOKENS * x.shape[0] * x.shape[-1]:
            key = (id(self), self.revision, x.shape[0], y.dtype)
            factors = self.context.remember(key, lambda: self._bank(x, y.dtype))
        else:
            factors = self._factors(x, y.dtype)
        if factors is not None:
            a, b, scaling = factors
            h = torch.bmm(x.to(y.dtype).reshape(a.shape[0], -1, x.shape[-1]), a)
            if scaling is not None:
                h.mul_(scaling)
            y.view(a.shape[0], -1, y.shape[-1]).baddbmm_(h, b)
        return y

    def _define(self, x: Tensor, plan: Plan, factors: list[nn.Parameter]) -> Tensor:
        """Computes the plain definition, on any base, and leaves gradients to autograd."""
        y = super().forward(x)
        groups, adapters = len(plan.order), len(plan.adapters)
        inputs = x.reshape(groups, -1, x.shape[-1])
        if self._drops(plan):
            shares = [*(self.dropout[name] for name in plan.adapters), 0.0]
            share = torch.tensor([shares[k] for k in plan.order]).view(-1, 1, 1).to(inputs)
            inputs = inputs * (torch.rand_like(inputs) >= share) / (1 - share)
        order = torch.tensor(plan.order, device=x.device)
        a = stack_factors(factors[:adapters], 0, y.dtype).index_select(0, order)
        b = stack_factors(factors[adapters:], 1, y.dtype).index_select(0, order)
        rows = y.view(groups, -1, y.shape[-1])
        return add_update(rows, inputs.to(y.dtype), a, b, plan.scaling).view_as(y)

    def _drops(self, plan: Plan) -> bool:
        return self.training and any(self.dropout[name] for name in plan.adapters)

    def _can_fuse(self, plan: Plan, dtype: torch.dtype) -> bool:
        trainable_base = self.weight.requires_grad or (
            self.bias is not None and self.bias.requires_grad
        )
        return (
            self.plain_base
            and self.weight.dtype == dtype
            and not trainable_base
            and not self._drops(plan)
        )

    def _plan(self, x: Tensor) -> Plan:
        rows, scaling = x.shape[0], self.scaling
        plans = self.context.remember(("lora", rows, x.dtype, x.device), list)
        for of_scaling, plan in plans:  # nearly always one: layers differ where patterns do
            if of_scaling == scaling:
                return plan
        groups = self.context.groups(rows)
        self.context.check_adapters(groups.distinct)
        plan = Plan.from_groups(groups, scaling, x)
        plans.append((dict(scaling), plan))
        return plan

    def _factors(self, x: Tensor, dtype: torch.dtype) -> _Factors | None:
        """Return each group's Aᵀ (in, rank), Bᵀ (rank, out), scaling; None without adapters."""
        plan = self._plan(x)
        if not plan.adapters:
            return None
        a = gather_factors(_factors_in_use(self.lora_a, plan), plan.order, 0, dtype)
        b = gather_factors(_factors_in_use(self.lora_b, plan), plan.order, 1, dtype)
        return a.transpose(1, 2), b.transpose(1, 2), plan.scaling

    def _bank(self, x: Tensor, dtype: torch.dtype) -> _Factors | None:
        """Return `_factors` in the layout that multiplies fastest, B scaled, for repeated use."""
        factors = self._factors(x, dtype)
        if factors is None:
            return None
        a, b, scaling = factors
        return a.contiguous(), (b * scaling).to(dtype).contiguous(), None


def _factors_in_use(factors: nn.ParameterDict, plan: Plan) -> list[nn.Parameter]:
    held = factors._parameters  # ParameterDict's own lookup costs 1 us: 5 % of a prefill of 32
    return [held[name] for name in plan.adapters]


def _compute_dtype(x: Tensor) -> torch.dtype:
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


class LoRALinear(LoRALayer, nn.Linear):
    """An `nn.Linear` with adapters; made by `attach_lora`, not constructed."""

    plain_base = True
