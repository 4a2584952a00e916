"""The scores of neurons against slow ways of getting them, and against what they stand for."""

from collections.abc import Callable, Sequence
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn

from polylect.data.batch import IGNORED, Example, TranslationBatch, collate
from polylect.layers.neurons.awareness import FORMS, AwarenessMeter
from polylect.models.backbone import tiny_backbone
from polylect.models.families import family_of
from polylect.strategies.loss import target_losses

VOCABULARY = 300
FAMILIES = ("llama", "gpt_neox", "bloom", "gemma2")  # gated, plain, plain with residual, soft cap
LENGTHS = ((5, 4), (2, 6), (7, 1), (3, 3))  # of prompt and target


@cache
def base(family: str) -> nn.Module:
    model, _ = tiny_backbone(family, hidden=8, heads=2, vocabulary=VOCABULARY)
    generator = torch.Generator().manual_seed(3)
    for parameter in model.parameters():  # as made, activations and gradients are tiny
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.double()


def downs(model: nn.Module) -> list[nn.Module]:
    family = family_of(model.config)
    return [layer.get_submodule(family.down) for layer in model.get_submodule(family.layers)]


def sentences(seed: int = 0, lengths: Sequence[tuple[int, int]] = LENGTHS) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()  # noqa: E731
    return [Example(draw(prompt), draw(target), "en-de") for prompt, target in lengths]


def loss_of(model: nn.Module, batch: TranslationBatch) -> Tensor:
    return target_losses(model, batch)[0].sum()


def add(meter: AwarenessMeter, model: nn.Module, direction: int, batch: TranslationBatch) -> float:
    target = batch.labels != IGNORED
    source = batch.attention_mask.bool() & ~target
    return meter.add(direction, source, target, partial(loss_of, model, batch))


def measured(
    model: nn.Module, batches: Sequence[tuple[int, Sequence[Example]]], directions: int = 2
) -> AwarenessMeter:
    meter = AwarenessMeter(downs(model), directions)
    for direction, examples in batches:
        add(meter, model, direction, collate(examples, 0, "right"))
    return meter


def results(meter: AwarenessMeter) -> dict[str, Tensor]:
    relevance = {form: meter.relevance(form) for form in FORMS}
    return meter.awareness() | relevance | {"activation": meter.activation()}


def with_change(
    model: nn.Module, layer: int, change: Callable[[Tensor], Tensor], batch: TranslationBatch
) -> Tensor:
    """The loss where the activations of one layer are changed."""
    handle = downs(model)[layer].register_forward_pre_hook(lambda _, inputs: (change(inputs[0]),))
    try:
        return loss_of(model, batch)
    finally:
        handle.remove()


def one_by_one(model: nn.Module, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Awareness from a forward and a backward pass for every neuron and sentence, no padding."""
    layers, width = len(downs(model)), downs(model)[0].in_features
    sums = torch.zeros(2, layers, width, dtype=torch.float64)
    counts = torch.zeros(2, 1, 1, dtype=torch.float64)
    for example in examples:
        batch, prompt = collate([example], 0, "right"), len(example.prompt)
        counts += torch.tensor([prompt, len(example.target)]).view(2, 1, 1)
        for layer in range(layers):
            for neuron in range(width):
                alone: list[Tensor] = []

                def change(h: Tensor, neuron: int = neuron, alone: list = alone) -> Tensor:
                    alone.append(h[..., neuron].detach().requires_grad_())
                    parts = [h[..., :neuron], alone[0][..., None], h[..., neuron + 1 :]]
                    return torch.cat(parts, -1)

                (gradient,) = torch.autograd.grad(with_change(model, layer, change, batch), alone)
                product = (gradient * alone[0]).abs().detach()[0]
                sums[0, layer, neuron] += product[:prompt].sum()
                sums[1, layer, neuron] += product[prompt:].sum()
    means = sums / counts
    return {"source": means[0], "target": means[1]}


@pytest.mark.parametrize("family", FAMILIES)
def test_one_backward_pass_gives_what_a_loop_over_neurons_gives(family: str) -> None:
    model, examples = base(family), sentences(lengths=LENGTHS[:2])
    expected = one_by_one(model, examples)
    actual = measured(model, [(1, examples)]).awareness()
    for side in ("source", "target"):
        assert expected[side].max() > 1e-3
        # Norms and masks of the model are float32 inside.
        torch.testing.assert_close(actual[side][1], expected[side], rtol=1e-4, atol=1e-7)
        assert not actual[side][0].any()


def seen(model: nn.Module, example: Example) -> tuple[Tensor, Tensor]:
    """What goes into the down projections of all layers, and what comes out."""
    inputs, outputs = [], []

    def hook(module: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        inputs.append(given[0][0])
        outputs.append(output[0])

    handles = [down.register_forward_hook(hook) for down in downs(model)]
    with torch.no_grad():
        loss_of(model, collate([example], 0, "right"))
    for handle in handles:
        handle.remove()
    return torch.stack(inputs), torch.stack(outputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_activations_and_outputs_are_the_means_over_tokens(family: str) -> None:
    model, examples = base(family), sentences()
    inputs, outputs = zip(*(seen(model, example) for example in examples), strict=True)
    meter = measured(model, [(0, examples)], directions=1)
    positive = torch.cat(inputs, 1).gt(0).double().mean(1)
    torch.testing.assert_close(meter.activation()[0], positive)
    vectors = torch.stack([o.mean(1) for o in outputs]).mean(0)
    vector = (vectors[0] - vectors[1]).abs().mean()
    scalars = torch.stack([h.abs().mean((1, 2)) for h in inputs]).mean(0)
    even = vectors / vectors.square().mean(1, keepdim=True).sqrt()
    expected = {
        "vector": vector,
        "scalar": (scalars[0] - scalars[1]).abs(),
        "normalised": (even[0] - even[1]).abs().mean(),
    }
    for form, value in expected.items():
        actual = meter.relevance(form)
        torch.testing.assert_close(
            actual, torch.stack([value, torch.zeros_like(value)])[None], rtol=1e-4, atol=0.0
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_size_order_and_padding_change_nothing(family: str) -> None:
    model = base(family)
    one, other = sentences(1), sentences(2)
    together = results(measured(model, [(0, one), (1, other)]))
    alone = [(d, [e]) for d, part in ((1, other), (0, one)) for e in reversed(part)]
    apart = results(measured(model, alone))
    for name, value in together.items():
        torch.testing.assert_close(apart[name], value, rtol=1e-4, atol=1e-8)


def test_going_on_from_a_saved_state_gives_the_same_bits() -> None:
    model = base("llama")
    batches = [(0, sentences(1)), (1, sentences(2)), (0, sentences(3))]
    half, rest = measured(model, batches[:2]), AwarenessMeter(downs(model), 2)
    rest.load_state_dict(half.state_dict())
    add(rest, model, 0, collate(sentences(3), 0, "right"))
    add(half, model, 1, collate(sentences(4), 0, "right"))  # a state is a copy
    expected = results(measured(model, batches))
    assert all(torch.equal(value, expected[name]) for name, value in results(rest).items())
    assert rest.tokens() == measured(model, batches).tokens()


def test_no_weight_gets_a_gradient_and_the_model_is_as_before() -> None:
    model = tiny_backbone("llama", hidden=16, heads=2, vocabulary=VOCABULARY)[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    batch = collate(sentences(), 0, "right")
    for trainable in (True, False):
        model.requires_grad_(trainable)
        add(AwarenessMeter(downs(model), 1), model, 0, batch)
        assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_failed_pass_leaves_no_hooks() -> None:
    model = base("llama")
    meter = AwarenessMeter(downs(model), 1)
    mask = torch.ones(1, 2, dtype=torch.bool)

    def fail() -> Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        meter.add(0, mask, ~mask, fail)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_half_precision_is_added_up_in_full() -> None:
    model = tiny_backbone("llama", hidden=16, heads=2, vocabulary=VOCABULARY)[0]
    precise = results(measured(model, [(0, sentences())], 1))
    half = results(measured(model.bfloat16(), [(0, sentences())], 1))
    for name in ("source", "target", "vector"):
        assert half[name].dtype == torch.float64
        torch.testing.assert_close(
            half[name], precise[name], rtol=0.3, atol=3e-2 * float(precise[name].max())
        )


def test_projections_that_are_not_run_are_missed() -> None:
    model = base("llama")
    watched = [*downs(model), nn.Linear(16, 8)]
    mask = torch.ones(1, 9, dtype=torch.bool)
    batch = collate(sentences()[:1], 0, "right")
    with pytest.raises(RuntimeError, match="ran 2 down projections in one pass and has 3"):
        AwarenessMeter(watched, 1).add(0, mask, ~mask, partial(loss_of, model, batch))


def test_layers_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape, got 16 x 8, 16 x 32"):
        AwarenessMeter([nn.Linear(32, 16), nn.Linear(8, 16)], 1)


# What the scores stand for


@cache
def trained() -> tuple[nn.Module, list[Example]]:
    """A small model that has begun to learn: the target repeats the prompt in other words."""
    model = tiny_backbone("llama", hidden=24, heads=2, vocabulary=VOCABULARY)[0]

    def draw(count: int) -> list[Example]:
        words = [torch.randint(3, 40, (n,)).tolist() for n in torch.randint(3, 7, (count,))]
        return [Example([1, *word, 2], [token + 40 for token in word], "en-de") for word in words]

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        loss = target_losses(model, collate(draw(32), 0, "right"))[0].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 4.5  # 5.7 to begin with
    return model.requires_grad_(False), draw(16)


def spearman(one: Tensor, other: Tensor) -> float:
    ranks = [values.argsort().argsort().double() for values in (one, other)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def by_sentence(model: nn.Module, batch: TranslationBatch, layer: int, keep: Tensor) -> Tensor:
    """The loss of each row where the activations of a layer are multiplied by `keep`."""
    handle = downs(model)[layer].register_forward_pre_hook(lambda _, inputs: (inputs[0] * keep,))
    losses, rows = target_losses(model, batch)
    handle.remove()
    return torch.zeros(batch.rows).index_add(0, rows, losses)


def scores(model: nn.Module, examples: Sequence[Example], layer: int) -> Tensor:
    """Awareness summed over the tokens of both sides."""
    meter = measured(model, [(0, examples)], 1)
    sides = meter.awareness()
    return sum(count[0] * sides[side][0, layer] for side, count in meter.tokens().items())


def removed_at_one_token(model: nn.Module, examples: Sequence[Example], layer: int) -> Tensor:
    """Mean over tokens of the loss's change when a neuron is removed there, for every neuron."""
    width = downs(model)[layer].in_features
    changes = []
    for example in examples:
        length = example.length
        rows = collate([example] * length, 0, "right")  # in each row another token
        before = by_sentence(model, rows, layer, torch.ones(()))
        keep = torch.ones(width, length, length, width)
        for neuron in range(width):
            keep[neuron, range(length), range(length), neuron] = 0
        after = torch.stack([by_sentence(model, rows, layer, k) for k in keep], 1)
        changes.append((after - before[:, None]).abs())
    return torch.cat(changes).mean(0)


def removed_everywhere(model: nn.Module, examples: Sequence[Example], layer: int) -> Tensor:
    """Mean over sentences of the loss's change when a neuron is removed at all tokens."""
    batch, width = collate(examples, 0, "right"), downs(model)[layer].in_features
    before = by_sentence(model, batch, layer, torch.ones(()))
    after = [by_sentence(model, batch, layer, keep) for keep in 1 - torch.eye(width)]
    return (torch.stack(after) - before).abs().mean(1)


@pytest.mark.parametrize("layer", [0, 1])
def test_scores_rank_neurons_as_removing_them_does(layer: int) -> None:
    model, examples = trained()
    with torch.no_grad():
        one_token = removed_at_one_token(model, examples[:3], layer)
        all_tokens = removed_everywhere(model, examples, layer)
    at_one = spearman(scores(model, examples[:3], layer), one_token)
    everywhere = spearman(scores(model, examples, layer), all_tokens)
    print(f"layer {layer}: rank correlation {at_one:.3f} at one token, {everywhere:.3f} everywhere")
    assert at_one > 0.95
    assert everywhere > 0.8
