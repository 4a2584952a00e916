"""The Triton kernel against the reference: interpreted, compiled for GPUs, and on one."""

import pytest
import torch
from helpers.replaced import BOTH, TOLERANCE, Case, assert_near, assert_same, make
from helpers.targets import SHARED_MEMORY, compile_all

from polylect.kernels.neuron_linear import reference


@torch.no_grad()
def against_reference(case: Case, tolerance: float) -> None:
    """The three products on the case's device; NaN is never near."""
    from polylect.kernels.neuron_linear import kernel

    plain = (case.weight, case.index, case.values.detach())
    x, grad = case.x.detach(), torch.randn_like(case.expected())
    for name, arguments in {
        "forward": (x, *plain, case.bias, case.own_bias, case.dim),
        "input_grad": (grad, *plain, case.dim),
        "values_grad": (grad, x, *plain[1:], case.dim),
    }.items():
        actual, want = (getattr(module, name)(*arguments) for module in (kernel, reference))
        assert (actual.shape, actual.dtype) == (want.shape, want.dtype)
        assert_near(actual, want, tolerance)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernel is not interpreted")
@pytest.mark.usefixtures("poisoned")
@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("tokens", "d_out", "d_in", "n"),
    [(5, 17, 23, 4), (33, 40, 70, 0), (20, 18, 18, 18), (1, 140, 3, 2), (0, 7, 9, 3)],
)
def test_kernel_is_the_reference(dim, dtype, tokens, d_out, d_in, n):
    case = make(dim, (tokens,), d_out, d_in, n, dtype)
    case.values = case.values.detach().float()
    against_reference(case, TOLERANCE[dtype])
    case.x = torch.randn(d_in, tokens, dtype=dtype).t()
    case.weight = torch.randn(d_in, d_out, dtype=dtype).t()
    case.bias = None
    against_reference(case, TOLERANCE[dtype])


CONTIGUOUS = {0: ("stride_bn", "stride_own_n"), 1: ("stride_bk", "stride_own_k")}


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("axis", "dtype"), [(1, "bf16"), slow(0, "bf16"), slow(0, "fp32"), slow(1, "fp32")]
)
def test_kernel_compiles_and_loads_rows_whole(axis, dtype):
    """With its largest tiles, for GPUs that are not here."""
    from polylect.kernels.neuron_linear import kernel

    tiles = kernel.tiling(4096, 4096, 4096, {"bf16": 2, "fp32": 4}[dtype])
    constants = dict.fromkeys(("stride_ak", "stride_add_n", "stride_out_n", *CONTIGUOUS[axis]), 1)
    constants |= {"AXIS": axis, "ALIGNED": True, "ADD": True, "PRECISION": "ieee"}
    constants |= {f"BLOCK_{size}": tiles[at] for at, size in enumerate("MNK")}
    types = dict.fromkeys(("a", "b", "own", "add", "out"), f"*{dtype}") | {"slot": "*i32"}
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages, "enable_fp_fusion": True}
    case = {"kernel": "product_kernel", "types": types, "constants": constants, "options": options}
    for made in compile_all(kernel.__name__, [case]):
        assert made["shared"] <= SHARED_MEMORY[made["target"]]
        # an unaligned choice between two tensors is loaded entry by entry, four times as slowly
        assert not made["narrow"]


def test_tiles_fit_every_gpu_since_sm_80():
    from polylect.kernels.neuron_linear.kernel import tiling

    for m in (1, 16, 33, 100, 5000):
        for n in (1, 64, 4096):
            for k in (1, 40, 4096):
                for itemsize in (2, 4):
                    tiles = tiling(m, n, k, itemsize)
                    entries = (tiles.block_m + tiles.block_n) * tiles.block_k * tiles.stages
                    assert entries * itemsize <= 99 * 1024
                    assert min(tiles[:3]) >= 16


@pytest.mark.gpu
@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "d_out", "d_in", "n"), [(5, 17, 23, 4), (300, 520, 264, 60)])
def test_on_a_gpu(dim, dtype, tokens, d_out, d_in, n):
    case = make(dim, (tokens,), d_out, d_in, n, dtype, device="cuda")
    against_reference(case, TOLERANCE[dtype])
    assert_same(case, TOLERANCE[dtype])
