"""LANDeRMT on output rows of linear layers and elements of norms, owned by languages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.neurons import write_rows
from helpers.small import ROWS, batch_of, logits, train_a_little
from helpers.tiny import MODEL, config
from torch import Tensor, nn
from torch.nn import functional as F

from polylect.data.prompt import template as find_template
from polylect.layers.context import RoutingContext
from polylect.layers.neurons.layer import NeuronLayer
from polylect.layers.neurons.row_bank import RowBank
from polylect.layers.neurons.row_layer import attach_rows, fill_gradients, mask_gradients
from polylect.layers.neurons.rows import NeuronRows, plain_copy
from polylect.layers.neurons.sets import NeuronSet
from polylect.library import base_fingerprint
from polylect.models.backbone import tiny_backbone
from polylect.run.build import build_strategy
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses

DIRECTIONS = "data.directions=[en-de,en-fr,en-hi]"
LANGUAGES = ("en", "de", "fr", "hi")
FAMILIES = ("llama", "qwen3", "gemma3", "bloom", "gpt_neox")  # norms of heads, fused, biases


@pytest.fixture(params=FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> str:
    return request.param


def make(
    family: str, folder: Path, *overrides: str, kinds: tuple[str, ...] = ()
) -> TranslationModule:

    model, tokenizer = tiny_backbone(family, hidden=32)
    file = write_rows(folder, model, LANGUAGES, kinds)
    settings = (f"strategy.neurons={file}", "strategy.gate=none", *overrides)
    module = build_strategy(config("train", *MODEL, DIRECTIONS, "strategy=landermt", *settings))
    module.set_backbone(model, tokenizer)
    return module


def layers(module: TranslationModule) -> Iterator[NeuronLayer]:
    return (m for m in module.backbone.modules() if isinstance(m, NeuronLayer))


def step(module: TranslationModule, direction: str) -> torch.optim.Optimizer:
    batch = batch_of(module, [row for row in ROWS if row[0] == direction])
    groups = [{"params": group["params"]} for group in module.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, lr=0.05, weight_decay=0.5)
    for _ in range(2):
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    return optimizer


def test_rows_begin_as_the_base(family: str, tmp_path: Path) -> None:
    module = make(family, tmp_path)
    batch = batch_of(module)
    expected = plain_copy(module.backbone)(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask
    ).logits
    torch.testing.assert_close(logits(module, batch), expected, atol=1e-5, rtol=1e-5)


def test_a_step_moves_the_rows_of_its_languages_and_nothing_else(
    family: str, tmp_path: Path
) -> None:
    module = train_a_little(make(family, tmp_path))
    before = {name: t.clone() for name, t in module.state_dict().items()}
    optimizer = step(module, "en-fr")
    moved = {n for n, t in module.state_dict().items() if not torch.equal(t, before[n])}
    values = {n for n in before if ".neuron_values." in n or ".neuron_bias." in n}
    own = {n for n in values if n.rpartition(".")[2] in ("general", "of_en", "of_fr")}
    assert moved <= own
    assert {n for n in own if ".neuron_values." in n} <= moved
    trained = sum(p.numel() for n, p in module.named_parameters() if n in own)
    states = [t for s in optimizer.state.values() for t in s.values() if t.dim()]
    assert sum(t.numel() for t in states) == 2 * trained  # and Adam remembers no other row


def test_a_mixed_batch_is_its_rows_alone(family: str, tmp_path: Path) -> None:
    module = train_a_little(make(family, tmp_path))
    batch = batch_of(module)
    mixed = logits(module, batch)
    for row, example in enumerate(ROWS):
        alone = logits(module, batch_of(module, [example]))
        torch.testing.assert_close(
            mixed[row : row + 1, : alone.shape[1]], alone, atol=2e-5, rtol=1e-4
        )


def test_exported_rows_make_the_base_the_tuned_model(family: str, tmp_path: Path) -> None:
    module = train_a_little(make(family, tmp_path))
    module.export(tmp_path)
    model = plain_copy(module.backbone)
    base = base_fingerprint(model)
    batch = batch_of(module, [row for row in ROWS if row[0] == "en-fr"])
    former = NeuronRows.read(tmp_path / "rows" / "en-fr.safetensors").put_on(model)
    actual = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(actual, logits(module, batch), atol=2e-5, rtol=1e-4)
    former.put_on(model)
    assert base_fingerprint(model) == base == module.base_fingerprint


def test_rows_of_one_module_are_rows_of_that_module_alone(tmp_path: Path) -> None:
    module = make("llama", tmp_path, kinds=("self_attn.q_proj",))
    assert {type(m).__name__ for m in layers(module)} == {"RowLinear"}
    assert len(list(layers(module))) == 2  # one in each layer


def test_a_new_direction_between_known_languages_has_the_rows_of_both(tmp_path: Path) -> None:
    module = train_a_little(make("llama", tmp_path))
    module.check_direction("de-fr")
    with pytest.raises(ValueError, match="direction de-ta was not trained"):
        module.check_direction("de-ta")
    batch = batch_of(module, [("de-fr", "Wir lesen.", "Nous lisons.")])
    before = logits(module, batch)
    step(module, "en-hi")  # moves general rows, and those of en and hi
    assert not torch.equal(logits(module, batch), before)
    bank = next(layers(module)).bank
    assert set(bank.used("de-fr")) == {"general", "of_de", "of_fr"}


def test_a_gate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no gate weighs: give strategy\.gate=none"):
        make("llama", tmp_path, "strategy.gate=token")


# Scaled and masked gradients, on one layer whose gradient is known.

SETS = [
    NeuronSet(("en", "de", "fr"), True, torch.tensor([0])),
    NeuronSet(("de",), False, torch.tensor([1])),
    NeuronSet(("fr",), False, torch.tensor([2])),
]
AWARENESS = {
    "en": torch.tensor([1.0, 9.0, 9.0]),
    "de": torch.tensor([3.0, 5.0, 9.0]),
    "fr": torch.tensor([7.0, 9.0, 2.0]),
}


def gradients(directions: tuple[str, ...], **how: object) -> dict[str, Tensor | None]:
    """Of the sum of a layer's outputs; without scales each is the sum of the rows' inputs."""
    torch.manual_seed(0)
    layer, context = nn.Linear(2, 3, bias=False).requires_grad_(False), RoutingContext()
    attach_rows(layer, RowBank(SETS, 3, context, "layer", torch.device("cpu"), **how))
    x = torch.tensor([[[1.0, 10.0]], [[100.0, 1000.0]]])[: len(directions)]
    with context.route(directions):
        layer(x).sum().backward()
    return {name: values.grad for name, values in layer.neuron_values.items()}


def test_gradients_are_scaled_by_the_awareness_of_each_rows_languages() -> None:
    grads = gradients(("en-de", "en-fr"), awareness=AWARENESS)
    first, second = torch.tensor([[1.0, 10.0]]), torch.tensor([[100.0, 1000.0]])
    assert torch.equal(grads["general"], 2 * first + 4 * second)  # (1 + 3) / 2, (1 + 7) / 2
    assert torch.equal(grads["of_de"], 5 * first)
    assert torch.equal(grads["of_fr"], 2 * second)


def test_shared_rows_are_gone_through_by_all_and_taught_by_their_own() -> None:
    grads = gradients(("en-de", "en-fr"), shared=True)
    assert torch.equal(grads["of_de"], torch.tensor([[1.0, 10.0]]))
    assert torch.equal(grads["general"], torch.tensor([[101.0, 1010.0]]))
    assert gradients(("en-de",), shared=True)["of_fr"] is None  # no step, no decay


def test_shared_rows_change_what_other_directions_say() -> None:
    for shared, same in ((False, True), (True, False)):
        layer, context = nn.Linear(2, 3).requires_grad_(False), RoutingContext()
        x = torch.ones(1, 1, 2)
        expected = F.linear(x, layer.weight, layer.bias)
        bank = RowBank(SETS, 3, context, "layer", torch.device("cpu"), shared=shared)
        attach_rows(layer, bank)
        with torch.no_grad():
            layer.neuron_values["of_fr"] += 1
        with context.route(["en-de"]):
            assert torch.allclose(layer(x), expected) == same


# What the code of the authors does otherwise, on the same layer: each with a step known by hand.


class Steps:
    """One layer in a module, with the hooks of a training step but no trainer."""

    def __init__(self, **how: object) -> None:
        torch.manual_seed(0)
        self.model, self.context = nn.Sequential(nn.Linear(2, 4, bias=False)), RoutingContext()
        layer = self.model[0].requires_grad_(False)
        sets = [*SETS, NeuronSet((), False, torch.tensor([3]))]
        bank = RowBank(sets, 4, self.context, "layer", torch.device("cpu"), shared=True, **how)
        attach_rows(layer, bank)
        self.values = layer.neuron_values

    def add(self, direction: str, x: list[float]) -> None:
        with self.context.route([direction]):
            self.model(torch.tensor([[x]])).sum().backward()


def test_a_mask_at_the_step_takes_the_last_directions_rows_and_all_gradients() -> None:
    right, published = Steps(), Steps(whole=True)
    for steps in (right, published):
        steps.add("en-de", [1.0, 10.0])
        steps.add("en-fr", [100.0, 1000.0])
    mask_gradients(published.model, "en-fr")
    first, both = torch.tensor([[1.0, 10.0]]), torch.tensor([[101.0, 1010.0]])
    assert torch.equal(right.values["of_de"].grad, first)
    assert published.values["of_de"].grad is None  # what en-de has taught its rows is lost
    assert torch.equal(right.values["of_fr"].grad, both - first)
    assert torch.equal(published.values["of_fr"].grad, both)  # and rows of fr learn from en-de
    assert torch.equal(published.values["general"].grad, both)


def test_decay_moves_rows_without_a_gradient_where_it_is_told_to() -> None:
    for frozen in (False, True):
        steps = Steps()
        before = {name: own.detach().clone() for name, own in steps.values.items()}
        optimizer = torch.optim.AdamW(steps.values.values(), lr=0.1, weight_decay=0.5)
        steps.add("en-de", [1.0, 10.0])
        if frozen:
            fill_gradients(steps.model)
        optimizer.step()
        for name in ("of_fr", "frozen"):
            factor = 1 - 0.1 * 0.5 if frozen else 1
            torch.testing.assert_close(steps.values[name].detach(), factor * before[name])


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"need strategy\.shared=true"):
        make("llama", tmp_path, "strategy.mask_at_step=true")
    with pytest.raises(ValueError, match=r"data\.template=country names countries"):
        make("llama", tmp_path, "strategy.language_names=false")
    with pytest.raises(ValueError, match=r"detected with categories\.rho=None, and strategy\.det"):
        make("llama", tmp_path, "strategy.detection={categories: {rho: 0.9}}")


def test_prompts_with_countries() -> None:
    _, tokenizer = tiny_backbone(hidden=32)
    written = [
        tokenizer.decode(find_template(name).encode(tokenizer, "We read.", "en-de"))
        for name in ("plain", "country")
    ]
    assert "from English into German." in written[0]
    assert "from English into Germany." in written[1]
