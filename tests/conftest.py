"""Settings every test shares; they must be made before torch is imported."""

import importlib.util
import os
import shutil

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # waiting threads sleep: two cores are shared
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a core each
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reaches for the network fails at once
os.environ["WANDB_MODE"] = "offline"
if shutil.which("nvidia-smi") is None:  # read when Triton is imported, by whichever test is first
    os.environ["TRITON_INTERPRET"] = "1"

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("polylect", deadline=None)  # cores are shared
hypothesis.settings.load_profile("polylect")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers and loggers in every test, whichever tests ran before it."""
    import logging
    import random

    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    logging.root.setLevel(logging.WARNING)
    logging.getLogger("polylect").setLevel(logging.NOTSET)
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("polylect") and isinstance(logger, logging.Logger):
            logger.disabled = False  # Hydra disables those it finds, and lowers the root's level


@pytest.fixture(scope="session", autouse=True)
def shared_compositions() -> Iterator[None]:
    """Most of the time of a small test of a command is Hydra's, and the same in the next one."""
    if importlib.util.find_spec("hydra") is None:  # as where only the kernels are tested
        yield
        return
    from helpers import compositions

    with pytest.MonkeyPatch.context() as patch:
        compositions.share(patch)
        yield


@pytest.fixture(autouse=True)
def without_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures of runs, half of the time of the smallest ones, but where a test is of them.

    Fixtures of a wider scope come first, and draw.
    """
    if request.node.get_closest_marker("pictures") is None:
        monkeypatch.setattr("polylect.plots.save_all", lambda folder, *makers: {})


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of LoRA-switch on a tiny model; only for reading."""
    from helpers.tiny import train

    return train(tmp_path_factory.mktemp("runs"), "evaluate=true", "evaluate_base=true")
