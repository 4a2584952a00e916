"""The aligned forms of a library, which LAG routes by, held to the adapters they are of."""

from collections.abc import Iterator
from typing import Any

import torch

from polylect.run.verify.check import Check
from polylect.strategies.lag import LAG

_TOLERANCE = 1e-4
"""Of the largest entry of an update: what a decomposition in float32 may lose."""


def check_aligned(module: Any) -> Iterator[Check]:
    """Yield for each library of LAG whether B* A* is the update of every adapter and module."""
    if not isinstance(module, LAG):
        return
    for name, aligned in module.aligned.items():
        faults, count, worst = [], 0, 0.0
        for adapter in aligned.library.names:
            for path, update in aligned.library.load(adapter).modules.items():
                trained = update.scaling * update.b.double() @ update.a.double()
                factors = (aligned.factor(adapter, path, f) for f in ("b_star", "a_star"))
                b_star, a_star = (factor.double() for factor in factors)
                scale = max(float(trained.abs().max()), torch.finfo(torch.float32).tiny)
                error = float((b_star @ a_star - trained).abs().max()) / scale
                count, worst = count + 1, max(worst, error)
                if not error <= _TOLERANCE:
                    faults.append(
                        f"aligned form of adapter {adapter}: tensor {path} is not its update "
                        f"(relative difference {error:.1e}); polylect library action=align."
                    )
        numbers = f"{count} updates, relative difference at most {worst:.1e}"
        yield Check(f"aligned forms of {name} are the adapters", numbers, tuple(faults))
