"""Costs of strategies against hand counts and torch's counter; settings that meet a budget."""

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.neurons import write_neurons, write_rows
from helpers.tiny import TRAIN, attempt, config
from torch.utils.flop_counter import FlopCounterMode

from polylect.config.roots import Categories, ConfigError
from polylect.data.batch import IGNORED, TranslationBatch
from polylect.library.neurons.file import NeuronFile
from polylect.library.neurons.kinds import ModuleNeurons
from polylect.models.backbone import tiny_backbone
from polylect.programs.train import _build
from polylect.run.budget.accounting import (
    Accounting,
    ModuleCost,
    accounting,
    operations_of_step,
    trained_parameters,
)
from polylect.run.budget.operations import FORMULAS
from polylect.run.budget.solver import Knob, knob_of, solve
from polylect.run.build import build_strategy, load_backbone_into
from polylect.run.monitor.without_values import TrainingStep, learned_places
from polylect.run.neuron_selection import select_neurons
from polylect.run.session import register_resolvers
from polylect.strategies.base import TranslationModule

HIDDEN = 32


def built(*overrides: str) -> tuple[TranslationModule, TranslationBatch]:
    register_resolvers(Path("run"))
    module, data = _build(config("train", *TRAIN, *overrides))
    data.setup("fit")
    return module, next(iter(data.training_stream(1)))


def counted(*overrides: str) -> tuple[Accounting, TranslationModule, TranslationBatch]:
    module, batch = built(*overrides)
    return accounting(module, batch, "32-true"), module, batch


def per_token(operations: float, batch: TranslationBatch) -> Any:
    return pytest.approx(operations / int(batch.attention_mask.sum()))


def test_full_training_is_what_a_hand_counts() -> None:
    costs, module, batch = counted("strategy=full", "optim=full")
    rows, length = batch.input_ids.shape
    modules, places = costs.modules, rows * length
    down = modules["model.layers.1.mlp.down_proj"]
    product = 2 * places * HIDDEN * module.backbone.config.intermediate_size
    assert down.trained == HIDDEN * module.backbone.config.intermediate_size
    assert down.optimizer_bytes == 2 * 4 * down.trained  # AdamW's moments, in float32
    assert down.forward == per_token(product, batch)
    assert down.backward == per_token(2 * product, batch)  # of the weight, and of the input
    assert down.decoded == 2 * down.trained
    attention = modules["model.layers.1.self_attn"]
    scores = 2 * rows * length * length * HIDDEN  # of all heads together
    assert attention.forward == per_token(2 * scores, batch)
    assert attention.backward == per_token(5 * scores, batch)  # scores are computed again
    assert attention.decoded == 2 * 2 * (length + 1) * HIDDEN
    learned = int((batch.labels != IGNORED).sum())
    vocabulary = module.backbone.config.vocab_size
    assert modules["lm_head"].forward == per_token(2 * learned * HIDDEN * vocabulary, batch)
    assert modules["lm_head"].decoded == 2 * HIDDEN * vocabulary
    assert costs.total.trained == sum(p.numel() for p in module.parameters())


def test_frozen_weights_need_no_gradient_of_their_own() -> None:
    """LoRA: the base's part of the backward pass is the gradient of its input alone."""
    rank = 3
    costs, module, batch = counted("strategy=lora", f"strategy.rank={rank}")
    down = costs.modules["model.layers.1.mlp.down_proj"]
    inner = module.backbone.config.intermediate_size
    base = 2 * batch.input_ids.numel() * HIDDEN * inner
    adapter = 2 * batch.input_ids.numel() * rank * (HIDDEN + inner)
    assert down.trained == rank * (HIDDEN + inner)
    assert down.forward == per_token(base + adapter, batch)
    assert down.backward == per_token(base + 2 * adapter, batch)
    query = costs.modules["model.layers.0.self_attn.q_proj"]  # whose input needs no gradient
    part = 2 * batch.input_ids.numel() * rank * HIDDEN
    assert query.forward == per_token(2 * batch.input_ids.numel() * HIDDEN**2 + 2 * part, batch)
    assert query.backward == per_token(3 * part, batch)  # B's, A's, and what B's input is asked for


@pytest.mark.parametrize("strategy", ["full", "lora", "lora_switch", "landermt", "rows"])
def test_the_sum_is_that_of_torch(strategy: str, tmp_path: Path) -> None:
    settings = [f"strategy={strategy}"]
    if strategy in ("landermt", "rows"):
        base, owners = tiny_backbone(hidden=HIDDEN)[0], ["en-de", "en-fr"]
        write = write_neurons if strategy == "landermt" else write_rows
        gate = "token" if strategy == "landermt" else "none"
        file = write(tmp_path, base, owners)
        settings = ["strategy=landermt", f"strategy.neurons={file}", f"strategy.gate={gate}"]
    module, batch = built(*settings)
    costs = accounting(module, batch, "32-true")
    step = TrainingStep(module).train()
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as peer:
        step(batch, *learned_places(batch), precision="32-true")
    total = costs.total
    assert total.forward + total.backward == per_token(peer.get_total_flops(), batch)
    assert total.trained == trained_parameters(module) > 0


@pytest.mark.parametrize("top", ["null", "1"])
def test_experts_are_what_a_hand_counts(top: str) -> None:
    """torch's counter fails where a backward pass has one within it."""
    width = 5
    settings = ["strategy=mix_moe", "strategy.stage=parallel", "strategy.features=uniform"]
    settings += [f"+strategy.mt_width={width}"]
    if top != "null":
        settings[2] = "strategy.features=none"
    costs, module, batch = counted(*settings, f"strategy.top={top}")
    inner = module.backbone.config.intermediate_size
    ffn = costs.modules["model.layers.1.mlp"]
    assert ffn.trained == 2 * 3 * width * HIDDEN
    neurons = inner + 2 * width if top == "null" else inner // 2 + width
    each = 2 * 3 * batch.input_ids.numel() * HIDDEN * neurons / int(batch.attention_mask.sum())
    most = 1.0 if top == "null" else 1.2  # tokens of an expert are filled up to whole blocks
    assert each * (1 - 1e-6) <= ffn.forward <= each * most * (1 + 1e-6)


def test_nothing_is_trained_by_a_frozen_base() -> None:
    _, batch = built("strategy=full")
    cfg = config("train", *TRAIN, "strategy=frozen")
    module = build_strategy(cfg)
    load_backbone_into(module, None, cfg)
    costs = accounting(module, batch, "32-true")
    total = costs.total
    assert (total.trained, total.optimizer_bytes, total.forward, total.backward) == (0, 0, 0, 0)
    product = module.backbone.model.layers[0].mlp.up_proj.weight.numel()
    assert costs.by_kind()["model.layers.*.mlp.up_proj"].decoded == 2 * 2 * product


def test_layers_are_summed_up() -> None:
    costs = Accounting({"h.0.up": ModuleCost(trained=3), "h.1.up": ModuleCost(trained=4)})
    assert costs.by_kind() == {"h.*.up": ModuleCost(trained=7)}


def page(capsys: pytest.CaptureFixture[str], runs: Path, *overrides: str) -> str:
    attempt(runs, "dry_run=true", *overrides)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [("lora", 8750), ("lora_switch", 15300), ("mix_moe strategy.stage=parallel", 40000)],
)
def test_the_setting_that_is_named_costs_the_budget(strategy: str, wanted: int) -> None:
    """As counted where it is set."""
    cfg = config("train", *TRAIN, *f"strategy={strategy}".split())
    setting = solve(knob_of(cfg), trained_parameters, wanted).nearest(wanted).paste
    module, _ = built(*f"strategy={strategy}".split(), f"++{setting}")
    assert trained_parameters(module) == pytest.approx(wanted, rel=0.01)


def test_operations_can_be_the_budget() -> None:
    module, batch = built("strategy=lora", "strategy.rank=7")
    wanted = operations_of_step(module, batch, "32-true")
    total = accounting(module, batch, "32-true").total
    assert wanted == pytest.approx(total.forward + total.backward)
    knob = knob_of(config("train", *TRAIN, "strategy=lora"))
    solution = solve(knob, lambda m: operations_of_step(m, batch, "32-true"), wanted)
    assert solution.nearest(wanted).paste == "strategy.rank=7"


def test_a_share_of_neurons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny_backbone(hidden=HIDDEN)[0]
    path = write_neurons(tmp_path, base, ["en-de", "en-fr"])
    file = NeuronFile.read(path)
    layers, categories = {"k": 1, "rule": "relevant", "form": "vector"}, asdict(Categories())
    chosen = {"layers": layers, "categories": categories, "seed": 1}
    about = {**file.about, "relevance": {"vector": file.relevance.tolist()}, "chosen": chosen}
    replace(file, about=about).write(path)
    settings = ["strategy=landermt", f"strategy.neurons={path}", "strategy.gate=none"]
    neurons = 20
    shown = page(capsys, tmp_path, *settings, f"budget.parameters={3 * HIDDEN * neurons}")
    named = rf"^  polylect detect scores={path} categories\.share=([\d.]+) layers\.k=1 seed=1$"
    (share,) = re.findall(named, shown, re.M)
    found = select_neurons(
        ModuleNeurons.read(path), layers, {**categories, "share": float(share)}, 1
    ).any
    assert int((found.general | found.specific.any(1)).sum()) == neurons


@pytest.mark.parametrize("budget", [1.0, 2.0, 9.0, 10.0, 11.0, 35.5, 100.0, 101.0])
def test_the_neighbours_of_a_budget(budget: float) -> None:
    costs = [n * n for n in range(1, 11)]
    knob = Knob(range(1, 11), lambda value: value, lambda value: f"n={value}")
    solution = solve(knob, lambda value: float(value**2), budget)
    below, above = ([c for c in costs if c <= budget], [c for c in costs if c > budget])
    assert (solution.below.cost if solution.below else None) == (max(below) if below else None)
    assert (solution.above.cost if solution.above else None) == (min(above) if above else None)
    assert solution.nearest(budget).cost == min(costs, key=lambda cost: abs(cost - budget))


def test_what_is_not_met_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = page(capsys, tmp_path, "strategy=lora", "budget.parameters=40")
    assert (
        "not met within 1% by any setting: below there is nothing, above is strategy.rank=1"
        in shown
    )


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ("budget.parameters=5", "is a question to a dry run: give dry_run=true"),
        ("budget.parameters=5 budget.operations=5 dry_run=true", "not both"),
        ("budget.parameters=0 dry_run=true", "must be a positive number, got 0"),
        ("budget.operations=many dry_run=true", "must be a positive number, got many"),
        ("budget.parameters=5 dry_run=true strategy=full", "has no size to choose"),
        (
            "budget.parameters=5 dry_run=true strategy=mix_moe strategy.stage=monolingual",
            "budgets are for the stages with MT experts",
        ),
    ],
)
def test_a_budget_without_an_answer(settings: str, error: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=error):
        attempt(tmp_path, *settings.split())
