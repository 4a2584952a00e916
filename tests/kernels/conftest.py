"""Fresh memory holds NaN; Triton's interpreter is chosen in the conftest above."""

import os
from collections.abc import Iterator

import pytest
import torch

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS refuses that mode


@pytest.fixture
def poisoned() -> Iterator[None]:
    """What a kernel does not write is NaN: torch fills new tensors in its deterministic mode."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
