"""What every strategy in conf/strategy must do."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.neurons import write_neurons, write_rows
from helpers.small import (
    DIRECTIONS,
    ROWS,
    base,
    batch_of,
    build,
    examples,
    limited_prompts,
    logits,
    train_a_little,
)
from helpers.tiny import attempt, same

from polylect.config.roots import conf_folder
from polylect.data.batch import Example, TranslationBatch
from polylect.library import base_fingerprint
from polylect.run.build import load
from polylect.strategies.base import TranslationModule
from polylect.strategies.decoding import open_rows
from polylect.strategies.decoding.translation import Accept, Watch
from polylect.strategies.loss import target_losses

STRATEGIES = sorted(path.stem for path in conf_folder().glob("strategy/*.yaml"))


@pytest.fixture(params=STRATEGIES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def settings(name: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the strategy cannot do without."""
    if name == "landermt":
        file = write_neurons(tmp_path_factory.mktemp("neurons"), base()[0], DIRECTIONS)
        return [f"strategy.neurons={file}", "strategy.soft=true"]  # a cut gate has no gradient
    if name.startswith("landermt"):
        write = write_neurons if name == "landermt_paper" else write_rows
        file = write(tmp_path_factory.mktemp("neurons"), base()[0], DIRECTIONS)
        template = "country" if name == "landermt_published" else "tag"
        given = [f"strategy.neurons={file}", "strategy.soft=true", f"data.template={template}"]
        return [*given, "strategy.detection=null"]
    if name not in ("lora_library", "lag", "arrow", "spectr"):
        return []
    folder = tmp_path_factory.mktemp("library")
    train_a_little(build("lora_switch")).export(folder)
    return [f"strategy.library={folder / 'adapters'}"]


@pytest.fixture
def module(name: str, settings: list[str]) -> TranslationModule:
    """A strategy that has trained a little, in the mode in which it is used."""
    return train_a_little(build(name, *settings))


def step(module: TranslationModule, batch: TranslationBatch) -> None:
    """One optimizer step with everything that may move an absent parameter."""
    groups = [{"params": group["params"]} for group in module.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, lr=0.1, weight_decay=0.5)
    for _ in range(2):
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()


def only_if(fact: bool, why: str) -> None:
    if not fact:
        pytest.skip(why)


def test_attaching_keeps_the_logits(name: str, settings: list[str]) -> None:
    module = build(name, *settings)
    only_if(module.identity_at_start, "starts elsewhere by design")
    batch = batch_of(module)
    model, _ = base()
    expected = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    torch.testing.assert_close(logits(module, batch), expected, atol=1e-5, rtol=1e-5)


def test_what_the_strategy_owns_gets_gradients_and_nothing_else(module: TranslationModule) -> None:
    only_if(module.trains, "does not train")
    batch = batch_of(module)
    with module.routing(batch):
        losses, _ = target_losses(module.backbone, batch)
    losses.sum().backward()
    moved = {n for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    grouped = [id(p) for group in module.parameter_groups() for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert moved == {n for n, p in module.named_parameters() if id(p) in set(grouped)}
    assert moved <= module.owned_names()


def test_a_step_leaves_what_is_not_owned_bit_by_bit(module: TranslationModule) -> None:
    only_if(module.trains, "does not train")
    foreign = module.state_dict().keys() - module.owned_names()
    before = {n: t.clone() for n, t in module.state_dict().items()}
    step(module, batch_of(module))
    after = module.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in foreign if not _tied(module, n))
    assert not same(before, dict(after))
    if all(name not in module.owned_names() for name in module._base_names):
        assert base_fingerprint(module.backbone) == base_fingerprint(base()[0])


def _tied(module: TranslationModule, name: str) -> bool:
    """Whether the tensor has another name under which it is owned."""
    state = module.state_dict()
    return any(state[n].data_ptr() == state[name].data_ptr() for n in module.owned_names())


def test_a_step_on_one_direction_leaves_the_others(module: TranslationModule) -> None:
    units = module.units()
    only_if(len(set(units.values())) > 1, "has one set of parameters for all directions")
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    step(module, batch_of(module, [row for row in ROWS if row[0] == "en-fr"]))
    names = {id(p): n for n, p in module.named_parameters()}
    for group in module.parameter_groups():
        for parameter in group["params"]:
            kept = torch.equal(parameter, before[names[id(parameter)]])
            assert kept == (group["unit"] != units["en-fr"])


def test_a_mixed_batch_is_its_rows_alone(module: TranslationModule) -> None:
    batch = batch_of(module)
    mixed = logits(module, batch)
    for row, example in enumerate(ROWS):
        alone = logits(module, batch_of(module, [example]))
        length = alone.shape[1]
        assert int(batch.attention_mask[row].sum()) == length
        torch.testing.assert_close(mixed[row : row + 1, :length], alone, atol=1e-5, rtol=1e-4)


def test_what_follows_is_not_seen(module: TranslationModule) -> None:
    batch = batch_of(module, [row for row in ROWS if row[0] == "en-de"])
    before = logits(module, batch)
    seen = 5
    batch.input_ids[:, seen:] = batch.input_ids[:, seen:].flip(1) // 2 + 4
    after = logits(module, batch)
    torch.testing.assert_close(before[:, :seen], after[:, :seen], atol=1e-6, rtol=0)
    assert not torch.allclose(before[:, seen], after[:, seen])


def test_a_checkpoint_alone_rebuilds_it(module: TranslationModule, tmp_path: Path) -> None:
    only_if(module.trains, "makes no checkpoints")
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "best.ckpt")
    rebuilt, cfg = load(tmp_path / "best.ckpt")
    batch = batch_of(module)
    assert torch.equal(logits(rebuilt, batch), logits(module, batch))
    assert type(rebuilt) is type(module)
    assert tuple(cfg.data.directions) == DIRECTIONS
    assert not rebuilt.training
    assert same(rebuilt.state_dict(), module.state_dict())


@pytest.mark.parametrize("beams", [1, 3])
def test_sentences_translate_together_as_one_by_one(
    name: str, settings: list[str], beams: int
) -> None:
    # A prompt's cap must not depend on its neighbours: the same for all.
    length = ["generation.ratio=0", "generation.extra=4", f"generation.beams={beams}"]
    module = train_a_little(build(name, *settings, *length))
    prompts = [module.prompt(source, direction) for direction, source, _ in ROWS]
    together = module.translate(prompts)
    assert together == [module.translate([prompt])[0] for prompt in prompts]
    assert all(translation.tokens for translation in together)


def test_rows_that_leave_and_join_are_as_alone(
    name: str, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_rows, "STEPS", 2)
    module = train_a_little(build(name, *settings, "generation.ratio=0", "generation.extra=9"))
    prompts = limited_prompts(module, 9, 3, 9, 2, 7, 1, 9, 5)
    alone = [module.translate([prompt])[0] for prompt in prompts]
    waiting = list(enumerate(prompts))[3:]
    generate, sizes = module.backbone.generate, []

    def counted(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        sizes.append(len(input_ids))
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(module.backbone, "generate", counted)

    def join(accept: Accept) -> list[tuple[int, Example]]:
        joining = [waiting.pop(0) for _ in range(2) if waiting]
        assert all(accept(prompt) for _, prompt in joining)
        return joining

    watch = Watch(waits=lambda: bool(waiting), join=join)
    together = dict(module.translate_as_decoded(prompts[:3], watch))
    assert not waiting
    assert [together[index] for index in range(len(prompts))] == alone
    assert {2, 3, 4} <= set(sizes)  # that joined, of the first, and more together


def test_outside_routing_it_says_what_to_do(module: TranslationModule) -> None:
    only_if(type(module).routing is not TranslationModule.routing, "routes nothing")
    batch = batch_of(module)
    logits(module, batch)  # some put their layers in when they first need them
    with pytest.raises(RuntimeError, match=r"call the backbone inside strategy\.routing\(batch\)"):
        module.backbone(input_ids=batch.input_ids)
    with module.routing(batch), pytest.raises(RuntimeError, match="nest"), module.routing(batch):
        pass
    module.backbone.zero_grad()
    assert logits(module, batch).isfinite().all()


def test_a_caller_that_is_refused_changes_nothing(module: TranslationModule) -> None:
    """A hook of the model, in the middle of a pass, asks for other rows."""
    batch, other = batch_of(module), batch_of(module, ROWS[::-1][:2])
    refused = []

    def intrude(*_: object) -> None:
        with pytest.raises(RuntimeError, match="a route is open already"), module.routing(other):
            pass
        refused.append(other)

    with torch.no_grad():
        expected = logits(module, batch)
        metrics = module.auxiliary_loss(), module.telemetry()
        handle = module.backbone.model.layers[1].register_forward_pre_hook(intrude)
        actual = logits(module, batch)
    handle.remove()
    assert refused
    assert torch.equal(actual, expected)
    if not module.routing_rows():  # which adds up what it is told
        assert (module.auxiliary_loss(), module.telemetry()) == metrics


def test_threads_wait_for_one_another(module: TranslationModule) -> None:
    batches = [batch_of(module, [row]) for row in ROWS[1:]]
    with torch.no_grad():
        expected = [logits(module, batch) for batch in batches]

    def several(index: int) -> bool:
        with torch.no_grad():
            actual = [logits(module, batches[index]) for _ in range(6)]
        return all(torch.equal(each, expected[index]) for each in actual)

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(several, range(3)))


def test_the_auxiliary_loss_is_finite(module: TranslationModule) -> None:
    logits(module, batch_of(module))
    assert module.auxiliary_loss().isfinite().all()
    assert all(isinstance(value, float) for value in module.telemetry().values())


def test_it_trains_or_is_refused_with_the_way_out(
    name: str, settings: list[str], tmp_path: Path
) -> None:
    only_if(not build(name, *settings).trains, "trains")
    with pytest.raises(ValueError, match=r"does not train: score it with `polylect evaluate"):
        attempt(tmp_path, f"strategy={name}", *settings)
    assert not list(tmp_path.glob("*/*"))


def test_examples_end_in_the_end_token(module: TranslationModule) -> None:
    assert {example.target[-1] for example in examples(module)} <= set(module.ends())
