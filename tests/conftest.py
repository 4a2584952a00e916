"""Settings every test shares; they must be made before torch is imported."""

import os
import shutil

os.environ.setdefault("GOMP_SPINCOUNT", "0")  # waiting threads sleep: two cores are shared
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that reaches for the network fails at once
os.environ["WANDB_MODE"] = "offline"
if shutil.which("nvidia-smi") is None:  # read when Triton is imported, by whichever test is first
    os.environ["TRITON_INTERPRET"] = "1"

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in every test, whichever tests ran before it."""
    import random

    import numpy
    import torch

    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of LoRA-switch on a tiny model; only for reading."""
    from tiny import train

    return train(tmp_path_factory.mktemp("runs"), "evaluate=true", "evaluate_base=true")
