"""Feed-forward networks with slices, against sums over neurons written out one set at a time."""

import copy
import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.layers.context import RoutingContext
from polylect.layers.neurons.bank import NeuronBank
from polylect.layers.neurons.ffn import attach_neurons
from polylect.layers.neurons.gates import AwarenessGate, ConstantGate
from polylect.layers.neurons.rows import NeuronRows, plain_copy
from polylect.layers.neurons.sets import NeuronSet, ownership

HIDDEN, NEURONS = 6, 10
DIRECTIONS = ("en-de", "en-fr", "en-hi")
GENERAL, GERMAN, BOTH = [0, 3, 9], [1], [4, 6]  # BOTH belongs to en-de and en-fr
SETS = [
    NeuronSet(DIRECTIONS, True, torch.tensor(GENERAL)),
    NeuronSet(("en-de",), False, torch.tensor(GERMAN)),
    NeuronSet(("en-de", "en-fr"), False, torch.tensor(BOTH)),
]
SPECIFIC = {"en-de": [1, 4, 6], "en-fr": [4, 6], "en-hi": []}


class FFN(nn.Module):
    def __init__(self, gated: bool, bias: bool) -> None:
        super().__init__()
        if gated:
            self.gate = nn.Linear(HIDDEN, NEURONS, bias=bias, dtype=torch.float64)
        self.up = nn.Linear(HIDDEN, NEURONS, bias=bias, dtype=torch.float64)
        self.down = nn.Linear(NEURONS, HIDDEN, bias=bias, dtype=torch.float64)
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        h = F.silu(self.gate(x)) * self.up(x) if self.gated else F.gelu(self.up(x))
        return self.down(h)


def contribution(ffn: FFN, at: list[int], x: Tensor, openness: Tensor | float = 1.0) -> Tensor:
    """What the neurons `at` of a plain network give, with their input times `openness`."""

    def rows(layer: nn.Linear) -> Tensor:
        return F.linear(
            x * openness, layer.weight[at], layer.bias[at] if layer.bias is not None else None
        )

    h = F.silu(rows(ffn.gate)) * rows(ffn.up) if ffn.gated else F.gelu(rows(ffn.up))
    return h @ ffn.down.weight[:, at].T


def make(
    gate: Any = None, literal: bool = False, gated: bool = True, bias: bool = False
) -> tuple[FFN, FFN, FFN, RoutingContext]:
    """The base, the network with slices that have learnt, and what it is for all slices at once."""
    base = FFN(gated, bias).requires_grad_(False)
    ffn, context = copy.deepcopy(base), RoutingContext()
    gates = {d: copy.deepcopy(gate) for d in DIRECTIONS} if gate is not None else {}
    bank = NeuronBank(SETS, NEURONS, gates, literal, context, "layer_0", torch.device("cpu"))
    rows = {"gate": ffn.gate, "up": ffn.up} if gated else {"up": ffn.up}
    attach_neurons(ffn, rows, ffn.down, bank)
    tuned = copy.deepcopy(base)
    for name, layer in (*rows.items(), ("down", ffn.down)):
        for key, value in layer.neuron_values.items():
            value.data += 0.3 * torch.randn_like(value)
            at = getattr(bank, f"index_{key}")
            getattr(tuned, name).weight.data.index_copy_(layer.axis, at, value.data)
        for key, value in layer.neuron_bias.items():
            value.data += 0.3 * torch.randn_like(value)
            getattr(tuned, name).bias.data[getattr(bank, f"index_{key}")] = value.data
    return base, ffn, tuned, context


SHAPES = [(True, False), (False, True), (True, True)]
ROWS = ["en-de", "en-fr", "", "en-hi", "en-de"]


@pytest.mark.parametrize(("gated", "bias"), SHAPES)
def test_without_a_gate_tuned_neurons_replace_the_bases(gated: bool, bias: bool) -> None:
    base, ffn, tuned, context = make(gated=gated, bias=bias)
    x = torch.randn(5, 3, HIDDEN, dtype=torch.float64)
    with context.route(ROWS):
        y = ffn(x)
    for row, direction in enumerate(ROWS):
        own = GENERAL + SPECIFIC[direction] if direction else []
        rest = [n for n in range(NEURONS) if n not in own]
        expected = contribution(base, rest, x[row]) + contribution(tuned, own, x[row])
        expected = expected + (base.down.bias if bias else 0)
        torch.testing.assert_close(y[row], expected)


@pytest.mark.parametrize(("gated", "bias"), SHAPES)
@pytest.mark.parametrize("openness", [0.0, 0.3, 1.0])
def test_a_gate_weighs_what_tuning_changed(gated: bool, bias: bool, openness: float) -> None:
    base, ffn, tuned, context = make(ConstantGate(openness), gated=gated, bias=bias)
    x = torch.randn(5, 3, HIDDEN, dtype=torch.float64)
    with context.route(ROWS):
        y = ffn(x)
    for row, direction in enumerate(ROWS):
        expected = base(x[row])
        if direction:
            for at, weight in ((GENERAL, openness), (SPECIFIC[direction], 1 - openness)):
                change = contribution(tuned, at, x[row]) - contribution(base, at, x[row])
                expected = expected + weight * change
        torch.testing.assert_close(y[row], expected)


@pytest.mark.parametrize(("gated", "bias"), SHAPES)
def test_the_literal_gate_multiplies_the_input(gated: bool, bias: bool) -> None:
    base, ffn, tuned, context = make(ConstantGate(0.3), literal=True, gated=gated, bias=bias)
    x = torch.randn(5, 3, HIDDEN, dtype=torch.float64)
    with context.route(ROWS):
        y = ffn(x)
    for row, direction in enumerate(ROWS):
        special = SPECIFIC[direction] if direction else []
        general = GENERAL if direction else []
        rest = [n for n in range(NEURONS) if n not in special + general]
        expected = contribution(base, rest, x[row]) + (base.down.bias if bias else 0)
        expected = expected + contribution(tuned, general, x[row], 0.3)
        expected = expected + contribution(tuned, special, x[row], 0.7)
        torch.testing.assert_close(y[row], expected)


@pytest.mark.parametrize("neurons", [1, NEURONS])
def test_a_learned_gate_is_one_for_all_neurons_or_one_for_each(neurons: int) -> None:
    gate = AwarenessGate(HIDDEN, 4, neurons, soft=True).double()
    nn.init.normal_(gate.body[2].weight)
    gate.eval()
    base, ffn, tuned, context = make(gate)
    x = torch.randn(1, 3, HIDDEN, dtype=torch.float64)
    with context.route(["en-de"]):
        y = ffn(x)[0]
    g = gate(x[0]).expand(-1, NEURONS)
    expected = base(x[0])
    for at, weight in ((GENERAL, g), (SPECIFIC["en-de"], 1 - g)):
        for neuron in at:
            change = contribution(tuned, [neuron], x[0]) - contribution(base, [neuron], x[0])
            expected = expected + weight[:, [neuron]] * change
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        ffn.neuron_bank.openness["en-de"], g.mean() if neurons > 1 else gate(x).mean()
    )


@pytest.mark.parametrize("gate", [None, AwarenessGate(HIDDEN, 4, 1, soft=True).double()])
def test_slices_of_absent_owners_are_not_touched(gate: Any) -> None:
    _, ffn, _, context = make(gate)
    x = torch.randn(2, 3, HIDDEN, dtype=torch.float64)
    with context.route(["en-fr", "en-hi"]):
        ffn(x).square().sum().backward()
    for layer in (ffn.gate, ffn.up, ffn.down):
        assert layer.weight.grad is None
        assert layer.neuron_values["general"].grad.any()
        assert layer.neuron_values["of_en-de+en-fr"].grad.any()
        assert layer.neuron_values["of_en-de"].grad is None
    if gate is not None:
        assert all(p.grad is None for p in ffn.neuron_bank.gates["en-de"].parameters())


def test_rows_without_a_direction_are_the_base_bit_for_bit() -> None:
    for gate in (None, ConstantGate(0.5)):
        base, ffn, _, context = make(gate)
        x = torch.randn(2, 3, HIDDEN, dtype=torch.float64)
        with context.route(["", ""]):
            assert torch.equal(ffn(x), base(x))


def test_gates_are_noisy_in_training_and_hard_afterwards() -> None:
    gate = AwarenessGate(HIDDEN, 4, 1, soft=False)
    x = torch.randn(50, HIDDEN)
    assert torch.equal(gate(x), torch.full((50, 1), 0.5))  # training, no noise yet
    gate.noise = 5.0
    assert gate(x).std() > 0.2
    nn.init.normal_(gate.body[2].weight)
    gate.eval()
    assert set(gate(x).flatten().tolist()) == {0.0, 1.0}
    assert torch.equal(gate(x), gate(x))


def test_padding_does_not_count_towards_the_openness() -> None:
    gate = AwarenessGate(HIDDEN, 4, 1, soft=True).double().eval()
    nn.init.normal_(gate.body[2].weight)
    _, ffn, _, context = make(gate)
    x = torch.randn(1, 4, HIDDEN, dtype=torch.float64)
    with context.route(["en-de"], torch.tensor([[1, 1, 0, 0]])):
        ffn(x)
    torch.testing.assert_close(ffn.neuron_bank.openness["en-de"], gate(x[:, :2]).mean())


def test_masters_are_float32_under_a_base_of_half_precision() -> None:
    ffn = FFN(True, False).bfloat16().requires_grad_(False)
    context = RoutingContext()
    bank = NeuronBank(SETS, NEURONS, {}, False, context, "layer_0", torch.device("cpu"))
    attach_neurons(ffn, {"gate": ffn.gate, "up": ffn.up}, ffn.down, bank)
    with context.route(["en-de"]):
        y = ffn(torch.randn(1, 3, HIDDEN, dtype=torch.bfloat16))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    value = ffn.up.neuron_values["general"]
    assert value.dtype == value.grad.dtype == torch.float32


def test_ownership_groups_neurons_by_who_owns_them() -> None:
    general = torch.tensor([True, False, False, False, False])
    specific = torch.tensor(
        [[False, True, True, False, False], [False, False, True, True, False], [True] * 5]
    )
    sets = ownership(DIRECTIONS, general, specific, torch.tensor([True, True, False]))
    index_by_name = {s.name: s.index.tolist() for s in sets}
    assert index_by_name == {
        "general": [0],
        "of_en-de": [1],
        "of_en-de+en-fr": [2],
        "of_en-fr": [3],
    }
    assert sets[0].owners == ("en-de", "en-fr")


def test_a_file_of_rows_goes_on_the_base_and_off_again(tmp_path: Any) -> None:
    base, ffn, _, context = make(bias=True)
    holder = nn.ModuleDict({"ffn": ffn})
    NeuronRows.from_model(holder, "en-fr", "f" * 64).write(tmp_path / "en-fr.safetensors")
    rows = NeuronRows.read(tmp_path / "en-fr.safetensors")
    plain = nn.ModuleDict({"ffn": copy.deepcopy(base)})
    before = copy.deepcopy(plain.state_dict())
    former = rows.put_on(plain)
    x = torch.randn(1, 3, HIDDEN, dtype=torch.float64)
    with context.route(["en-fr"]):
        torch.testing.assert_close(plain["ffn"](x), ffn(x))
    former.put_on(plain)
    assert all(torch.equal(t, before[n]) for n, t in plain.state_dict().items())
    with pytest.raises(ValueError, match="en-xx has no tuned neurons"):
        NeuronRows.from_model(holder, "en-xx", "")
    bad = tmp_path / "bad.safetensors"
    path, values = next(iter(rows.values.items()))
    spoilt = replace(rows, values=rows.values | {path: values / 0})
    with pytest.raises(ValueError, match=f"{bad} is not written, .* {path}.* has NaN or infinite"):
        spoilt.write(bad)
    assert not bad.exists()
    shutil.copyfile(tmp_path / "en-fr.safetensors", bad)
    tensors, about = load_file(bad), safe_open(bad, "pt").metadata()
    next(t for t in tensors.values() if t.is_floating_point()).fill_(float("nan"))
    save_file(tensors, bad, about)
    with pytest.raises(ValueError, match=f"{bad}: .* its training has diverged"):
        NeuronRows.read(bad)


def test_rows_are_refused_where_they_do_not_fit() -> None:
    _, ffn, _, _ = make()
    rows = NeuronRows.from_model(nn.ModuleDict({"ffn": ffn}), "en-de", "")
    with pytest.raises(ValueError, match="has no layer ffn"):
        rows.put_on(nn.ModuleDict({}))
    smaller = nn.ModuleDict({"ffn": nn.Module()})
    for name in ("gate", "up", "down"):
        smaller["ffn"].add_module(name, nn.Linear(4, 4))
    with pytest.raises(ValueError, match="is 4 x 4"):
        rows.put_on(smaller)


def test_a_copy_without_slices_is_the_base() -> None:
    base, ffn, _, _ = make(ConstantGate(0.5))
    plain = plain_copy(nn.ModuleDict({"ffn": ffn}))
    assert plain.state_dict().keys() == nn.ModuleDict({"ffn": base}).state_dict().keys()
    x = torch.randn(1, 3, HIDDEN, dtype=torch.float64)
    assert torch.equal(plain["ffn"](x), base(x))


def test_a_quantised_projection_is_refused() -> None:
    ffn = FFN(True, False)
    ffn.up.weight = nn.Parameter(
        torch.zeros(NEURONS, HIDDEN, dtype=torch.int8), requires_grad=False
    )
    bank = NeuronBank(SETS, NEURONS, {}, False, RoutingContext(), "layer_0", torch.device("cpu"))
    with pytest.raises(ValueError, match=r"the up projection is a Linear in torch\.int8"):
        attach_neurons(ffn, {"gate": ffn.gate, "up": ffn.up}, ffn.down, bank)
