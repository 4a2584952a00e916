"""LoRA-switch: adapters trained together are adapters trained alone."""

import json
from pathlib import Path

import pytest
import torch
from helpers.small import ROWS, batch_of, build, logits, train_a_little

from polylect.data.batch import TranslationBatch
from polylect.layers.lora.attach import lora_layers
from polylect.models.backbone import tiny_backbone
from polylect.models.families import FAMILIES
from polylect.strategies.lora_switch import LoRASwitch
from polylect.strategies.loss import target_losses

GERMAN, READ, FRENCH, HINDI = ROWS
STEPS = [[GERMAN, FRENCH], [READ], [HINDI, READ, FRENCH], [FRENCH], [GERMAN, HINDI], [READ, FRENCH]]
# Llama's norms and positions are computed in float32 whatever the weights are.
CLOSE = {"atol": 1e-7, "rtol": 1e-5}


def train(module: LoRASwitch, batches: list[TranslationBatch | None]) -> dict[str, torch.Tensor]:
    """Steps with decay, momentum and a schedule; None is a step of which this run has no rows."""
    optimizer = torch.optim.AdamW(module.parameter_groups(), lr=0.02, weight_decay=0.1)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    for batch in batches:
        optimizer.zero_grad()
        if batch is not None:
            with module.routing(batch):
                losses, rows = target_losses(module.backbone, batch)
            units = torch.tensor([module.units()[d] for d in batch.directions])[rows]
            module._losses.add(losses, units, torch.zeros(())).backward()
            module._losses.reset()
            module.configure_gradient_clipping(optimizer, 0.3)
        optimizer.step()
        rates.step()
    return {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}


def of_direction(module: LoRASwitch, *directions: str) -> list[TranslationBatch | None]:
    kept = [[row for row in step if row[0] in directions] for step in STEPS]
    return [batch_of(module, rows) if rows else None for rows in kept]


def started(*overrides: str) -> LoRASwitch:
    return train_a_little(build("lora_switch", *overrides)).double()


@pytest.mark.parametrize(
    ("setting", "shared"),
    [
        ("per_direction", [["en-de"], ["en-fr"], ["en-hi"]]),
        ("{west: [en-de, en-fr], south: [en-hi]}", [["en-de", "en-fr"], ["en-hi"]]),
        ("shared", [["en-de", "en-fr", "en-hi"]]),
    ],
)
def test_trained_together_is_trained_alone(setting: str, shared: list[list[str]]) -> None:
    module = started(f"strategy.adapters={setting}")
    together = train(module, [batch_of(module, rows) for rows in STEPS])
    start = dict(started(f"strategy.adapters={setting}").named_parameters())
    for directions in shared:
        alone = started(f"strategy.adapters={setting}")
        adapter = alone.adapter(directions[0])
        assert {alone.adapter(direction) for direction in directions} == {adapter}
        actual = train(alone, of_direction(alone, *directions))
        mine = [name for name in actual if name.endswith(f".{adapter}")]
        assert len(mine) == 2 * len(lora_layers(module.backbone))
        for name in mine:
            torch.testing.assert_close(together[name], actual[name], **CLOSE)
            assert not torch.allclose(together[name], start[name], atol=1e-3)


def test_an_absent_adapter_does_not_move_by_a_bit() -> None:
    module = build("lora_switch")
    train(module, [batch_of(module, ROWS)] * 2)  # every adapter has momentum now
    optimizer = torch.optim.AdamW(module.parameter_groups(), lr=0.1, weight_decay=0.5)
    batch = batch_of(module, [GERMAN, HINDI])
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    for _ in range(2):
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
    for name, parameter in module.named_parameters():
        trained = name.endswith((".en-de", ".en-hi"))
        assert torch.equal(parameter, before[name]) != trained, name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", ["attention", "ffn", "all"])
def test_adapters_go_into_every_family(family: str, targets: str) -> None:
    module = LoRASwitch(directions=["en-de", "en-fr", "en-hi"], template="tag", targets=targets)
    model, tokenizer = tiny_backbone(family, hidden=32)
    batch_module = build("frozen")
    batch = batch_of(batch_module)
    expected = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    module.set_backbone(model, tokenizer)
    assert torch.equal(logits(module, batch), expected)
    with module.routing(batch):
        losses, _ = target_losses(module.backbone, batch)
    losses.sum().backward()
    layers = lora_layers(module.backbone)
    assert len(layers) == 2 * len(FAMILIES[family].targets(targets))
    assert all(layer.lora_b["en-fr"].grad.any() for layer in layers.values())


def test_ranks_differ_by_adapter_and_scale_the_update() -> None:
    module = build(
        "lora_switch",
        "strategy.adapters={west: [en-de, en-fr], south: [en-hi]}",
        "strategy.rank={west: 4, south: 2}",
        "strategy.alpha=8",
        "strategy.targets=[q_proj]",
        "+strategy.rslora=true",
    )
    layer = module.backbone.model.layers[0].self_attn.q_proj
    assert {name: len(a) for name, a in layer.lora_a.items()} == {"west": 4, "south": 2}
    assert layer.scaling == {"west": 4.0, "south": pytest.approx(8 / 2**0.5)}
    assert list(lora_layers(module.backbone)) == [
        f"model.layers.{i}.self_attn.q_proj" for i in range(2)
    ]
    assert module.units() == {"en-de": 0, "en-fr": 0, "en-hi": 1}


def test_every_adapter_is_exported_with_what_it_needs(tmp_path: Path) -> None:
    module = train_a_little(
        build("lora_switch", "strategy.adapters={west: [en-de, en-fr], south: [en-hi]}")
    )
    module.export(tmp_path)
    assert {p.name for p in (tmp_path / "adapters").iterdir()} == {"west", "south"}
    about = json.loads((tmp_path / "adapters" / "west" / "polylect.json").read_text())
    assert about["directions"] == ["en-de", "en-fr"]
    assert about["template"] == "tag"
    assert about["base_fingerprint"] == module.base_fingerprint


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"adapters": "per_diretion"}, "did you mean per_direction.*mapping from adapter"),
        ({"adapters": {"a": ["en-de", "en-fr"], "b": ["en-de", "en-hi"]}}, "en-de to two adapters"),
        ({"adapters": {"a": ["en-de"]}}, "leaves en-fr, en-hi without an adapter"),
        ({"adapters": {"a": ["en-de", "en-fr", "en-hi", "en-da"]}}, "names en-da, .* mean en-de"),
        ({"rank": 0}, "rank of adapter en-de must be at least 1, got 0"),
        ({"rank": {"en-de": 2, "en-fr": 2}}, "rank of adapter en-hi must be at least 1"),
        ({"rank": {"en-de": 2, "en-fr": 2, "en-hi": 2, "en-ta": 2}}, "rank names en-ta"),
        ({"alpha": 0}, "alpha must be positive, got 0"),
        ({"dropout": 1}, "dropout must be at least 0 and below 1, got 1"),
        ({"init_scale": 0}, "init_scale must be positive, got 0"),
    ],
)
def test_wrong_settings_are_refused_before_a_model_is_loaded(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        LoRASwitch(directions=["en-de", "en-fr", "en-hi"], **settings)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"targets": "atention"}, "did you mean attention"),
        ({"targets": ["q_prj"]}, "nearest names are q_proj"),
        ({"adapters": {"keys": ["en-de"]}}, "'keys' is reserved"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(
    settings: dict[str, object], sentence: str
) -> None:
    module = LoRASwitch(directions=["en-de"], **settings)
    with pytest.raises(ValueError, match=sentence):
        module.set_backbone(*tiny_backbone(hidden=32))


def test_an_unknown_direction_is_answered_with_the_nearest() -> None:
    module = build("lora_switch")
    batch = batch_of(module)
    batch.directions = ("en-de", "en-de", "en-fr", "en-da")
    with pytest.raises(ValueError, match="no adapter serves direction en-da; did you mean en-de"):
        module.routing(batch)
