"""A drawn from the inputs of its layer: against exact decompositions of all inputs, and PEFT's."""

import numpy
import pytest
import torch
from peft.utils.incremental_pca import IncrementalPCA
from torch import Tensor, nn

from polylect.layers.context import RoutingContext
from polylect.layers.lora import init
from polylect.layers.lora.attach import attach_lora
from polylect.layers.lora.init import (
    RIDGE,
    Background,
    contrastive_directions,
    directions_of_inputs,
    principal_directions,
)
from polylect.layers.lora.inputs import InputMoments, InputSums
from polylect.layers.lora.layer import LoRALayer

WIDTH, RANK = 12, 3
NAMES = ("de", "fr", "ta")


def moments(x: Tensor) -> InputMoments:
    own = InputMoments(x.shape[1], x.device, products=True)
    for part in x.split(7):
        own.add(part)
    return own


def texts(tokens: int = 300, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of three adapters: most of their variance in common, and some of their own."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    common = 5 * draw(4, WIDTH)
    return {
        name: draw(tokens, 4) @ common + 2 * draw(tokens, 2) @ draw(2, WIDTH) + draw(WIDTH)
        for name in NAMES
    }


def space(rows: Tensor) -> Tensor:
    """The projection onto the space of the rows, which are orthonormal."""
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)).to(rows))
    return rows.T @ rows


def test_data_begins_with_the_right_singular_vectors() -> None:
    x = texts()["de"]
    directions = principal_directions(moments(x), RANK)
    exact = torch.linalg.svd(x.double()).Vh[:RANK]
    torch.testing.assert_close((directions * exact).sum(1).abs(), torch.ones(RANK).double())
    assert (directions.gather(1, directions.abs().argmax(1, keepdim=True)) > 0).all()
    space(directions)


def test_where_the_mean_is_zero_they_are_those_of_peft() -> None:
    x = texts()["de"].double()
    x -= x.mean(0)
    peft = IncrementalPCA(n_components=RANK, batch_size=len(x)).fit(x.clone()).components_
    ours = principal_directions(moments(x), RANK)
    torch.testing.assert_close((ours * peft).sum(1).abs(), torch.ones(RANK).double())


def test_contrastive_begins_with_generalised_eigenvectors() -> None:
    every = texts()
    mean = torch.cat(list(every.values())).double().mean(0)
    about = {name: (x.double() - mean).numpy() for name, x in every.items()}
    own = about["fr"].T @ about["fr"] / len(about["fr"])
    stacked = numpy.concatenate(list(about.values()))
    pooled = stacked.T @ stacked / len(stacked)
    pooled += RIDGE * numpy.trace(pooled) / WIDTH * numpy.eye(WIDTH)
    values, vectors = numpy.linalg.eig(numpy.linalg.solve(pooled, own))
    leading = torch.tensor(vectors[:, numpy.argsort(-values.real)[:RANK]].real)
    sums = {name: moments(x) for name, x in every.items()}
    directions = contrastive_directions(sums["fr"], Background.of(sums), RANK)
    exact = space(torch.linalg.qr(leading).Q.T)
    torch.testing.assert_close(space(directions), exact, rtol=0, atol=1e-5)
    first = leading[:, 0] / leading[:, 0].norm()
    torch.testing.assert_close((directions[0] @ first).abs().item(), 1.0, rtol=0, atol=1e-5)


def test_contrastive_finds_what_an_adapter_has_alone_and_not_what_is_large() -> None:
    every = texts()
    sums = {name: moments(x) for name, x in every.items()}
    mean = torch.cat(list(every.values())).double().mean(0)
    share = {}
    for how in ("data", "contrastive"):
        rows = {
            name: principal_directions(own, 2)
            if how == "data"
            else contrastive_directions(own, Background.of(sums), 2)
            for name, own in sums.items()
        }
        right = [
            torch.stack([(x - mean) @ rows[other].T for other in NAMES]).norm(dim=2).argmax(0) == i
            for i, x in enumerate(every.values())
        ]
        share[how] = torch.cat(right).double().mean().item()
    assert share["contrastive"] > 0.6 > 0.5 > share["data"]


def model_of(*names: str, width: int = WIDTH) -> tuple[dict[str, LoRALayer], RoutingContext]:
    context = RoutingContext()
    layers = {path: attach_lora(nn.Linear(width, 5), context, path) for path in ("q", "k", "down")}
    for layer in layers.values():
        for name in names:
            layer.add(name, RANK, alpha=1)
    return layers, context


def passing(
    layers: dict[str, LoRALayer], context: RoutingContext, x: Tensor, mask: Tensor, names: list[str]
) -> None:
    with context.route(names):
        layers["q"](x)
        layers["k"](x)
        layers["down"](2 * x)


def test_in_a_mixed_batch_an_adapter_sees_its_own_rows_and_no_padding() -> None:
    layers, context = model_of("de", "fr")
    torch.manual_seed(0)
    x, names = torch.randn(4, 6, WIDTH), ["de", "fr", "de", ""]
    mask = (torch.arange(6) < torch.tensor([[6], [5], [3], [6]])).long()
    own = {"de": torch.cat([x[0], x[2, :3]]), "fr": x[1, :5]}

    def read(sums: InputSums) -> None:
        sums.mask = mask
        passing(layers, context, x, mask, names)
        passing(layers, context, x.clone(), mask, names)

    drawn = {(p, n): rows for p, n, rows in directions_of_inputs(layers, "data", read)}
    assert drawn.keys() == {(path, name) for path in layers for name in own}
    for (_, name), rows in drawn.items():
        torch.testing.assert_close(space(rows), space(principal_directions(moments(own[name]), 3)))

    sums = InputSums(layers, products=False)
    with sums.watching():
        read(sums)
    passing(layers, context, x, mask, names)  # nobody watches
    for path, factor in (("q", 1), ("down", 2)):
        for name, tokens in own.items():
            assert sums.by_layer[path][name].count == 2 * len(tokens)
            expected = factor * tokens.double().mean(0)
            torch.testing.assert_close(sums.by_layer[path][name].mean, expected)
    assert sums.by_layer["k"] is sums.by_layer["q"] is not sums.by_layer["down"]


def test_what_does_not_fit_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, context = model_of("de", "fr")
    x = torch.randn(2, 8, WIDTH, generator=torch.Generator().manual_seed(0))
    reads = []

    def read(sums: InputSums) -> None:
        reads.append(sums)
        sums.mask = torch.ones(2, 8)
        passing(layers, context, x, sums.mask, ["de", "fr"])

    at_once = list(directions_of_inputs(layers, "contrastive", read))
    assert len(reads) == 1
    monkeypatch.setattr(init, "_BUDGET", 8 * WIDTH**2 * 2)
    in_parts = list(directions_of_inputs(layers, "contrastive", read))
    assert len(reads) == 1 + len(layers)
    for one, other in zip(at_once, in_parts, strict=True):
        assert one[:2] == other[:2]
        torch.testing.assert_close(one[2], other[2])


@pytest.mark.parametrize(
    ("x", "names", "sentence"),
    [
        (torch.ones(1, 2, WIDTH), ["de"], "de of rank 3 has 2 tokens of text for q .*sentences"),
        (torch.ones(1, 8, WIDTH), ["fr"], "adapter de of rank 3 has 0 tokens"),
        (
            torch.full((1, 8, WIDTH), torch.nan),
            ["de"],
            "of q on the text of adapter de are not fin",
        ),
        (
            torch.stack([torch.rand(8, WIDTH), torch.full((8, WIDTH), torch.inf)]),
            ["de", "fr"],
            "of q on the text of adapter fr are not fin",
        ),
        (torch.ones(1, 2, 4, WIDTH), ["de"], "cannot be told which adapter .* strategy.targets"),
    ],
)
def test_text_that_is_no_good_is_a_sentence(x: Tensor, names: list[str], sentence: str) -> None:
    layers, context = model_of("de", "fr")

    def read(sums: InputSums) -> None:
        sums.mask = torch.ones(x.shape[0], x.shape[1])
        passing(layers, context, x, sums.mask, names)

    with pytest.raises(ValueError, match=sentence):
        list(directions_of_inputs(layers, "contrastive", read))
