"""`polylect compare RUN RUN …`: scores of several systems beside each other, tests and verdicts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config.roots import ConfigError
from polylect.config.validation import validate
from polylect.did_you_mean import check_known

TESTS = ("bootstrap", "randomization", "both")
NEURAL = ("comet", "metricx")
WRITTEN = (".json", ".md", ".tsv")


def main(cfg: DictConfig) -> None:
    """Print the tables, and write them where `out` says; or read the marks of human judges."""
    validate(cfg)
    _check(cfg)
    from polylect.eval.table import show

    if cfg.marks:
        from polylect.run.results.judge_sheet import read_marks

        show(read_marks([Path(p) for p in cfg.marks], level=cfg.level, power=cfg.power))
        return
    systems = _systems(cfg)
    result_tables, report = _compare(cfg, systems)
    if cfg.out:
        _write(Path(cfg.out), report, result_tables)
        print(f"written: {cfg.out}")
    if cfg.judge:
        _write_sheet(cfg, systems)


def _check(cfg: DictConfig) -> None:
    """Check the settings that need no run."""
    if cfg.marks and (cfg.systems or cfg.groups):
        raise ConfigError("give marks alone: the key beside the sheet names the systems.")
    if cfg.systems and cfg.groups:
        raise ConfigError("give run folders or groups, not both.")
    if not cfg.marks and max(len(cfg.systems), len(cfg.groups)) < 2:
        raise ConfigError(
            "give at least two run folders, the baseline first: polylect compare RUN RUN"
        )
    check_known("test", cfg.test, TESTS)
    for name in cfg.neural:
        check_known("neural", name, NEURAL)
    if cfg.metricx_python is not None and not Path(cfg.metricx_python).is_file():
        raise ConfigError(f"metricx_python={cfg.metricx_python} is no file.")
    if cfg.samples < 1:
        raise ConfigError(f"samples must be at least 1, got {cfg.samples}.")
    if cfg.judge_lines < 1:
        raise ConfigError(f"judge_lines must be at least 1, got {cfg.judge_lines}.")
    if cfg.margin is not None and not cfg.margin > 0:
        raise ConfigError(f"margin must be above 0, got {cfg.margin}.")
    for name in ("level", "power"):
        if not 0 < cfg[name] < 1:
            raise ConfigError(f"{name} must be between 0 and 1, got {cfg[name]}.")
    _check_out("out", cfg.out, WRITTEN)
    _check_out("picture", cfg.picture, (".png",))
    _check_out("judge", cfg.judge, (".tsv",))


def _check_out(name: str, out: str | None, endings: Sequence[str]) -> None:
    if out is None:
        return
    if Path(out).suffix not in endings:
        ends = " or ".join(filter(None, (", ".join(endings[:-1]), endings[-1])))
        raise ConfigError(f"{name}={out} must end in {ends}.")
    if Path(out).exists():
        raise ConfigError(f"{name}={out} exists: give another name, or take it away.")


def _systems(cfg: DictConfig) -> list[Any]:
    from polylect.run.results.comparison import read_groups, systems_of
    from polylect.run.results.scored_run import ScoredRun

    if cfg.groups:
        return read_groups(cfg.groups)
    return systems_of([ScoredRun.read(path) for path in cfg.systems])


def _compare(cfg: DictConfig, systems: list[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Show the tables and what they prove; returns the tables, and all that they say."""
    from polylect.eval.inference.verdict import sentences, verdicts
    from polylect.eval.table import show
    from polylect.run.results.comparison import (
        all_runs,
        as_json,
        compare_systems,
        difference_figure,
        difference_table,
        score_tables,
    )
    from polylect.run.results.headline import headline_metric, uses_of_runs
    from polylect.run.results.neural import neural_table

    runs = all_runs(systems)
    uses = uses_of_runs(runs)
    metric = headline_metric({str(run.path): run.metrics for run in runs}, uses, cfg.metric)
    result_tables = score_tables(systems, uses)
    for name in cfg.neural:
        table = neural_table(
            name,
            runs,
            Path(cfg.neural_folder),
            metricx_python=cfg.metricx_python,
            packages=cfg.packages,
        )
        result_tables += [table] if table else []
    comparisons = compare_systems(systems, metric, cfg.test, cfg.samples, cfg.packages)
    system_verdicts = verdicts(comparisons, margin=cfg.margin, level=cfg.level, power=cfg.power)
    result_tables.append(difference_table(systems, comparisons, system_verdicts))
    for table in result_tables:
        show(table)
        print()
    for sentence in sentences(system_verdicts, systems[0].name):
        print(sentence)
    if cfg.picture:
        from polylect.plots.figures import save

        save(difference_figure(systems, comparisons, system_verdicts), cfg.picture)
        print(f"written: {cfg.picture}")
    return result_tables, as_json(systems, comparisons, system_verdicts)


def _write_sheet(cfg: DictConfig, systems: list[Any]) -> None:
    from polylect.run.record import advise_on_failure
    from polylect.run.results.judge_sheet import key_path, write_sheet

    path, (first, second, *_) = Path(cfg.judge), systems
    with advise_on_failure("give the same command again"):
        count = write_sheet(
            path,
            [first.name, second.name],
            [first.runs[0], second.runs[0]],
            count=cfg.judge_lines,
            seed=cfg.seed,
            packages=cfg.packages,
        )
    print(f"for judges: {path}, {count} lines; not for them: {key_path(path)}")
    print(f"with marks in its last column: polylect compare 'marks=[{path}]'")


def _write(path: Path, report: dict[str, Any], result_tables: list[Any]) -> None:
    from polylect.files import write_json, write_text
    from polylect.run.record import advise_on_failure

    with advise_on_failure("give the same command again"):
        if path.suffix == ".json":
            write_json(path, report)
        elif path.suffix == ".md":
            write_text(path, "\n".join(table.markdown() for table in result_tables))
        else:
            write_text(path, "\n".join(table.tsv() for table in result_tables))
