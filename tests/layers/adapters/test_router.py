"""Linear layers that route among adapters, against loops over tokens and adapters."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import DynamicCache

from polylect.layers.adapters import align, arrow_scores, spectral_scores
from polylect.layers.adapters import weighted_updates as adapter_mixing
from polylect.layers.adapters.bank import AdapterBank, Pages
from polylect.layers.adapters.calibration import EnergyStatistics
from polylect.layers.adapters.counts import RouteCounts
from polylect.layers.adapters.observers import Trace
from polylect.layers.adapters.router import AdapterRouter, attach_routing
from polylect.layers.adapters.selection import RouterSettings, Selection, select, tally
from polylect.layers.adapters.selectors import ModelVote, Oracle, selector_for
from polylect.layers.adapters.weighted_updates import up_project, weighted_update
from polylect.layers.context import RoutingContext
from polylect.layers.tokens import Tokens

IN, OUT = 12, 9
RANKS = {"a": 3, "b": 1, "c": 2, "d": 3, "e": 2}


def adapters(ranks=RANKS) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name: align(torch.randn(rank, IN), torch.randn(OUT, rank), 0.5)
        for name, rank in ranks.items()
    }


def bank_of(factors, pages=None, serving=None) -> AdapterBank:
    rank = max(len(a) for a, _ in factors.values())
    strengths = torch.stack(
        [functional.pad(b.norm(dim=0), (0, rank - len(a))) for a, b in factors.values()]
    )
    return AdapterBank(
        list(factors),
        torch.stack([a[0] for a, _ in factors.values()]),
        strengths,
        lambda name, which: factors[name]["ab".index(which)],
        OUT,
        pages,
        serving,
    )


def layer_with(banks, settings=None, counts=None, bias=True):
    """A routed layer, and its input's model: a module that gets ids and is watched."""
    context = RoutingContext()
    selector = selector_for(settings or RouterSettings(k=3))
    observers = [] if counts is None else [counts]
    router = AdapterRouter(context, dict.fromkeys(banks, selector), observers)
    linear = nn.Linear(IN, OUT, bias=bias).requires_grad_(False)
    return attach_routing(linear, router, banks, "layer"), router


def run(layer, x, mask=None, prompts=None, directions=None, **route):
    """One forward pass of rows, as a model of this layer alone would make it."""
    rows, length = x.shape[:2]
    mask = torch.ones(rows, length) if mask is None else mask
    prompts = mask.sum(1).long() if prompts is None else torch.tensor(prompts)
    with layer.router.route(directions or ["en-de"] * rows, prompts, **route):
        layer.router.on_forward(Tokens.from_mask(mask.long(), prompts))
        return layer(x)


def by_loop(layer, x, choices):
    """The definition: W x, and each chosen adapter's own update by its weight."""
    y = functional.linear(x, layer.weight, layer.bias)
    for t, choice in enumerate(choices):
        for weight, (a, b) in choice:
            y[t] += weight * b @ (a @ x[t])
    return y


@pytest.fixture(params=["dense", "sparse", "grouped"])
def form(request, monkeypatch):
    """All ways to multiply tokens with their adapters, whatever the sizes and the device."""
    monkeypatch.setattr(adapter_mixing, "_choose_path", lambda *_: request.param)
    return request.param


# the products


@pytest.mark.parametrize("mix_factors", [False, True])
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("tokens", [1, 7])
def test_updates_are_the_sums_of_their_adapters(form, tokens, k, mix_factors):
    factors = adapters()
    bank = bank_of(factors)
    x = torch.randn(tokens, IN)
    indices = torch.stack([torch.randperm(5)[:k] for _ in range(tokens)])
    weights = torch.rand(tokens, k)
    y = weighted_update(x, bank.a, bank.b, indices, weights, mix_factors=mix_factors)
    for t in range(tokens):
        chosen = [(w, *factors[bank.names[i]]) for w, i in zip(weights[t], indices[t], strict=True)]
        if mix_factors:
            a = sum(w * functional.pad(a, (0, 0, 0, 3 - len(a))) for w, a, _ in chosen)
            b = sum(w * functional.pad(b, (0, 3 - b.shape[1])) for w, _, b in chosen)
            expected = b @ (a @ x[t])
        else:
            expected = sum(w * b @ (a @ x[t]) for w, a, b in chosen)
        torch.testing.assert_close(y[t], expected, atol=1e-5, rtol=1e-4)
    if k == 1:
        h = torch.stack([bank.a[i] @ token for i, token in zip(indices[:, 0], x, strict=True)])
        expected = weighted_update(x, bank.a, bank.b, indices, torch.ones_like(weights))
        torch.testing.assert_close(up_project(h, bank.b, indices[:, 0]), expected)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("place", ["arrow", "a", "b", "strength"])
def test_a_bank_takes_no_adapter_that_is_not_finite(place, paged):
    """In a dense product 0 times its NaN would be in tokens that others are chosen for."""
    factors = adapters()
    if place == "arrow":
        factors["c"][0][0, 1] = float("nan")
    elif place == "a":
        factors["c"][0][1, 1] = float("inf")
    else:
        factors["c"][1][2, 0 if place == "strength" else 1] = float("nan")
    with pytest.raises(ValueError, match=r"adapter 'c' has NaN or infinite values.* delete align"):
        bank = bank_of(factors, Pages(10**6) if paged else None)
        bank.factor("a"), bank.factor("b")


# who is chosen


def test_arrow_sums_the_best_by_their_softmax():
    factors = adapters()
    layer, _ = layer_with({"l": bank_of(factors)}, RouterSettings("arrow", 2, temperature=0.5))
    x = torch.randn(1, 8, IN)
    choices = []
    for token in x[0]:
        scores = torch.stack([(a[0] @ token).abs() for a, _ in factors.values()])
        values, best = scores.topk(2)
        weights = (values / 0.5).softmax(0)
        pairs = list(factors.values())
        choices.append([(w, pairs[i]) for w, i in zip(weights, best, strict=True)])
    torch.testing.assert_close(run(layer, x)[0], by_loop(layer, x[0], choices))


@pytest.mark.parametrize("scores", ["proj", "energy", "calibrated"])
def test_spectr_takes_the_best_alike(scores):
    factors = adapters()
    bank = bank_of(factors)
    settings = RouterSettings("spectr", 2, scores, weights="uniform")
    x = torch.randn(1, 8, IN)
    a_star, strengths = bank.a, bank.strengths
    best = spectral_scores(x[0], a_star, scores, strengths=strengths).topk(2).indices
    pairs = list(factors.values())
    choices = [[(0.5, pairs[i]) for i in row] for row in best]
    layer, _ = layer_with({"l": bank}, settings)
    torch.testing.assert_close(run(layer, x)[0], by_loop(layer, x[0], choices))


def test_uniform_is_the_mean():
    factors = adapters()
    layer, _ = layer_with({"l": bank_of(factors)}, RouterSettings("uniform"))
    x = torch.randn(1, 4, IN)
    choices = [[(0.2, pair) for pair in factors.values()]] * 4
    torch.testing.assert_close(run(layer, x)[0], by_loop(layer, x[0], choices))


def test_lag_lies_between_arrow_and_spectr():
    factors = adapters({f"a{i}": 1 + i % 3 for i in range(9)})
    x = torch.randn(2, 40, IN)

    def output(*settings):
        torch.manual_seed(1)
        layer, _ = layer_with({"l": bank_of(factors)}, RouterSettings(*settings))
        return run(layer, x)

    arrow, spectr = output("arrow", 1), output("spectr", 1)
    torch.testing.assert_close(output("lag", 1), arrow)
    torch.testing.assert_close(output("lag", 9), spectr)
    torch.testing.assert_close(output("lag", 99), spectr)
    assert not torch.allclose(arrow, spectr)
    between = output("lag", 4)
    assert not torch.allclose(between, arrow) and not torch.allclose(between, spectr)


def test_libraries_are_routed_apart_and_both_applied():
    task, knowledge = adapters(), adapters({"x": 2, "y": 1})
    x = torch.randn(2, 6, IN)
    outputs = []
    for banks in ({"t": task}, {"k": knowledge}, {"t": task, "k": knowledge}):
        torch.manual_seed(1)
        layer, _ = layer_with({name: bank_of(factors) for name, factors in banks.items()})
        base = functional.linear(x, layer.weight, layer.bias)
        outputs.append(run(layer, x) - base)
    torch.testing.assert_close(outputs[0] + outputs[1], outputs[2], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("router", ["lag", "arrow", "spectr"])
def test_of_copies_the_first_is_taken_whatever_the_batch(router):
    """Copies score alike up to rounding, which depends on the batch's size."""
    one = adapters({"a": 3})["a"]
    factors = {f"c{i}": (one[0].clone(), one[1] * (1 + i)) for i in range(40)}
    bank = bank_of(factors)
    x = torch.randn(300, IN)
    settings = RouterSettings(router, 1)
    for part in (x, x[:37], x[5:6]):
        assert not select(part, bank, settings).indices.any()


# rows and padding


def test_padding_is_not_routed_and_not_counted():
    counts = RouteCounts()
    bank = bank_of(adapters(), serving={"en-de": 1})
    layer, _ = layer_with({"l": bank}, counts=counts)
    x = torch.randn(2, 5, IN)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    x[0, :2] = float("inf")
    y = run(layer, x, mask, [2, 4])
    torch.testing.assert_close(y[0, 2:], run(layer, x[:1, 2:], prompts=[2])[0])
    x[0, :2] = 7
    base = functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(run(layer, x, mask, [2, 4])[0, :2], base[0, :2])
    # Two passes of 8 real tokens, of which 6 are source, and one of 3, of which 2 are.
    by_side = {row["side"]: row["tokens"] for row in counts.rows()}
    assert by_side == {"source": 14, "target": 5}
    empty = run(layer, x, torch.zeros(2, 5, dtype=torch.long))
    torch.testing.assert_close(empty, base)


def test_a_row_does_not_depend_on_its_neighbours():
    layer, _ = layer_with({"l": bank_of(adapters({f"a{i}": 2 for i in range(30)}))})
    x = torch.randn(6, 11, IN)
    together = run(layer, x)
    for row in range(6):
        alone = run(layer, x[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-6, rtol=1e-5)


def test_a_sentence_takes_the_adapter_of_most_of_its_prompt():
    factors = adapters()
    bank = bank_of(factors)
    settings = RouterSettings("arrow", 1, level="sentence")
    x = torch.randn(3, 9, IN)
    mask = torch.ones(3, 9).long()
    mask[1, :3] = 0
    prompts = [9, 4, 5]
    single = select(x.flatten(0, 1), bank, replace(settings, level="token")).indices.view(3, 9)
    layer, router = layer_with({"l": bank}, settings)
    y = run(layer, x, mask, prompts)
    for row, begin in enumerate([0, 3, 0]):
        votes = single[row, begin : begin + prompts[row]].bincount(minlength=5)
        own = list(factors.values())[int(votes.argmax())]
        expected = by_loop(layer, x[row, begin:], [[(1, own)]] * (9 - begin))
        torch.testing.assert_close(y[row, begin:], expected)
    # The same, token by token behind a cache that holds the prompt.
    prompt = torch.tensor([5])
    with router.route(["en-de"], prompt):
        steps, cache = [], DynamicCache()
        for seen, until in ((0, 5), (5, 6), (6, 9)):
            whole = torch.ones(1, until).long()
            router.on_forward(Tokens.from_mask(whole, prompt, cache, past_length=seen))
            steps.append(layer(x[2:, seen:until]))
    torch.testing.assert_close(torch.cat(steps, 1), y[2:])
    with router.route(["en-de"], prompt):
        router.on_forward(Tokens.from_mask(mask[:1], prompt, DynamicCache(), past_length=6))
        with pytest.raises(RuntimeError, match="pass the empty cache"):
            layer(x[:1, 6:])


def test_votes_are_weights_over_what_counts():
    indices = torch.tensor([[0, 2], [1, 2], [1, 3], [0, 3]])
    weights = torch.tensor([[0.6, 0.4], [0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    rows, counted = torch.tensor([0, 0, 0, 1]), torch.tensor([True, True, False, True])
    actual = tally(Selection(indices, weights), rows, 2, counted, 4)
    expected = torch.tensor([[0.6, 0.5, 0.9, 0.0], [0.2, 0.0, 0.0, 0.8]])
    torch.testing.assert_close(actual, expected)


def test_an_election_is_over_all_layers_by_name():
    votes = {library: ModelVote(RouterSettings()) for library in ("l", "m")}
    votes["l"].add(("a", "b", "c"), torch.tensor([[1.0, 2, 0], [0, 0, 3]]))
    votes["l"].add(("b", "d"), torch.tensor([[1.0, 4], [3, 0]]))
    votes["m"].add(("z",), torch.tensor([[0.0], [1]]))
    votes["l"].add(("a", "b", "c"), torch.tensor([[3.0, 0, 0], [0, 0, 0]]))
    # a 4, b 3, c 0, d 4 and a 0, b 3, c 3, d 0: the first of those that tie
    winners = {library: vote.winners() for library, vote in votes.items()}
    assert winners == {"l": ["a", "b"], "m": ["z", "z"]}


def test_the_oracle_goes_by_the_direction():
    factors = adapters()
    bank = bank_of(factors, serving={"en-de": 2, "en-fr": 0})
    layer, _ = layer_with({"l": bank}, RouterSettings("oracle"))
    x = torch.randn(3, 4, IN)
    y = run(layer, x, directions=["en-fr", "de", "en-de"])
    pairs = list(factors.values())
    torch.testing.assert_close(y[0], by_loop(layer, x[0], [[(1, pairs[0])]] * 4))
    torch.testing.assert_close(y[1], functional.linear(x[1], layer.weight, layer.bias))
    torch.testing.assert_close(y[2], by_loop(layer, x[2], [[(1, pairs[2])]] * 4))


def test_an_input_without_rows_is_routed_token_by_token():
    counts = RouteCounts()
    layer, router = layer_with({"l": bank_of(adapters())}, counts=counts)
    x = torch.randn(2, 6, IN)
    expected = run(layer, x)
    counts.clear()
    with router.route(["a", "b"], torch.tensor([1, 1])):
        torch.testing.assert_close(layer(x.flatten(0, 1)), expected.flatten(0, 1))
    assert counts.rows() == []
    with (
        router.route(["a", "b"], torch.tensor([1, 1]), selectors={"l": Oracle()}),
        pytest.raises(ValueError, match="rows cannot be told"),
    ):
        layer(x.flatten(0, 1))
    with pytest.raises(RuntimeError, match=r"inside strategy\.routing\(batch\)"):
        layer(x)


def test_half_precision_and_autocast_choose_as_float32():
    factors = adapters()
    bank = bank_of(factors)
    layer, _ = layer_with({"l": bank})
    x = torch.randn(2, 5, IN).bfloat16().float()
    expected = run(layer, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = run(layer, x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, atol=0.1, rtol=0.05)
    layer.weight.data, layer.bias.data = layer.weight.data.bfloat16(), layer.bias.data.bfloat16()
    y = run(layer, x.bfloat16())
    torch.testing.assert_close(y.float(), expected, atol=0.1, rtol=0.05)


# factors on disk


@pytest.mark.parametrize("router", ["lag", "arrow", "spectr", "uniform"])
@pytest.mark.parametrize("mixing", ["output", "aligned"])
def test_pages_compute_what_memory_does(router, mixing):
    factors = adapters({f"a{i}": 1 + i % 3 for i in range(80)})
    settings = RouterSettings(router, 3, "energy", mixing=mixing)
    layer, _ = layer_with({"l": bank_of(factors)}, settings)
    x = torch.randn(2, 3, IN)
    expected = run(layer, x)
    pages = Pages(80 * 3 * max(IN, OUT) * 4)
    layer.lora_banks["l"] = bank_of(factors, pages)
    torch.testing.assert_close(run(layer, x), expected, atol=1e-6, rtol=1e-5)
    assert 0 < pages.bytes <= pages.budget_bytes
    loads = pages.loads
    if router in ("lag", "arrow"):
        assert loads <= 2 * x[..., 0].numel() * 3
        run(layer, x)
        assert pages.loads == loads


def test_pages_let_go_of_those_not_used_for_longest():
    pages, read = Pages(3 * 4), []

    def load(key):
        read.append(key)
        return torch.tensor([float(key)])

    def held():
        return (pages.loads, pages.hits, pages.evictions, pages.bytes)

    assert [int(t) for t in pages.get([1, 2], 4, load)] == [1, 2]
    pages.get([1, 3], 4, load)
    assert held() == (3, 1, 0, 12)
    assert [int(t) for t in pages.get([4, 1], 4, load)] == [4, 1]  # 2 goes, 1 is wanted
    pages.get([3], 4, load)
    assert held() == (4, 3, 1, 12)
    assert read == [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r"needs 4 adapters of 4 bytes at once, the budget is 12"):
        pages.get([5, 6, 7, 8], 4, load)
    assert held() == (4, 3, 1, 12)
    with pytest.raises(ValueError, match="must be positive, got 0"):
        Pages(0)


# what is counted


@pytest.mark.parametrize("noted", [0, 10**6])
def test_counts_worked_by_hand(monkeypatch, noted):
    """At once, or together when they are asked for."""
    monkeypatch.setattr("polylect.layers.adapters.counts._NOTED", noted)
    counts = RouteCounts()
    bank = bank_of(adapters({"a": 1, "b": 1, "c": 1}), serving={"en-fr": 2})
    assert counts.number(["en-de", "en-fr", "en-de"]) == [0, 1, 0]
    # Direction times two, plus one on the target side.
    cells = torch.tensor([0, 0, 1, 3])
    indices = torch.tensor([[0, 1], [0, 2], [1, 2], [1, 2]])
    weights = torch.tensor([[0.75, 0.25], [0.5, 0.5], [1.0, 0.0], [0.25, 0.75]])
    counts.add("l", "layer", bank, cells, Selection(indices, weights))
    assert counts.layer_sums("l", "layer").tolist() == [
        [[1.25, 0.25, 0.5], [0, 1, 0]],
        [[0, 0, 0], [0, 0.25, 0.75]],
    ]
    assert counts.rows()[2] == {
        "library": "l",
        "layer": "layer",
        "direction": "en-fr",
        "side": "target",
        "tokens": 1,
        "shares": {"b": 0.25, "c": 0.75},
        "agreement": 0.75,
    }
    assert [row["agreement"] for row in counts.rows()] == [None, None, 0.75]
    counts.number(["en-hi"])
    counts.add("l", "layer", bank, torch.tensor([4]), Selection(indices[:1], weights[:1]))
    assert counts.layer_sums("l", "layer").sum() == 5
    means = counts.means()
    assert means["layer/l/target/share/b"] == pytest.approx(0.625)
    assert means["layer/l/target/agreement"] == 0.75
    assert "layer/l/source/agreement" not in means
    assert means["layer/l/source/share/a"] == pytest.approx(2 / 3)


def test_a_trace_has_the_strongest_of_each_token():
    bank = bank_of(adapters())
    layer, _ = layer_with({"l": bank}, RouterSettings("arrow", 3))
    x, mask = torch.randn(2, 4, IN), torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    trace = Trace()
    run(layer, x, mask, observers=[trace])
    best = arrow_scores(x.flatten(0, 1), bank.arrows).argmax(1).view(2, 4)
    assert torch.equal(trace.strongest["l", "layer"], torch.where(mask.bool(), best, -1))


def test_energies_are_measured_on_the_adapters_own_rows():
    factors = adapters({"a": 3, "b": 1})
    bank = bank_of(factors, serving={"en-de": 1, "en-fr": 0})
    layer, _ = layer_with({"l": bank}, RouterSettings("oracle"))
    x = torch.randn(3, 20, IN)
    energies = EnergyStatistics()
    run(layer, x, directions=["en-fr", "en-de", "hi"], observers=[energies])
    energies.apply()
    for i, (a, b) in enumerate(factors.values()):
        sizes = (x[i] @ a.T @ b.T).norm(dim=1)
        torch.testing.assert_close(bank.mean[i], sizes.mean())
        torch.testing.assert_close(bank.std[i], sizes.std(correction=0))
    for pages in (None, Pages(10**6)):
        measured = bank_of(factors, pages)
        measured.mean, measured.std = bank.mean, bank.std
        chosen = select(x[0], measured, RouterSettings("lag", 2, "calibrated")).indices
        energy = spectral_scores(x[0], bank.a, "energy", strengths=bank.strengths)
        assert torch.equal(chosen[:, 0], ((energy - bank.mean) / bank.std).argmax(1))
    energies = EnergyStatistics()
    with pytest.raises(ValueError, match="without text"):
        energies.apply()
    run(layer, x, directions=["en-fr", "hi", "hi"], observers=[energies])
    with pytest.raises(ValueError, match="adapter 'b' cannot be calibrated"):
        energies.apply()


# settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"router": "arow"}, "strategy.router=arow does not exist; did you mean arrow"),
        ({"form": "energie"}, "strategy.form=energie does not exist; did you mean energy"),
        ({"weights": "soft"}, "strategy.weights=soft"),
        ({"mixing": "outputs"}, "did you mean output"),
        ({"level": "row"}, "strategy.level=row"),
        ({"k": 0}, "strategy.k must be at least 1 adapter, got 0"),
        ({"temperature": 0}, "strategy.temperature must be positive"),
        ({"mixing": "trained"}, "cannot be routed by lag, whose scores need the aligned"),
    ],
)
def test_wrong_settings_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        RouterSettings(**settings)


def test_routing_goes_onto_a_linear_layer_once():
    router = AdapterRouter(RoutingContext(), {})
    with pytest.raises(ValueError, match="x is a LayerNorm"):
        attach_routing(nn.LayerNorm(3), router, {}, "x")
    layer, _ = layer_with({"l": bank_of(adapters())})
    names = set(layer.state_dict())
    assert names == {"weight", "bias"}
    with pytest.raises(ValueError, match="x is a RoutedLinear: routing goes once"):
        attach_routing(layer, router, {}, "x")
