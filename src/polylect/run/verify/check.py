"""One check: what was compared, how much of it, and what is wrong, in sentences."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from polylect.eval.table import Table

GOOD, FAILED, SKIPPED = "good", "FAILED", "not checked"


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        name: what is claimed.
        compared: what was compared with what, and how much; or why nothing was.
        faults: a sentence for each thing that is not as it should be, with its tensor or file.
        skipped: whether nothing was compared.
    """

    name: str
    compared: str
    faults: tuple[str, ...] = ()
    skipped: bool = False

    @property
    def verdict(self) -> str:
        """ "good", "FAILED" or "not checked"."""
        return FAILED if self.faults else SKIPPED if self.skipped else GOOD

    def of(self, part: str) -> "Check":
        """Return the check with the name of the part that it is about before its own."""
        return replace(self, name=f"{part}: {self.name}")


def not_checked(name: str, why: str) -> Check:
    """Return a row for what was not compared."""
    return Check(name, why, skipped=True)


def has_failed(checks: Sequence[Check]) -> bool:
    """Return whether any of them has a fault."""
    return any(check.faults for check in checks)


def checks_table(checks: Sequence[Check]) -> Table:
    """Return checks by verdict and by what was compared."""
    width = max(len(check.compared) for check in checks)  # text begins on the left
    rows = tuple((check.name, check.verdict, check.compared.ljust(width)) for check in checks)
    return Table(("check", "verdict", "compared".ljust(width)), rows)


def as_json(target: str, checks: Sequence[Check]) -> dict[str, Any]:
    """Return the checks as plain values, with whether all is good."""
    rows = [asdict(check) | {"verdict": check.verdict} for check in checks]
    return {"target": target, "good": not has_failed(checks), "checks": rows}


def size(nbytes: int) -> str:
    """Return a number of bytes as a person would read it."""
    return f"{nbytes / 2**20:.1f} MiB" if nbytes >= 2**20 else f"{nbytes} bytes"


def first_of(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
