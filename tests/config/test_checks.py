"""What a trainer asks of the machine, said before anything is loaded."""

from pathlib import Path

import pytest
import torch
from helpers.tiny import DATA, MODEL, config

from polylect.cli import run
from polylect.config.checks import check_devices, missing_devices
from polylect.config.roots import ConfigError
from polylect.run.build import build_strategy
from polylect.run.processes.checks import check_sharing


@pytest.mark.parametrize(
    ("given", "gpus", "said"),
    [
        (["trainer=gpu", "trainer.devices=4"], 0, "asks for GPUs and this machine has none"),
        (["trainer=gpu", "trainer.devices=4"], 2, "trainer.devices=4 asks for more GPUs .* has, 2"),
        (["trainer=gpu", "trainer.devices=[0,1,2]"], 2, "asks for more GPUs"),
        (["trainer=gpu", "trainer.devices=2"], 2, None),
        (["trainer=gpu", "trainer.devices=auto"], 1, None),
        (["trainer=gpu", "trainer.devices=-1"], 1, None),
        (["trainer=cpu", "trainer.devices=4"], 0, None),
        (["trainer=ddp"], 0, None),
    ],
)
def test_devices_that_are_not_there_are_a_sentence(
    given: list[str], gpus: int, said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    cfg = config("train", *given)
    if said is None:
        assert missing_devices(cfg) is None
        check_devices(cfg)
    else:
        with pytest.raises(ConfigError, match=said):
            check_devices(cfg)


def test_a_run_without_its_devices_makes_no_folder_and_a_dry_run_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    runs = tmp_path / "runs"
    asked = ["train", *MODEL, *DATA, "trainer=gpu", "trainer.devices=4", f"runs={runs}"]
    assert run(asked) == 2
    stderr = capsys.readouterr().err
    assert "this machine has none" in stderr and stderr.count("\n") == 1
    assert not runs.exists()
    assert run([*asked, "dry_run=true"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("this machine has none") == 1 and "memory " in shown


MASKED = ["strategy=landermt", "strategy.neurons=none", "strategy.gate=none"]
MASKED += ["strategy.shared=true", "strategy.mask_at_step=true"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["trainer=fsdp", "callbacks=ledger"], "callbacks=ledger compares whole gradients"),
        (["trainer=fsdp", "strategy.init=contrastive"], "strategy.init=contrastive looks at"),
        (["trainer=fsdp", "strategy.start=folder"], "strategy.start writes into whole adapters"),
        (["trainer=fsdp", "+model.quantize=4bit"], "model.quantize=4bit makes weights that"),
        (["trainer=ddp", *MASKED], "train in one process"),
        (["trainer=cpu", *MASKED], None),
        (["trainer=deepspeed2"], "takes strategy=full alone, not LoRASwitch"),
        (
            ["trainer=deepspeed3", "strategy=full", "trainer.accumulate_grad_batches=2"],
            "leave trainer.accumulate_grad_batches=1",
        ),
        (["trainer=deepspeed3", "strategy=full", "resume=RUN"], "does not go on with DeepSpeed"),
        (["trainer=deepspeed3", "strategy=full"], None),
        (["trainer=fsdp", "strategy=mix_moe"], None),
        (["trainer=ddp", "callbacks=ledger", "strategy.init=contrastive"], None),
    ],
)
def test_what_cannot_be_shared_out_is_a_sentence(given: list[str], said: str | None) -> None:
    cfg = config("train", *MODEL, *DATA, *given)
    module = build_strategy(cfg)
    if said is None:
        check_sharing(module, cfg)
    else:
        with pytest.raises(ConfigError, match=said):
            check_sharing(module, cfg)


def test_more_processes_than_cores_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    check_devices(config("train", "trainer.devices=1"))
    assert not capsys.readouterr().out
    check_devices(config("train", "trainer.devices=4096"))
    assert "trainer.devices=4096 starts as many processes on this" in capsys.readouterr().out
