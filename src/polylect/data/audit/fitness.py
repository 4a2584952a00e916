"""Whether the text of a new language is fit to train on: what is refused, and what is warned of."""

from collections.abc import Iterator, Mapping
from typing import Any

from polylect.data.audit.counts import warnings
from polylect.data.languages import language

_SCRIPT, _SCRIPT_WARNED = 0.5, 0.9  # share of the letters in the language's own script
_UNKNOWN, _UNKNOWN_WARNED = 0.1, 0.01  # share of the tokens that stand for what cannot be written
_TOO_LONG = 0.5  # share of the training pairs
_SPELLED = 1.0  # tokens per character: at one the tokenizer spells
_DEARER = 3.0  # tokens per word of one language, in units of the cheapest one's
_FEW = 500  # training pairs


def refusals(data: Any, report: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each fault that makes training a waste; none if the text is fit.

    Args:
        data: a `TranslationData` that has been reported on.
        report: `data_report` of it.
    """
    return [*_missing_splits(data), *_of_texts(data, report, _SCRIPT), *_of_lengths(report),
            *_of_tokens(report, _UNKNOWN)]  # fmt: skip


def doubts(data: Any, report: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each thing to know before training goes on; takes what `refusals` do.

    What is refused is not said again.
    """
    refused = refusals(data, report)
    found = [
        *warnings(data),
        *_of_texts(data, report, _SCRIPT_WARNED),
        *_of_tokens(report, _UNKNOWN_WARNED),
        *_dear_languages(report["fertility"]),
        *_few_pairs(report["counts"]),
        *_left_out(report["texts"]),
    ]
    return [sentence for sentence in found if sentence not in refused]


def _missing_splits(data: Any) -> Iterator[str]:
    for split, why in (("train", "learn from"), ("val", "choose by"), ("test", "score")):
        if without := [d for d in data.directions if d not in data.report.get(split, {})]:
            yield f"{without[0]} has no data.{split}: give text to {why}."


def _of_texts(data: Any, report: Mapping[str, Any], least: float) -> Iterator[str]:
    for split, directions in report["texts"].items():
        for direction, texts in directions.items():
            for side in (s for s in ("source", "target") if s in texts):
                share, code = texts[side]["own_script"], texts[side]["language"]
                if share < least:
                    scripts = " or ".join(language(code).scripts)
                    yield (
                        f"{split} {direction}: {share:.0%} of the letters on the {side} side are "
                        f"in the script of {code} ({scripts}): are the sides swapped, or is it "
                        "another language?"
                    )
            overlap = sum(texts.get("overlap", {}).values())
            if split == "train" and overlap and not data.filters.get("overlap"):
                yield (
                    f"train {direction}: {overlap:,} pairs are in the val or test set, and would "
                    "be learnt: leave data.filters.overlap=true."
                )


def _of_lengths(report: Mapping[str, Any]) -> Iterator[str]:
    for direction, counts in report["counts"].get("train", {}).items():
        if counts["too_long"] > _TOO_LONG * counts["kept"]:
            yield (
                f"train {direction}: {counts['too_long']:,} of {counts['kept']:,} pairs have more "
                "tokens than data.max_length: raise it, or take a base whose tokenizer knows the "
                "language."
            )


def _of_tokens(report: Mapping[str, Any], most: float) -> Iterator[str]:
    for code, tokens in report["fertility"].items():
        if tokens["unknown"] > most:
            yield (
                f"{tokens['unknown']:.0%} of the tokens of {code} stand for what the base's "
                "tokenizer cannot write: take a base that can."
            )


def _dear_languages(fertility: Mapping[str, Any]) -> Iterator[str]:
    per_word = {c: t["per_word"] for c, t in fertility.items() if t["per_word"] is not None}
    for code, tokens in fertility.items():
        if (tokens["per_character"] or 0) >= _SPELLED:
            yield (
                f"{code} has {tokens['per_character']:.1f} tokens per character: the base's "
                "tokenizer spells it in bytes, and all that is read and written is long."
            )
        elif code in per_word and per_word[code] > _DEARER * min(per_word.values()):
            yield (
                f"{code} has {per_word[code]:.1f} tokens per word where "
                f"{min(per_word, key=per_word.__getitem__)} has {min(per_word.values()):.1f}: the "
                "base's tokenizer hardly knows it."
            )


def _few_pairs(counts: Mapping[str, Any]) -> Iterator[str]:
    for direction, own in counts.get("train", {}).items():
        if own["left"] < _FEW:
            yield f"train {direction} has {own['left']:,} pairs: expect little of so few."


def _left_out(texts: Mapping[str, Any]) -> Iterator[str]:
    for direction, own in texts.get("train", {}).items():
        parts = [f"{number:,} in {split}" for split, number in own["overlap"].items() if number]
        if parts:
            yield (
                f"train {direction}: of {own['pairs']:,} pairs {' and '.join(parts)} are left out, "
                "or the score would be of what was learnt."
            )
