"""The launch files hand over what the programs take, and the processes they start are seen."""

import os
import subprocess
from pathlib import Path

import pytest
from helpers.tiny import config

from polylect.cli import run
from polylect.config.roots import ConfigError, conf_folder
from polylect.config.validation import validate
from polylect.programs.train import check_processes
from polylect.run.processes import group
from polylect.run.session import register_resolvers

LAUNCH = conf_folder().parent / "experiments" / "launch"


def launched(file: str, folder: Path, *arguments: str, **env: str) -> list[str]:
    """What torchrun or srun would be given."""
    for name in ("torchrun", "srun"):
        (folder / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (folder / name).chmod(0o755)
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    command = ["bash", str(LAUNCH / file), *arguments]
    done = subprocess.run(command, env=path | env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.fixture
def of_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the fourth process of sixteen, on the first of two machines."""
    for name, value in {
        "TORCHELASTIC_RUN_ID": "1", "RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "16"
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


@pytest.fixture
def of_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the second process on the second of two machines with eight each."""
    for name, value in {
        "SLURM_STEP_ID": "0", "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NTASKS": "16"
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


TRAIN = ["train", "trainer=large", "name=a b"]


def check_training(arguments: list[str]) -> None:
    assert arguments[:3] == TRAIN
    register_resolvers(Path("run"))
    cfg = config("train", *arguments[1:2], *arguments[3:])
    validate(cfg)
    check_processes(cfg)
    assert (cfg.trainer.devices, cfg.trainer.num_nodes) == (8, 2)


def test_torchrun_is_told_where_to_meet_and_the_trainer_how_many(
    tmp_path: Path, of_torchrun: None
) -> None:
    given = launched("torchrun.sh", tmp_path, *TRAIN, PROCESSES="8", NODES="2", HOST="node1")
    begin = given.index("-m")
    options = dict(zip(given[:begin:2], given[1:begin:2], strict=True))
    assert options == {
        "--nnodes": "2",
        "--nproc-per-node": "8",
        "--rdzv-backend": "c10d",
        "--rdzv-id": "polylect",
        "--rdzv-endpoint": "node1:29500",
    }
    assert given[begin + 1] == "polylect.cli"
    check_training(given[begin + 2 :])


def test_other_programs_are_given_what_they_take(tmp_path: Path) -> None:
    given = launched("torchrun.sh", tmp_path, "evaluate", "run=RUN", PROCESSES="2")
    assert given == [
        "--nnodes", "1", "--nproc-per-node", "2", "--standalone", "-m", "polylect.cli",
        "evaluate", "run=RUN",
    ]  # fmt: skip
    of_slurm = {"SLURM_NTASKS_PER_NODE": "4", "SLURM_NNODES": "1"}
    given = launched("slurm.sh", tmp_path, "translate", "run=RUN", "input=a.txt", **of_slurm)
    assert given == ["--kill-on-bad-exit=1", "polylect", "translate", "run=RUN", "input=a.txt"]


def test_srun_starts_a_process_for_each_device(tmp_path: Path, of_srun: None) -> None:
    of_slurm = {"SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "2"}
    given = launched("slurm.sh", tmp_path, *TRAIN, **of_slurm)
    assert given[:2] == ["--kill-on-bad-exit=1", "polylect"]
    check_training(given[2:])
    text = (LAUNCH / "slurm.sh").read_text()
    assert "--ntasks-per-node=8" in text and "--nodes=2" in text


def test_a_process_knows_its_number_and_its_share(of_srun: None) -> None:
    assert (group.rank(), group.local_rank(), group.started_together()) == (9, 1, 16)
    assert group.share(range(40)) == [9, 25]


def test_a_batch_script_is_no_process_of_srun(
    of_srun: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_STEP_ID")
    assert (group.rank(), group.local_rank(), group.started_together()) == (0, 0, 1)
    assert group.share(range(3)) == group.of_all([0, 1, 2]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["trainer=cpu"], "started 16 processes, and trainer.devices=1 on trainer.num_nodes=1 are"),
        (["trainer.strategy=fsdp"], "trainer.strategy=fsdp does not work here: .* trainer=fsdp"),
        (["trainer=deepspeed3"], "needs the package deepspeed: pip install deepspeed, or take"),
    ],
)
def test_processes_that_do_not_fit_are_a_sentence(
    given: list[str], said: str, of_torchrun: None
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_processes(config("train", *(f"+{g}" if "strategy" in g else g for g in given)))


def test_machines_without_a_launcher_are_a_sentence() -> None:
    with pytest.raises(ConfigError, match="needs a process of torchrun or srun on each machine"):
        check_processes(config("train", "trainer=fsdp", "trainer.num_nodes=2"))


@pytest.mark.parametrize("command", [["recipe", "recipe=mix_moe"], ["train", "-m", "seed=1,2"]])
def test_what_is_one_process_says_so(
    command: list[str], of_torchrun: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == 2
    said = capsys.readouterr().err
    assert "is one process, and torchrun or srun has started 16" in said
    assert said.count("\n") == 1
