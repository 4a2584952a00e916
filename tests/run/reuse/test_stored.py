"""Run folders from elsewhere: nothing in them is executed, and what is wrong is one sentence."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import LENGTH, attempt, checkpoint, config, folders, train

from polylect.cli import run
from polylect.config.roots import ConfigError, plain
from polylect.files import load_saved, load_tensors, read_json
from polylect.run.build import load
from polylect.run.reuse.stored_config import REBUILDS, read_config, stored_config
from polylect.strategies.checkpoint import read_checkpoint
from polylect.translator import Translator

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return open, (str(self.trace), "w")


@pytest.fixture
def elsewhere(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a run folder, to be tampered with."""
    return Path(shutil.copytree(tiny_run, tmp_path / "elsewhere"))


def tampered(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The checkpoint with a change."""
    contents = torch.load(path, weights_only=True)
    change(contents)
    torch.save(contents, path)
    return path


# Files that are no checkpoint


def _saved(value: Any, **options: Any) -> Callable[[Path, bytes], None]:
    return lambda path, whole: torch.save(value, path, **options)


def _bytes(made: Callable[[bytes], bytes]) -> Callable[[Path, bytes], None]:
    return lambda path, whole: path.write_bytes(made(whole)) and None


BROKEN: dict[str, tuple[Callable[[Path, bytes], Any], str]] = {
    "empty": (_bytes(lambda whole: b""), "is empty and not a checkpoint"),
    "pointer": (_bytes(lambda whole: LFS), "only a pointer of Git LFS .* git lfs pull"),
    "half": (_bytes(lambda whole: whole[: len(whole) // 2]), "is cut short: copy it again"),
    "first bytes": (_bytes(lambda whole: whole[:4]), "is cut short: copy it again"),
    "torn end": (_bytes(lambda whole: whole[:-10]), "is cut short: copy it again"),
    "text": (_bytes(lambda whole: b"Not Found\n"), "is not a checkpoint"),
    "pickle": (_bytes(lambda whole: pickle.dumps({"polylect": {}})), "is not a checkpoint"),
    "old format": (_saved({}, _use_new_zipfile_serialization=False), "is not a checkpoint"),
    "other program's": (_saved({"state_dict": {}}), "was not written by polylect"),
    "list": (_saved([1, 2]), "was not written by polylect"),
    "parts": (_saved({"state_dict": {}, "polylect": {}}), "parts of it are missing"),
    "odd parts": (_saved({"state_dict": {}, "polylect": {"about": [1]}}), "parts of it are"),
    "folder": (lambda path, whole: path.unlink() or path.mkdir(), "is a folder and not"),
    "nothing": (lambda path, whole: path.unlink(), "does not exist"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_checkpoint_is_said_in_a_sentence_with_its_path(
    kind: str, tiny_run: Path, tmp_path: Path
) -> None:
    spoil, sentence = BROKEN[kind]
    path = Path(shutil.copy(tiny_run / "checkpoints" / "best.ckpt", tmp_path / "some.ckpt"))
    spoil(path, path.read_bytes())
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_damage_within_the_archive_is_a_sentence(tiny_run: Path, tmp_path: Path) -> None:
    whole = (tiny_run / "checkpoints" / "best.ckpt").read_bytes()
    path = tmp_path / "some.ckpt"
    at = whole.index(b"data.pkl") + 200
    for begin, end in ((at, at + 40), (len(whole) - 200, len(whole) - 150)):
        path.write_bytes(whole[:begin] + bytes(end - begin) + whole[end:])
        with pytest.raises(ValueError) as error:
            read_checkpoint(path)
        assert str(path) in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "some.ckpt"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match=r"some\.ckpt cannot be read: Permission denied\."):
        read_checkpoint(path)


@pytest.mark.parametrize("read", [load_saved, load_tensors, read_json])
def test_a_pointer_of_lfs_is_named_whatever_the_file_was(
    read: Callable[[Path, str], Any], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(LFS)
    with pytest.raises(ValueError, match=r"file is only a pointer of Git LFS and not a thing"):
        read(tmp_path / "file", "a thing")


def test_json_that_is_nested_without_end_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json is not read: it is nested too deeply"):
        read_json(tmp_path / "deep.json", "a thing")


# Code in a checkpoint


@pytest.mark.parametrize("part", ["everything", "state_dict", "polylect", "callbacks", "extra"])
def test_code_in_a_checkpoint_does_not_run(part: str, elsewhere: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"

    def put(checkpoint: dict[str, Any]) -> None:
        for key in checkpoint if part == "everything" else [part]:
            checkpoint[key] = {"evil": Evil(trace)}

    for name in ("best", "last"):
        tampered(elsewhere / "checkpoints" / f"{name}.ckpt", put)
    shutil.rmtree(elsewhere / "adapters")  # or the adapters are used
    (tmp_path / "runs").mkdir()
    for read in (lambda: load(elsewhere), lambda: Translator.from_run(elsewhere)):
        with pytest.raises(ValueError, match=r"holds more than tensors and plain values \(.*open"):
            read()
    for key in ("resume", "init_from"):
        with pytest.raises(ValueError, match="and nothing from a file is executed"):
            attempt(tmp_path / "runs", f"{key}={elsewhere}")
    assert run(["translate", f"run={elsewhere}", "direction=en-de"]) == 2
    assert run(["evaluate", f"run={elsewhere}", f"runs={tmp_path / 'runs'}"]) == 2
    assert run(["train", f"resume={elsewhere}", f"runs={tmp_path / 'runs'}"]) == 2
    assert not trace.exists()
    assert not folders(tmp_path / "runs")


def test_code_in_the_best_checkpoint_does_not_run_when_the_last_is_resumed(
    elsewhere: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "executed"
    best = elsewhere / "checkpoints" / "best.ckpt"
    tampered(best, lambda result: result.update(evil=Evil(trace)))
    with pytest.raises(ValueError, match=r"best\.ckpt is not read"):
        train(tmp_path / "runs", f"resume={elsewhere}", "trainer.max_steps=7")
    assert not trace.exists()


def test_only_the_best_beside_the_checkpoint_is_copied(elsewhere: Path, tmp_path: Path) -> None:
    secret = tmp_path / "id_rsa"
    secret.write_text("secret")

    def steal(checkpoint: dict[str, Any]) -> None:
        (state,) = (s for key, s in checkpoint["callbacks"].items() if "BestCheckpoint" in key)
        state["best_model_path"] = str(secret)

    tampered(elsewhere / "checkpoints" / "last.ckpt", steal)
    made = train(tmp_path / "runs", f"resume={elsewhere}", "trainer.max_steps=8")
    assert not list(made.rglob("id_rsa"))


def test_a_run_that_was_moved_keeps_its_best(elsewhere: Path, tmp_path: Path) -> None:
    best = checkpoint(elsewhere, "best")["global_step"]

    def perfect(result: dict[str, Any]) -> None:
        (state,) = (s for key, s in result["callbacks"].items() if "BestCheckpoint" in key)
        state["best_model_score"] = torch.tensor(0.0)  # which no validation after it reaches
        state["best_model_path"] = "/gone/checkpoints/best.ckpt"

    tampered(elsewhere / "checkpoints" / "last.ckpt", perfect)
    made = train(tmp_path / "runs", f"resume={elsewhere}", "trainer.max_steps=8")
    assert checkpoint(made)["global_step"] == 8
    assert checkpoint(made, "best")["global_step"] == best


# The configuration in a checkpoint


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets a key of the configuration that a checkpoint holds."""

    def change(checkpoint: dict[str, Any]) -> None:
        *above, last = key.split(".")
        node = checkpoint["polylect"]["about"]["config"]
        for part in above:
            node = node[part]
        node[last] = value

    return change


@pytest.mark.parametrize("key", ["model", "strategy", "generation", "data", "data.train"])
@pytest.mark.parametrize("name", ["polylect.run.record.write_text", "pathlib.Path.write_text"])
def test_a_stored_configuration_names_nothing_that_is_on_no_list(
    key: str, name: str, elsewhere: Path, tmp_path: Path
) -> None:
    written = tmp_path / "written"
    node = {"_target_": name, "path": str(written), "text": "x", "directions": [], "template": "x"}
    path = tampered(elsewhere / "checkpoints" / "best.ckpt", put(key, node))
    with pytest.raises(ConfigError, match=rf"best\.ckpt: config key {key}\._target_ names {name}"):
        load(path)
    assert run(["evaluate", f"run={path}", f"runs={tmp_path}"]) == 2
    assert not written.exists()


@pytest.mark.parametrize("value", ["${oc.env:POLYLECT_SECRET}", "a/${oc.env:POLYLECT_SECRET,x}"])
def test_a_stored_configuration_reads_no_environment(
    value: str, elsewhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("POLYLECT_SECRET", "hunter2")
    best = tampered(elsewhere / "checkpoints" / "best.ckpt", put("model.path", value))
    last = tampered(elsewhere / "checkpoints" / "last.ckpt", put("data.root", value))
    assert run(["evaluate", f"run={best}", f"runs={tmp_path}"]) == 2
    assert run(["train", f"resume={last}", f"runs={tmp_path}"]) == 2
    output = "".join(capsys.readouterr())
    assert "config key model.path is ${oc.env" in output or "config key model.path is a/" in output
    assert "config key data.root is" in output
    assert "hunter2" not in output


def test_a_stored_configuration_cannot_name_its_own_packages(elsewhere: Path) -> None:
    def change(checkpoint: dict[str, Any]) -> None:
        put("packages", ["helpers.tiny"])(checkpoint)
        put("generation", {"_target_": "helpers.tiny.Fail"})(checkpoint)

    path = tampered(elsewhere / "checkpoints" / "best.ckpt", change)
    message = r"generation\._target_ names helpers\.tiny\.Fail, which is not"
    with pytest.raises(ConfigError, match=message):
        load(path)


def test_a_configuration_without_end_is_refused() -> None:
    circle: dict[str, Any] = {"_target_": "polylect.strategies.full.Full"}
    circle["again"] = circle
    bomb: list[Any] = ["x"]
    for _ in range(30):
        bomb = [bomb, bomb]
    good = {"model": {"_target_": "polylect.models.embedded.embedded_base"}}
    data = {"directions": [], "template": "tag"}
    for strategy in (circle, {"_target_": "polylect.strategies.full.Full", "x": bomb}):
        with pytest.raises(ConfigError, match=r"x\.ckpt holds more values than"):
            stored_config(good | {"data": data, "strategy": strategy}, Path("x.ckpt"), REBUILDS)
    with pytest.raises(ConfigError, match=r"x\.ckpt: config key seed is no plain value"):
        stored_config({"seed": torch.ones(1)}, Path("x.ckpt"), ["seed"])


@pytest.mark.parametrize("key", ["model", "data", "strategy"])
@pytest.mark.parametrize("value", [None, "text", {}, []])
def test_a_stored_configuration_that_lacks_a_part_is_named(
    key: str, value: Any, elsewhere: Path
) -> None:
    path = tampered(elsewhere / "checkpoints" / "best.ckpt", put(key, value))
    with pytest.raises(ConfigError, match=rf"best\.ckpt is no whole .*: config key {key} lacks"):
        load(path)


@pytest.mark.parametrize("key", ["generation", "optim", "trainer", "callbacks"])
def test_a_part_of_a_stored_configuration_has_keys(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"x\.ckpt: config key {key} must have keys, it is 3"):
        stored_config({key: 3}, Path("x.ckpt"), [key])


def test_what_training_writes_may_be_read(tiny_run: Path) -> None:
    """Each section of each configuration that a run of ours stores passes."""
    contents = read_checkpoint(tiny_run / "checkpoints" / "last.ckpt")
    stored = contents["polylect"]["about"]["config"]
    keys = [key for key in stored if key != "logger"]
    kept = plain(stored_config(stored, tiny_run / "x.ckpt", keys))
    assert kept == {key: stored[key] for key in keys} | {"packages": []}
    values = read_config(tiny_run / "config.yaml")
    assert values["strategy"] == stored["strategy"]
    assert values["data"] == stored["data"]


# config.yaml, which a run folder with adapters is used by


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model: {_target_: torch.load, f: x}", r"model\._target_ names torch\.load, which is not"),
        ("model: {path: '${oc.env:HOME}', _target_: a.b}", "may not refer to anything"),
        ("a: &a [x]\nmodel: [*a, *a]", "has aliases"),
        ("model: !!python/object/apply:os.system [x]", "is no configuration of a run"),
        ("model: [", "is no configuration of a run"),
        ("just text", "is no whole configuration of a run"),
        ("[1, 2]", "it has no keys"),
        ("model: {_target_: '${bad'}", "is no configuration of a run"),
        ("", "is empty and not the configuration of a run"),
        (LFS.decode(), "pointer of Git LFS"),
        ("\udcff", "is no configuration of a run"),
    ],
)
def test_a_configuration_file_is_read_as_values(
    text: str, sentence: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text.startswith("model: {"):
        text += "\ndata: {directions: [en-de], template: tag}"
    (elsewhere / "config.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("executed"))
    with pytest.raises(ValueError, match=sentence) as error:
        Translator.from_run(elsewhere)
    assert "config.yaml" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


# A strategy of the user's own

OWN = """
from polylect.strategies.lora_switch import LoRASwitch


class Mine(LoRASwitch):
    pass
"""


def test_a_strategy_of_ones_own_is_trained_scored_and_resumed_by_naming_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "polylect_mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    given = ["strategy._target_=polylect_mine.Mine", "trainer.max_steps=2"]
    with pytest.raises(ConfigError, match=r"as in packages=\[polylect_mine\]"):
        attempt(tmp_path / "runs", *given)
    named = "packages=[polylect_mine]"
    made = train(tmp_path / "runs", *given, named)
    shutil.rmtree(made / "adapters")
    evaluate = ["evaluate", f"run={made}", f"runs={tmp_path}"]
    assert run(evaluate) == 2
    assert "names polylect_mine.Mine, which is not on the list" in capsys.readouterr().err
    assert run([*evaluate, named]) == 0
    assert Translator.from_run(made, packages=["polylect_mine"]).module.directions
    resume = ["train", f"resume={made}", "trainer.max_steps=3", f"runs={tmp_path / 'more'}"]
    assert run(resume) == 2
    assert run([*resume, named]) == 0


def test_a_run_is_given_or_a_model_and_not_both(tiny_run: Path) -> None:
    for extra in ("model=tiny", "strategy=frozen"):
        cfg = config("evaluate", f"run={tiny_run}", extra, *(f"+{o}" for o in LENGTH))
        from polylect.programs.evaluate import main

        with pytest.raises(ConfigError, match=r"give run=… or (model|strategy)=…, not both"):
            main(cfg)
