"""trainer.precision=auto asks the machine, says what it chose, and is stored as what it chose."""

from pathlib import Path

import pytest
import torch
from helpers.tiny import config, record, train

from polylect.run.precision import settle_precision, training_precision


def machine(patch: pytest.MonkeyPatch, *, amx=False, avx=False, gpu=None) -> None:
    patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    patch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    patch.setattr(torch.cuda, "get_device_name", lambda: "GPU")
    patch.setattr(torch.cuda, "get_device_capability", lambda: gpu)


@pytest.mark.parametrize(
    ("parts", "accelerator", "precision", "why"),
    [
        ({"amx": True}, "auto", "bf16-mixed", "AMX"),
        ({"avx": True}, "cpu", "bf16-mixed", "AVX512-BF16"),
        ({}, "cpu", "32-true", "neither AMX nor"),
        ({"gpu": (8, 0)}, "auto", "bf16-mixed", "GPU has bfloat16 units"),
        ({"gpu": (7, 5), "amx": True}, "gpu", "32-true", "GPU has no bfloat16 units"),
        ({"gpu": (9, 0)}, "cpu", "32-true", "neither AMX nor"),
        ({"amx": True}, "mps", "32-true", "accelerator=mps"),
    ],
)
def test_the_machine_decides(
    parts: dict, accelerator: str, precision: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, **parts)
    chosen, reason = training_precision(accelerator)
    assert chosen == precision and why in reason


def test_a_precision_that_is_given_stays() -> None:
    cfg = config("train", "trainer=cpu")
    assert settle_precision(cfg) is None and cfg.trainer.precision == "32-true"


def test_a_run_says_and_stores_what_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    machine(monkeypatch, amx=True)
    folder = train(tmp_path, "trainer.precision=auto", "trainer.max_steps=2")
    assert "precision=auto is bf16-mixed: the processor has AMX" in capsys.readouterr().out
    assert record(folder)["config"]["trainer"]["precision"] == "bf16-mixed"
