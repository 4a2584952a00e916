"""Linear layers with a different adapter for every row."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from polylect.layers.context import RoutingContext
from polylect.layers.lora.attach import attach_all, attach_lora, detach_lora, lora_layers
from polylect.layers.lora.layer import LoRALinear, check_adapter_name

NAMES = ("de", "fr", "ta")


def randomize(layers, seed=0):
    """B is zero at the start; an adapter with a trace of training has not."""
    generator = torch.Generator().manual_seed(seed)
    for layer in layers.values():
        for factor in layer.lora_b.values():
            factor.data.normal_(std=0.3, generator=generator)


@pytest.fixture
def adapted(llama):
    """The model, its context and its layers with three trained adapters of different ranks."""
    context = RoutingContext()
    layers = attach_all(llama, "all-linear", context)
    for name, rank in zip(NAMES, (4, 2, 3), strict=True):
        for layer in layers.values():
            layer.add(name, rank, alpha=8)
    randomize(layers)
    return llama, context, layers


def ids(rows=4, length=6):
    return torch.randint(3, 50, (rows, length))


def logits(model, context, names, tokens):
    with context.route(names):
        return model(input_ids=tokens).logits


def linear_with(*adapters, kind=nn.Linear, **options):
    context = RoutingContext()
    layer = attach_lora(kind(6, 5), context, "layer")
    layer.weight.requires_grad_(False)
    layer.bias.requires_grad_(False)
    for rank, adapter in enumerate(adapters, start=2):
        layer.add(adapter, rank, alpha=4, **options)
    randomize({"layer": layer})
    return layer, context


# what attaching changes, and what it leaves


def test_attaching_keeps_objects_names_and_logits(llama):
    before = dict(llama.named_parameters())
    tokens = ids()
    expected = llama(input_ids=tokens).logits
    context = RoutingContext()
    layers = attach_all(llama, ["q_proj", "down_proj"], context)
    assert {name: id(p) for name, p in before.items()} == {
        name: id(p) for name, p in llama.named_parameters()
    }
    for layer in layers.values():
        layer.add("de", 4, alpha=8)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert torch.equal(logits(llama, context, ["de", "", "de", ""], tokens), expected)
    assert list(lora_layers(llama)) == list(layers)
    assert isinstance(llama.model.layers[0].self_attn.q_proj, LoRALinear)


def test_a_base_checkpoint_loads_before_and_after(llama):
    state = copy.deepcopy(llama.state_dict())
    attach_all(llama, ["q_proj"], RoutingContext())
    llama.load_state_dict(state)
    llama.model.layers[0].self_attn.q_proj.add("de", 2, alpha=2)
    new = set(llama.state_dict()) - set(state)
    assert new == {f"model.layers.0.self_attn.q_proj.lora_{x}.de" for x in "ab"}


def test_detaching_gives_the_linear_back():
    linear = nn.Linear(3, 3)
    attributes = set(vars(linear))
    assert detach_lora(attach_lora(linear, RoutingContext(), "x")) is linear
    assert type(linear) is nn.Linear
    assert set(vars(linear)) == attributes


def test_a_subclass_keeps_its_own_forward():
    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    layer, context = linear_with("de", kind=Doubled)
    x = torch.randn(2, 3, 6)
    update = layer.scaling["de"] * x[0] @ layer.lora_a["de"].T @ layer.lora_b["de"].T
    expected = 2 * nn.functional.linear(x, layer.weight, layer.bias)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), context.route(["de", ""]):
            y = layer(x)
        torch.testing.assert_close(y[0], expected[0] + update)
        torch.testing.assert_close(y[1], expected[1])


# rows and adapters


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("names", [["de", "fr", "", "ta"], ["fr", "fr", "de", "de"], ["ta"] * 4])
def test_a_mixed_batch_is_its_rows_alone(adapted, names, grad):
    model, context, _ = adapted
    tokens = ids()
    with torch.set_grad_enabled(grad):
        mixed = logits(model, context, names, tokens)
        for row, name in enumerate(names):
            alone = logits(model, context, [name], tokens[row : row + 1])
            torch.testing.assert_close(mixed[row : row + 1], alone, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("names", [["", "de", "fr", ""], ["de", "xx", "ta", "fr"]])
def test_an_adapter_that_is_not_finite_reaches_its_own_rows_only(adapted, names, dropout, bad):
    """Rows of the base alone are in no group of an adapter: 0 times NaN would be NaN."""
    model, context, layers = adapted
    model.eval()
    layers["model.layers.0.self_attn.k_proj"].remove("fr")  # its rows are the base's there
    if "xx" in names:
        layers["model.layers.1.self_attn.v_proj"].add("xx", 2, alpha=2)
    for layer in layers.values():
        layer.dropout["fr"] = dropout
    tokens, own = ids(), [name != "de" for name in names]
    expected = logits(model, context, names, tokens)
    expected[own].logsumexp(-1).sum().backward()
    others = {n: p for n, p in model.named_parameters() if p.requires_grad and "de" not in n}
    gradients = {n: p.grad.clone() for n, p in others.items() if p.grad is not None}
    model.zero_grad()
    for layer in layers.values():
        layer.lora_a["de"].data[0, 0] = bad
        layer.lora_b["de"].data[1] = bad
    actual = logits(model, context, names, tokens)
    torch.testing.assert_close(actual[own], expected[own], atol=1e-5, rtol=1e-5)
    assert not actual[names.index("de")].isfinite().any()
    actual[own].logsumexp(-1).sum().backward()
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name].grad, gradient, atol=1e-5, rtol=1e-4)
    for length in (6, 1):  # as in a prompt, and in a step of generation
        with torch.no_grad():
            actual = logits(model, context, names, tokens[:, :length])
        torch.testing.assert_close(actual[own], expected[own][:, :length], atol=1e-5, rtol=1e-5)


def test_an_adapter_that_is_not_finite_is_not_taken(adapted):
    layer = adapted[2]["model.layers.0.self_attn.k_proj"]
    before, revision = layer.lora_a["de"], layer.revision
    a, b = layer.lora_a["de"].detach().clone(), layer.lora_b["de"].detach().clone()
    for bad, words in (
        ((a * float("nan"), b, 1.0), r"'de' for .*k_proj is not finite: A has NaN"),
        ((a, b / 0, 1.0), "B has NaN or infinite values"),
        ((a, b, float("inf")), "the scaling has NaN or infinite values"),
    ):
        with pytest.raises(ValueError, match=words):
            layer.set("de", *bad)
    assert layer.lora_a["de"] is before and layer.revision == revision


def test_with_and_without_gradients_the_same(adapted):
    model, context, _ = adapted
    tokens, names = ids(), ["de", "", "ta", "de"]
    with torch.no_grad():
        expected = logits(model, context, names, tokens)
    torch.testing.assert_close(logits(model, context, names, tokens), expected)


def test_an_adapter_may_live_in_some_layers_only(adapted):
    model, context, layers = adapted
    for name, layer in layers.items():
        if "q_proj" not in name:
            layer.remove("fr")
    tokens = ids(2)
    both = logits(model, context, ["fr", "de"], tokens)
    assert not torch.allclose(both[0], logits(model, context, ["", ""], tokens)[0])
    torch.testing.assert_close(both[1], logits(model, context, ["de", "de"], tokens)[1])


def test_outside_a_route_the_layer_says_what_to_do(adapted):
    with pytest.raises(RuntimeError, match=r"inside strategy.routing\(batch\)"):
        adapted[0](input_ids=ids())
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"inside strategy.routing"):
        adapted[0](input_ids=ids())


@pytest.mark.parametrize("beams", [1, 3])
def test_generation_of_a_mixed_batch_is_that_of_its_rows(adapted, beams):
    model, context, _ = adapted
    tokens, names = ids(3), ["de", "fr", ""]
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": beams, "do_sample": False}

    def generate(names, tokens):
        with context.route(names):
            mask = torch.ones_like(tokens)
            return model.generate(input_ids=tokens, attention_mask=mask, **settings)

    mixed = generate(names, tokens)
    alone = [generate([n], tokens[i : i + 1]) for i, n in enumerate(names)]
    assert torch.equal(mixed, torch.cat(alone))
    assert not torch.equal(mixed[0, 6:], generate([""], tokens[:1])[0, 6:])


# training


def test_gradients_of_a_mixed_batch_are_those_of_separate_batches(adapted):
    model, context, layers = adapted
    tokens, names = ids(), ["fr", "de", "ta", "de"]
    logits(model, context, names, tokens).logsumexp(-1).sum().backward()
    mixed = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert len(mixed) == 2 * 3 * len(layers)
    model.zero_grad()
    for name in NAMES:
        rows = [row for row, other in enumerate(names) if other == name]
        part = logits(model, context, [name] * len(rows), tokens[rows])
        part.logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        if name in mixed:
            torch.testing.assert_close(mixed[name], parameter.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("grad", [True, False])
def test_a_named_adapter_that_no_layer_has_raises(adapted, grad):
    model, context, layers = adapted
    with torch.set_grad_enabled(grad):
        with pytest.raises(
            ValueError, match="no layer has an adapter named 'dee'; did you mean de"
        ):
            logits(model, context, ["de", "dee"], ids(2))
        for layer in list(layers.values())[1:]:
            layer.remove("de")
        logits(model, context, ["de", ""], ids(2))  # one layer has it still
        with context.route(["de", ""]):
            with pytest.raises(
                ValueError, match="'de' is in use: remove it when the batch is done"
            ):
                next(iter(layers.values())).remove("de")
            model(input_ids=ids(2))


def test_layers_are_counted_once_by_adapter_however_often_they_are_set():
    layer, context = linear_with("de")
    layer.set("de", torch.ones(1, 6), torch.ones(layer.out_features, 1), 1.0)
    assert context.adapters == {"de": 1}
    detach_lora(layer)
    assert not context.adapters["de"]


def test_an_absent_adapter_does_not_move(adapted):
    model, context, layers = adapted
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.5
    )
    for names in (["de", "fr", "ta", ""], ["de", "fr", "de", ""]):
        optimizer.zero_grad()
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        logits(model, context, names, ids()).logsumexp(-1).sum().backward()
        optimizer.step()
        for name, parameter in model.named_parameters():
            adapter = name.rpartition(".")[2]
            moved = not torch.equal(parameter, before[name])
            assert moved == (adapter in names), name
            assert (parameter.grad is None) == (adapter not in names)
    assert layers


@pytest.mark.parametrize("trainable", [False, True])
def test_a_trainable_base_gets_its_gradient_too(trainable):
    layer, context = linear_with("de", "fr")
    x = torch.randn(3, 2, 6, requires_grad=True)
    layer.requires_grad_(trainable)
    for factor in (*layer.lora_a.values(), *layer.lora_b.values()):
        factor.requires_grad_(True)
    with context.route(["de", "", "fr"]):
        layer(x).square().sum().backward()
    assert (layer.weight.grad is not None) == trainable
    weight, bias = layer.weight.detach(), layer.bias.detach()
    factors = [
        f.detach().requires_grad_() for d in (layer.lora_a, layer.lora_b) for f in d.values()
    ]
    rows = []
    for row, k in zip(x.detach(), (0, None, 1), strict=True):
        y = row @ weight.T + bias
        if k is not None:
            scale = 4 / (k + 2)
            y = y + scale * row @ factors[k].T @ factors[2 + k].T
        rows.append(y)
    torch.stack(rows).square().sum().backward()
    ours = [*layer.lora_a.values(), *layer.lora_b.values()]
    for mine, oracle in zip(ours, factors, strict=True):
        torch.testing.assert_close(mine.grad, oracle.grad, atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_gives_the_same_gradients(adapted):
    model, context, _ = adapted
    tokens, names = ids(), ["de", "fr", "", "de"]

    def gradients():
        model.zero_grad()
        logits(model, context, names, tokens).logsumexp(-1).sum().backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    model.train()
    expected = gradients()
    old, new = "gradient_checkpointing_enable", "activation_checkpointing_enable"  # from 5.2x on
    getattr(model, new if hasattr(model, new) else old)(
        {"use_reentrant": False, "context_fn": context.checkpointing}
    )
    torch.testing.assert_close(gradients(), expected)


def test_dropout_acts_in_training_and_on_its_own_rows():
    layer, context = linear_with("de")
    layer.add("fr", 2, alpha=2, dropout=0.5)
    layer.lora_b["fr"].data.fill_(1.0)
    x = torch.ones(2, 4000, 6)

    def forward():
        with context.route(["de", "fr"]):
            return layer(x)

    training = forward()
    layer.eval()
    evaluated = forward()
    torch.testing.assert_close(training[0], evaluated[0])
    assert not torch.allclose(training[1], evaluated[1])
    torch.testing.assert_close(training[1].mean(0), evaluated[1].mean(0), atol=0.05, rtol=0.05)


# what is kept between the passes of a route


def test_new_weights_count_at_once_within_a_route():
    layer, context = linear_with("de")
    x = torch.randn(1, 1, 6)
    with torch.no_grad(), context.route(["de"]):
        layer(x)
        layer.set("de", torch.ones(1, 6), torch.ones(5, 1), 1.0)
        y = layer(x)
        torch.testing.assert_close(y, nn.functional.linear(x, layer.weight, layer.bias) + x.sum())


def test_a_training_step_within_a_route_counts_at_once():
    layer, context = linear_with("de")
    x = torch.randn(1, 1, 6)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    with context.route(["de"]):
        with torch.no_grad():
            before = layer(x)
        layer(x).sum().backward()
        optimizer.step()
        with torch.no_grad():
            after = layer(x)
    assert not torch.allclose(before, after)


def test_a_deep_copy_shares_nothing(adapted):
    model, context, _ = adapted
    twin = copy.deepcopy(model)
    contexts = {id(layer.context) for layer in lora_layers(twin).values()}
    assert len(contexts) == 1
    assert id(context) not in contexts


# precision


@pytest.mark.parametrize("grad", [True, False])
def test_autocast_is_respected(adapted, grad):
    model, context, layers = adapted
    tokens, names = ids(), ["de", "", "ta", "de"]
    exact = logits(model, context, names, tokens)
    with torch.set_grad_enabled(grad), torch.autocast("cpu", torch.bfloat16):
        layer = layers["model.layers.0.mlp.up_proj"]
        with context.route(names):
            assert layer(torch.randn(4, 3, 32)).dtype == torch.bfloat16
        rough = logits(model, context, names, tokens)
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("grad", [True, False])
def test_float32_adapters_on_a_bfloat16_base(adapted, grad):
    model, context, layers = adapted
    tokens, names = ids(), ["de", "", "ta", "de"]
    exact = logits(model, context, names, tokens)
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if not isinstance(module, nn.ParameterDict):
                parameter.data = parameter.data.bfloat16()
    model.model.rotary_emb.float()
    with torch.set_grad_enabled(grad):
        rough = logits(model, context, names, tokens)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0.1)
    if grad:
        rough.float().logsumexp(-1).sum().backward()
        factor = layers["model.layers.0.mlp.up_proj"].lora_a["de"]
        assert factor.grad.dtype == torch.float32


def test_a_trainable_adapter_is_kept_in_float32():
    layer, _ = linear_with("de")
    half = torch.ones(1, 6, dtype=torch.bfloat16), torch.ones(5, 1, dtype=torch.bfloat16)
    layer.set("fr", *half, 1.0)
    layer.set("ta", *half, 1.0, trainable=True)
    assert layer.lora_a["fr"].dtype == torch.bfloat16
    assert layer.lora_a["ta"].dtype == torch.float32


# what is refused


@given(st.text(max_size=8))
def test_names_are_letters_digits_hyphens_and_underscores(name):
    allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
    if name and set(name) <= set(allowed) and not hasattr(nn.ParameterDict(), name):
        check_adapter_name(name)
    else:
        with pytest.raises(ValueError, match="adapter name"):
            check_adapter_name(name)


@pytest.mark.parametrize("name", ["keys", "training", "pop", "forward"])
def test_reserved_names_are_refused_with_another_offered(name):
    layer, _ = linear_with("de")
    with pytest.raises(ValueError, match=f"'{name}' is reserved .* 'lp_{name}'"):
        layer.add(name, 2, alpha=2)


def test_refusals_of_add_set_and_remove():
    layer, _ = linear_with("en-de")
    with pytest.raises(ValueError, match="'en-de' exists already in layer"):
        layer.add("en-de", 2, alpha=2)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        layer.add("fr", 0, alpha=2)
    with pytest.raises(ValueError, match=r"dropout must be .* got 1"):
        layer.add("fr", 1, alpha=2, dropout=1)
    with pytest.raises(ValueError, match=r"A \(2, 7\) and B \(5, 2\) for layer"):
        layer.set("fr", torch.zeros(2, 7), torch.zeros(5, 2), 1.0)
    with pytest.raises(ValueError, match="no adapter 'en-dd' in layer: did you mean en-de"):
        layer.remove("en-dd")
    assert list(layer.lora_a) == list(layer.scaling) == ["en-de"]


def test_refusals_of_attach():
    layer, context = linear_with("de")
    with pytest.raises(ValueError, match="layer has adapters already"):
        attach_lora(layer, context, "layer")
    with pytest.raises(ValueError, match=r"h.0.c_fc is a Conv1D: adapters are for nn.Linear"):
        attach_lora(Conv1D(3, 4), context, "h.0.c_fc")
