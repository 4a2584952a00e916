"""`polylect evaluate`: scores of a run, a checkpoint or a base model, direction by direction."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.base_or_run import choose_strategy
from polylect.config.checks import check_metrics
from polylect.config.roots import ConfigError, plain
from polylect.config.validation import validate
from polylect.run.processes.group import gather, rank
from polylect.run.record import Record, advise_on_failure
from polylect.run.session import close_wandb, session


def main(cfg: DictConfig) -> float | None:
    """Score and record; returns the mean chrF++ over the directions."""
    choose_strategy(cfg)
    if rank() == 0:
        print(f"polylect evaluate: {cfg.run or 'base model'}, loading …", flush=True)
    _check(cfg)
    with advise_on_failure("give the same command again"), session(cfg) as folder:
        validate(cfg)
        return _run(cfg, folder)


def _run(cfg: DictConfig, folder: Path) -> float | None:
    begin = time.monotonic()
    from polylect.data.audit.counts import complete_report
    from polylect.data.audit.page import counts_page
    from polylect.layers.adapters.counts import agreement
    from polylect.plots import of_run, save_all
    from polylect.retrieval.prompting import show_matches
    from polylect.run.monitor.loggers import (
        build_loggers,
        log_matrices,
        log_pictures,
        log_results,
    )
    from polylect.run.passport.used_files import used_files
    from polylect.run.passport.writer import write_passports
    from polylect.run.results.scoring import mean_chrf, score_module
    from polylect.run.terminal import quiet
    from polylect.translator import device_of

    quiet()
    others = _read_others(cfg)
    loggers = build_loggers(cfg.logger, folder, cfg.packages) if rank() == 0 else []
    module, stored = _module(cfg)
    module.to(device_of(cfg.device))
    data = _data(cfg, stored, module)
    complete_report(data)
    print(counts_page(data), flush=True)
    _check_compared(cfg, others, data)
    memory = _examples(cfg, module, data)
    if memory is not None:
        show_matches(module, memory)
        data.template = module.template
    record = Record(run=str(folder), config=plain(cfg))
    saved = record.saved_to(folder, begin) if rank() == 0 else nullcontext()
    with _with_adapter(module, cfg.adapter), saved:
        limits = {"split": cfg.split, "limit": cfg.limit, "together": True}
        record.metrics["test"] = score_module(module, data, folder, cfg.metrics, **limits)
        module.count_together(gather)
        if rank() > 0:  # which has done its share
            return None
        record.metrics["objective"] = mean_chrf(record.metrics["test"])
        if rows := module.routing_rows():
            record.metrics["routing"] = {"agreement": agreement(rows), "rows": rows}
        if memory is not None:
            record.metrics["shots" if cfg.shots else "memory"] = memory.report()
            print(memory.summary())
        record.data = data.report
    # What is trained was drawn when it was.
    own = [] if module.trains else [lambda: module.pictures(folder)]
    pictures = save_all(folder, lambda: of_run(folder, asdict(record)), *own)
    log_results(loggers, record.metrics["test"], data, folder, 0, split=cfg.split)
    log_pictures(loggers, pictures, 0)
    log_matrices(loggers, folder, record.metrics)
    for logger in loggers:
        logger.log_hyperparams(plain(cfg))
        logger.finalize("success")
    close_wandb()
    if others:
        _compare(cfg, others, folder)
    with _with_adapter(module, cfg.adapter):
        write_passports(module, data, folder, record.metrics["test"], used_files(cfg))
    print(f"scores: {folder / 'scores.json'}")
    return record.metrics["objective"]


def _check(cfg: DictConfig) -> None:
    """Check the settings that need no model."""
    if cfg.run is None and not cfg.data:
        raise ConfigError("give data=… beside model=…: a base model has no data of its own.")
    if cfg.split not in ("val", "test"):
        raise ConfigError(f"split must be val or test, got {cfg.split}.")
    if cfg.limit is not None and cfg.limit < 1:
        raise ConfigError(f"limit must be at least 1, got {cfg.limit}.")
    if cfg.shots < 0:
        raise ConfigError(f"shots must be at least 0, got {cfg.shots}.")
    if cfg.shots and cfg.memory.corpus is not None:
        raise ConfigError("give shots or memory.corpus, not both: each makes a prompt's examples.")
    check_metrics(cfg.metrics)
    for split in ("train", "val", "test"):  # what is not scored need not be given
        if cfg.data and split != cfg.split and OmegaConf.is_missing(cfg.data, split):
            cfg.data[split] = None


def _module(cfg: DictConfig) -> tuple[Any, DictConfig | None]:
    """Return the strategy to be scored, and the configuration of its run, if it has one."""
    from polylect.run.build import load
    from polylect.run.untrained_model import (
        build_untrained,
        check_template,
        has_adapters,
        load_adapters,
    )

    if cfg.run is None:
        check_template(cfg.strategy, cfg.data.get("template") or "plain")
        return build_untrained(cfg), None
    if cfg.adapter is None:
        return load(cfg.run, cfg.generation, cfg.packages, cfg.model)
    if not has_adapters(cfg.run):
        raise ConfigError(f"run={cfg.run} has no folder of adapters: leave out adapter=….")
    return load_adapters(cfg.run, cfg.generation, cfg.packages, model=cfg.model)


def _examples(cfg: DictConfig, module: Any, data: Any) -> Any:
    """Return what is shown before the sources: fixed examples, a translation memory, or None."""
    from polylect.retrieval.shots import draw_shots
    from polylect.run.build import build_memory

    if not cfg.shots:
        return build_memory(cfg, module)
    untrained = cfg.memory.untrained
    return draw_shots(data, cfg.shots, split=cfg.split, seed=cfg.seed, untrained=untrained)


@contextmanager
def _with_adapter(module: Any, adapter: str | None) -> Iterator[None]:
    """Within it all rows go through the adapter, if one is named."""
    if adapter is None:
        yield
        return
    library = module.named_adapters()
    library.adapter_index.directions_of(adapter)  # which refuses a name that is not there
    with library.use_adapter(adapter):
        yield


def _data(cfg: DictConfig, stored: DictConfig | None, module: Any) -> Any:
    from polylect.run.build import build_data

    source = cfg if cfg.data else stored
    data = build_data(source)
    if not data.directions_of(cfg.split):
        raise ConfigError(f"there are no {cfg.split} corpora: give data.{cfg.split}=…")
    # Whatever the data's own template: a run is asked in the way in which it was trained.
    data.set_backbone(module.backbone, module.tokenizer)
    data.template = module.template
    data.setup(cfg.split if cfg.split == "test" else "validate")
    return data


def _read_others(cfg: DictConfig) -> list[Any]:
    """Return the runs that `compare` names, which are read before anything is scored."""
    from polylect.run.results.scored_run import ScoredRun

    if cfg.compare is None:
        return []
    paths = [cfg.compare] if isinstance(cfg.compare, str) else list(cfg.compare)
    others = [ScoredRun.read(path) for path in paths]
    _tested_metric(cfg, others)
    return others


def _check_compared(cfg: DictConfig, others: list[Any], data: Any) -> None:
    """Raise ConfigError where another run has translated another number of lines."""
    for direction in data.directions_of(cfg.split):
        own = len(data.pairs(direction, cfg.split))
        count = own if cfg.limit is None else min(own, cfg.limit)
        for run in others:
            scored = run.scores.get(direction, {}).get("sentences", count)
            if scored != count:
                raise ConfigError(
                    f"compare={run.path} has {scored} {direction} lines and this evaluation would "
                    f"have {count}: give the same data, split and limit as there."
                )


def _tested_metric(cfg: DictConfig, others: list[Any]) -> str:
    """Return chrF++, or the first metric of all runs that made none of them."""
    from polylect.run.results.headline import headline_metric, uses_of, uses_of_runs

    uses = uses_of_runs(others)
    for metric, use in uses_of(plain(cfg)):
        uses.setdefault(metric, []).append(f"{metric} {use} of {cfg.run}: no evidence for it")
    scored = {"this evaluation": list(cfg.metrics)}
    scored |= {str(other.path): other.metrics for other in others}
    return headline_metric(scored, uses)


def _compare(cfg: DictConfig, others: list[Any], folder: Path) -> None:
    """Print and write how the system differs from each of the others, which are baselines."""
    from polylect.eval.inference.verdict import sentences, verdicts
    from polylect.eval.table import show
    from polylect.files import write_json
    from polylect.run.results.comparison import (
        as_json,
        compare_systems,
        difference_table,
        score_tables,
        systems_of,
    )
    from polylect.run.results.headline import uses_of_runs
    from polylect.run.results.scored_run import ScoredRun

    runs = [*others, ScoredRun.read(folder)]
    systems = systems_of(runs)
    tables = score_tables(systems, uses_of_runs(runs))
    comparisons = compare_systems(systems, _tested_metric(cfg, others), packages=cfg.packages)
    system_verdicts = verdicts(comparisons)
    for table in [*tables, difference_table(systems, comparisons, system_verdicts)]:
        show(table)
    print("\n".join(sentences(system_verdicts, systems[0].name)))
    write_json(folder / "comparison.json", as_json(systems, comparisons, system_verdicts))
