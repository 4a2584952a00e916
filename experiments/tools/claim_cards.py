"""Cards of claims: YAML files with few keys, all of them checked, and the table made from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from polylect.did_you_mean import did_you_mean
from polylect.eval.table import Table
from polylect.files import write_text

STATUSES = ("holds", "fails", "undecided", "not run")
COMBINE = {"value": 1, "difference": 2, "share": 2, "largest_difference": 2}
"""How terms make a number, and how many there are."""

RELATIONS = {"at_least": "≥", "at_most": "≤", "equal": "="}
_MEASURED = {"measure": str, "combine": str, "terms": list, "expected": dict}
_CARD = {"claim": str, "source": str, "findings": list}
_FINDING = {"setting": str, "command": str}
_TERM = {"records": str, "path": str}
_KINDS = {str: "text", list: "list", dict: "mapping"}
_RESULT = {"status", "value", "low", "high", "seen", "seeds", "date"}


@dataclass(frozen=True)
class Term:
    """Records below `experiments`, as a pattern, and the path to a number in each."""

    records: str
    path: str


@dataclass(frozen=True)
class Finding:
    """What is measured of a claim in one setting; see `claims.py` for the keys."""

    setting: str
    command: str
    measure: str = ""
    combine: str = "value"
    terms: tuple[Term, ...] = ()
    expected: Mapping[str, float] = field(default_factory=dict)
    tests: tuple[str, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """A claim, who made it, and what was found of it."""

    claim: str
    source: str
    findings: tuple[Finding, ...]


def cards(experiments: Path) -> dict[Path, Card]:
    """Return every card by its file; raises ValueError for one that is not as it has to be."""
    return {path: read_card(path) for path in sorted((experiments / "claims").glob("*.yaml"))}


def read_card(path: Path) -> Card:
    """Return a card; raises ValueError with the file and the key."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    _check_keys(values, _CARD, str(path))
    findings = tuple(
        _finding(own, f"{path}: findings[{i}]") for i, own in enumerate(values["findings"])
    )
    if not findings:
        raise ValueError(f"{path}: findings is empty.")
    return Card(values["claim"], values["source"], findings)


def _finding(values: Any, where: str) -> Finding:
    by_tests = isinstance(values, Mapping) and "tests" in values
    needed = _FINDING | ({"tests": list} if by_tests else _MEASURED)
    _check_keys(values, needed, where, optional={"result": dict})
    result = dict(values.get("result") or {})
    if unknown := result.keys() - _RESULT:
        raise ValueError(f"{where}.result has {sorted(unknown)[0]}; claims.py --update writes it.")
    if result and result.get("status") not in STATUSES:
        raise ValueError(f"{where}.result.status is none of {', '.join(STATUSES)}.")
    common = {"setting": values["setting"], "command": values["command"], "result": result}
    if by_tests:
        return Finding(tests=tuple(values["tests"]), **common)
    for i, term in enumerate(values["terms"]):
        _check_keys(term, _TERM, f"{where}.terms[{i}]")
    terms = tuple(Term(**term) for term in values["terms"])
    _check_measured(values, len(terms), where)
    return Finding(
        measure=values["measure"],
        combine=values["combine"],
        terms=terms,
        expected=values["expected"],
        **common,
    )


def _check_measured(values: Mapping[str, Any], terms: int, where: str) -> None:
    combine, expected = values["combine"], values["expected"]
    if combine not in COMBINE:
        raise ValueError(f"{where}.combine is {combine!r}; {did_you_mean(combine, COMBINE)}")
    if terms != COMBINE[combine]:
        raise ValueError(f"{where}: {combine} takes {COMBINE[combine]} terms, got {terms}.")
    relations = expected.keys() & RELATIONS.keys()
    if len(relations) != 1 or expected.keys() != relations | {"tolerance"}:
        raise ValueError(
            f"{where}.expected has one of {', '.join(RELATIONS)}, and tolerance; "
            f"got {', '.join(map(str, expected)) or 'nothing'}."
        )
    for key, value in expected.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}.expected.{key} must be a number, got {value!r}.")
    if expected["tolerance"] < 0:
        raise ValueError(f"{where}.expected.tolerance must not be below 0.")


def _check_keys(
    values: Any,
    needed: Mapping[str, type],
    where: str,
    optional: Mapping[str, type] | None = None,
) -> None:
    """Raise ValueError for a key that is missing, unknown, or holds something else."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where} must have keys: {', '.join(needed)}.")
    known = {**needed, **(optional or {})}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{where}: {key} does not exist; {did_you_mean(str(key), known)}")
        if not isinstance(value, known[key]) or value == "":
            raise ValueError(f"{where}: {key} must be a {_KINDS[known[key]]}, got {value!r}.")
    for key in needed:
        if key not in values:
            raise ValueError(f"{where} lacks {key}.")


def write_card(path: Path, card: Card) -> None:
    """Write a card in the one layout that cards have."""
    write_text(path, layout(card))


def layout(card: Card) -> str:
    """Return a card as YAML: keys in their order, a line of 100 characters."""
    values = {
        "claim": card.claim,
        "source": card.source,
        "findings": [_plain(finding) for finding in card.findings],
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _plain(finding: Finding) -> dict[str, Any]:
    named: dict[str, Any] = {"setting": finding.setting, "command": finding.command}
    if finding.tests:
        named["tests"] = list(finding.tests)
    else:
        terms = [{"records": term.records, "path": term.path} for term in finding.terms]
        named |= {"measure": finding.measure, "combine": finding.combine, "terms": terms}
        named["expected"] = dict(finding.expected)
    return named | ({"result": dict(finding.result)} if finding.result else {})


def claims_table(all_cards: Sequence[Card]) -> Table:
    """Return a row for every finding: the claim and its source, the setting, and the verdict."""
    rows = [
        (_named(card) if i == 0 else "", finding.setting, verdict_text(finding))
        for card in all_cards
        for i, finding in enumerate(card.findings)
    ]
    return Table(("claim", "setting", "verdict"), tuple(rows))


def full_table(all_cards: Sequence[Card]) -> Table:
    """Return the same with what was expected and measured, and when the result last changed."""
    rows = [
        (
            _named(card) if i == 0 else "",
            finding.setting,
            expected_text(finding),
            measured_text(finding),
            status_of(finding),
            str(finding.result.get("date", "-")),
        )
        for card in all_cards
        for i, finding in enumerate(card.findings)
    ]
    return Table(("claim", "setting", "expected", "measured", "verdict", "since"), tuple(rows))


def _named(card: Card) -> str:
    return f"{card.claim} ({card.source})"


def status_of(finding: Finding) -> str:
    """Return the status as it stands in the card; a card without a result has not been run."""
    return finding.result.get("status", "not run")


def verdict_text(finding: Finding) -> str:
    """Return the status, and the number that it rests on beside the one that was expected."""
    status = status_of(finding)
    marked = f"**{status}**" if status in ("holds", "fails") else status
    if "value" not in finding.result:
        return marked
    number = _interval(finding.result)
    if finding.result["seeds"] == 1:
        number += ", one seed"
    return f"{marked}: {number} ({expected_text(finding)})"


def expected_text(finding: Finding) -> str:
    """Return what the claim asks for, in the unit of the measure."""
    if finding.tests:
        return "exactly"
    (relation,) = finding.expected.keys() & RELATIONS.keys()
    tolerance = finding.expected["tolerance"]
    around = f" ± {tolerance:g}" if tolerance else ""
    return f"{RELATIONS[relation]} {finding.expected[relation]:g}{around} {finding.measure}"


def measured_text(finding: Finding) -> str:
    """Return value, interval, number of seeds, and of what is undecided what would be seen."""
    result = finding.result
    if finding.tests:
        return f"{len(finding.tests)} tests"
    if "value" not in result:
        return "-"
    seeds = "1 seed" if result["seeds"] == 1 else f"{result['seeds']} seeds"
    seen = f"; {result['seen']:.3g} away would be seen" if "seen" in result else ""
    return f"{_interval(result)}, {seeds}{seen}"


def _interval(result: Mapping[str, Any]) -> str:
    interval = f" [{result['low']:.3g}, {result['high']:.3g}]" if "low" in result else ""
    return f"{result['value']:.3g}{interval}"
