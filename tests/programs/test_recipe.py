"""Recipes: stages in their order, each a run of its own, and what happens when one fails."""

import json
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from helpers.tiny import DATA, LENGTH, MODEL, config, record
from omegaconf import OmegaConf

from polylect import cli
from polylect.config.overrides import resolve_overrides
from polylect.config.roots import ConfigError, conf_folder
from polylect.programs import recipe
from polylect.run.sweep import job as sweep_job


def configured(runs: Path, stages: dict, **changes: object):
    values = {"name": "two", "runs": str(runs), "seed": 1, "resume": None, "common": []}
    values |= {"reuse": True, "dry_run": False, "like": None}
    values |= {"extra": {}, "shared": {}, "stages": stages}
    return OmegaConf.create(values | changes)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], Path]]:
    """The commands of the stages, which here only make their folders; "fail" among them fails.

    Their settings are no real ones and pass unchecked.
    """
    stages_run: list[tuple[list[str], Path]] = []

    def run(command: list[str], log: None, environment: dict[str, str]) -> int:
        folder = Path(environment[recipe.RUN_FOLDER])
        stages_run.append((command[3:], folder))
        folder.mkdir()
        if "fail=1" in command:
            (folder / "checkpoints").mkdir()
            (folder / "checkpoints" / "last.ckpt").touch()
            return 1
        (folder / "record.json").write_text(json.dumps({"metrics": {"objective": 7.0}}))
        return 0

    monkeypatch.setattr(recipe, "run_subprocess", run)
    monkeypatch.setattr(recipe, "resolve_overrides", lambda program, overrides, conf: [])
    monkeypatch.setattr(recipe, "stage_identity", lambda *inputs: str(hash(str(inputs))))
    return stages_run


TWO = {
    "first": {"program": "pretrain", "overrides": ["a=1"]},
    "second": {"program": "train", "overrides": ["model.path={first}/model"]},
}


def test_a_stage_gets_the_folder_of_an_earlier_one(tmp_path: Path, calls: list) -> None:
    recipe.main(configured(tmp_path, TWO, common=["c=3"], extra={"second": ["b=2"]}, seed=5))
    (first, first_folder), (second, second_folder) = calls
    assert first == ["pretrain", "a=1", "c=3", "seed=5", f"out={first_folder}"]
    assert second == ["train", f"model.path={first_folder}/model", "c=3", "b=2", "seed=5"]
    assert first_folder.parent == second_folder.parent
    run_record = record(first_folder.parent)
    assert (run_record["status"], run_record["metrics"]["objective"]) == ("done", 7.0)


def test_what_stages_share_is_said_once(tmp_path: Path, calls: list) -> None:
    shared = {
        "where": "model.path={first}/model",
        "library": "strategy.library={task: '{first}/adapters', knowledge: [x, '${shared.name}']}",
        "name": "y",
        "both": ["${shared.where}", ["k=5", "${shared.library}"]],
    }
    stages = TWO | {
        "second": {"program": "train", "overrides": ["a=1", "${shared.both}", "b=${shared.name}"]},
        "third": {"program": "train", "overrides": "${shared.where}"},
    }
    recipe.main(configured(tmp_path, stages, shared=shared))
    (_, first), (second, _), (third, _) = calls
    library = f"strategy.library={{task: '{first}/adapters', knowledge: [x, 'y']}}"
    where = f"model.path={first}/model"
    assert second == ["train", "a=1", where, "k=5", library, "b=y", "seed=1"]
    assert third == ["train", where, "seed=1"]


def test_a_stage_with_trials_is_one_for_each(tmp_path: Path, calls: list) -> None:
    trials = {"low": "lr=1", "high": ["lr=2", "${shared.more}"]}
    stages = TWO | {"second": TWO["second"] | {"trials": trials}}
    cfg = configured(tmp_path, stages, shared={"more": ["t=5"]}, extra={"second_low": ["b=2"]})
    recipe.main(cfg)
    (_, first), (low, low_folder), (high, _) = calls
    where = f"model.path={first}/model"
    assert low == ["train", where, "lr=1", "b=2", "seed=1"]
    assert high == ["train", where, "lr=2", "t=5", "seed=1"]
    assert low_folder.name == "second_low"


def test_a_dry_run_lists_the_stages_and_runs_none(
    tmp_path: Path, calls: list, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = {name: {"program": "detect"} for name in ("first", "second")}
    recipe.main(configured(tmp_path / "runs", stages, dry_run=True))
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[1:3] == [["first", "detect", "-", "-"], ["second", "detect", "-", "-"]]
    assert not calls and not (tmp_path / "runs").exists()


def test_a_stage_may_have_a_seed_of_its_own(tmp_path: Path, calls: list) -> None:
    recipe.main(configured(tmp_path, TWO, extra={"second": ["seed=7"]}, seed=5))
    (first, _), (second, _) = calls
    assert "seed=5" in first
    assert second[2:] == ["seed=7"]


def test_placeholders_of_corpora_are_left_to_the_stage(tmp_path: Path, calls: list) -> None:
    files = "data.train={'*': 'my/{src}-{tgt}.{lang}', x: '{pair}'}"
    recipe.main(configured(tmp_path, ONE, common=[files, r"b=\${seed}"]))
    assert calls[0][0] == ["train", files, "b=${seed}", "seed=1"]


EXTRA = [
    (
        "extra.train=[strategy.gate=none,trainer.max_steps=500]",
        ["strategy.gate=none", "trainer.max_steps=500"],
    ),
    (
        "extra.train=[data.directions=[en-de,en-fr], data.train={kind: tongues, size: 5}]",
        ["data.directions=[en-de,en-fr]", "data.train={kind: tongues, size: 5}"],
    ),
    ("extra={train: [strategy.gate=none]}", ["strategy.gate=none"]),
    ("extra.train=['name=a, b', seed=3]", ["name=a, b", "seed=3"]),
    ("extra.train=[\"a.b={c: 'd'}\",a.e=it's]", ["a.b={c: 'd'}", "a.e=it's"]),
    ("extra.train=[~data.train,+x=1]", ["~data.train", "+x=1"]),
]


@pytest.mark.parametrize(("given", "overrides"), EXTRA)
def test_extra_takes_overrides_as_they_are_typed(given: str, overrides: list[str]) -> None:
    (text,) = resolve_overrides("recipe", [given], conf_folder())
    cfg = config("recipe", "recipe=landermt", text)
    assert list(cfg.extra.train) == overrides
    assert recipe.stages_of(cfg)["train"].overrides[3 : 3 + len(overrides)] == overrides


def test_a_recipe_is_swept_over_what_a_stage_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The jobs read what they are told as the one who typed it meant it."""
    jobs: list[list[str]] = []

    def job(command: list[str], log: IO[str], environment: dict[str, str]) -> int:
        jobs.append(resolve_overrides("recipe", command[4:], conf_folder()))
        return 0

    monkeypatch.setattr(sweep_job, "run_subprocess", job)
    extra = "extra.train=[strategy=lora,trainer.max_steps=2],[strategy=full]"
    assert cli.run(["recipe", "-m", f"runs={tmp_path}", extra]) == 0
    trained = [list(config("recipe", *own[:-1]).extra.train) for own in jobs]
    assert trained == [["strategy=lora", "trainer.max_steps=2"], ["strategy=full"]]


def test_a_failed_stage_ends_it_and_it_goes_on_from_there(tmp_path: Path, calls: list) -> None:
    with pytest.raises(ConfigError, match="stage second failed with exit code 1; when that is"):
        recipe.main(configured(tmp_path, TWO, extra={"second": ["fail=1"]}))
    folder = calls[0][1].parent
    assert record(folder)["status"] == "failed"
    recipe.main(configured(tmp_path, TWO, resume=str(folder)))
    assert [command[0] for command, _ in calls] == ["pretrain", "train", "train"]
    command, again = calls[2]
    assert command[-1] == f"resume={calls[1][1]}"  # it had a checkpoint
    assert again == folder / "second_2"
    assert record(folder)["status"] == "done"


def test_a_stage_does_not_go_on_from_one_whose_name_begins_like_its_own(
    tmp_path: Path, calls: list
) -> None:
    stages = {n: {"program": "train", "overrides": [f"a={n}"]} for n in ("lora_switch", "lora")}
    recipe.main(configured(tmp_path, stages, extra={}))
    assert [len(command) for command, _ in calls] == [3, 3]  # without resume=


def test_a_stage_goes_on_from_the_last_of_many_attempts(tmp_path: Path) -> None:
    for name in ("lora", "lora_2", "lora_10", "lora_switch", "lora_switch_2"):
        (tmp_path / name).mkdir()
    names = [run.name for run in recipe._former_runs(tmp_path, "lora")]
    assert names == ["lora", "lora_2", "lora_10"]


def test_a_stage_that_goes_on_does_not_begin_from_the_one_before(
    tmp_path: Path, calls: list
) -> None:
    second = {"program": "train", "overrides": ["init_from={first}"]}
    stages = TWO | {"second": second}
    with pytest.raises(ConfigError):
        recipe.main(configured(tmp_path, stages, extra={"second": ["fail=1"]}))
    (_, first), (command, half) = calls
    assert command[1] == f"init_from={first}"
    recipe.main(configured(tmp_path, stages, resume=str(first.parent)))
    assert calls[2][0] == ["train", "seed=1", f"resume={half}"]


ONE = {"a": {"program": "train"}}
NAMED = {"first": {"program": "train"}, "c": {"program": "train"}}


@pytest.mark.parametrize(
    ("stages", "changes", "message"),
    [
        ({}, {}, "stages is empty"),
        ({"a": {"program": "trian"}}, {}, r"stages\.a\.program=trian does not exist; did you mean"),
        ({"a": {"program": "train", "step": 1}}, {}, r"stages\.a\.step: a stage has a program"),
        (TWO, {"extra": {"secnd": []}}, r"extra\.secnd: no stage has this name; did you mean"),
        (ONE, {"resume": "nowhere"}, "resume=nowhere is no folder of a recipe"),
        ({"a": None}, {}, "stages.a=None: a stage has a program, overrides and trials"),
        (
            {"a": {"program": "train", "trials": []}},
            {},
            r"stages\.a\.trials=\[\]: give the overrides",
        ),
        (ONE, {"extra": {"a": [{"seed": 3}]}}, r"stages\.a: {'seed': 3} is not a setting"),
        # Found before the first stage runs, though they are of the last:
        (
            ONE,
            {"extra": {"a": ["strategy.rnk=3"]}},
            r"stages\.a: strategy\.rnk does not exist",
        ),
        (ONE, {"extra": {"a": ["strategy=lroa"]}}, r"stages\.a: strategy=lroa does not exist; did"),
        (ONE, {"common": ["seed"]}, r"stages\.a: 'seed' is not a setting: write key=value"),
        (
            ONE,
            {"extra": {"a": ["seed=1,2"]}},
            r"stages\.a: seed=1,2 is a sweep, but a stage",
        ),
        (
            ONE,
            {"common": ["${shared.one}"]},
            r"common: \${shared\.one} does not exist; shared is",
        ),
        (ONE, {"shared": {"one": "${shared.oen}"}}, r"shared: \${shared\.oen} .* did you mean one"),
        (
            NAMED,
            {"extra": {"c": ["init_from={frist}"]}},
            "{frist}: no stage is called frist; did",
        ),
        (
            NAMED,
            {"extra": {"c": ["init_from={c}"]}},
            r"stages\.c: init_from={c}: {c} has not run",
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, stages: dict, changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe.main(configured(tmp_path, stages, **changes))
    assert not list(tmp_path.iterdir())


def listed(*overrides: str) -> str:
    return "[" + ",".join(f'"{override}"' for override in overrides) + "]"


def run(name: str, runs: Path, *settings: str) -> Path:
    """The folder of a recipe, run by its command."""
    command = [sys.executable, "-m", "polylect.cli", "recipe", f"recipe={name}", f"runs={runs}"]
    done = subprocess.run([*command, *settings], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder,) = runs.glob(f"{name}/*")
    assert record(folder)["status"] == "done"
    return folder


SMALL = [o for o in DATA if "data.train" not in o]
SHORT = [*LENGTH, "trainer.max_steps=2", "evaluate=false", "evaluate_base=false"]


@pytest.mark.slow
def test_mix_moe_runs_from_one_command(tmp_path: Path) -> None:
    common = listed(*MODEL, *SHORT, "data.val.size=6")
    folder = run("mix_moe", tmp_path, f"common={common}")
    assert (folder / "stage2" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_landermt_runs_from_one_command(tmp_path: Path) -> None:
    folder = run(
        "landermt",
        tmp_path,
        f"extra.joint={listed(*MODEL, *SMALL, *SHORT)}",
        f"extra.detect={listed(*SMALL, 'layers.k=1')}",
        f"extra.train={listed(*SMALL, *SHORT)}",
    )
    assert (folder / "detect" / "neurons.safetensors").is_file()
    assert list((folder / "train" / "rows").glob("en-*.safetensors"))


def test_a_stage_that_is_done_is_not_kept_for_other_settings(tmp_path: Path, calls: list) -> None:
    with pytest.raises(ConfigError):
        recipe.main(configured(tmp_path, TWO, extra={"second": ["fail=1"]}))
    folder = str(calls[0][1].parent)
    for change in ({"extra": {"first": ["a=2"]}}, {"common": ["a=2"]}):
        with pytest.raises(ConfigError, match=r"first is done and kept, .* with - where a=2 is"):
            recipe.main(configured(tmp_path, TWO, resume=folder, **change))
    with pytest.raises(ConfigError, match="it was done with seed=1 where seed=2 is given now"):
        recipe.main(configured(tmp_path, TWO, resume=folder, seed=2))
    assert len(calls) == 2
    recipe.main(configured(tmp_path, TWO, resume=folder, extra={"second": ["b=2"]}))
    assert [command[0] for command, _ in calls] == ["pretrain", "train", "train"]


def test_a_stage_that_diverged_is_given_other_settings_and_begins_anew(
    tmp_path: Path, calls: list
) -> None:
    with pytest.raises(ConfigError, match="stage second failed"):
        recipe.main(configured(tmp_path, TWO, extra={"second": ["fail=1"]}))
    (_, _), (_, half) = calls
    status = {"run": str(half), "config": {}, "status": "diverged"}
    (half / "record.json").write_text(json.dumps(status))
    again = {"resume": str(half.parent)}
    with pytest.raises(ConfigError, match=r"second has diverged with these .* 'extra\.second="):
        recipe.main(configured(tmp_path, TWO, extra={"second": ["fail=1"]}, **again))
    assert len(calls) == 2
    recipe.main(configured(tmp_path, TWO, extra={"second": ["lr=1"]}, **again))
    assert not any(override.startswith("resume=") for override in calls[2][0])
    assert "lr=1" in calls[2][0]
