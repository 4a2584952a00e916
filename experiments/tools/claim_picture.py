"""The picture of the claims: what was measured over seeds, against what was expected."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

from claim_cards import Card, Finding, status_of
from PIL import Image

from polylect.files import whole_file
from polylect.plots.forest import Row, forest

PICTURE = Path("claims") / "claims.png"
"""Below `experiments`."""

_DOTS = 110  # per inch
_UNIT = re.compile(r"nats per target token|nats per token|points of chrF\+\+|%")
_UNITS = {"%": "% of what the other system reaches"}
_SAYS = "Description"  # the picture's field that says what it shows


def panels_of(cards: Mapping[Path, Card]) -> dict[str, list[Row]]:
    """Return by unit a row for every finding with an interval over seeds."""
    panels: dict[str, list[Row]] = {}
    for card in cards.values():
        for finding in card.findings:
            if "low" in finding.result:
                found = _UNIT.match(finding.measure)
                unit = found[0] if found else finding.measure
                row = _row(card, finding)
                panels.setdefault(_UNITS.get(unit, unit), []).append(row)
    return panels


def _row(card: Card, finding: Finding) -> Row:
    result = finding.result
    label = f"{card.claim}: {finding.setting}"
    numbers = result["value"], result["low"], result["high"]
    return Row(label, *numbers, bounds(finding.expected), status_of(finding))


def bounds(expected: Mapping[str, float]) -> tuple[float, float]:
    """Return the lowest and the highest value with which a claim holds."""
    tolerance = expected["tolerance"]
    if "at_least" in expected:
        return expected["at_least"] - tolerance, math.inf
    if "at_most" in expected:
        return -math.inf, expected["at_most"] + tolerance
    return expected["equal"] - tolerance, expected["equal"] + tolerance


def draw(path: Path, panels: Mapping[str, list[Row]]) -> None:
    """Write the picture, which says in its file what it shows."""
    figure = forest(panels, "as claimed")
    with whole_file(path) as partial:
        says = {_SAYS: str(dict(panels))}
        figure.savefig(partial, format="png", dpi=_DOTS, metadata=says)


def is_in_step(path: Path, panels: Mapping[str, list[Row]]) -> bool:
    """Return whether a picture is there and shows these numbers."""
    if not path.is_file():
        return False
    with Image.open(path) as picture:
        return picture.info.get(_SAYS) == str(dict(panels))
