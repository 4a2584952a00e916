"""The bases of these tests."""

import pytest
from helpers.peft_bases import BASES
from transformers import PreTrainedModel


@pytest.fixture(params=list(BASES))
def base(request) -> PreTrainedModel:
    return BASES[request.param]().eval().requires_grad_(False)


@pytest.fixture
def plain() -> PreTrainedModel:
    return BASES["llama"]().eval().requires_grad_(False)
