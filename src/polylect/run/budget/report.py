"""The lines of a dry run about costs by module and about a budget."""

from collections.abc import Callable

from omegaconf import DictConfig

from polylect.data.batch import TranslationBatch
from polylect.eval.table import Table
from polylect.run.budget.accounting import (
    Accounting,
    ModuleCost,
    accounting,
    operations_of_step,
    trained_parameters,
)
from polylect.run.budget.solver import TOLERANCE, Found, knob_of, solve
from polylect.strategies.base import TranslationModule

_HEADER = ("module", "trained", "optimizer, bytes", "forward", "backward", "decoded token")


def costs_page(costs: Accounting) -> list[str]:
    """Return operations of a token in sum, and a table by module."""
    total, lines = costs.total, []
    if total.backward:
        step = total.forward + total.backward
        lines.append(
            f"operations  {_short(step)} per token of a training step ({_short(total.forward)} "
            f"forward, {_short(total.backward)} backward)"
        )
    if not costs.has_step:
        lines.append("operations  of a training step depend on the text and are not counted")
    if costs.has_decoding:
        lines.append(f"operations  {_short(total.decoded)} per decoded token")
    else:
        lines.append("operations  of a decoded token depend on the text and are not counted")
    rows = tuple(_row(name, cost) for name, cost in costs.by_kind().items())
    table = Table(_HEADER, (*rows, _row("in all", total)))
    return [*lines, "", *table.text().splitlines(), ""]


def _row(name: str, cost: ModuleCost) -> tuple[str, ...]:
    counts = (f"{cost.trained:,}", f"{cost.optimizer_bytes:,}")
    return (name, *counts, *map(_short, (cost.forward, cost.backward, cost.decoded)))


def _short(operations: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if operations >= unit:
            return f"{operations / unit:.3g}{name}"
    return f"{operations:.3g}"


def budget_page(cfg: DictConfig, batch: TranslationBatch) -> list[str]:
    """Return the setting with which the strategy costs what `budget` says; none without one."""
    if cfg.budget.parameters is None and cfg.budget.operations is None:
        return []
    precision = str(cfg.trainer.get("precision", "32-true"))
    if cfg.budget.parameters is not None:
        wanted, what = float(cfg.budget.parameters), "trained parameters"
        cost: Callable[[TranslationModule], float] = trained_parameters
    else:
        wanted, what = float(cfg.budget.operations), "operations per token of a training step"

        def cost(module: TranslationModule) -> float:
            return operations_of_step(module, batch, precision)

    solution = solve(knob_of(cfg), cost, wanted)
    nearest = solution.nearest(wanted)
    if abs(nearest.cost - wanted) <= TOLERANCE * wanted:
        return [f"budget      {_priced(nearest, wanted, what)}: give", f"  {nearest.paste}", ""]
    below, above = (
        f"{side} is {found.paste} with {_priced(found, wanted, what)}"
        if found
        else f"{side} there is nothing"
        for side, found in (("below", solution.below), ("above", solution.above))
    )
    return [f"budget      not met within {TOLERANCE:.0%} by any setting: {below}, {above}.", ""]


def _priced(found: Found, wanted: float, what: str) -> str:
    return f"{found.cost:,.0f} {what} ({found.cost / wanted - 1:+.2%})"


def costs_of(module: TranslationModule, batch: TranslationBatch, cfg: DictConfig) -> list[str]:
    """Return `costs_page` of a strategy with a batch."""
    return costs_page(accounting(module, batch, str(cfg.trainer.get("precision", "32-true"))))
