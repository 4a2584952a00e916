"""Pictures of a run's scores by direction, and of the shares of its training text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polylect.files import read_json
from polylect.plots.curves import LINES, of_training
from polylect.plots.figures import NOTHING, Figure, new_figure
from polylect.plots.interference import LEDGER, interference

Scores = Mapping[str, Mapping[str, Any]]
"""Of scores.json: direction to metric to {"value", "signature"}."""

_METRICS = {"chrf++": "chrF++", "bleu": "BLEU"}


def of_run(folder: str | Path, record: Mapping[str, Any] | None = None) -> dict[str, Figure]:
    """Return the pictures that every run has, by name; none of what it has not measured.

    Args:
        folder: of the run.
        record: what its record.json holds, if that is not written yet.

    Raises:
        FileNotFoundError: there is no record.
    """
    folder = Path(folder)
    if record is None:
        record = read_json(folder / "record.json", "the record of a run")
    figures = of_training(folder) if (folder / "metrics.csv").is_file() else {}
    if (folder / LEDGER).is_file():
        figures["interference"] = interference(folder)
    test, base = (record["metrics"].get(name) or {} for name in ("test", "base"))
    if any(metric in row for row in test.values() for metric in _METRICS):
        figures["scores"] = scores(test, base)
    draws = record.get("data", {}).get("drawn") or {}
    if sum(draws.get("examples", {}).values()):
        figures["data"] = data(draws, record["data"].get("read", {}).get("train", {}))
    return figures


def scores(test: Scores, base: Scores | None = None) -> Figure:
    """Draw bars by direction, the best at the top, with a ring at the untouched base's value.

    One panel for each of chrF++ and BLEU that was computed; both go from 0 to 100.
    """
    metrics = [m for m in _METRICS if any(m in row for row in test.values())]
    values = {m: {d: row[m]["value"] for d, row in test.items() if m in row} for m in metrics}
    ranked = sorted(values[metrics[0]], key=lambda direction: values[metrics[0]][direction])
    picture = new_figure(4.0 * len(metrics) + 1.0, 1.3 + 0.28 * len(ranked))
    panels = picture.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        own = [values[metric][direction] for direction in ranked]
        bars = axes.barh(ranked, own, color=LINES[0], height=0.7)
        axes.bar_label(bars, fmt="{:.1f}", padding=3, fontsize="small")
        before = [(d, row[metric]["value"]) for d, row in (base or {}).items() if metric in row]
        for direction, value in before:
            if direction in ranked:
                axes.plot(value, direction, "o", color="white", markeredgecolor="black")
        signatures = {row[metric]["signature"] for row in test.values() if metric in row}
        mean = f"mean {sum(own) / len(own):.1f}" if len(signatures) == 1 else "several signatures"
        title = f"{_METRICS[metric]} ({mean})"
        axes.set(title=title, xlabel=f"{_METRICS[metric]}, test set", xlim=(0, 108))
        axes.set_xticks(range(0, 101, 20))
    if base:
        ring = panels[0].plot([], [], "o", color="white", markeredgecolor="black")
        picture.legend(ring, ["the untouched base"], loc="outside lower right", frameon=False)
    return picture


def data(draws: Mapping[str, Any], read: Mapping[str, Any] | None = None) -> Figure:
    """Return the shares of the directions in the training text as it was read, and as it was drawn.

    Left the share of examples, right that of target tokens, which is what the loss sees.

    Args:
        draws: the training stream's report.
        read: of each direction what was "kept" of its corpora.
    """
    names = sorted(draws["examples"], key=lambda d: draws["examples"][d])
    kept_counts = {d: (read or {}).get(d, {}).get("kept", 0) for d in names}
    picture = new_figure(9.0, 1.5 + 0.34 * len(names))
    left, right = picture.subplots(1, 2, sharey=True)
    _shares(left, names, draws["examples"], "drawn", "examples", kept_counts)
    _shares(right, names, draws["target_tokens"], "drawn", "target tokens")
    handles = dict(zip(*left.get_legend_handles_labels()[::-1], strict=True))
    picture.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False)
    return picture


def _shares(
    axes: Any,
    names: Sequence[str],
    counts: Mapping[str, int],
    label: str,
    unit: str,
    kept_counts: Mapping[str, int] | None = None,
) -> None:
    total = max(sum(counts[name] for name in names), 1)
    shares = [100 * counts[name] / total for name in names]
    axes.barh(names, shares, height=0.6, color=LINES[0], label=label)
    for name, share in zip(names, shares, strict=True):
        place = axes.get_yaxis_transform()  # at the right edge, clear of bars and lines
        text = f"{share:.1f} %  ({counts[name]:,})"
        axes.text(0.99, name, text, transform=place, ha="right", va="center", fontsize="small")
    if kept_counts and sum(kept_counts.values()):
        of_text = [100 * kept_counts[name] / sum(kept_counts.values()) for name in names]
        axes.plot(of_text, names, "d", color=LINES[1], label="in the training text")
        shares = [*shares, *of_text]
    axes.axvline(100 / len(names), color="black", linewidth=0.8, linestyle=":", label="even")
    axes.set(title=f"{unit}, {total:,} in all", xlabel=f"% of the {unit}")
    axes.set_xlim(0, 1.6 * max(*shares, 100 / len(names)))
    axes.grid(axis="x", color=NOTHING, linewidth=0.5)
    axes.set_axisbelow(True)
