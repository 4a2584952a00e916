"""`polylect train`: compose, validate, build, fit, score, record."""

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.checks import check_combination, check_data, check_devices, check_settings
from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.config.validation import validate
from polylect.files import write_text
from polylect.run.objective import check_objective, objective_of
from polylect.run.precision import settle_precision
from polylect.run.processes.checks import check_processes, check_sharing
from polylect.run.processes.group import local_rank
from polylect.run.record import Record
from polylect.run.reuse.resume import (
    CONTINUED,
    check_stage,
    check_unchanged,
    repeat_config,
    resume_config,
    stored_values,
)
from polylect.run.session import (
    close_wandb,
    raise_system_exit,
    session,
    signal_handlers,
)

_LOGGED = 20
"""Times that a run is logged at least, or as often as it has steps."""


def main(cfg: DictConfig) -> float | None:
    """Run one training job and return its objective, for a sweeper."""
    if local_rank() == 0:
        print(f"polylect train: {cfg.name}, loading …", flush=True)
    with session(cfg) as folder:
        return _run(cfg, folder)


def _run(cfg: DictConfig, folder: Path) -> float | None:
    begin = time.monotonic()
    validate(cfg)

    from lightning.pytorch.plugins.io import TorchCheckpointIO

    from polylect.data.audit.counts import check_left, complete_report
    from polylect.data.audit.page import counts_page
    from polylect.retrieval.prompting import teach_matches
    from polylect.run.build import build_memory
    from polylect.run.callbacks import WholeCheckpoints, steps_report
    from polylect.run.interference.ledger import ledger_report
    from polylect.run.length import steps_of
    from polylect.run.monitor.artifacts import log_artifacts
    from polylect.run.monitor.loggers import begin_logging, build_loggers
    from polylect.run.monitor.pictures import draw
    from polylect.run.passport.writer import passport_writer, write_passports
    from polylect.run.processes.whole import whole_module
    from polylect.run.terminal import announce, keep_freed_memory, quiet
    from polylect.strategies.loop.divergence import Diverged

    quiet()
    keep_freed_memory()
    check_settings(cfg)
    check_objective(cfg)
    check_devices(cfg)
    check_processes(cfg)
    if (notice := settle_precision(cfg.trainer)) and local_rank() == 0:
        print(notice, flush=True)
    module, data = _build(cfg)
    check_data(data, cfg)
    memory = build_memory(cfg, module)
    if memory is not None and data.tokenizer is not None:
        teach_matches(data, memory)
    if local_rank() == 0:
        data.setup("fit")
        complete_report(data)
        check_left(data)
    if cfg.dry_run:
        from polylect.run.monitor.preview import preview

        print(preview(module, data, cfg))
        return None

    folder.mkdir(parents=True, exist_ok=True)
    steps, origin = steps_of(cfg, data)
    _intervals(cfg, steps)
    trainer = instantiate(
        cfg.trainer,
        "trainer",
        cfg.packages,
        max_steps=max(steps, 1),  # of no epoch Lightning makes none
        logger=build_loggers(cfg.logger, folder, cfg.packages) or False,
        callbacks=callbacks(cfg, folder),
        default_root_dir=str(folder),
        _convert_="all",
    )
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # not one of a plugin
        trainer.strategy.checkpoint_io = WholeCheckpoints()
    if not trainer.is_global_zero:
        _fit(trainer, module, data, cfg)
        return None
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    record = Record(run=str(folder), config=plain(cfg))
    record.write(folder)
    begin_logging(trainer.loggers, plain(cfg))
    announce(module, data, cfg, folder, f"{steps} ({origin})" if origin else str(steps))
    print(counts_page(data), flush=True)
    try:
        _score_base(module, data, cfg, folder, record)
        _fit(trainer, module, data, cfg)
        module = whole_module(module, trainer, folder, cfg.packages)
        record.metrics["train"] = {k: float(v) for k, v in trainer.callback_metrics.items()}
        record.metrics |= steps_report(trainer)
        record.metrics |= module.facts()
        record.metrics |= ledger_report(trainer.callbacks)
        _finish(trainer, module, data, cfg, folder, record)
        record.metrics["objective"] = objective_of(cfg, trainer, record.metrics)
        record.data = _data_report(data)
        draw(trainer, module, folder, record)
        scores = record.metrics.get("test")
        log_artifacts(trainer.loggers, folder, lambda: passport_writer(module, data, scores))
        record.status = "done"
    except (KeyboardInterrupt, SystemExit) as error:
        record.status = "interrupted"
        # Lightning ends a run that was stopped as if it were done.
        raise SystemExit(getattr(error, "code", 0) or 128 + signal.SIGTERM) from error
    except BaseException as error:
        record.status = "diverged" if isinstance(error, Diverged) else "failed"
        raise
    finally:
        if memory is not None:
            record.metrics["memory"] = memory.report()
        record.data = _data_report(data)
        record.seconds = round(time.monotonic() - begin, 1)
        record.write(folder)
        for logger in trainer.loggers:
            logger.finalize("success" if record.status == "done" else "failed")
        close_wandb()
    write_passports(module, data, folder, record.metrics.get("test"))
    if memory is not None:
        print(memory.summary())
    print(f"run folder: {folder}", flush=True)
    return record.metrics["objective"]


def _build(cfg: DictConfig) -> tuple[Any, Any]:
    """Return the strategy, with base and the weights of an earlier stage if any, and the data."""
    import lightning as L

    from polylect.run.build import (
        build_data,
        build_strategy,
        checkpoint_path,
        load_backbone_into,
        restore_structure,
        resume_path,
    )
    from polylect.strategies.checkpoint import path_in_errors, read_checkpoint

    path = resume_path(cfg.resume) if cfg.resume else None
    path = checkpoint_path(cfg.init_from) if cfg.init_from else path
    before = read_checkpoint(path) if path else {}  # first, since what is wrong with it is cheap
    if cfg.resume and (best := path.with_name("best.ckpt")).is_file():
        read_checkpoint(best)  # which the run copies
    L.seed_everything(cfg.seed, verbose=False)
    data = build_data(cfg)
    if cfg.resume:
        check_unchanged(before, cfg)
    module = build_strategy(cfg)
    module.about["config"] |= {key: plain(cfg[key]) for key in CONTINUED}
    check_combination(module, cfg)
    check_sharing(module, cfg)
    if cfg.resume:
        restore_structure(module, before, path)
    load_backbone_into(module, data, cfg)
    if cfg.init_from:
        check_stage(module, before, path)
        with path_in_errors(path):
            module.load_stage(before)
    if module.trains:
        module.make_optimizer(
            max(cfg.trainer.max_steps, 1)
        )  # a bad setting must not wait for the base
    return module, data


def continued_config(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Return the configuration of the run that `resume` or `config` names, with `overrides`."""
    if cfg.resume and cfg.config:
        raise ConfigError("give config=… to begin again or resume=… to go on, not both.")
    if cfg.config:
        return repeat_config(cfg, overrides)
    if not cfg.resume:
        return cfg
    from polylect.run.build import resume_path
    from polylect.strategies.checkpoint import read_checkpoint

    path = resume_path(cfg.resume)
    return resume_config(cfg, stored_values(read_checkpoint(path)), path, overrides)


def _intervals(cfg: DictConfig, steps: int) -> None:
    """Let a run shorter than the interval between validations validate at its end.

    Its log has at least `_LOGGED` rows, so that its curves are some.
    """
    batches = steps * cfg.trainer.get("accumulate_grad_batches", 1)
    interval = cfg.trainer.get("val_check_interval")
    if isinstance(interval, int) and interval > batches > 0:
        cfg.trainer.val_check_interval = batches
    if cfg.trainer.get("log_every_n_steps", 1) > steps / _LOGGED > 0:
        cfg.trainer.log_every_n_steps = max(1, steps // _LOGGED)


def callbacks(cfg: DictConfig, folder: Path) -> list[Any]:
    """Return the configured callbacks, and those of every run."""
    from polylect.run.callbacks import own_callbacks
    from polylect.run.monitor.progress import progress

    configured = [
        instantiate(node, "callbacks", cfg.packages)
        for node in (cfg.callbacks or {}).values()
        if node
    ]
    bar = [progress()] if cfg.trainer.get("enable_progress_bar", True) else []
    return [*configured, *own_callbacks(folder), *bar]


def _fit(trainer: Any, module: Any, data: Any, cfg: DictConfig) -> None:
    from polylect.run.build import resume_path
    from polylect.run.callbacks import BestCheckpoint

    # An absolute path, since Lightning gives some names a meaning of their own.
    resume = resume_path(cfg.resume).absolute() if cfg.resume else None
    for callback in trainer.callbacks:
        if isinstance(callback, BestCheckpoint):
            callback.resumed = resume
    # Ctrl-C ends the run as SIGTERM does: at once while it loads, then after a batch, with a
    # checkpoint. A terminal sends it to all processes, and the first passes it on.
    end = (lambda *_: os.kill(os.getpid(), signal.SIGTERM)) if local_rank() == 0 else signal.SIG_IGN
    with signal_handlers({signal.SIGINT: end, signal.SIGTERM: raise_system_exit}):
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)


def _score_base(module: Any, data: Any, cfg: DictConfig, folder: Path, record: Record) -> None:
    """Score the untouched base: what a strategy computes before its first step, if it says so."""
    if not cfg.evaluate_base or cfg.resume or cfg.init_from or not module.identity_at_start:
        return
    from polylect.run.results.scoring import score_module

    print("the untouched base:", flush=True)
    record.metrics["base"] = score_module(module, data, folder / "base", cfg.metrics, samples=0)


def _finish(
    trainer: Any, module: Any, data: Any, cfg: DictConfig, folder: Path, record: Record
) -> None:
    """Go back to the best checkpoint, export, score, show."""
    from polylect.run.monitor.loggers import log_results
    from polylect.run.results.scoring import score_module
    from polylect.strategies.checkpoint import path_in_errors, read_checkpoint

    best = folder / "checkpoints" / "best.ckpt"
    if best.is_file():
        with path_in_errors(best):
            module.load_owned(read_checkpoint(best))
    module.to(trainer.strategy.root_device)
    module.export(folder)
    if not cfg.evaluate:
        return
    print("after training:", flush=True)
    record.metrics["test"] = score_module(module, data, folder, cfg.metrics)
    scores, base = record.metrics["test"], record.metrics.get("base")
    log_results(trainer.loggers, scores, data, folder, trainer.global_step, base)


def _data_report(data: Any) -> dict[str, Any]:
    return {"read": data.report, "drawn": data.stream.report() if data.stream else {}}
