"""The whole report on the data of a configuration, as plain values and as a page of text."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from polylect.data.audit.contamination import WORDS, Contamination
from polylect.data.audit.counts import complete_report, splits, warnings
from polylect.data.audit.lengths import Lengths
from polylect.data.audit.page import counts_page, percent, table
from polylect.data.audit.texts import Texts, fertility
from polylect.data.filters import HashSet, hold_out
from polylect.data.languages import split_direction

_EDGES = (0, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
_BAR = 40
"""Characters of the longest bar of a histogram."""

_FERTILITY_TEXTS = 2000
"""Texts of each language that are tokenised to tell the tokenizer's fertility."""


def data_report(data: Any, sample: int | None, repetitions: bool = True) -> dict[str, Any]:
    """Return counts, lengths, texts and fertility as plain values, for JSON.

    Args:
        data: a `TranslationData` with the tokenizer and context of its base model, set up for all
            splits that it has; its corpora are read once more.
        sample: most pairs of each corpus that are tokenised; None for all.
        repetitions: count repeated texts, which takes about a hundred bytes for each pair.
    """
    lengths = complete_report(data, sample)
    texts, contamination = _texts(data, repetitions)
    return {
        "counts": data.report,
        "warnings": warnings(data),
        "lengths": {
            split: {
                direction: _histogram(measured, data.max_length)
                for direction, measured in directions.items()
            }
            for split, directions in lengths.items()
        },
        "texts": texts,
        "contamination": contamination,
        "fertility": _fertility(data),
    }


def _histogram(lengths: Lengths, max_length: int) -> dict[str, Any]:
    """Return the histogram of the pairs' token counts; a bar of its own begins at too long ones."""
    total = lengths.total
    inner = {edge for edge in (*_EDGES, max_length + 1) if edge <= total.max()}
    edges = [*sorted(inner), int(total.max()) + 1]
    counts, _ = np.histogram(total, edges)
    parts = {"prompt": lengths.prompt, "target": lengths.target, "total": total}
    return {
        "edges": edges,
        "counts": counts.tolist(),
        **{
            name: {
                "median": float(np.median(values)),
                "p95": float(np.percentile(values, 95)),
                "max": int(values.max()),
            }
            for name, values in parts.items()
        },
    }


def _texts(data: Any, repetitions: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return, by split and direction, the properties of the texts as they are read.

    And what of val and test sets stands in training text.
    """
    if not data.has_languages:
        return {}, {}
    held_out, seen = {}, Contamination()
    for split in (s for s in ("val", "test") if s in data.report):
        held_out[split] = HashSet()
        for direction in data.report[split]:
            hold_out(data.read(direction, split), direction, held_out[split])
            seen.add_scored(split, direction, data.read(direction, split))
    reports: dict[str, Any] = {}
    for split in splits(data):
        reports[split] = {}
        for direction in data.report[split]:
            texts = Texts(direction, held_out if split == "train" else {}, repetitions)
            for row in data.read(direction, split):
                texts.add(row.source, row.target)
                if split == "train":
                    seen.see(direction, row.source, row.target)
            reports[split][direction] = texts.report()
    return reports, seen.report() if "train" in reports else {}


def _fertility(data: Any) -> dict[str, Any]:
    """Return the tokens per word by language, over texts from all directions in equal parts."""
    parts: dict[str, list[list[str]]] = {}
    for split in splits(data) if data.has_languages else ():
        for direction in data.report[split]:
            store = data.pairs(direction, split)
            pairs = [store[i] for i in range(min(len(store), _FERTILITY_TEXTS))]
            source, target = split_direction(direction)
            parts.setdefault(target, []).append([pair.target for pair in pairs])
            if source is not None:
                parts.setdefault(source, []).append([pair.source or "" for pair in pairs])
    return {
        code: fertility(
            data.tokenizer,
            [text for part in lists for text in part[: _FERTILITY_TEXTS // len(lists)]],
            code,
        )
        for code, lists in sorted(parts.items())
    }


def report_page(data: Any, report: dict[str, Any]) -> str:
    """Return the report as a page of text."""
    pages = [counts_page(data), *_length_pages(data, report["lengths"])]
    if data.has_languages:
        pages += [_texts_page(report["texts"]), _repetitions_page(report["texts"])]
        if report["contamination"]:
            pages.append(_contamination_page(report["contamination"]))
        pages.append(_fertility_page(report["fertility"]))
    return "\n\n".join(pages)


def _length_pages(data: Any, lengths: dict[str, Any]) -> Iterator[str]:
    rows = [["tokens", "median", "95 %", "longest", "prompt", "target"]]
    for split, directions in lengths.items():
        for direction, histogram in directions.items():
            total = histogram["total"]
            medians = [f"{histogram[part]['median']:.0f}" for part in ("prompt", "target")]
            sizes = [f"{total['median']:.0f}", f"{total['p95']:.0f}", f"{total['max']}"]
            rows.append([f"{split} {direction}", *sizes, *medians])
    yield table(rows) + "\nprompt, target: medians"
    for direction, histogram in lengths.get("train", {}).items():
        most = max(histogram["counts"])
        bars = [[f"{direction}, tokens", "pairs", ""]]
        edges = histogram["edges"]
        for low, high, count in zip(edges[:-1], edges[1:], histogram["counts"], strict=True):
            bar = "█" * -(-count * _BAR // most)
            mark = " > max_length" if low > data.max_length else ""
            bars.append([f"  {low}-{high - 1}{mark}", f"{count:,}", bar.ljust(_BAR)])
        yield table(bars)


def _texts_page(texts: dict[str, Any]) -> str:
    rows = [["texts as read", "words", "characters", "own script", "scripts"]]
    for split, directions in texts.items():
        for direction, report in directions.items():
            for side in (s for s in ("source", "target") if s in report):
                part = report[side]
                scripts = ", ".join(
                    f"{name} {percent(share)}" for name, share in list(part["scripts"].items())[:3]
                )
                name = f"{split} {direction} {side} {part['language']}"
                counts = [f"{part['words']:,}", f"{part['characters']:,}"]
                rows.append([name, *counts, percent(part["own_script"]), scripts])
    return table(rows)


def _repetitions_page(texts: dict[str, Any]) -> str:
    titles = ["pairs", "same pair", "but for case", "same source", "same target"]
    rows = [["repeated, as read", *titles, "in val", "in test"]]
    for split, directions in texts.items():
        for direction, report in directions.items():
            repeated = [f"{n:,}" for n in report["duplicates"].values()] or [""] * len(titles[1:])
            inside = [
                f"{report['overlap'][other]:,}" if other in report["overlap"] else ""
                for other in ("val", "test")
            ]
            rows.append([f"{split} {direction}", f"{report['pairs']:,}", *repeated, *inside])
    return table(rows)


def _contamination_page(contamination: dict[str, Any]) -> str:
    rows = [[f"in training text, by {WORDS} words", "sentences", "source", "target"]]
    for split, directions in contamination.items():
        for direction, counts in directions.items():
            cells = [f"{counts[k]:,}" if k in counts else "" for k in rows[0][1:]]
            rows.append([f"{split} {direction}", *cells])
    return table(rows)


def _fertility_page(languages: dict[str, Any]) -> str:
    rows = [["tokenizer", "texts", "tokens per word", "per character", "unknown"]]
    for code, part in languages.items():
        numbers = [
            "-" if part[k] is None else f"{part[k]:.2f}" for k in ("per_word", "per_character")
        ]
        rows.append([code, f"{part['texts']:,}", *numbers, percent(part["unknown"])])
    return table(rows)
