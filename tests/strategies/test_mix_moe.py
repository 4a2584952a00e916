"""Mix-MoE: what is particular to it; what all strategies do is in test_contract."""

import logging
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.neurons import write_neurons
from helpers.small import DIRECTIONS, ROWS, base, batch_of, build, examples, logits, train_a_little
from helpers.tiny import (
    LENGTH,
    attempt,
    checkpoint,
    folders,
    logged_values,
    record,
    same,
    stopping,
    train,
)

from polylect.data.batch import TranslationBatch, collate, pad_id
from polylect.layers.experts.features import FEATURES
from polylect.layers.experts.ffn import expert_layers
from polylect.models.mixture import load_mixture
from polylect.run.build import load
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses
from polylect.strategies.mix_moe import MixMoE
from polylect.translator import Translator

TEXT = (("de", "", "Wir lesen heute das neue Buch."), ("fr", "", "Le petit chat le voit."))


@cache
def configuration() -> dict[str, Any]:
    return build("mix_moe").about["config"]


def make(stage: str = "joint", **settings: Any) -> MixMoE:
    """As `build`, without composing a configuration anew."""
    torch.manual_seed(0)
    config = configuration()
    strategy = config["strategy"] | {"stage": stage} | settings
    options = {"directions": DIRECTIONS} | {k: v for k, v in strategy.items() if k != "_target_"}
    module = MixMoE(template=config["data"]["template"], **options)
    module.about = {"config": config | {"strategy": strategy}}
    module.set_backbone(*base())
    return module


def saved(module: TranslationModule) -> dict[str, Any]:
    checkpoint = {"state_dict": {name: t.clone() for name, t in module.state_dict().items()}}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def steps(module: TranslationModule, batch: TranslationBatch, count: int = 3) -> None:
    groups = [{"params": group["params"]} for group in module.parameter_groups()]
    optimizer = torch.optim.AdamW(groups, lr=0.05, weight_decay=0.5)
    for _ in range(count):
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
            loss = losses.mean() + module.auxiliary_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def moved(module: TranslationModule, batch: TranslationBatch) -> set[str]:
    """Parts of the model that three steps change."""
    before = {n: t.clone() for n, t in module.state_dict().items()}
    names = {id(p): part for part, ps in module.parts().items() for p in ps}
    steps(module, batch)
    state = dict(module.named_parameters(remove_duplicate=False))
    assert all(n in state or torch.equal(t, before[n]) for n, t in module.state_dict().items())
    return {names[id(p)] for n, p in state.items() if not torch.equal(p, before[n])}


# The stages.


@pytest.mark.parametrize(
    ("stage", "settings", "parts"),
    [
        ("monolingual", {}, {"lm_experts", "lm_router"}),
        ("parallel", {}, {"mt_experts", "mt_router"}),
        ("parallel", {"top": 1}, {"mt_experts", "mt_router"}),
        ("joint", {}, {"lm_experts", "lm_router", "mt_experts", "mt_router"}),
        ("joint", {"mt_experts": 0}, {"lm_experts", "lm_router"}),
        ("monolingual", {"mt_experts": 2}, {"lm_experts", "lm_router"}),
        ("parallel", {"unfreeze": ["lm_router"]}, {"mt_experts", "mt_router", "lm_router"}),
        ("parallel", {"unfreeze": ["rest"]}, {"mt_experts", "mt_router", "rest"}),
    ],
)
def test_a_stage_trains_its_parts_and_leaves_the_others_bit_for_bit(
    stage: str, settings: dict[str, Any], parts: set[str]
) -> None:
    module = train_a_little(make(stage, **settings))
    rows = TEXT if stage == "monolingual" else ROWS
    assert moved(module, batch_of(module, rows)) == parts
    assert {group["name"] for group in module.parameter_groups()} == parts


def test_stage_two_begins_where_stage_one_ended() -> None:
    first = train_a_little(make("monolingual"))
    checkpoint = saved(first)
    second = make("parallel")
    assert checkpoint["state_dict"].keys() < second.owned_names()
    second.load_stage(checkpoint)
    batch = batch_of(second)
    torch.testing.assert_close(logits(second, batch), logits(first, batch), atol=1e-6, rtol=1e-6)
    steps(second, batch)
    after = second.state_dict()
    assert all(torch.equal(after[name], t) for name, t in checkpoint["state_dict"].items())
    assert not torch.allclose(logits(second, batch), logits(first, batch), atol=1e-3)


def test_the_checkpoint_of_stage_two_is_enough(tmp_path: Path) -> None:
    second = make("parallel")
    second.load_stage(saved(train_a_little(make("monolingual"))))
    train_a_little(second)
    torch.save(saved(second), tmp_path / "best.ckpt")
    rebuilt, _ = load(tmp_path / "best.ckpt")
    batch = batch_of(second)
    assert torch.equal(logits(rebuilt, batch), logits(second, batch))
    assert same(rebuilt.state_dict(), second.state_dict())


def test_what_one_stage_has_unfrozen_the_next_one_keeps(tmp_path: Path) -> None:
    first = train_a_little(make("monolingual", unfreeze=["rest"]))
    second = make("parallel")
    second.load_stage(saved(first))
    batch = batch_of(second)
    torch.testing.assert_close(logits(second, batch), logits(first, batch), atol=1e-6, rtol=1e-6)
    torch.save(saved(second), tmp_path / "best.ckpt")
    assert torch.equal(logits(load(tmp_path / "best.ckpt")[0], batch), logits(second, batch))


def test_stages_may_change_places() -> None:
    first = train_a_little(make("parallel"))
    second = make("monolingual", mt_experts=2)
    second.load_stage(saved(first))
    batch = batch_of(second)
    assert torch.equal(logits(second, batch), logits(first, batch))
    third = make("parallel")
    third.load_stage(saved(second))
    assert torch.equal(logits(third, batch), logits(first, batch))


def test_copies_are_of_what_stage_one_has_made_of_the_experts() -> None:
    second = make("parallel", mt_start="copies")
    second.load_stage(saved(train_a_little(make("monolingual"))))
    for layer in expert_layers(second.backbone).values():
        lm, mt = layer.experts()
        assert torch.equal(mt.up.weight, lm.up.weight)
        assert torch.equal(mt.down.weight, lm.down.weight)


def test_a_stage_before_of_another_kind_is_refused() -> None:
    checkpoint = saved(make("monolingual"))
    with pytest.raises(ValueError, match=r"trained with strategy\.features=fft, this one has dct"):
        make("parallel", features="dct").load_stage(checkpoint)
    lost = {n: t for n, t in checkpoint["state_dict"].items() if "layers.1." not in n}
    with pytest.raises(ValueError, match=r"does not fit MixMoE: it lacks"):
        make("parallel").load_stage(checkpoint | {"state_dict": lost})
    whole = saved(make("parallel"))
    name = next(n for n in whole["state_dict"] if ".expert_mt." in n)
    part = {n: t for n, t in whole["state_dict"].items() if n != name}
    with pytest.raises(ValueError, match=r"it lacks .*expert_mt.*\(1 names\)"):
        make("parallel").load_stage(whole | {"state_dict": part})
    with pytest.raises(ValueError, match="too many"):
        make("monolingual").load_stage(whole)


def test_clustered_slices_are_in_the_checkpoint(tmp_path: Path) -> None:
    file = write_neurons(tmp_path, base()[0], ["en-de", "en-fr", "en-hi"])
    module = train_a_little(make(slicing="clustered", activations=str(file)))
    orders = [layer.expert_order for layer in expert_layers(module.backbone).values()]
    assert not torch.equal(orders[0], orders[1])
    torch.save(saved(module), tmp_path / "best.ckpt")
    file.unlink()
    rebuilt, _ = load(tmp_path / "best.ckpt")
    assert torch.equal(logits(rebuilt, batch_of(module)), logits(module, batch_of(module)))
    with pytest.raises(ValueError, match=r"needs strategy\.activations=neurons\.safetensors"):
        make(slicing="clustered")


# What a token may see.

SEEING = [{"features": name} for name in (*FEATURES, "uniform")]
SEEING += [{"top": 1}, {"features": "fft_short_time", "gating": "joint", "top": 2, "window": 4}]


@pytest.mark.parametrize("settings", SEEING, ids=str)
def test_no_option_sees_what_follows_nor_its_neighbours(settings: dict[str, Any]) -> None:
    module = train_a_little(make(**settings))
    batch = batch_of(module)
    before = logits(module, batch)
    for row, example in enumerate(ROWS):
        alone = logits(module, batch_of(module, [example]))[0]
        torch.testing.assert_close(before[row, : len(alone)], alone, atol=1e-5, rtol=1e-4)
    target = int((batch.labels[0] != -100).nonzero()[0])
    for seen in (3, target + 1):  # within the prompt, and behind it
        changed = batch.to("cpu")
        changed.input_ids = batch.input_ids.clone()
        changed.input_ids[:, seen:] = changed.input_ids[:, seen:].flip(1) // 2 + 4
        after = logits(module, changed)
        torch.testing.assert_close(before[0, :seen], after[0, :seen], atol=1e-6, rtol=0)
        assert not torch.allclose(before[0, seen], after[0, seen])


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("settings", [*SEEING[-2:], {"features": "fft_prompt"}], ids=str)
def test_decoding_with_a_cache_is_decoding_without(settings: dict[str, Any], beams: int) -> None:
    module = train_a_little(make(**settings))
    batch = collate(examples(module), pad_id(module.tokenizer), "left")
    options = {"attention_mask": batch.attention_mask, "num_beams": beams, "max_new_tokens": 7}
    results = []
    for use_cache in (True, False):
        with module.routing(batch):
            results.append(
                module.backbone.generate(batch.input_ids, use_cache=use_cache, **options)
            )
    assert torch.equal(*results)


@pytest.mark.parametrize("top", [None, 1])
def test_gradient_checkpointing_gives_the_same_gradients(top: int | None) -> None:
    results = []
    for checkpointing in (False, True):
        module = train_a_little(make(features="fft_prompt", balance=1, top=top))
        if checkpointing:
            old, new = "gradient_checkpointing_enable", "activation_checkpointing_enable"
            enable = getattr(module.backbone, new, None) or getattr(module.backbone, old)
            enable({"use_reentrant": False, "context_fn": module.context.checkpointing})
        module.train()
        batch = batch_of(module)
        with module.routing(batch):
            losses, _ = target_losses(module.backbone, batch)
            loss = losses.mean() + module.auxiliary_loss()
        loss.backward()
        results.append({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient)


# Losses and numbers.


def test_uniform_routers_are_balanced() -> None:
    module = make(balance=0.5, z_loss=0.25)
    logits(module, batch_of(module))
    z = 2 * torch.tensor(2.0).log().square()  # two groups of two logits of zero
    torch.testing.assert_close(module.auxiliary_loss(), 0.5 * 2 + 0.25 * z)
    metrics = module.telemetry()
    assert metrics["train/aux/balance"] == pytest.approx(2)
    assert metrics["train/aux/z"] == pytest.approx(float(z))
    assert metrics["routing/layer_1/mt/0"] == pytest.approx(0.5)
    assert metrics["routing/layer_0/entropy/lm"] == pytest.approx(float(torch.tensor(2.0).log()))
    assert metrics["routing/layer_0/gate/en-hi"] == pytest.approx(0.5)
    assert len(metrics) == 2 + 2 * (2 * 3 + 3)


def test_a_frozen_router_is_not_balanced_by_what_is_below_it() -> None:
    module = make("parallel", balance=1)
    logits(module, batch_of(module))
    torch.testing.assert_close(module.auxiliary_loss(), torch.tensor(1.0))
    assert not make(features="uniform").auxiliary_loss().requires_grad


def test_the_prior_pulls_replayed_text_to_the_lm_experts_and_nothing_else() -> None:
    module = make("parallel", directions=(*DIRECTIONS, "de", "fr"), lm_prior=1, balance=0)
    batch = batch_of(module, (*ROWS, *TEXT))
    logits(module, batch)
    torch.testing.assert_close(module.auxiliary_loss(), torch.tensor(2.0).log())
    groups = [group for group in module.parameter_groups() if group["name"] == "mt_router"]
    optimizer = torch.optim.SGD(groups[0]["params"], lr=0.05)
    for _ in range(20):
        logits(module, batch)
        optimizer.zero_grad()
        module.auxiliary_loss().backward()
        optimizer.step()
    logits(module, batch)
    metrics = module.telemetry()
    assert metrics["routing/layer_1/gate/de"] < 0.4
    assert metrics["routing/layer_1/gate/de"] < metrics["routing/layer_1/gate/en-de"]


@pytest.mark.parametrize(
    ("noise", "unfreeze", "told"), [(1e-3, [], 1), (2.0, [], 0), (0, ["rest"], 0)]
)
def test_tags_that_are_one_vector_are_warned_of(
    noise: float, unfreeze: list[str], told: int, caplog: pytest.LogCaptureFixture
) -> None:
    module = make(unfreeze=unfreeze)
    tags = module.tokenizer.convert_tokens_to_ids([f"<2{d.split('-')[1]}>" for d in DIRECTIONS])
    weight = module.backbone.get_input_embeddings().weight
    with torch.no_grad():
        weight[tags] = weight[tags[0]] + noise * weight.std() * torch.randn_like(weight[tags])
    with caplog.at_level(logging.WARNING):
        module.on_fit_start()
    warned = [r.getMessage() for r in caplog.records if "nearly one vector" in r.getMessage()]
    assert len(warned) == told
    assert all(f"<2{d.split('-')[1]}>" in text for text in warned for d in DIRECTIONS)


def test_a_collapsed_expert_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    module = make(top=1, collapse_steps=2)
    layer = expert_layers(module.backbone)["layer_1"]
    with torch.no_grad():
        layer.expert_router.lm.semantic[1] = layer.expert_router.lm.semantic[0]  # never above it
        layer.expert_router.lm.spectral.zero_()
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            logits(module, batch_of(module))
            module.on_train_batch_end(None, None, 0)
    (warning,) = [r.getMessage() for r in caplog.records if "layer_1: LM" in r.getMessage()]
    assert warning.startswith("layer_1: LM expert 1 has had less than 0.1 of a fair share")
    assert "for 2 batches; a larger strategy.balance" in warning


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": "parallell"}, "stage=parallell does not exist; did you mean parallel"),
        ({"unfreeze": ["lm_expert"]}, "unfreeze names lm_expert, which does not exist; did you"),
        ({"stage": "parallel", "mt_experts": 0}, "stage=parallel trains MT experts: mt_experts"),
        ({"features": "ftt"}, "strategy: features=ftt does not exist"),
        ({"balance": -1}, "must not be negative"),
        ({"lm_prior": 0.1}, "monolingual text: name a language among data.directions"),
        ({"collapse": 2}, "threshold 2 and patience 100 of the collapse alarm"),
    ],
)
def test_bad_settings_die_early(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixMoE(directions=DIRECTIONS, **settings)


# Use.


def test_an_exported_model_translates_by_itself(tmp_path: Path) -> None:
    module = train_a_little(make())
    module.export(tmp_path)
    model, _ = load_mixture(tmp_path / "model")
    batch = batch_of(module)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    torch.testing.assert_close(model(**inputs).logits, logits(module, batch))


def test_uniform_experts_become_a_plain_model_and_others_do_not(tmp_path: Path) -> None:
    module = train_a_little(make(features="uniform"))
    assert Translator(module, "cpu").export_merged("en-de", tmp_path / "plain") < 1e-4
    with pytest.raises(ValueError, match="decides token by token"):
        Translator(train_a_little(make()), "cpu").export_merged("en-de", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_plain_model_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    module = make(features="uniform")
    down = module.backbone.get_submodule("model.layers.1.mlp.down_proj")
    down.weight.data[0, 0] = float("inf")
    with pytest.raises(ValueError, match=r"layers\.1\.mlp\.down_proj\.weight has NaN or inf"):
        Translator(module, "cpu").export_merged("en-de", tmp_path / "plain")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_runs_are_the_two_stages(tmp_path: Path) -> None:
    short = ["strategy=mix_moe", "trainer.max_steps=2", "trainer.val_check_interval=2", *LENGTH]
    text = ["data.directions=[de,fr]", "strategy.stage=monolingual", "evaluate=true"]
    first = train(tmp_path, *short, *text, "evaluate_base=true")
    scores = record(first)["metrics"]
    assert scores["test"]["de"]["nats_per_token"] < scores["base"]["de"]["nats_per_token"]
    assert logged_values(first, "train/aux/balance")

    stage = [*short, "strategy.stage=parallel", "name=second"]
    whole = train(tmp_path, *stage, f"init_from={first}")
    before = checkpoint(first, "best")["state_dict"]
    assert same({n: checkpoint(whole)["state_dict"][n] for n in before}, before)
    assert any(logged_values(whole, "routing/layer_0/gate/en-de").values())

    known = folders(tmp_path)
    with pytest.raises(SystemExit):
        attempt(tmp_path, *stage, f"init_from={first}", *stopping())
    (half,) = folders(tmp_path) - known
    again = train(tmp_path, *stage, f"resume={half}")
    assert same(checkpoint(again)["state_dict"], checkpoint(whole)["state_dict"])
    assert len(Translator.from_run(again).translate(["The cat sees the house."], "en-de")) == 1
