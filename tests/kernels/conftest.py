"""Kernels are run by Triton's interpreter where there is no GPU; fresh memory holds NaN."""

import os
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS refuses that mode


@pytest.fixture
def poisoned() -> Iterator[None]:
    """What a kernel does not write is NaN: torch fills new tensors in its deterministic mode."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
