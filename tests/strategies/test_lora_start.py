"""How adapters begin and what of them learns: init, train_a and loraplus_lr_ratio in whole runs."""

from pathlib import Path

import pytest
import torch
from helpers.small import build
from helpers.tiny import TRAIN, attempt, checkpoint, config, folders, same, stopping, train
from peft import PeftModel

from polylect.layers.lora.attach import lora_layers
from polylect.library import AdapterLibrary
from polylect.library.calibration import INPUTS, read_inputs
from polylect.models.backbone import tiny_backbone
from polylect.programs.train import main
from polylect.run.build import load
from polylect.strategies.lora_switch import LoRASwitch

DIRECTIONS = ["en-de", "en-fr"]
DATA = ["strategy.init=data", "strategy.init_sentences=20", "strategy.rank=4"]


def of_a(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    state = checkpoint(folder, name)["state_dict"]
    return {key: tensor for key, tensor in state.items() if ".lora_a." in key}


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose A comes from the inputs, and stays."""
    return train(tmp_path_factory.mktemp("frozen"), *DATA, "strategy.train_a=false")


def test_a_frozen_a_is_where_it_began_bit_by_bit(frozen: Path, tmp_path: Path) -> None:
    shorter = train(tmp_path, *DATA, "strategy.train_a=false", "trainer.max_steps=1")
    end, begin = of_a(frozen), of_a(shorter)
    assert same(end, begin)
    for rows in end.values():
        torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-5, rtol=0)
    state = checkpoint(frozen)["optimizer_states"][0]
    parameters = len(state["state"])
    assert parameters == len(end) == sum(len(g["params"]) for g in state["param_groups"])
    moved = checkpoint(frozen)["state_dict"]
    assert all(tensor.any() for key, tensor in moved.items() if ".lora_b." in key)


def test_projections_of_one_input_begin_alike_and_adapters_do_not(frozen: Path) -> None:
    a = of_a(frozen)
    of_queries = {d: a[next(k for k in a if k.endswith(f"0.self_attn.q_proj.lora_a.{d}"))]
                  for d in DIRECTIONS}  # fmt: skip
    of_keys = a[next(k for k in a if k.endswith("0.self_attn.k_proj.lora_a.en-de"))]
    assert torch.equal(of_queries["en-de"], of_keys)
    assert not torch.allclose(of_queries["en-de"], of_queries["en-fr"], atol=1e-2)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    settings = ["strategy.init=contrastive", "strategy.loraplus_lr_ratio=4", "strategy.rank=4"]
    whole = train(tmp_path / "whole", *settings)
    with pytest.raises(SystemExit):
        attempt(tmp_path / "stopped", *settings, *stopping(after=3))
    (first,) = folders(tmp_path / "stopped")
    second = train(tmp_path / "stopped", *settings, f"resume={first}")
    for part in ("state_dict", "optimizer_states", "lr_schedulers"):
        assert same(checkpoint(second)[part], checkpoint(whole)[part])


def test_weights_of_a_stage_before_are_not_drawn_anew(frozen: Path, tmp_path: Path) -> None:
    one_more = ["data.directions=[en-de,en-fr,en-hi]", "trainer.max_steps=1"]
    run = train(tmp_path, *DATA, "strategy.train_a=false", f"init_from={frozen}", *one_more)
    before, after = of_a(frozen, "best"), of_a(run)
    assert all(torch.equal(after[key], rows) for key, rows in before.items())
    new = [rows for key, rows in after.items() if key not in before]
    assert len(new) == len(before) / 2
    for rows in new:  # an adapter that the stage before lacks begins with its inputs
        torch.testing.assert_close(rows @ rows.T, torch.eye(4), atol=1e-5, rtol=0)


def test_adapters_load_in_peft_and_here_and_the_means_lie_beside_them(frozen: Path) -> None:
    library = AdapterLibrary(frozen / "adapters")
    assert library.names == DIRECTIONS and library.check() == []
    module, _ = load(frozen)
    layers = lora_layers(module.backbone)
    base, _ = tiny_backbone(hidden=32)
    ids = torch.arange(5, 25).view(2, 10)
    peft = PeftModel.from_pretrained(base, frozen / "adapters" / "en-fr")
    with module.context.route(["en-fr"] * 2), torch.no_grad():
        ours = module.backbone(input_ids=ids).logits
    torch.testing.assert_close(peft(input_ids=ids).logits, ours, atol=1e-5, rtol=1e-4)
    for name in DIRECTIONS:
        means = read_inputs(library, name)
        assert means.keys() == layers.keys()
        assert all(mean.shape == (layers[p].in_features,) for p, (mean, _) in means.items())
        assert len({count for _, count in means.values()}) == 1


def test_an_a_drawn_at_random_has_no_means_beside_it(tmp_path: Path) -> None:
    run = train(tmp_path, "strategy.train_a=false", "trainer.max_steps=1")
    assert not list(run.glob(f"adapters/*/{INPUTS}"))


# Rates


@pytest.mark.parametrize("optim", ["small", "adamw", "full", "full_small"])
def test_b_learns_at_its_ratio_of_the_rate_of_a_all_along(optim: str) -> None:
    module = build("lora_switch", "strategy.loraplus_lr_ratio=16", f"optim={optim}")
    plain = build("lora_switch", f"optim={optim}")
    optimizer, schedule = module.make_optimizer(20)
    reference, other = plain.make_optimizer(20)
    of_b = {id(p) for n, p in module.named_parameters() if ".lora_b." in n}
    for _ in range(20):
        rate = reference.param_groups[0]["lr"]
        for group in optimizer.param_groups:
            (is_b,) = {id(p) in of_b for p in group["params"]}
            assert group["lr"] == pytest.approx((16 if is_b else 1) * rate)
        for step in (optimizer, schedule, reference, other):
            step.step()
    assert "lr_ratio" not in optimizer.param_groups[1]
    units = [group["unit"] for group in optimizer.param_groups]
    assert units == [0, 0, 1, 1, 2, 2]
    assert len({group["name"] for group in optimizer.param_groups}) == 6


def test_a_dry_run_counts_what_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = []
    for setting in ("true", "false"):
        settings = ["dry_run=true", f"runs={tmp_path}", f"strategy.train_a={setting}"]
        main(config("train", *TRAIN, *settings))
        printed = capsys.readouterr().out
        counts.append(int(printed.split(" in all, ")[1].split(" trained")[0].replace(",", "")))
    module = build("lora_switch", "data.directions=[en-de,en-fr]")
    a, b = (
        sum(p.numel() for name, p in module.named_parameters() if f".lora_{factor}." in name)
        for factor in "ab"
    )
    assert counts == [a + b, b]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"init": "eva"}, "strategy.init=eva does not exist; known: contrastive, data, kaiming"),
        ({"init_sentences": 0}, "strategy.init_sentences must be at least 1, got 0"),
        ({"loraplus_lr_ratio": 0}, "strategy.loraplus_lr_ratio must be positive, got 0"),
        ({"loraplus_lr_ratio": 4, "train_a": False}, "train_a=false does not train: leave one"),
        ({"init": "contrastive", "adapters": "shared"}, "several adapters.*strategy.init=data"),
    ],
)
def test_a_bad_setting_is_a_sentence(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        LoRASwitch(directions=DIRECTIONS, **settings)


def test_a_rank_above_the_width_of_a_layer_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="at most 32 directions in the inputs of"):
        build("lora_switch", "strategy.rank=40", "strategy.init=data")
