"""Responsibility maps: planted, against exact ablation, and with what methods say themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.neurons import write_neurons
from helpers.small import DIRECTIONS, base, batch_of, build, train_a_little
from helpers.tiny import config, train

from polylect.layers.experts.ffn import expert_layers
from polylect.library.neurons.file import NeuronFile
from polylect.models.backbone import tiny_backbone
from polylect.run.build import build_data, build_strategy
from polylect.run.interference.parts import awareness_of_sets, neuron_parts, parts_of
from polylect.run.interference.responsibility import (
    ResponsibilityMap,
    _change,
    responsibility,
    responsibility_of_run,
    spearman,
)
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses

PLANTED = ("en-qaa", "en-qab")


def by_part(found: ResponsibilityMap, direction: str) -> dict[str, Any]:
    return {change.part: change for change in found.changes if change.direction == direction}


def losses(module: TranslationModule) -> torch.Tensor:
    batch = batch_of(module)
    with torch.no_grad(), module.routing(batch):
        return target_losses(module.backbone, batch)[0]


# A planted tongue


@contextmanager
def only_one_expert_speaks(module: Any) -> Iterator[None]:
    """The rows of en-qab alone, and all of them, go through MT expert 1; the others' through 0."""

    def force(layer: Any) -> Any:
        def hook(router: Any, inputs: tuple[Any, ...], routing: Any) -> Any:
            rows, length, _ = inputs[0].shape
            names = layer.context.rows(rows)
            speaks = torch.tensor([name == "en-qab" for name in names]).repeat_interleave(length)
            weights = routing.weights.clone()
            weights[:, 2], weights[:, 3] = ~speaks, speaks
            return replace(routing, weights=weights)

        return hook

    layers = expert_layers(module.backbone).values()
    handles = [layer.expert_router.register_forward_hook(force(layer)) for layer in layers]
    yield
    for handle in handles:
        handle.remove()


def test_the_map_finds_the_only_expert_that_speaks_a_tongue() -> None:
    spec = "{{kind: tongues, split: {}, size: {}, synthetic: {{qaa: {{}}, qab: {{seed: 1}}}}}}"
    settings = [f"data.directions=[{','.join(PLANTED)}]", "data.template=plain"]
    for name, part, size in (("train", "train", 400), ("val", "dev", 4), ("test", "test", 12)):
        settings += [f"~data.{name}", f"+data.{name}={spec.format(part, size)}"]
    cfg = config("train", "model=tiny", *settings, "strategy=mix_moe", "data.max_length=256")
    torch.manual_seed(0)
    module, data = build_strategy(cfg), build_data(cfg)
    module.set_backbone(*tiny_backbone(hidden=32))
    data.set_backbone(module.backbone, module.tokenizer)
    data.setup("fit")
    # All that is learnt of either tongue is learnt by the expert that hears it.
    optimizer = torch.optim.AdamW(module.parts()["mt_experts"], lr=0.02)
    with only_one_expert_speaks(module):
        for batch in data.training_stream(40):
            with module.routing(batch):
                loss = target_losses(module.backbone, batch)[0].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        data.setup("test")
        found = responsibility(module, data, parts_of(module))

    mine, others = by_part(found, "en-qab"), by_part(found, "en-qaa")
    planted = [name for name in mine if name.endswith("/mt 1")]
    best = max(mine.values(), key=lambda change: change.change)
    assert best.part in planted
    assert 0 < best.low < best.change < best.high
    assert sum(mine[name].change for name in planted) > 0.1
    for name in planted:
        assert others[name].change == others[name].high == 0  # speaks nothing else
        assert found.usage[name] == {"en-qaa": 0, "en-qab": 1}
        assert mine[name.replace("mt 1", "mt 0")].change == 0


# Silencing


@pytest.mark.parametrize("strategy", ["lora_switch", "mix_moe"])
def test_silencing_acts_within_its_block_alone(strategy: str) -> None:
    module = train_a_little(build(strategy)).eval()
    before, state = losses(module), {n: t.clone() for n, t in module.state_dict().items()}
    for part in parts_of(module):
        with part.silenced():
            assert not torch.equal(losses(module), before), part.name
        assert torch.equal(losses(module), before), part.name
    assert all(torch.equal(t, state[name]) for name, t in module.state_dict().items())


def test_an_adapter_that_is_silenced_leaves_the_base_and_other_rows_alone() -> None:
    module = train_a_little(build("lora_switch")).eval()
    batch = batch_of(module)
    with torch.no_grad(), module.context.route([""] * batch.rows):
        of_base, rows = target_losses(module.backbone, batch)
    mine = torch.tensor([batch.directions[row] == "en-fr" for row in rows.tolist()])
    whole = losses(module)
    (part,) = (part for part in parts_of(module) if part.name == "en-fr")
    with part.silenced():
        silenced = losses(module)
    torch.testing.assert_close(silenced[mine], of_base[mine])
    torch.testing.assert_close(silenced[~mine], whole[~mine])


def test_a_silenced_expert_is_one_whose_neurons_are_zero() -> None:
    module = train_a_little(build("mix_moe")).eval()
    name, layer = next(iter(expert_layers(module.backbone).items()))
    (part,) = (part for part in parts_of(module) if part.name == f"{name}/lm 1")
    with part.silenced():
        silenced = losses(module)
    with torch.no_grad():
        down = layer.experts()[0].down.weight
        down[:, down.shape[1] // 2 :] = 0  # the second of two contiguous slices
    torch.testing.assert_close(losses(module), silenced)


@pytest.mark.parametrize(
    "setting", ["strategy.router=lag", "strategy.level=model", "+strategy.mixing=aligned"]
)
def test_a_silenced_choice_changes_nothing_where_it_is_chosen(setting: str, tmp_path: Path) -> None:
    train_a_little(build("lora_switch")).export(tmp_path)
    library = [f"strategy.library={tmp_path / 'adapters'}"]
    module = build("lag", *library, setting).eval()
    before = losses(module)
    parts = parts_of(module)
    assert [part.name for part in parts] == sorted(DIRECTIONS)
    changed = []
    for part in parts:
        with part.silenced():
            changed.append(not torch.equal(losses(module), before))
        assert torch.equal(losses(module), before)
    assert any(changed)


def test_neurons_of_a_file_are_zero_where_the_down_projection_reads_them(tmp_path: Path) -> None:
    module = build("frozen").eval()
    file = NeuronFile.read(write_neurons(tmp_path, base()[0], DIRECTIONS))
    parts, usage = neuron_parts(module.backbone, file), awareness_of_sets(file)
    assert [part.name for part in parts] == list(usage)
    assert parts[0].name == "layer 0/general"
    with parts[0].silenced():
        silenced = losses(module)
    with torch.no_grad():
        module.backbone.model.layers[0].mlp.down_proj.weight[:, file.general[0]] = 0
    torch.testing.assert_close(losses(module), silenced)
    tokens = 100  # of each side, in every direction
    sides = file.awareness["source"] + file.awareness["target"]
    expected = tokens * float(sides[1, 0, file.general[0]].sum())
    assert usage["layer 0/general"][DIRECTIONS[1]] == pytest.approx(expected, rel=1e-5)


def test_a_strategy_without_parts_is_refused() -> None:
    with pytest.raises(ValueError, match="strategy Full has no experts or adapters to silence"):
        parts_of(build("full"))


# Statistics


def test_the_interval_is_that_of_resampled_sentences() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, 30, (400,), generator=generator).numpy()
    whole = tokens * 2.0
    without = whole + tokens * 0.5 + torch.randn(400, generator=generator).numpy() * 10
    change = _change("a", "en-de", (whole, tokens), (without, tokens))
    assert change.change == pytest.approx(0.5, abs=0.15)
    half = 1.96 * 10 * 400**0.5 / tokens.sum()
    assert change.high - change.change == pytest.approx(half, rel=0.2)
    assert change.change - change.low == pytest.approx(half, rel=0.2)


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3], [10, 30, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9**0.5)  # ties have their mean
    assert spearman([1, 1], [1, 2]) is None


# Runs


def test_the_map_of_a_run(tmp_path: Path) -> None:
    run = train(tmp_path, "strategy=lora_switch", "optim.optimizer.lr=0.05")
    found = responsibility_of_run(run, sentences=4)
    assert {(c.part, c.direction) for c in found.changes} == {
        (part, direction) for part in ("en-de", "en-fr") for direction in ("en-de", "en-fr")
    }
    own = {c.direction: c for c in found.changes if c.part == c.direction}
    cross = [c.change for c in found.changes if c.part != c.direction]
    assert cross == [0, 0]
    assert min(c.change for c in own.values()) > 0
    assert found.agreement == pytest.approx({"en-de": 1, "en-fr": 1})
    assert set(found.losses) == {"en-de", "en-fr"}


def test_the_map_of_neurons_and_of_choices(tmp_path: Path, tiny_run: Path) -> None:
    from polylect.programs.evaluate import main

    small = ["model=tiny", "model.hidden=32", "data=tongues", "data.directions=[en-de,en-fr]"]
    small += ["data.test.size=4", "+generation.ratio=0", "+generation.extra=5"]
    lag = ["strategy=lag", f"library={tiny_run / 'adapters'}", f"runs={tmp_path}"]
    main(config("evaluate", *small, *lag))
    (run,) = tmp_path.glob("*/*")
    found = responsibility_of_run(run)
    assert {c.part for c in found.changes} == {"en-de", "en-fr"}
    assert sum(own["en-de"] for own in found.usage.values()) == pytest.approx(1)

    neurons = write_neurons(tmp_path, base()[0], ("en-de", "en-fr"))
    silenced = responsibility_of_run(run, neurons=neurons)
    assert {c.part for c in silenced.changes} == set(silenced.usage)
    assert all(value is not None for value in silenced.agreement.values())
