"""`polylect train`: compose, validate, build, fit, score, record."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.checks import check_combination, check_settings
from polylect.config import ConfigError, plain, validate
from polylect.record import Record, new_folder, write_text
from polylect.sweep import RUN_FOLDER


def main(cfg: DictConfig) -> float | None:
    """Run one training job and return its objective: mean chrF++ on the test sets, or -loss."""
    if _rank() == 0:
        print(f"polylect train: {cfg.name}, loading …", flush=True)
    with run_folder(cfg) as folder, handling({signal.SIGTERM: stop}):
        return _run(cfg, folder)


def _rank() -> int:
    """Which of the processes on this machine this is."""
    return int(os.environ.get("LOCAL_RANK", 0))


def _run(cfg: DictConfig, folder: Path) -> float | None:
    begin = time.monotonic()
    register_resolvers(folder)
    validate(cfg)

    import lightning as L
    from hydra.utils import instantiate

    from polylect.build import adopt, build_data, build_strategy
    from polylect.terminal import announce, keep_freed_memory, quiet

    quiet()
    keep_freed_memory()
    check_settings(cfg)
    L.seed_everything(cfg.seed, verbose=False)
    data = build_data(cfg)
    module = build_strategy(cfg)
    check_combination(module, cfg)
    adopt(module, data, cfg)
    if module.trains:
        module.make_optimizer(cfg.trainer.max_steps)  # a bad setting must not wait for the base
    if cfg.dry_run:
        from polylect.preview import preview

        data.setup("fit")
        print(preview(module, data, cfg))
        return None

    folder.mkdir(parents=True, exist_ok=True)
    _validation_interval(cfg)
    trainer = instantiate(
        cfg.trainer,
        logger=instantiate(cfg.logger) or False,
        callbacks=callbacks(cfg, folder),
        default_root_dir=str(folder),
        _convert_="all",
    )
    if not trainer.is_global_zero:
        _fit(trainer, module, data, cfg)
        return None
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    record = Record(run=str(folder), config=plain(cfg))
    record.write(folder)
    for logger in trainer.loggers:
        logger.log_hyperparams(plain(cfg))
    announce(module, data, cfg, folder)
    try:
        _score_base(module, data, cfg, folder, record)
        _fit(trainer, module, data, cfg)
        record.metrics["train"] = {k: float(v) for k, v in trainer.callback_metrics.items()}
        record.metrics["steps"] = trainer.global_step
        _finish(trainer, module, data, cfg, folder, record)
        _draw(trainer, module, folder)
        record.status = "done"
    except (KeyboardInterrupt, SystemExit) as error:
        record.status = "interrupted"
        # Lightning ends a run that was stopped as if it were done.
        raise SystemExit(getattr(error, "code", 0) or 128 + signal.SIGTERM) from error
    except BaseException:
        record.status = "failed"
        raise
    finally:
        record.data = {"read": data.report, "drawn": data.stream.report() if data.stream else {}}
        record.seconds = round(time.monotonic() - begin, 1)
        record.write(folder)
        for logger in trainer.loggers:
            logger.finalize("success" if record.status == "done" else "failed")
        _close_wandb()
    print(f"run folder: {folder}", flush=True)
    return record.metrics["objective"]


@contextmanager
def run_folder(cfg: DictConfig) -> Iterator[Path]:
    """The folder of this run: chosen by a parent process, or a new one.

    Processes that this one starts find it in the environment. If nothing was written into it, as
    when a setting is wrong, it goes away again.
    """
    if RUN_FOLDER in os.environ or cfg.get("dry_run"):
        yield Path(os.environ.get(RUN_FOLDER, cfg.runs))
        return
    try:
        folder = new_folder(Path(cfg.runs) / cfg.name)
    except OSError as error:
        raise ConfigError(f"runs={cfg.runs} cannot be written to: {error.strerror}.") from error
    os.environ[RUN_FOLDER] = str(folder)
    try:
        yield folder
    finally:
        del os.environ[RUN_FOLDER]
        with suppress(OSError):
            folder.rmdir()


def register_resolvers(folder: Path) -> None:
    """`${run_folder:}` and `${wandb_offline:}` for the YAML files."""
    OmegaConf.register_new_resolver("run_folder", lambda: str(folder), replace=True)
    OmegaConf.register_new_resolver("wandb_offline", _wandb_offline, replace=True)


def _wandb_offline() -> bool:
    """Whether no account is set up: no key in the environment, none in ~/.netrc."""
    netrc = Path.home() / ".netrc"
    known = netrc.is_file() and "wandb" in netrc.read_text(encoding="utf-8", errors="replace")
    mode = os.environ.get("WANDB_MODE")
    return mode == "offline" if mode else not (os.environ.get("WANDB_API_KEY") or known)


def _validation_interval(cfg: DictConfig) -> None:
    """A run that is shorter than the interval between validations has one at its end."""
    interval, batches = cfg.trainer.get("val_check_interval"), _batches(cfg)
    if isinstance(interval, int) and interval > batches > 0:
        cfg.trainer.val_check_interval = batches


def _batches(cfg: DictConfig) -> int:
    return cfg.trainer.get("max_steps", -1) * cfg.trainer.get("accumulate_grad_batches", 1)


def callbacks(cfg: DictConfig, folder: Path) -> list[Any]:
    """The configured callbacks, and those of every run."""
    from hydra.utils import instantiate

    from polylect.callbacks import DataReport, LastCheckpoint, StopTogether
    from polylect.terminal import progress

    chosen = [instantiate(node) for node in (cfg.callbacks or {}).values() if node]
    bar = [progress()] if cfg.trainer.get("enable_progress_bar", True) else []
    ours = [LastCheckpoint(folder / "checkpoints"), StopTogether(), DataReport()]
    return [*chosen, *ours, *bar]


def _fit(trainer: Any, module: Any, data: Any, cfg: DictConfig) -> None:
    from polylect.build import checkpoint_path

    if cfg.init_from:
        import torch

        path = checkpoint_path(cfg.init_from)
        module.load_stage(torch.load(path, map_location="cpu", weights_only=False))
    resume = str(_resume_path(cfg.resume)) if cfg.resume else None
    # Ctrl-C ends the run as SIGTERM does: at once while it loads, then after a batch, with a
    # checkpoint. A terminal sends it to all processes, and the first passes it on.
    end = (lambda *_: os.kill(os.getpid(), signal.SIGTERM)) if _rank() == 0 else signal.SIG_IGN
    with handling({signal.SIGINT: end, signal.SIGTERM: stop}):
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=False)


@contextmanager
def handling(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Handle signals in this way and afterwards as before; in the main thread, where one may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(number: int, frame: Any) -> None:
    """A signal handler: end as if the program had been left, so that the record is written."""
    raise SystemExit(128 + number)


def _resume_path(resume: str) -> Path:
    """To go on means from where it stopped: the last checkpoint of a run folder."""
    from polylect.build import checkpoint_path

    last = Path(resume) / "checkpoints" / "last.ckpt"
    return last if last.is_file() else checkpoint_path(resume)


def _score_base(module: Any, data: Any, cfg: DictConfig, folder: Path, record: Record) -> None:
    """Score the untouched base: what a strategy computes before its first step, if it says so."""
    if not cfg.evaluate_base or cfg.resume or cfg.init_from or not module.identity_at_start:
        return
    from polylect.evaluate import evaluate

    print("the untouched base:", flush=True)
    record.metrics["base"] = evaluate(module, data, folder / "base", cfg.metrics, samples=0)


def _finish(
    trainer: Any, module: Any, data: Any, cfg: DictConfig, folder: Path, record: Record
) -> None:
    """Go back to the best checkpoint, export, score, show."""
    import torch

    from polylect.callbacks import log_results
    from polylect.evaluate import evaluate, mean_chrf

    best = folder / "checkpoints" / "best.ckpt"
    if best.is_file():
        state = torch.load(best, map_location="cpu", weights_only=False)["state_dict"]
        module.load_state_dict(state, strict=False)
    module.export(folder)
    if not cfg.evaluate:
        loss = record.metrics["train"].get("val/loss")
        record.metrics["objective"] = None if loss is None else -loss
        return
    device = trainer.strategy.root_device
    module.to(device)
    print("after training:", flush=True)
    record.metrics["test"] = evaluate(module, data, folder, cfg.metrics)
    record.metrics["objective"] = mean_chrf(record.metrics["test"])
    log_results(trainer.loggers, record.metrics["test"], data, folder, trainer.global_step)


def _draw(trainer: Any, module: Any, folder: Path) -> None:
    """Save the strategy's pictures, and show them to loggers."""
    from polylect.callbacks import log_pictures
    from polylect.plots import save_all

    files = save_all(lambda: module.pictures(folder), folder)
    log_pictures(trainer.loggers, files, trainer.global_step)


def _close_wandb() -> None:
    """End the wandb run, so that the next one in this process starts its own."""
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()
