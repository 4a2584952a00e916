"""The loggers of a run, several at once, and the results that they are given."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, WandbLogger

from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.eval.metrics import Score
from polylect.eval.table import row_scores

TABLE_ROWS = 50
"""Translations of each direction in the table that W&B gets."""

_NEEDS = {
    "WandbLogger": ("wandb", ("wandb",)),
    "TensorBoardLogger": ("tensorboard", ("tensorboard", "tensorboardX")),
}
"""The extra of a logger, and the packages of which it needs one."""

_RATES = ("off_target", "empty")  # of the diagnosis


def build_loggers(node: Any, folder: Path, packages: Sequence[str] = ()) -> list[Any]:
    """Return the loggers that a configuration names, and metrics.csv beside any others.

    Args:
        node: loggers by name, each with its `_target_`; or the settings of a single one.
        folder: of the run.
        packages: the user's own, whose loggers may be named.

    Raises:
        ConfigError: a logger needs a package that is not installed, or refuses its settings.
    """
    loggers = []
    for own in _nodes(plain(node) or {}):
        _check_installed(own["_target_"])
        loggers.append(instantiate(own, "logger", packages))
    if loggers and not any(isinstance(logger, CSVLogger) for logger in loggers):
        loggers.append(CSVLogger(str(folder), name="", version=""))
    return loggers


def _nodes(node: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings of each logger; older runs stored those of a single one bare."""
    if "_target_" in node:
        return [dict(node)]
    nodes = {name: own for name, own in node.items() if own is not None}
    for name, own in nodes.items():
        if not isinstance(own, Mapping) or "_target_" not in own:
            raise ConfigError(
                f"logger.{name} is no logger: settings of one are logger.NAME.key, as in "
                "logger.wandb.project=mine."
            )
    return [dict(own) for own in nodes.values()]


def _check_installed(target: str) -> None:
    extra, packages = _NEEDS.get(target.rpartition(".")[2], ("", ()))
    if packages and not any(find_spec(package) for package in packages):
        raise ConfigError(f"logger={extra} needs a package: pip install 'polylect[{extra}]'.")


# What the summary has of a metric beside its last value. Test scores have one value each.
_BEST = {"val/loss*": "min", "val/chrf*": "max", "train/loss": "min", "train/running/*": "min"}
_STEP = "trainer/global_step"  # that of Lightning's logger


def begin_logging(loggers: Sequence[Any], config: Mapping[str, Any]) -> None:
    """Tell every logger the configuration, and W&B whether low or high values of metrics are good.

    Both are in W&B's file before the first step, so a run that is killed keeps them.
    """
    for logger in loggers:
        logger.log_hyperparams(config)
        if isinstance(logger, WandbLogger):
            for name, best in _BEST.items():
                logger.experiment.define_metric(
                    name, step_metric=_STEP, step_sync=True, summary=f"{best},last"
                )


def log_matrices(loggers: Sequence[Any], folder: Path, metrics: Mapping[str, Any]) -> None:
    """Give W&B the matrices of a run as tables, `matrices/<name>`; what is damaged is a warning."""
    from polylect.run.results.matrices import read_matrices

    wandb_loggers = [logger for logger in loggers if isinstance(logger, WandbLogger)]
    if not wandb_loggers:
        return
    try:
        matrices = read_matrices(folder, metrics)
    except (OSError, ValueError, KeyError, TypeError) as error:  # no reason to lose a training
        print(f"warning: the matrices of {folder} are not logged ({error!r}).", flush=True)
        return
    for logger in wandb_loggers:
        for matrix in matrices:
            rows = [[name, *values] for name, values in matrix.rows.items()]
            columns = [matrix.title, *matrix.columns]
            logger.log_table(f"matrices/{matrix.name}", columns=columns, data=rows)


def log_results(
    loggers: Sequence[Any],
    scores: Mapping[str, Mapping[str, Any]],
    data: Any,
    folder: Path,
    step: int,
    base: Mapping[str, Mapping[str, Any]] | None = None,
    split: str = "test",
) -> None:
    """Tell every logger the scores, and W&B a table of translations and the metrics' signatures.

    Numbers are `test/<metric>/<direction>` and `test/<metric>/mean`, where all directions are
    scored in the same way; `test/off_target/…` and `test/empty/…`, shares of the sentences; and the
    same with `base/` for the untouched base.
    """
    values = dict(_numbers(split, scores)) | dict(_numbers("base", base or {}))
    for logger in loggers:
        logger.log_metrics(values, step=step)
        if isinstance(logger, WandbLogger):
            columns = ["direction", "source", "translation", "reference"]
            logger.log_table(
                "translations", columns=columns, data=_rows(scores, data, folder, split)
            )
            logger.experiment.summary.update(values | _signatures(scores))


def _numbers(part: str, scores: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    metrics: dict[str, dict[str, Score]] = {}
    for direction, row in scores.items():
        if "nats_per_token" in row:
            yield f"{part}/nats_per_token/{direction}", row["nats_per_token"]
        for score in row_scores(row):
            metrics.setdefault(score.name, {})[direction] = score
        for name in _RATES:
            rate = row.get("diagnosis", {}).get(name)
            if rate and rate["of"]:
                yield f"{part}/{name}/{direction}", rate["count"] / rate["of"]
    for name, own in metrics.items():
        for direction, score in own.items():
            yield f"{part}/{name}/{direction}", score.value
        if len({score.signature for score in own.values()}) == 1:
            mean = sum(score.value for score in own.values()) / len(own)
            yield f"{part}/{name}/mean", mean
    for name in _RATES:
        rates = [row["diagnosis"][name] for row in scores.values() if "diagnosis" in row]
        if total := sum(rate["of"] for rate in rates if rate):
            yield f"{part}/{name}/mean", sum(rate["count"] for rate in rates if rate) / total


def _signatures(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"signature/{score.name}/{direction}": score.signature
        for direction, row in scores.items()
        for score in row_scores(row)
    }


def log_pictures(loggers: Sequence[Any], files: Mapping[str, Path], step: int) -> None:
    """Show pictures, PNG files by name, in W&B as `pictures/<name>`."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for name, file in files.items():
                logger.log_image(f"pictures/{name}", [str(file)], step)


def _rows(
    scores: Mapping[str, Mapping[str, Any]], data: Any, folder: Path, split: str
) -> list[list[str]]:
    rows = []
    for direction in (d for d in scores if "-" in d):
        path = folder / "outputs" / f"{direction}.txt"
        hypotheses = path.read_text(encoding="utf-8").split("\n")
        pairs = data.pairs(direction, split)
        for index in range(min(TABLE_ROWS, len(pairs))):
            pair = pairs[index]
            rows.append([direction, pair.source or "", hypotheses[index], pair.target])
    return rows
