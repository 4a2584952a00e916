"""Counts of the pairs: read, dropped by which filter, too long, left, drawn per epoch.

Everything is counted by split, direction and corpus, and goes into `TranslationData.report`, which
the record of a run keeps.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from polylect.data.audit.lengths import Lengths, join, measure, spread
from polylect.data.sampler import probabilities

SAMPLE = 5000
"""Pairs of each corpus that are tokenised before training to count those that are too long: with
more, the count is an estimate (its standard error is at most 0.7 % of the pairs)."""

WARN_SHARE = 0.05
"""Share of the pairs of a corpus above which a loss is warned of."""

Counts = dict[str, Any]


def splits(data: Any) -> list[str]:
    """Return the splits that have been read, in their usual order."""
    return [split for split in ("train", "val", "test") if split in data.report]


def complete_report(data: Any, sample: int | None = SAMPLE) -> dict[str, dict[str, Lengths]]:
    """Add to `data.report` what only the tokenizer and the sampler know.

    Each direction and each of its corpora gets `measured` (pairs that were tokenised), `too_long`
    (for `data.max_length`; in a test set of translations for the base model, with no room left for
    a translation), `left`, and in training `per_epoch`: how often one of its pairs is learned from
    while as many are drawn as all directions have.

    Without a tokenizer nothing is measured or counted as too long, and all that are kept are left.

    Args:
        data: a `TranslationData` with the tokenizer and context of its base model, set up.
        sample: most pairs of a corpus to tokenise; None for all.

    Returns:
        the lengths of the pairs that were tokenised, by split and direction.
    """
    lengths: dict[str, dict[str, Lengths]] = {}
    if data.tokenizer is None:
        sample = 0
    for split in splits(data):
        lengths[split] = {}
        for direction, counts in data.report[split].items():
            lengths[split][direction] = _count_too_long(data, split, direction, counts, sample)
    if "train" in data.report:
        _count_draws(data.report["train"], data.temperature)
    return lengths


def check_left(data: Any) -> None:
    """Raises ValueError for a training direction all of whose pairs are known to be too long."""
    for direction, counts in data.report.get("train", {}).items():
        if not counts["left"] and counts["measured"] == counts["kept"]:
            raise ValueError(
                f"train {direction}: none of {counts['kept']:,} pairs is left: all have more than "
                f"data.max_length={data.max_length} tokens; raise it"
            )


def _count_too_long(
    data: Any, split: str, direction: str, counts: Counts, sample: int | None
) -> Lengths:
    measured = []
    begin = 0
    for part in counts["corpora"]:
        rows = spread(begin, begin + part["kept"], sample)
        measured.append(measure(data, direction, split, rows))
        too_long = _too_long(data, split, direction, measured[-1])
        part["measured"] = len(rows)
        part["too_long"] = round(part["kept"] * too_long.mean()) if rows else 0
        part["left"] = part["kept"] - part["too_long"]
        if too_long.any():
            part["first_too_long"] = rows[int(too_long.argmax())] - begin + 1
        begin += part["kept"]
    for key in ("measured", "too_long", "left"):
        counts[key] = sum(part[key] for part in counts["corpora"])
    return join(measured)


def _too_long(data: Any, split: str, direction: str, lengths: Lengths) -> np.ndarray:
    """Say for each pair whether it is too long for the model or for the data; bool of [pairs]."""
    if _is_translated(split, direction):
        return lengths.prompt >= data.context.length
    return lengths.total > data.max_length


def _is_translated(split: str, direction: str) -> bool:
    """Say whether the sources are translated, so that their targets need no room beside them."""
    return split == "test" and "-" in direction


def _count_draws(directions: Mapping[str, Counts], temperature: float | int) -> None:
    sizes = [counts["kept"] for counts in directions.values()]
    shares = probabilities(sizes, temperature)
    for counts, share in zip(directions.values(), shares.tolist(), strict=True):
        passes = share * sum(sizes) / counts["kept"]
        for part in (counts, *counts["corpora"]):
            part["per_epoch"] = round(passes * part["left"])


def warnings(data: Any) -> list[str]:
    """Return a sentence for each loss of at least WARN_SHARE of a corpus, with what changes it.

    Of a test set every source that is too long is warned of.
    """
    return [
        f"{split} {direction}: {number:,} of {part['read']:,} pairs of {part['corpus']} "
        f"({number / part['read']:.0%}) are {_explanation(data, split, direction, reason, part)}"
        for split, direction, part in _parts(data)
        for reason, number in _losses(part)
        if number >= WARN_SHARE * part["read"]
        or (reason == "too_long" and _is_translated(split, direction))
    ]


def _parts(data: Any) -> Iterator[tuple[str, str, Counts]]:
    for split in splits(data):
        for direction, counts in data.report[split].items():
            for part in counts["corpora"]:
                yield split, direction, part


def _losses(part: Counts) -> Iterator[tuple[str, int]]:
    yield from part["dropped"].items()
    if part.get("too_long"):
        yield "too_long", part["too_long"]


def _explanation(data: Any, split: str, direction: str, reason: str, part: Counts) -> str:
    if reason == "untranslated":
        return "segments without a translation; translate them, or take them out"
    if reason == "other_languages":
        return "units without both languages; the key codes says what the file calls a language"
    if reason != "too_long":
        value = str(data.filters[reason]).lower()
        return f"dropped by the filter {reason}; set by data.filters.{reason}={value}"
    if _is_translated(split, direction):
        return (
            f"too long for the {data.context.length} tokens that the model takes, the first of "
            f"them pair {part['first_too_long']}; they will be counted, with empty translations: "
            "split them into sentences"
        )
    most = data.context.length
    room = f" (the model takes {most})" if most > data.max_length else ""
    return (
        f"too long for data.max_length={data.max_length} tokens and left out; raise it{room}, or "
        "take a base model whose tokenizer knows the language"
    )
