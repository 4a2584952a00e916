"""Routing by what differs from the mean of the inputs, and by the last token of the prompt."""

import inspect
import shutil
from pathlib import Path

import pytest
import torch
from helpers.small import DIRECTIONS, ROWS, batch_of, build, logits, train_a_little
from helpers.tiny import DATA
from torch import Tensor, nn
from transformers import DynamicCache, LlamaForCausalLM

from polylect.cli import run
from polylect.layers.adapters.bank import AdapterBank
from polylect.layers.adapters.observers import Trace
from polylect.layers.adapters.router import banks_of
from polylect.layers.adapters.selection import RouterSettings, select
from polylect.library import AdapterLibrary
from polylect.library.calibration import INPUTS, read_inputs, write_inputs
from polylect.library.peft_format import CONFIG
from polylect.strategies.lag import LAG

CACHE = {"cache", "past_key_values"} & set(inspect.signature(LlamaForCausalLM.forward).parameters)
COUNTS = {"en-de": 100, "en-fr": 300, "en-hi": 50}


@pytest.fixture
def library(tmp_path: Path) -> AdapterLibrary:
    """Adapters that might have been trained, with means of inputs as large as these."""
    module = train_a_little(build("lora_switch", "strategy.rank=3"))
    module.export(tmp_path)
    library = AdapterLibrary(tmp_path / "adapters")
    for name in library.names:
        modules = library.load(name).modules
        means = {p: (torch.randn(u.a.shape[1]), COUNTS[name]) for p, u in modules.items()}
        write_inputs(library, name, means)
    return library


def lag(library: AdapterLibrary, *overrides: str, strategy: str = "lag") -> LAG:
    return build(strategy, f"strategy.library={library.path}", *overrides)


def test_the_center_is_the_mean_of_all_tokens_of_all_adapters(library: AdapterLibrary) -> None:
    module = lag(library, "strategy.center=true")
    for path, bank in banks_of(module.backbone, "library").items():
        sums = [COUNTS[name] * read_inputs(library, name)[path][0] for name in library.names]
        torch.testing.assert_close(bank.center, sum(sums) / sum(COUNTS.values()))
    module.route_by(RouterSettings())
    assert all(bank.center is None for bank in banks_of(module.backbone, "library").values())


def bank_of(a: Tensor, b: Tensor) -> AdapterBank:
    """A bank of adapters with the factors A* and B*, (adapters, rank, …)."""
    factors = {"a": a, "b": b.mT}
    names = [f"a{i}" for i in range(len(a))]
    load = lambda name, which: factors[which][int(name[1:])]  # noqa: E731
    return AdapterBank(names, a[:, 0], torch.ones(a.shape[:2]), load, b.shape[2])


@pytest.mark.parametrize("router", ["lag", "arrow", "spectr"])
@pytest.mark.parametrize("form", ["proj", "energy"])
def test_what_is_centred_is_scored_as_if_it_had_no_mean(router: str, form: str) -> None:
    torch.manual_seed(0)
    a = torch.stack([nn.init.orthogonal_(torch.empty(2, 8)) for _ in range(4)])
    bank, x, mean = bank_of(a, torch.randn(4, 2, 5)), torch.randn(50, 8), 3 * torch.randn(8)
    settings = RouterSettings(router, k=2, form=form)
    expected = select(x, bank, settings)
    unaware = select(x + mean, bank, settings)
    bank.center = mean
    actual = select(x + mean, bank, settings)
    assert torch.equal(actual.indices, expected.indices)
    torch.testing.assert_close(actual.weights, expected.weights, atol=1e-4, rtol=1e-4)
    assert not torch.equal(unaware.indices, expected.indices)


def test_the_adapters_themselves_are_given_the_whole_input(library: AdapterLibrary) -> None:
    """With one adapter to choose there is nothing to choose, whatever is subtracted."""
    for name in DIRECTIONS[1:]:
        library.remove(name)
    batch = batch_of(lag(library))
    with torch.no_grad():
        expected = logits(lag(library), batch)
        for strategy in ("lag", "arrow", "spectr"):
            actual = logits(lag(library, "strategy.center=true", strategy=strategy), batch)
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / INPUTS).unlink(), "is not there: measure them with polylect lib"),
        (lambda folder: (folder / INPUTS).write_bytes(b"x" * 99), "damaged or no safetensors"),
        (
            lambda folder: (folder / CONFIG).write_text((folder / CONFIG).read_text() + " "),
            "of another adapter than the one beside it: measure them with polylect library",
        ),
    ],
)
def test_without_good_means_there_is_a_sentence(
    damage: object, sentence: str, library: AdapterLibrary
) -> None:
    damage(library.path / "en-fr")
    with pytest.raises(ValueError, match=sentence):
        lag(library, "strategy.center=true")
    lag(library)  # which needs none


def test_a_prompt_gets_what_its_last_token_chooses(library: AdapterLibrary) -> None:
    traces = {}
    module = lag(library, "strategy.k=2")
    batch = batch_of(module)
    prompt = (batch.labels == -100) & batch.attention_mask.bool()
    last = prompt.sum(1) - 1
    for level in ("token", "prompt"):
        module.route_by(RouterSettings(k=2, level=level))
        trace = Trace()
        # Nothing is added to the outputs, so that inputs do not differ between the two.
        for bank in banks_of(module.backbone, "library").values():
            bank.b.zero_()
        with torch.no_grad(), module._route(batch, [trace]):
            module(batch)
        traces[level] = trace.strongest
    for place, by_token in traces["token"].items():
        by_prompt = traces["prompt"][place]
        own = by_token.gather(1, last[:, None]).expand_as(by_token)
        assert torch.equal(by_prompt[prompt], own[prompt])
        assert torch.equal(by_prompt[~prompt], by_token[~prompt])
    assert any((traces["token"][p] != traces["prompt"][p]).any() for p in traces["token"])


def test_a_prompt_in_parts_is_refused(library: AdapterLibrary) -> None:
    module = lag(library, "strategy.level=prompt")
    batch = batch_of(module, ROWS[:1])
    with torch.no_grad(), module.routing(batch):
        cache = {next(iter(CACHE)): DynamicCache(config=module.backbone.config)}
        module.backbone(input_ids=batch.input_ids[:, :2], use_cache=True, **cache)
        with pytest.raises(RuntimeError, match="pass the whole prompt in one forward pass"):
            module.backbone(input_ids=batch.input_ids[:, 2:4], use_cache=True, **cache)


def test_means_are_measured_for_adapters_that_are_there(
    library: AdapterLibrary, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(library.path / "en-hi")
    before = {name: library.digest(name) for name in library.names}
    for name in library.names:
        (library.path / name / INPUTS).unlink()
    command = ["library", f"path={library.path}", "action=inputs", "model=tiny", "model.hidden=32"]
    assert run([*command, "data=tongues", "sentences=5", *DATA]) == 0
    assert capsys.readouterr().out.count(" tokens\n") == 2
    means = {name: read_inputs(library, name) for name in library.names}
    assert {name: library.digest(name) for name in library.names} == before
    assert all(count > 20 for own in means.values() for _, count in own.values())
    # The first layer's inputs are those of the base: embeddings, which no adapter has changed.
    first = "model.layers.0.self_attn.q_proj"
    assert not torch.allclose(means["en-de"][first][0], means["en-fr"][first][0], atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ([], "give model=… and data=…"),
        (["model=tiny", "data=tongues", "sentences=0"], "sentences must be at least 1, got 0"),
        (
            ["model=tiny", "model.hidden=32", "data=tongues", "data.directions=[en-de]"],
            "adapter en-fr serves en-fr, of which data.directions has none",
        ),
    ],
)
def test_what_cannot_be_measured_is_a_sentence(
    settings: list[str],
    sentence: str,
    library: AdapterLibrary,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["library", f"path={library.path}", "action=inputs", *settings]) == 2
    stderr = capsys.readouterr().err
    assert sentence in stderr and stderr.count("\n") == 1
