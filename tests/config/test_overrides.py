"""Overrides as they are typed: sweeps over groups, lists of choices, free mappings."""

import shlex
from pathlib import Path
from typing import IO

import pytest
import yaml
from helpers.tiny import config

from polylect import cli
from polylect.config.overrides import resolve_overrides
from polylect.config.roots import ConfigError, conf_folder
from polylect.config.validation import validate
from polylect.run.session import register_resolvers
from polylect.run.sweep import job as sweep_job
from polylect.run.sweep.ledger import read_jobs

CONF = conf_folder()


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The overrides of a sweep's jobs, which do not run."""
    commands: list[list[str]] = []

    def job(command: list[str], log: IO[str], environment: dict[str, str]) -> int:
        commands.append(command[4:])
        return 0

    monkeypatch.setattr(sweep_job, "run_subprocess", job)
    return commands


OFTEN_SWEPT = ["data", "strategy", "callbacks"]
SELDOM_SWEPT = ["model", "optim", "trainer", "logger", "experiment"]
SWEPT = [*OFTEN_SWEPT, *(pytest.param(g, marks=pytest.mark.slow) for g in SELDOM_SWEPT)]


@pytest.mark.parametrize("group", SWEPT)
def test_every_group_may_be_swept_over(group: str, tmp_path: Path, jobs: list) -> None:
    """With a setting beside it (the folder), which makes the command compose the choices."""
    swept = [f"{group}={choice}" for choice in choices(group)[:2]]
    command = ["train", "-m", ",".join(swept).replace(f",{group}=", ","), f"runs={tmp_path}"]
    assert cli.run(command) == 0
    assert [job[0] for job in jobs] == swept
    (folder,) = tmp_path.glob("sweeps/*/*")
    assert [done.overrides for done in read_jobs(folder)] == [[choice] for choice in swept]


@pytest.mark.parametrize(
    ("given", "swept"),
    [
        ("strategy=glob(lora*,exclude=*_*)", ["lora"]),
        ("strategy=choice(lora,full)", ["lora", "full"]),
        ("strategy=glob([lora_*])", ["lora_library", "lora_switch"]),
        ("callbacks=[default,early_stopping],default", ["[default,early_stopping]", "default"]),
    ],
)
def test_choices_may_be_given_in_each_way_of_hydra(
    given: str, swept: list[str], tmp_path: Path, jobs: list
) -> None:
    assert cli.run(["train", "-m", given, f"runs={tmp_path}", "evaluate=false"]) == 0
    group = given.partition("=")[0]
    assert [job[0] for job in jobs] == [f"{group}={choice}" for choice in swept]


@pytest.mark.parametrize("program", ["evaluate", "answer", "detect", "recipe"])
def test_programs_sweep_over_their_groups(program: str, tmp_path: Path, jobs: list) -> None:
    group = "recipe" if program == "recipe" else "model"
    swept = f"{group}={','.join(choices(group)[:2])}"
    assert cli.run([program, "-m", swept, f"runs={tmp_path}"]) == 0
    assert len(jobs) == 2


def examples(program: str) -> list[list[str]]:
    """The commands at the end of a program's help, as a shell splits them."""
    text = yaml.safe_load((CONF / f"{program}.yaml").read_text(encoding="utf-8"))
    lines = text["hydra"]["help"]["template"].partition("Examples:\n")[2].replace("\\\n", " ")
    return [shlex.split(line, comments=True) for line in lines.splitlines()]


@pytest.mark.parametrize("program", ["train", "recipe"])
def test_every_setting_that_the_help_names_exists(program: str) -> None:
    for polylect, name, *arguments in examples(program):
        assert (polylect, name) == ("polylect", program)
        resolve_overrides(name, [a for a in arguments if "=" in a], CONF)


@pytest.mark.parametrize("choice", ["callbacks=[default,early_stopping]", "~logger"])
def test_a_setting_may_stand_beside_any_choice(choice: str) -> None:
    assert resolve_overrides("train", [choice, "seed=2"], CONF) == [choice, "seed=2"]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        # The constructor of each takes it, and the YAML of none has it.
        ("-m strategy=lora,lora_switch strategy.rslora=true", "+strategy.rslora=true"),
        ("-m strategy=lora,lora_switch strategy.rank=3", "strategy.rank=3"),
        ("-m strategy=lag,spectr strategy.weights=softmax", "++strategy.weights=softmax"),
        ("sweep=strategies optim.optimizer.eps=1e-6", "+optim.optimizer.eps=1e-6"),
        ("sweep=strategies strategy=lora strategy.rank=3", "strategy.rank=3"),
    ],
)
def test_a_key_is_added_where_a_choice_of_the_sweep_lacks_it(given: str, made: str) -> None:
    assert resolve_overrides("train", shlex.split(given.removeprefix("-m ")), CONF)[-1] == made


def test_a_setting_that_one_choice_lacks_reaches_each_job(tmp_path: Path, jobs: list) -> None:
    command = ["train", "-m", "strategy=lag,spectr", "strategy.weights=softmax"]
    assert cli.run([*command, "strategy.library=x", f"runs={tmp_path}"]) == 0
    for job in jobs:
        overrides = resolve_overrides("train", job, CONF)[:-1]  # all but hydra.mode
        assert config("train", *overrides).strategy.weights == "softmax"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["strategy=lora,lroa"], "strategy=lroa does not exist; did you mean lora"),
        (["strategy=choice(lora,lroa)"], "strategy=lroa does not exist; did you mean lora"),
        (["strategy=glob(x*)"], r"strategy=glob\(x\*\) matches nothing; known: arrow"),
        (["callbacks=[default,early]"], "callbacks=early does not exist; did you mean early_stop"),
        (
            ["strategy=lora,full", "strategy.rank=3"],
            "with strategy=full: strategy.rank does not exist",
        ),
        (["sweep=strategies", "strategy.rank=3"], "strategy=full: strategy.rank does not exist"),
        (["data.train=[a"], r"'data.train=\[a' is not a setting"),
    ],
)
def test_mistakes_in_sweeps_and_lists_are_named(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_overrides("train", given, CONF)


def test_a_free_mapping_may_be_given_whole() -> None:
    given = ["data=files", "data.train={en-de: [a.{lang}], '*': b}"]
    cfg = config("train", *resolve_overrides("train", given, CONF))
    assert cfg.data.train == {"en-de": ["a.{lang}"], "*": "b"}
    (extra,) = resolve_overrides("recipe", ["extra={train: [seed=1]}"], CONF)
    assert config("recipe", extra).extra == {"train": ["seed=1"]}


@pytest.mark.parametrize(
    ("given", "key", "made"),
    [
        ("data.filters.ngrams=8 data.filters.script=0.5", "filters", {"ngrams": 8, "script": 0.5}),
        ("data.train.kind=tsv data.train.path=a.tsv", "train", {"kind": "tsv", "path": "a.tsv"}),
        ("data.train.en-de=a.tsv", "train", {"en-de": "a.tsv"}),
    ],
)
def test_a_mapping_begins_where_the_files_have_null_or_nothing(
    given: str, key: str, made: dict
) -> None:
    resolved = resolve_overrides("train", ["data=files", *given.split()], CONF)
    assert config("train", *resolved).data[key] == made


@pytest.mark.parametrize("folder", ["a b", "a\\b", "a\\", 'a"b', "a'b", "a,b", "a=b", "{a}", "a%é"])
def test_a_folder_that_is_given_bare_is_that_folder(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir()
    for program, key, value in (("report", "folders", [folder]), ("verify", "target", folder)):
        (given,) = cli._with_folders(program, [folder])
        assert config(program, given)[key] == value


@pytest.mark.parametrize(
    ("given", "name"),
    [("name=1e3", "1e3"), ("name=007", "007"), ("name=true", "true"), ("name=a b", "a b")],
)
def test_a_name_is_the_text_that_was_given(given: str, name: str) -> None:
    assert config("train", *resolve_overrides("train", [given], CONF)).name == name


def test_a_number_stays_text_where_a_target_takes_text() -> None:
    cfg = config(
        "train", *resolve_overrides("train", ["model=local", "model.path=1e3", "seed=3"], CONF)
    )
    assert cfg.model.path == "1e3" and cfg.seed == 3
    assert config("train", *resolve_overrides("train", ["resume=null"], CONF)).resume is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("lr=fast", r"lr does not exist; did you mean optim\.optimizer\.lr \(now 0\.006\)\?"),
        ("rank=big", r"rank does not exist; did you mean strategy\.rank \(now 16\)\?"),
        ("rslora=true", r"rslora does not exist; did you mean strategy\.rslora\?"),
        ("optimizer.lr=1", r"did you mean optim\.optimizer\.lr \(now 0\.006\)\?"),
        ("experiment.x=1", r"experiment has no settings by itself: choose one"),
        ("size=3", r"data\.train\.size \(now 20000\) or data\.val\.size .* or data\.test\.size"),
    ],
)
def test_a_short_key_is_told_its_whole_name(given: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve_overrides("train", [given], CONF)


@pytest.mark.parametrize("given", ["optim.optimizer.lr=fast", "strategy.rank=big"])
def test_a_word_for_a_number_names_the_key(given: str) -> None:
    register_resolvers(Path("run"))
    key, _, word = given.partition("=")
    with pytest.raises(
        ConfigError, match=rf"config key {key} must be a (whole )?number.*, got '{word}'"
    ):
        validate(config("train", given))
    validate(config("train", "optim.optimizer.lr=1e-3", "strategy.rank={en-de: 4}"))


@pytest.mark.parametrize(
    ("given", "corpus"),
    [
        ("data.train={'en-de': [a.tsv]}", {"en-de": ["a.tsv"]}),
        ("data.train=[p/O'Brien/a.tsv, b c.tsv]", ["p/O'Brien/a.tsv", "b c.tsv"]),
        ("data.train={kind: tsv, path: p/O'Brien}", {"kind": "tsv", "path": "p/O'Brien"}),
        ("data.train={size: 3}", {"kind": "tongues", "split": "train", "size": 3}),
        ("data.train=p/O'Brien/a.{lang}", "p/O'Brien/a.{lang}"),
    ],
)
def test_another_corpus_takes_the_place_of_that_of_the_files(given: str, corpus: object) -> None:
    assert config("train", *resolve_overrides("train", [given], CONF)).data.train == corpus
