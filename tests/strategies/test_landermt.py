"""LANDeRMT: what is particular to it; what all strategies do is in test_contract."""

from pathlib import Path

import pytest
import torch
from helpers.neurons import write_neurons
from helpers.small import DIRECTIONS, ROWS, base, batch_of, build, logits, train_a_little

from polylect.layers.neurons.ffn import neuron_banks
from polylect.layers.neurons.layer import NeuronLayer
from polylect.layers.neurons.rows import NeuronRows, plain_copy
from polylect.library import base_fingerprint
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses


@pytest.fixture(scope="module")
def neurons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_neurons(tmp_path_factory.mktemp("neurons"), base()[0], DIRECTIONS)


def make(neurons: Path, *overrides: str) -> TranslationModule:
    return build("landermt", f"strategy.neurons={neurons}", *overrides)


def steps(module: TranslationModule, direction: str, count: int = 3) -> None:
    batch = batch_of(module, [row for row in ROWS if row[0] == direction])
    groups = [{"params": group["params"]} for group in module.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, lr=0.05, weight_decay=0.5)
    for _ in range(count):
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()


def test_training_one_direction_moves_what_it_owns_and_nothing_else(neurons: Path) -> None:
    module = train_a_little(make(neurons))
    steps(module, "en-fr", 1)
    steps(module, "en-de", 1)  # every slice has been with an optimizer
    before = {name: t.clone() for name, t in module.state_dict().items()}
    steps(module, "en-fr")
    moved = {n for n, t in module.state_dict().items() if not torch.equal(t, before[n])}
    for bank in neuron_banks(module.backbone).values():
        for name, s in bank.sets.items():
            layer = bank.name.removeprefix("layer_")
            paths = [
                n for n in before if f"layers.{layer}." in n and n.endswith(f"neuron_values.{name}")
            ]
            assert len(paths) == 3
            assert all((path in moved) == ("en-fr" in s.owners) for path in paths)
    assert not any(".neuron_bank.gates.en-de" in name for name in moved)
    assert base_fingerprint(plain_copy(module.backbone)) == base_fingerprint(base()[0])


def test_specific_neurons_alone_leave_other_directions_bit_for_bit(neurons: Path) -> None:
    module = train_a_little(make(neurons, "strategy.trained=specific"))
    for bank in neuron_banks(module.backbone).values():  # none shared, for this test
        for name in [n for n, s in bank.sets.items() if len(s.owners) > 1]:
            bank.sets[name] = type(bank.sets[name])((), False, bank.sets[name].index)
    batch = batch_of(module, [row for row in ROWS if row[0] == "en-hi"])
    before = logits(module, batch)
    steps(module, "en-fr")
    assert torch.equal(logits(module, batch), before)


def test_monolingual_text_goes_through_the_base_bit_for_bit(neurons: Path) -> None:
    module = train_a_little(make(neurons))
    batch = batch_of(module, [("de", "", "Wir lesen.")])
    model, _ = base()
    expected = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert torch.equal(logits(module, batch), expected)


@pytest.mark.parametrize("gate", ["token", "neuron", "constant", "none"])
def test_every_gate_starts_from_the_base(neurons: Path, gate: str) -> None:
    module = make(neurons, f"strategy.gate={gate}")
    batch = batch_of(module)
    model, _ = base()
    expected = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(logits(module, batch), expected, atol=1e-5, rtol=1e-5)
    assert module.identity_at_start


def test_the_literal_gate_does_not(neurons: Path) -> None:
    module = make(neurons, "strategy.literal=true", "strategy.soft=true")
    batch = batch_of(module)
    model, _ = base()
    expected = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert (logits(module, batch) - expected).abs().max() > 1e-3
    assert not module.identity_at_start


def test_gradients_and_optimizer_state_exist_for_chosen_neurons_only(neurons: Path) -> None:
    module = make(neurons, "strategy.gate=none")
    steps(module, "en-de", 1)
    for layer in (m for m in module.backbone.modules() if isinstance(m, NeuronLayer)):
        assert layer.weight.grad is None
        own = sum(v.numel() for n, v in layer.neuron_values.items())
        chosen = sum(len(s.index) for s in layer.bank.sets.values())
        assert own == chosen * layer.weight.shape[1 - layer.axis]


def test_a_direction_without_neurons_is_refused(tmp_path: Path) -> None:
    file = write_neurons(tmp_path, base()[0], ["en-de", "en-fr"])
    with pytest.raises(ValueError, match=r"holds no neurons of en-hi; run `polylect detect`"):
        make(file)


def test_neurons_of_another_base_are_refused(neurons: Path) -> None:
    from dataclasses import replace

    from polylect.library.neurons.file import NeuronFile

    other = neurons.with_name("other.safetensors")
    replace(NeuronFile.read(neurons), base_fingerprint="0" * 64).write(other)
    with pytest.raises(ValueError, match="belongs to another base"):
        make(other)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("gate=tokens", "gate=tokens does not exist"),
        ("trained=all", "trained=all does not exist"),
        ("openness=1.5", "openness must be between 0 and 1"),
        ("gate_width=0", "gate_width must be at least 1"),
        ("noise=-1", "must not be negative"),
    ],
)
def test_bad_settings_die_early(neurons: Path, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(neurons, f"strategy.{setting}")


def test_a_budget_needs_a_gate_that_learns(neurons: Path) -> None:
    with pytest.raises(ValueError, match="needs a gate that learns"):
        make(neurons, "strategy.gate=constant", "strategy.budget=0.1")
    module = make(neurons, "strategy.budget=0.5", "strategy.openness=0.9", "strategy.soft=true")
    batch = batch_of(module)
    with module.routing(batch):
        module.backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        torch.testing.assert_close(module.auxiliary_loss(), torch.tensor(0.5 * 0.4))


def test_exported_rows_make_the_base_the_tuned_model(neurons: Path, tmp_path: Path) -> None:
    module = train_a_little(make(neurons, "strategy.gate=none"))
    module.export(tmp_path)
    model, _ = base()
    batch = batch_of(module, [row for row in ROWS if row[0] == "en-fr"])
    rows = NeuronRows.read(tmp_path / "rows" / "en-fr.safetensors")
    assert rows.about["base_fingerprint"] == base_fingerprint(model)
    former = rows.put_on(model)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    torch.testing.assert_close(model(**inputs).logits, logits(module, batch), atol=1e-5, rtol=1e-4)
    former.put_on(model)
    assert base_fingerprint(model) == base_fingerprint(base()[0])


def test_the_openness_of_gates_is_told_by_layer_and_direction(neurons: Path) -> None:
    module = make(neurons)
    logits(module, batch_of(module))
    metrics = module.telemetry()
    assert set(metrics) == {
        f"routing/layer_{layer}/openness/{d}"
        for layer in (0, 1)
        for d in ("en-de", "en-fr", "en-hi")
    }
    assert all(value == 1.0 for value in metrics.values())  # cut: logits of zero are open


def test_a_direction_can_be_written_into_a_plain_model(neurons: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from polylect.translator import Translator

    module = train_a_little(make(neurons, "strategy.gate=none"))
    difference = Translator(module, "cpu").export_merged("en-de", tmp_path / "en-de")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "en-de", dtype=torch.float32)
    batch = batch_of(module, [row for row in ROWS if row[0] == "en-de"])
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    assert torch.allclose(model(**inputs).logits, logits(module, batch), atol=1e-4)
    assert difference < 1e-4
    with pytest.raises(ValueError, match="en-xx has no tuned neurons"):
        Translator(module, "cpu").export_merged("en-xx", tmp_path / "en-xx")


@pytest.mark.parametrize(
    ("value", "dtype", "wrong"),
    [
        (float("nan"), torch.float32, r"model\.layers\..*weight has NaN or infinite values"),
        (7e4, torch.float16, r"weight has NaN .* too large for float16 \(model\.dtype=float32"),
        (3e38, torch.float32, "its logits are NaN or infinite, though"),
    ],
)
def test_a_plain_model_that_is_not_finite_is_not_written(
    neurons: Path, tmp_path: Path, value: float, dtype: torch.dtype, wrong: str
) -> None:
    from polylect.translator import Translator

    module = make(neurons, "strategy.gate=none")
    module.backbone.to(dtype)
    layers = [m for m in module.backbone.modules() if isinstance(m, NeuronLayer)]
    layer = next(m for m in layers if any("en-de" in s.owners for s in m.bank.sets.values()))
    layer.neuron_values.float()
    with torch.no_grad():
        for values in layer.neuron_values.values():
            values.fill_(value)
    with pytest.raises(ValueError, match=f"^en-de is not written into the weights, .*{wrong}"):
        Translator(module, "cpu").export_merged("en-de", tmp_path / "en-de")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("gate", ["token", "neuron", "constant"])
@pytest.mark.parametrize("soft", [True, False])
def test_what_a_gate_weighs_is_not_written_into_a_plain_model(
    neurons: Path, tmp_path: Path, gate: str, soft: bool
) -> None:
    from polylect.translator import Translator

    module = train_a_little(make(neurons, f"strategy.gate={gate}", f"strategy.soft={soft}"))
    with pytest.raises(ValueError, match=r"of en-de .* only a run with strategy\.gate=none can be"):
        Translator(module, "cpu").export_merged("en-de", tmp_path / "en-de")
    module.export(tmp_path)
    model, _ = base()
    before = base_fingerprint(model)
    with pytest.raises(ValueError, match=r"only a run with strategy\.gate=none"):
        NeuronRows.read(tmp_path / "rows" / "en-de.safetensors").put_on(model)
    assert base_fingerprint(model) == before
    assert {path.name for path in tmp_path.iterdir()} == {"rows"}
