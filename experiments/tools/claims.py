"""Claims of papers, one card each, and what the committed records say of them.

    python experiments/tools/claims.py             # what every card says
    python experiments/tools/claims.py --update    # write it into the cards and draw claims.png
    python experiments/tools/claims.py --check     # change nothing; exit 1 where a card is red

A card is `experiments/claims/NAME.yaml`: a `claim`, its `source`, and `findings`. Each has a
`setting`, the `command` that makes its records, and a `result` that this script writes. Keys:

    measure: what the number is, with its unit
    combine: value, difference (first less second), share (first in per cent of second), or
             largest_difference (of all values below the path, which is an exact claim)
    terms: one or two of {records: FOLDER/results/NAME_seed*.json, path: metrics/test/*/bleu/value}
    expected: {at_least: NUMBER, tolerance: NUMBER}, or at_most, or equal

or instead `tests`, a list of FILE::NAME, where it holds exactly and they show it whenever they run.
A path leads through the record; * stands for every key, of which the mean is taken.

Seeds are paired. A claim holds where the whole 95 % interval over seeds (Student's t) is as
expected, fails where none of it is, and is undecided otherwise. One seed decides nothing but what
is exact. A metric that chose a checkpoint is refused, and so are scores with several signatures.
"""

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import records
from claim_cards import Finding, Term, cards, write_card
from claim_picture import PICTURE, bounds, draw, is_in_step, panels_of

from polylect.eval.inference.estimate import over_seeds
from polylect.run.results.headline import uses_of

ROOT = Path(__file__).resolve().parents[2]
DIGITS = 4
_SEED = re.compile(r"_seed(\d+)$")

Values = Mapping[str, float]
"""The values below a path of one record, by the keys that * stood for."""


@dataclass(frozen=True)
class Measured:
    """A quantity of every seed; of an exact one the largest value is what counts."""

    by_seed: tuple[float, ...]
    is_exact: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--update", action="store_true", help="write the results into the cards")
    parser.add_argument("--check", action="store_true", help="exit 1 where a card is red")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout")
    arguments = parser.parse_args()
    try:
        red = update(arguments.root, write=arguments.update)
    except (OSError, ValueError) as error:
        sys.exit(f"claims: {error}")
    for card in cards(arguments.root / "experiments").values():
        for finding in card.findings:
            print(f"{finding.result.get('status', 'new'):9}  {card.claim}: {finding.setting}")
    for line in red:
        print(f"red        {line}")
    sys.exit(1 if arguments.check and red else 0)


def update(root: Path, *, write: bool) -> list[str]:
    """Return "CARD: setting, change" for every finding whose result is not what records say.

    So it does for a picture that shows other numbers than the cards. With `write` results are
    written into the cards, with today's date, and the picture is drawn. Raises ValueError for a
    card that cannot be read, FileNotFoundError for a test that is not there.
    """
    red = []
    all_cards = cards(root / "experiments")
    for path, card in all_cards.items():
        changed = False
        for finding in card.findings:
            result = result_of(finding, root)
            known = {key: value for key, value in finding.result.items() if key != "date"}
            if known == result:
                continue
            red.append(f"{path.name}: {finding.setting}: {known or 'nothing'} is now {result}")
            finding.result.clear()
            finding.result.update(result | {"date": time.strftime("%Y-%m-%d")})
            changed = True
        if write and changed:
            write_card(path, card)
    panels, picture = panels_of(all_cards), root / "experiments" / PICTURE
    if panels and not is_in_step(picture, panels):
        red.append(f"{picture.name}: it does not show what the cards say")
        if write:
            draw(picture, panels)
    return red


def result_of(finding: Finding, root: Path) -> dict[str, Any]:
    """Return what the records, or the tests, say of a finding: status, and what was measured."""
    if finding.tests:
        for test in finding.tests:
            _check_test(root, test)
        return {"status": "holds"}
    terms = [_term_values(root / "experiments", term) for term in finding.terms]
    if not all(terms):
        return {"status": "not run"}
    return judged(_combined(finding, terms), finding.expected)


def judged(measured: Measured, expected: Mapping[str, float]) -> dict[str, Any]:
    """Return the status of a quantity, its value and interval, the number of seeds.

    Undecided has the size of the difference that would have been seen with a power of 80 %.
    """
    seeds = len(measured.by_seed)
    if measured.is_exact:
        largest = max(measured.by_seed)
        return _result(_status(largest, largest, expected), largest, seeds)
    if seeds < 2:
        return _result("undecided", measured.by_seed[0], seeds)
    estimate = over_seeds(measured.by_seed)
    low, high = estimate.interval()
    status = _status(low, high, expected)
    measured_result = _result(status, estimate.value, seeds, low=low, high=high)
    seen = {"seen": round(estimate.smallest(), DIGITS)} if status == "undecided" else {}
    return measured_result | seen


def _result(status: str, value: float, seeds: int, **interval: float) -> dict[str, Any]:
    numbers = {name: round(number, DIGITS) for name, number in interval.items()}
    return {"status": status, "value": round(value, DIGITS), **numbers, "seeds": seeds}


def _status(low: float, high: float, expected: Mapping[str, float]) -> str:
    from_, to = bounds(expected)
    if from_ <= low and high <= to:
        return "holds"
    return "fails" if high < from_ or low > to else "undecided"


def _combined(finding: Finding, terms: Sequence[Mapping[int | None, Values]]) -> Measured:
    """Return the quantity of every seed that all terms have.

    A term with one record without a seed goes with all.
    """
    with_seeds = [set(term) for term in terms if set(term) != {None}]
    seeds = set.intersection(*with_seeds) if with_seeds else {None}
    if not seeds:
        of_terms = ", ".join(
            f"{named.records} has {sorted(map(str, term))}"
            for named, term in zip(finding.terms, terms, strict=True)
        )
        raise ValueError(f"seeds are compared in pairs, and no seed is in all terms: {of_terms}.")
    ordered = sorted(seeds, key=lambda seed: seed or 0)
    by_seed = [[term.get(seed, term.get(None, {})) for term in terms] for seed in ordered]
    values = tuple(_combine(finding.combine, own) for own in by_seed)
    return Measured(values, finding.combine == "largest_difference")


def _combine(how: str, terms: Sequence[Values]) -> float:
    means = [sum(values.values()) / len(values) for values in terms]
    if how == "value":
        return means[0]
    if terms[0].keys() != terms[1].keys():
        raise ValueError(f"the terms have {', '.join(terms[0])} and {', '.join(terms[1])}.")
    if how == "difference":
        return means[0] - means[1]
    if how == "share":
        return 100 * means[0] / means[1]
    return max(abs(value - terms[1][key]) for key, value in terms[0].items())


def _term_values(experiments: Path, term: Term) -> dict[int | None, Values]:
    """Return what is below the term's path in each of its records that counts, by seed."""
    by_seed: dict[int | None, Values] = {}
    signatures: set[str] = set()
    for file in sorted(experiments.glob(term.records)):
        record = records.read(file)
        if records.proves_nothing(record):
            continue
        _check_use(file, record, term.path)
        named = _SEED.search(file.stem)
        leaves = dict(_below(record, term.path.split("/"), file))
        signatures |= {leaf[1] for leaf in leaves.values() if leaf[1]}
        by_seed[int(named[1]) if named else None] = {key: leaf[0] for key, leaf in leaves.items()}
    if len(signatures) > 1:
        raise ValueError(f"{term.records} has scores with {' and '.join(sorted(signatures))}.")
    return by_seed


def _below(
    node: Any, path: Sequence[str], file: Path, key: str = "", signature: str = ""
) -> list[tuple[str, tuple[float, str]]]:
    """Return the values below a path, by what * stood for, with the signature of a score."""
    if not path:
        if not isinstance(node, int | float) or isinstance(node, bool):
            raise ValueError(f"{file} has no number there, but {node!r}.")
        return [(key, (float(node), signature))]
    name, *rest = path
    if not isinstance(node, Mapping) or (name != "*" and name not in node):
        raise ValueError(f"{file} has no {name} where a card looks for it.")
    signature = node.get("signature", signature)
    if name != "*":
        return _below(node[name], rest, file, key, signature)
    return [
        leaf for part in node for leaf in _below(node[part], rest, file, f"{key}/{part}", signature)
    ]


def _check_use(file: Path, record: records.Record, path: str) -> None:
    """Raise ValueError for a score of the metric that chose the checkpoint: no evidence."""
    for metric, use in uses_of(record.get("config") or {}):
        if metric in path.split("/"):
            raise ValueError(f"{file}: {metric} {use}, so no card may rest on it.")


def _check_test(root: Path, test: str) -> None:
    file, _, name = test.partition("::")
    path = root / file
    if not path.is_file() or not re.search(rf"^def {name}\(", path.read_text("utf-8"), re.M):
        raise FileNotFoundError(f"a card rests on the test {test}, which does not exist.")


if __name__ == "__main__":
    main()
