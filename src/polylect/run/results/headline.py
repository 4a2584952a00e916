"""Which metrics are no evidence for a run, because they were used to make it.

A metric that chose the checkpoint, filtered the training data or re-ranked the outputs is higher
for that reason alone, so no verdict may rest on it.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from polylect.config.roots import ConfigError
from polylect.did_you_mean import did_you_mean
from polylect.eval.metrics import COUNT_ERRORS, TITLES
from polylect.run.results.scored_run import ScoredRun, trained_config

Uses = Mapping[str, Sequence[str]]
"""By metric, a sentence for each way in which a run used it."""

_METRICS = {*TITLES, *COUNT_ERRORS, "comet"}
_SECTIONS = {
    ("data", "filters"): "filtered the data",
    ("generation",): "chose among the outputs",
}


def uses_of_runs(runs: Sequence[ScoredRun]) -> dict[str, list[str]]:
    """Return what the metrics were used for in the making of these runs."""
    uses: dict[str, list[str]] = {}
    for run in runs:
        for metric, use in uses_of(run.record.config):
            uses.setdefault(metric, []).append(f"{metric} {use} of {run.path}: no evidence for it")
    return uses


def uses_of(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each metric that a configuration, or that of the run it scores, uses, and for what.

    `val/chrf` as a callback's monitor is chrF++; chrF rises with it and counts as used, too.
    """
    parts = [config]
    if (trained := trained_config(config)) is not config:
        parts.append(trained)
    for part in parts:
        for name, callback in (part.get("callbacks") or {}).items():
            monitor = str((callback or {}).get("monitor") or "")
            stem = monitor.removeprefix("val/").partition("/")[0]
            for metric in sorted(_METRICS):
                if stem and metric.startswith(stem):
                    did = "ended the training" if "stop" in name else "chose the checkpoint"
                    yield metric, f"{did} (callbacks.{name}.monitor={monitor})"
        for path, use in _SECTIONS.items():
            for metric in sorted(_named_in(part, path)):
                yield metric, f"{use} ({'.'.join(path)})"


def _named_in(config: Mapping[str, Any], path: Sequence[str]) -> set[str]:
    """Return the metrics that are keys or values of a section."""
    section: Any = config
    for key in path:
        section = section.get(key) if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping):
        return set()
    texts = {text for item in section.items() for text in item if isinstance(text, str)}
    return texts & _METRICS


def headline_metric(
    scored: Mapping[str, Collection[str]], uses: Uses, asked: str | None = None
) -> str:
    """Return the metric to be tested: the one asked for, or chrF++, or the first that may be.

    Args:
        scored: by run, the metrics that it was scored with.
        uses: as `uses_of_runs` has them.

    Raises:
        ConfigError: a run has no such score, or the metric was used to make a run.
    """
    first = next(iter(scored.values()))
    shared = [metric for metric in first if all(metric in own for own in scored.values())]
    free = sorted((m for m in shared if m not in uses), key=lambda metric: metric != "chrf++")
    if asked is None:
        if free:
            return free[0]
        raise ConfigError(
            "no metric is left to compare by: "
            + ("; ".join(uses[m][0] for m in shared) or "the runs have none in common")
            + ": score the runs with another, as with polylect evaluate run=RUN metrics=[ter]."
        )
    for run, metrics in scored.items():
        if asked not in metrics:
            raise ConfigError(
                f"metric={asked} is not among the scores of {run}; {did_you_mean(asked, metrics)}"
            )
    if asked in uses:
        others = f"give metric={free[0]}" if free else "score the runs with another metric"
        raise ConfigError(f"metric={asked} decides nothing here ({uses[asked][0]}): {others}.")
    return asked
