"""trainer.precision=auto and model.dtype=auto ask the machine, say and store what they chose."""

from pathlib import Path

import pytest
import torch
from helpers.tiny import DATA, LENGTH, config, folders, record, train

from polylect.models.backbone import load_backbone, tiny_backbone
from polylect.models.precision import bfloat16_units
from polylect.programs.train import main
from polylect.run.build import load
from polylect.run.precision import settle_precision


def machine(patch: pytest.MonkeyPatch, *, amx=False, avx=False, gpu=None) -> None:
    patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    patch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    patch.setattr(torch.cuda, "get_device_name", lambda: "GPU")
    patch.setattr(torch.cuda, "get_device_capability", lambda: gpu)


@pytest.mark.parametrize(
    ("parts", "accelerator", "fast", "why"),
    [
        ({"amx": True}, "auto", True, "AMX"),
        ({"avx": True}, "cpu", True, "AVX512-BF16"),
        ({}, "cpu", False, "neither AMX nor"),
        ({"gpu": (8, 0)}, "auto", True, "GPU has bfloat16 units"),
        ({"gpu": (7, 5), "amx": True}, "gpu", False, "GPU has no bfloat16 units"),
        ({"gpu": (9, 0)}, "cpu", False, "neither AMX nor"),
        ({"amx": True}, "mps", False, "accelerator=mps"),
    ],
)
def test_the_machine_decides(
    parts: dict, accelerator: str, fast: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, **parts)
    has_units, reason = bfloat16_units(accelerator)
    assert has_units is fast and why in reason


def test_a_precision_that_is_given_stays() -> None:
    cfg = config("train", "trainer=cpu")
    assert settle_precision(cfg.trainer) is None and cfg.trainer.precision == "32-true"


def test_a_run_says_and_stores_what_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    machine(monkeypatch, amx=True)
    folder = train(tmp_path, "trainer.precision=auto", "trainer.max_steps=2")
    assert "precision=auto is bf16-mixed: the processor has AMX" in capsys.readouterr().out
    assert record(folder)["config"]["trainer"]["precision"] == "bf16-mixed"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    model, tokenizer = tiny_backbone()
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize(
    ("strategy", "amx", "dtype", "why"),
    [
        ("lora_switch", True, "bfloat16", "the processor has AMX"),
        ("lora_switch", False, "float32", "the processor has neither"),
        ("full", True, "float32", "the strategy may train the base's weights"),
    ],
)
def test_the_weights_of_a_run_have_the_dtype_that_it_says_and_stores(
    strategy: str,
    amx: bool,
    dtype: str,
    why: str,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    machine(monkeypatch, amx=amx)
    local = ["model=local", f"model.path={base}", "model.dtype=auto"]
    quick = [*DATA, *LENGTH, "trainer.max_steps=2", "evaluate=false", "evaluate_base=false"]
    main(config("train", f"strategy={strategy}", *local, *quick, f"runs={tmp_path / 'runs'}"))
    (folder,) = folders(tmp_path / "runs")
    assert f"model.dtype=auto is {dtype}: {why}" in capsys.readouterr().err
    assert record(folder)["config"]["model"]["dtype"] == dtype
    machine(monkeypatch, amx=not amx)  # another machine serves it as it was trained
    module, _ = load(folder)
    assert next(module.backbone.parameters()).dtype == getattr(torch, dtype)


def test_in_python_auto_asks_the_machine_too(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, amx=True)
    assert load_backbone(str(base), dtype="auto")[0].dtype == torch.bfloat16
    machine(monkeypatch)
    assert load_backbone(str(base), dtype="auto")[0].dtype == torch.float32
