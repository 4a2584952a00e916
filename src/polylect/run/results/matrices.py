"""Matrices of a run: scores by language, adapters by direction, gradient cosines, routed tokens."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polylect.eval.table import row_scores
from polylect.files import read_json
from polylect.plots.interference import ALL, LEDGER, read_cosines


@dataclass(frozen=True)
class Matrix:
    """Values by row and column; None for none.

    Attributes:
        name: in dashboards, as "adapter_by_direction".
        caption: what the values are, with their unit.
        title: what the rows are.
        ends: the lowest and the highest possible value; None where there are none.
    """

    name: str
    caption: str
    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[float | None]]
    ends: tuple[float, float] | None = None


def read_matrices(folder: Path, metrics: Mapping[str, Any]) -> list[Matrix]:
    """Return the matrices of a run; none of what it has not measured.

    Args:
        folder: of the run.
        metrics: of its record.

    Raises:
        ValueError, KeyError, TypeError: a file or an entry is not what runs write.
    """
    return [*_scores(metrics), *_transfer(folder), *_cosines(folder), *_routed(metrics)]


def _scores(metrics: Mapping[str, Any]) -> Iterator[Matrix]:
    """Yield scores by source and target language, of metrics with one signature for all.

    None where one language alone is translated from or into.
    """
    by_pair = {tuple(d.split("-")): row for d, row in metrics.get("test", {}).items() if "-" in d}
    sources = list(dict.fromkeys(source for source, _ in by_pair))
    targets = list(dict.fromkeys(target for _, target in by_pair))
    if min(len(sources), len(targets)) < 2:
        return
    scores = [(pair, score) for pair, row in by_pair.items() for score in row_scores(row)]
    for metric in dict.fromkeys(score.name for _, score in scores):
        own = {pair: score for pair, score in scores if score.name == metric}
        if len({score.signature for score in own.values()}) > 1:
            continue
        values = {pair: score.value for pair, score in own.items()}
        rows = {s: [values.get((s, t)) for t in targets] for s in sources}
        caption = f"{metric} by source and target language"
        yield Matrix(f"source_by_target/{metric}", caption, "source", targets, rows)


def _transfer(folder: Path) -> Iterator[Matrix]:
    path = folder / "transfer.json"
    if not path.is_file():
        return
    measured = read_json(path, "losses of adapters")
    rows = {"no adapter": measured["base"]} if measured.get("base") else {}
    rows |= dict(zip(measured["adapters"], measured["loss"], strict=True))
    caption = "loss of each direction with each adapter, nats per target token"
    yield Matrix("adapter_by_direction", caption, "adapter", measured["directions"], rows)


def _cosines(folder: Path) -> Iterator[Matrix]:
    if not (folder / LEDGER).is_file():
        return
    pairs = {pair: points for pair, points in read_cosines(folder)[ALL].items() if points}
    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    means = {pair: sum(v for _, v in points) / len(points) for pair, points in pairs.items()}
    means |= {(other, one): mean for (one, other), mean in means.items()}
    rows = {a: [1.0 if a == b else means.get((a, b)) for b in names] for a in names}
    caption = "cosine of the directions' gradients, all layers, mean over the steps"
    yield Matrix("gradient_cosine", caption, "direction", names, rows, (-1.0, 1.0))


def _routed(metrics: Mapping[str, Any]) -> Iterator[Matrix]:
    """Yield which adapters tokens were given, in the mean over layers, by library and side."""
    counted = (metrics.get("routing") or {}).get("rows") or []
    for library, side in dict.fromkeys((row["library"], row["side"]) for row in counted):
        own = [row for row in counted if (row["library"], row["side"]) == (library, side)]
        adapters = sorted({name for row in own for name in row["shares"]})
        rows = {
            direction: _mean_shares([r for r in own if r["direction"] == direction], adapters)
            for direction in dict.fromkeys(row["direction"] for row in own)
        }
        caption = f"% of the {side} tokens by adapter of {library}, mean over layers"
        yield Matrix(f"tokens_by_adapter/{library}/{side}", caption, "direction", adapters, rows)


def _mean_shares(rows: Sequence[Mapping[str, Any]], adapters: Sequence[str]) -> list[float]:
    return [100 * sum(row["shares"].get(a, 0.0) for row in rows) / len(rows) for a in adapters]
