"""The output of a run before it begins: a quiet log and a header."""

import contextlib
import ctypes
import logging
import warnings
from pathlib import Path

from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar

from polylect.data.datamodule import TranslationData
from polylect.strategies.base import TranslationModule

SMALL_MODEL_RATE = 1e-3
"""Above it, adapters of a model with more than 100 million parameters are likely to diverge."""


def quiet() -> None:
    """Silence advertisements and hints of the libraries that do not help a user of this one."""
    disable_progress_bar()  # of loading weights
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    connector = "lightning.pytorch.trainer.connectors.signal_connector"
    logging.getLogger(connector).setLevel(logging.WARNING)
    _let_own_warnings_through()
    warnings.filterwarnings("ignore", message=".*num_workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists.*")
    warnings.filterwarnings("ignore", message=".*Experiment logs directory.*exists.*")


def _let_own_warnings_through() -> None:
    """Hydra has set the root to errors only, and has silenced each logger that was there before it:
    of modules that were imported to check the names of settings."""
    logging.getLogger("polylect").setLevel(logging.WARNING)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("polylect.") and isinstance(logger, logging.Logger):
            logger.disabled = False


def announce(
    module: TranslationModule, data: TranslationData, cfg: DictConfig, folder: Path, steps: str
) -> None:
    """Print in one paragraph model, strategy, directions, data, steps, and where results go."""
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    print(
        f"strategy    {type(module).__name__}: {trained:,} of {total:,} parameters train\n"
        f"directions  {', '.join(data.directions)}\n"
        f"steps       {steps}\n"
        f"run folder  {folder}",
        flush=True,
    )
    rate = cfg.optim.optimizer.get("lr")
    if rate is not None and rate > SMALL_MODEL_RATE and total > 1e8:
        print(
            f"warning: optim.optimizer.lr={rate} is a rate for models of a few million parameters, "
            f"and this one has {total:,}: optim=adamw has one for language models.",
            flush=True,
        )


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks: returning them to the kernel after every step costs a
    tenth of a small model's training time. No effect on other C libraries."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
