"""The base's fingerprint: sees every change of the base, and no adapter."""

import pytest
import torch
from helpers.peft_bases import attach_random_adapters

from polylect.library import base_fingerprint


def test_adapters_leave_it_alone_and_a_single_bit_does_not(plain):
    before = base_fingerprint(plain)
    layers, _ = attach_random_adapters(plain, de=2, fr=3)
    assert base_fingerprint(plain) == before
    next(iter(layers.values())).remove("de")
    assert base_fingerprint(plain) == before
    weight = plain.model.layers[1].mlp.up_proj.weight
    weight.view(torch.int32)[0, 0] ^= 1
    assert base_fingerprint(plain) != before
    weight.view(torch.int32)[0, 0] ^= 1
    assert base_fingerprint(plain) == before


@pytest.mark.parametrize("change", ["name", "dtype", "shape"])
def test_it_covers_names_types_and_shapes(change):
    one = torch.nn.Module()
    one.weight = torch.nn.Parameter(torch.zeros(2, 3))
    other = torch.nn.Module()
    if change == "name":
        other.weights = torch.nn.Parameter(torch.zeros(2, 3))
    elif change == "dtype":
        other.weight = torch.nn.Parameter(torch.zeros(2, 3, dtype=torch.float16))
    else:
        other.weight = torch.nn.Parameter(torch.zeros(3, 2))
    assert base_fingerprint(one) != base_fingerprint(other)


def test_strided_scalar_and_buffer_tensors_count():
    module = torch.nn.BatchNorm1d(3)
    before = base_fingerprint(module)
    module.num_batches_tracked += 1
    assert base_fingerprint(module) != before
    twin = torch.nn.Linear(2, 2, bias=False)
    strided = torch.nn.Linear(2, 2, bias=False)
    strided.weight = torch.nn.Parameter(twin.weight.detach().T.contiguous().T)
    assert base_fingerprint(twin) == base_fingerprint(strided)
