"""`polylect compare RUN RUN …`: scores of several runs beside each other, and tests of them."""

from pathlib import Path

from omegaconf import DictConfig

from polylect.config.roots import ConfigError
from polylect.config.validation import validate
from polylect.did_you_mean import check_known

TESTS = ("bootstrap", "randomization")
WRITTEN = (".json", ".md", ".tsv")


def main(cfg: DictConfig) -> None:
    """Print the tables, and write them where `out` says."""
    validate(cfg)
    if len(cfg.systems) < 2:
        raise ConfigError(
            "give at least two run folders, the baseline first: polylect compare RUN RUN"
        )
    check_known("test", cfg.test, TESTS)
    if cfg.samples < 1:
        raise ConfigError(f"samples must be at least 1, got {cfg.samples}.")
    _check_out(cfg.out)
    from polylect.eval.table import show
    from polylect.run.results.comparison import ScoredRun, check_metric, compare_runs, tables

    runs = [ScoredRun.read(path) for path in cfg.systems]
    check_metric(runs, cfg.metric)
    comparisons = compare_runs(runs, cfg.metric, cfg.test, cfg.samples, cfg.packages)
    result_tables = tables(runs, comparisons)
    for table in result_tables:
        show(table)
        print()
    if cfg.out:
        _write(Path(cfg.out), runs, comparisons, result_tables)
        print(f"written: {cfg.out}")


def _check_out(out: str | None) -> None:
    if out is None:
        return
    if Path(out).suffix not in WRITTEN:
        raise ConfigError(f"out={out} must end in {', '.join(WRITTEN[:-1])} or {WRITTEN[-1]}.")
    if Path(out).exists():
        raise ConfigError(f"out={out} exists: give another name, or take it away.")


def _write(path: Path, runs: list, comparisons: list, result_tables: list) -> None:
    from polylect.files import write_json, write_text
    from polylect.run.record import advise_on_failure
    from polylect.run.results.comparison import as_json

    with advise_on_failure("give the same command again"):
        if path.suffix == ".json":
            write_json(path, as_json(runs, comparisons))
        elif path.suffix == ".md":
            write_text(path, "\n".join(table.markdown() for table in result_tables))
        else:
            write_text(path, "\n".join(table.tsv() for table in result_tables))
