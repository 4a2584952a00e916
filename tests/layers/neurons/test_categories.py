"""Which layers are chosen and who owns which neuron, against the definitions and as properties."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polylect.layers.neurons.categories import RULES, Categories, categorise, choose_layers

SEEDS = st.integers(0, 2**31)
SHARES = st.sampled_from([0.0, 0.05, 0.29, 0.5, 0.7, 0.9, 1.0])
STATED = [rule for rule in RULES if rule not in ("random", "rotated")]


def scores(seed: int, directions: int, neurons: int, levels: int = 3) -> Tensor:
    """Few levels make many ties; no direction is all zero."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, levels, (directions, neurons), generator=generator).double()
    values[:, seed % neurons] += 1
    return values * (1 + torch.arange(directions)[:, None])


def made(values: Tensor, rule: str, seed: int = 0, **options: object) -> Categories:
    generator = torch.Generator().manual_seed(seed)
    return categorise(values, rule, activation=values, generator=generator, **options)


def floor(share: float, count: int) -> int:
    return math.floor(Fraction(str(share)) * count)


UNORDERED = [rule for rule in RULES if rule != "rotated"]
DIRECTIONS, NEURONS = st.integers(1, 5), st.integers(1, 40)


@settings(max_examples=60)
@given(SEEDS, st.sampled_from(RULES), SHARES, SHARES, SHARES, DIRECTIONS, NEURONS)
def test_every_neuron_that_takes_part_is_general_or_has_owners(
    seed, rule, rho, own, share, directions, neurons
):
    categories = made(scores(seed, directions, neurons), rule, rho=rho, own=own, share=share)
    owned = categories.specific.any(0)
    assert not (categories.general & owned).any()
    part = floor(share, neurons)
    assert int(categories.general.sum()) == floor(rho, part)
    assert int((categories.general | owned).sum()) == part


@settings(max_examples=60)
@given(SEEDS, st.sampled_from(UNORDERED), SHARES, SHARES, DIRECTIONS, NEURONS)
def test_another_order_of_directions_permutes_the_owners(
    seed, rule, rho, share, directions, neurons
):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(directions, neurons, generator=generator)
    values[:, : neurons // 2] = values[:, :1]  # ties
    order = torch.randperm(directions, generator=generator)
    categories = made(values, rule, rho=rho, share=share)
    moved = made(values[order], rule, rho=rho, share=share)
    assert torch.equal(moved.general, categories.general)
    assert torch.equal(moved.specific, categories.specific[order])


@settings(max_examples=30)
@given(SEEDS, st.sampled_from(STATED), SHARES, SHARES, DIRECTIONS, NEURONS)
def test_ties_go_to_the_lower_index(seed, rule, rho, share, directions, neurons):
    """Of equal columns the first ones take part, and of those the first are general."""
    column = scores(seed, directions, 1)
    categories = made(column.expand(directions, neurons), rule, rho=rho, share=share)
    part = floor(share, neurons)
    general = floor(rho, part)
    assert categories.general.nonzero().flatten().tolist() == list(range(general))
    assert categories.specific.all(0).nonzero().flatten().tolist() == list(range(general, part))


@settings(max_examples=40)
@given(SEEDS, st.sampled_from(STATED), st.integers(1, 4), st.integers(1, 30))
def test_rules_are_what_they_say(seed, rule, directions, neurons):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(directions, neurons, generator=generator, dtype=torch.float64)
    even = values / values.mean(1, keepdim=True)
    part = even / even.sum(0)
    spread = {
        "std": even.std(0, correction=0),
        "cv": even.std(0, correction=0) / even.mean(0),
        "sum": -even.sum(0),
        "entropy": (part * part.log()).sum(0),
    }[rule]
    categories = made(values, rule, rho=0.7, own=0.8)
    general = floor(0.7, neurons)
    if directions > 1:
        assert int(categories.general.sum()) == general
        least = spread[~categories.general].min() if general < neurons else math.inf
        assert (
            not general or spread[categories.general].max() <= least + 1e-9
        )  # two neurons may tie
    expected = (even > 0.8 * even.max(0).values) & ~categories.general
    assert torch.equal(categories.specific, expected)


def test_the_most_aware_neurons_take_part() -> None:
    values = torch.tensor([[1.0, 9.0, 2.0, 0.0], [2.0, 0.0, 2.0, 20.0]])
    categories = made(values, "std", share=0.5, rho=0.5)  # columns 1 and 3, of which 1 varies less
    assert categories.general.tolist() == [False, True, False, False]
    assert categories.specific.tolist() == [[False] * 4, [False, False, False, True]]


def test_entropy_looks_at_activations_and_awareness_decides_who_takes_part() -> None:
    aware = torch.tensor([[1.0, 1.0, 1.0, 0.1], [1.0, 1.0, 1.0, 0.1]])
    active = torch.tensor([[0.5, 0.9, 0.1, 0.5], [0.5, 0.1, 0.9, 0.5]])
    categories = categorise(aware, "entropy", activation=active, share=0.75, rho=0.34)
    assert categories.general.tolist() == [True, False, False, False]
    assert categories.specific.tolist() == [
        [False, True, False, False],
        [False, False, True, False],
    ]


@settings(max_examples=30)
@given(SEEDS, st.integers(0, 99), SHARES, DIRECTIONS, NEURONS)
def test_the_placebo_deals_out_what_the_default_rule_gives(seed, draw, share, directions, neurons):
    values = scores(seed, directions, neurons)
    real, placebo = made(values, "std", share=share), made(values, "random", draw, share=share)
    columns = [sorted(torch.cat([c.general[None], c.specific]).T.tolist()) for c in (real, placebo)]
    assert columns[0] == columns[1]
    again = made(values, "random", draw, share=share)
    assert torch.equal(again.general, placebo.general)
    assert torch.equal(again.specific, placebo.specific)


def test_placebos_of_two_seeds_differ() -> None:
    values = scores(1, 3, 40, levels=100)
    assert not torch.equal(made(values, "random", 1).general, made(values, "random", 2).general)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rule": "sdt"}, r"categories.rule=sdt does not exist; did you mean std\?"),
        ({"rho": 1.5}, r"categories.rho must be from 0 to 1, got 1.5"),
        ({"own": -1}, "categories.own must be"),
        ({"share": 2}, "categories.share must be"),
        ({"rule": "entropy"}, "needs the activation shares"),
        ({"scores": torch.zeros(2, 3)}, "awareness of neurons must be finite"),
        ({"scores": torch.tensor([[1.0, -1e-3, 1.0]])}, "not negative"),
        ({"scores": torch.tensor([[1.0, math.nan, 1.0]])}, "finite"),
    ],
)
def test_a_mistake_is_one_sentence(change: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        categorise(**{"scores": torch.ones(2, 3)} | change)


# Layers

RELEVANCE = torch.tensor(
    [
        [0.1, 0.5, 0.4, 0.3, 0.0],
        [0.1, 0.2, 0.4, 0.3, 0.0],
        [0.3, 0.2, 0.4, 0.1, 0.0],
    ]
)  # average ranks 2.3, 1.3, 0.3, 2, and the last layer


def used(k: int, rule: str | list[int], seed: int = 0) -> list[list[int]]:
    """The layers of each direction."""
    generator = torch.Generator().manual_seed(seed)
    selected = choose_layers(RELEVANCE, k, rule, generator=generator)
    return [column.nonzero().flatten().tolist() for column in selected.T]


@pytest.mark.parametrize(
    ("k", "rule", "expected"),
    [
        (1, "relevant", [[2]] * 3),
        (2, "relevant", [[1, 2]] * 3),
        (3, "relevant", [[1, 2, 3]] * 3),
        (5, "relevant", [[0, 1, 2, 3, 4]] * 3),
        (2, "per_direction", [[1, 2], [2, 3], [0, 2]]),
        (2, "last", [[3, 4]] * 3),
        (1, "all", [[0, 1, 2, 3, 4]] * 3),
        (1, [3, 0], [[0, 3]] * 3),
    ],
)
def test_layers_by_each_rule(k: int, rule: str | list[int], expected: list[list[int]]) -> None:
    assert used(k, rule) == expected


def test_random_layers_are_the_same_for_all_and_follow_the_seed() -> None:
    draws = {seed: used(2, "random", seed) for seed in range(20)}
    assert all(
        layers_by_draw[0] == layers_by_draw[1] == layers_by_draw[2] and len(layers_by_draw[0]) == 2
        for layers_by_draw in draws.values()
    )
    assert len({tuple(layers_by_draw[0]) for layers_by_draw in draws.values()}) > 5
    assert used(2, "random", 7) == draws[7]


def test_of_layers_as_relevant_as_each_other_the_lower_is_taken() -> None:
    even = torch.ones(2, 6)
    assert choose_layers(even, 2)[:, 0].nonzero().flatten().tolist() == [0, 1]


@settings(max_examples=20)
@given(SEEDS, st.integers(1, 4), st.integers(1, 6), st.sampled_from(["relevant", "per_direction"]))
def test_another_order_of_directions_chooses_the_same_layers(seed, directions, layers, rule):
    generator = torch.Generator().manual_seed(seed)
    relevance = torch.rand(directions, layers, generator=generator)
    order = torch.randperm(directions, generator=generator)
    k = 1 + seed % layers
    selected = choose_layers(relevance, k, rule)
    assert torch.equal(choose_layers(relevance[order], k, rule), selected[:, order])
    assert (selected.sum(0) == k).all()


@pytest.mark.parametrize(
    ("k", "rule", "sentence"),
    [
        (0, "relevant", "layers.k must be at least 1, got 0"),
        (6, "relevant", "layers.k=6, and the model has 5 layers"),
        (2, "relevent", r"layers.rule=relevent does not exist; did you mean relevant\?"),
        (2, [1, 1], "distinct layers"),
        (2, [], "distinct layers"),
        (2, [-1], "from 0 on"),
        (2, [5], "names layer 5, and the model has layers 0 to 4"),
    ],
)
def test_a_wrong_choice_of_layers_is_one_sentence(
    k: int, rule: str | list[int], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        choose_layers(RELEVANCE, k, rule)
