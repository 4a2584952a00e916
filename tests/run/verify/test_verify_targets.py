"""`polylect verify` on whole folders: what is as it was passes, one changed bit does not."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.flips import bit_of, flipped
from helpers.neurons import write_neurons, write_rows
from helpers.tiny import LENGTH, TRAIN, config, folders, train
from safetensors.torch import load_file, save_file

from polylect.cli import run
from polylect.models.backbone import tiny_backbone
from polylect.programs.evaluate import main as evaluate
from polylect.programs.train import main as train_program
from polylect.programs.verify import main
from polylect.run.passport.file import PASSPORT, Passport
from polylect.run.passport.writer import entries

BOTH = ("en-de", "en-fr")


def verify(target: Path | str, *settings: str) -> int:
    return main(config("verify", f"target={target}", "turns=4", "device=cpu", *settings))


def faults(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if line.startswith("FAILED: ")]


def verdicts(shown: str) -> dict[str, str]:
    """Verdict by check, of the table."""
    rows = [line.split("  ") for line in shown.splitlines() if "  " in line]
    parts = [[part.strip() for part in row if part.strip()] for row in rows]
    return {part[0]: part[1] for part in parts if len(part) > 2 and part[0] != "check"}


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with files."""
    folder = tmp_path_factory.mktemp("base") / "base"
    model, tokenizer = tiny_backbone(hidden=32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run_on_files(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose base has files, with scores and pictures."""
    runs = tmp_path_factory.mktemp("on_files")
    settings = [setting for setting in TRAIN if not setting.startswith(("model", "evaluate="))]
    base = ["model=local", f"model.path={base_folder}"]
    train_program(config("train", *base, *settings, f"runs={runs}"))
    return next(runs.glob("*/*"))


def test_a_run_is_what_it_says(run_on_files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(run_on_files) == 0
    shown = capsys.readouterr().out
    assert set(verdicts(shown).values()) == {"good"}
    assert {
        "files are as written",
        "base files are as before",
        "the base is the same",
        "tokenizer and template are the same",
        "use and switching change nothing",
        "frozen is frozen",
        "untrained directions have the base's logits",
        "directions do not touch each other",
        "golden outputs from the checkpoint",
        "adapter en-de is the checkpoint's",
        "golden outputs from the adapters",
    } <= verdicts(shown).keys()
    assert f"{run_on_files} is what it says." in shown


@pytest.mark.parametrize(
    "settings",
    [
        ["strategy=full", "optim=full"],
        pytest.param(["strategy=mix_moe"], marks=pytest.mark.slow),
        pytest.param(["strategy=lora"], marks=pytest.mark.slow),
        pytest.param(["strategy=landermt", "strategy.neurons=FFN"], marks=pytest.mark.slow),
        pytest.param(
            ["strategy=landermt", "strategy.neurons=ROWS", "strategy.gate=none"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["strategy=mix_moe", "strategy.slicing=copies", "strategy.stage=parallel"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda settings: "-".join(s.rpartition("=")[2] for s in settings),
)
def test_so_is_that_of_every_strategy(
    settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = tiny_backbone(hidden=32)
    files = {"FFN": write_neurons(tmp_path, model, BOTH), "ROWS": write_rows(tmp_path, model, BOTH)}
    for name, file in files.items():
        settings = [setting.replace(name, str(file)) for setting in settings]
    folder = train(tmp_path / "runs", *settings)
    capsys.readouterr()
    assert verify(folder) == 0, faults(capsys.readouterr().out)
    found = verdicts(capsys.readouterr().out)
    assert "FAILED" not in found.values()


@pytest.mark.slow
def test_what_a_stage_before_has_trained_is_held_to_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = train(
        tmp_path / "one", "strategy=mix_moe", "strategy.stage=monolingual",
        "data.directions=[de,fr]",
    )  # fmt: skip
    two = train(tmp_path / "two", "strategy=mix_moe", "strategy.stage=parallel", f"init_from={one}")
    capsys.readouterr()
    assert verify(two) == 0
    assert verdicts(capsys.readouterr().out)["frozen is frozen"] == "good"
    (one / "checkpoints" / "best.ckpt").unlink()
    shutil.copy(two / "checkpoints" / "best.ckpt", one / "checkpoints" / "best.ckpt")
    assert verify(two) == 0  # whose frozen experts are those of the stage before


def test_adapters_alone_and_together_are_what_they_say(
    tiny_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters = tiny_run / "adapters"
    assert verify(adapters / "en-fr") == 0
    alone = verdicts(capsys.readouterr().out)
    assert alone["golden outputs from adapter en-fr"] == "good"
    assert verify(adapters) == 0
    together = verdicts(capsys.readouterr().out)
    assert together["golden outputs from adapter en-de"] == "good"
    assert together["directions do not touch each other"] == "good"


def test_an_adapter_that_was_copied_elsewhere_needs_its_base(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_run / "adapters" / "en-de", tmp_path / "german v1.0")
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "adapter_config.json").write_text("nothing")
    assert verify(folder, "model=tiny", "model.hidden=32") == 0
    assert verify(folder, "model=tiny", "model.hidden=32", "model.layers=1") == 1
    (fault, *_) = faults(capsys.readouterr().out)
    assert "of the base is another than when the passport was written" in fault


def test_an_adapter_that_is_added_to_a_library_keeps_its_passport(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, library = tiny_run / "adapters" / "en-de", tmp_path / "library"
    add = ["library", f"path={library}", "action=add", f"source={source}"]
    assert run([*add, "adapter=german"]) == 0
    assert verify(library / "german") == 0
    assert run([*add, "adapter=other", "directions=[en-sv]"]) == 0
    assert not (library / "other" / PASSPORT).exists()  # which would not be true of it
    capsys.readouterr()


@pytest.mark.parametrize("form", ["merged", "adapters"])
def test_exports_have_passports_of_their_own(
    form: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / form
    assert run(["export", f"run={tiny_run}", f"out={out}", f"form={form}", "device=cpu"]) == 0
    assert "passport: " in capsys.readouterr().out
    own, whole = Passport.read(out / "en-de"), Passport.read(tiny_run)
    assert own.data == {split: {"en-de": d["en-de"]} for split, d in whole.data.items()}
    assert own.scores == {"en-de": whole.scores["en-de"]}
    assert [o for o in whole.golden if o.direction == "en-de"] == own.golden
    assert verify(out / "en-de") == 0
    assert verify(out) == 0
    capsys.readouterr()
    weights = next((out / "en-fr").glob("*.safetensors"))
    name = sorted(load_file(weights))[-1]
    with flipped(weights, bit_of(weights, name)):
        assert verify(out) == 1
        (fault,) = faults(capsys.readouterr().out)
        assert str(weights) in fault and f"tensor {name} has changed" in fault


@pytest.mark.slow
def test_exported_rows_are_put_on_the_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _ = tiny_backbone(hidden=32)
    neurons = write_neurons(tmp_path, model, BOTH)
    folder = train(
        tmp_path / "runs", "strategy=landermt", f"strategy.neurons={neurons}", "strategy.gate=none"
    )
    rows = tmp_path / "rows"
    assert run(["export", f"run={folder}", f"out={rows}", "form=rows", "device=cpu"]) == 0
    assert verify(folder) == 0
    capsys.readouterr()
    assert verify(rows) == 0
    assert verdicts(capsys.readouterr().out)["golden outputs"] == "not checked"
    assert verify(rows, "model=tiny", "model.hidden=32") == 0
    assert verdicts(capsys.readouterr().out)["golden outputs from the rows of en-fr"] == "good"
    assert verify(rows, "model=tiny", "model.hidden=32", "model.layers=3") == 1
    assert "of the base is another" in faults(capsys.readouterr().out)[0]
    with flipped(rows / "en-de.safetensors", 8 * 3000):
        assert verify(rows) == 1
    assert "en-de.safetensors is not as it was written" in faults(capsys.readouterr().out)[0]


def test_one_bit_of_a_weight_is_named(
    run_on_files: Path, base_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = run_on_files / "adapters" / "en-de" / "adapter_model.safetensors"
    lora = sorted(load_file(adapter))[5]
    weight = "model.layers.1.mlp.up_proj.weight"
    for target, file, name in (
        (run_on_files, adapter, lora),
        (adapter.parent, adapter, lora),
        (run_on_files, base_folder / "model.safetensors", weight),
        (adapter.parent, base_folder / "model.safetensors", weight),
        (run_on_files / "adapters", base_folder / "model.safetensors", weight),
    ):
        with flipped(file, bit_of(file, name)):
            assert verify(target) == 1
            (fault,) = faults(capsys.readouterr().out)
            assert str(file) in fault and f"tensor {name} has changed" in fault
    assert verify(run_on_files) == 0


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "tokenizer_config.json"])
def test_one_bit_of_a_bases_other_files_is_named(
    name: str, run_on_files: Path, base_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = base_folder / name
    with flipped(file, 8 * (file.stat().st_size // 2)):
        assert verify(run_on_files) == 1
        (fault,) = faults(capsys.readouterr().out)
        assert str(file) in fault and "its bytes have changed" in fault


def test_what_is_missing_is_named(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    (folder / "adapters" / "en-de" / PASSPORT).unlink()
    assert verify(folder) == 1
    (fault,) = faults(capsys.readouterr().out)
    assert str(folder / "adapters" / "en-de" / PASSPORT) in fault and "is missing" in fault
    (folder / "record.json").unlink()
    assert verify(folder) == 1
    assert f"{folder}/record.json is missing" in "".join(faults(capsys.readouterr().out))
    (folder / PASSPORT).unlink()
    assert verify(folder) == 1
    assert "has no passport.json" in faults(capsys.readouterr().out)[0]


def test_a_passport_that_was_made_to_fit_does_not_help(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever changes an adapter and writes all hashes anew is found out by what it computes."""
    folder = shutil.copytree(tiny_run, tmp_path / "run")
    adapter = folder / "adapters" / "en-de"
    weights = load_file(adapter / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(1)
    noisy = {n: t + torch.randn(t.shape, generator=generator) for n, t in weights.items()}
    save_file(noisy, adapter / "adapter_model.safetensors", {"format": "pt"})
    for part in (adapter, folder):
        passport = Passport.read(part)
        passport.files.clear()  # type: ignore[attr-defined]
        passport.files.update(entries(part))  # type: ignore[attr-defined]
        passport.write(part)
    assert verify(folder) == 1
    found = faults(capsys.readouterr().out)
    assert any("adapter en-de: tensor model.layers.0" in fault for fault in found)
    assert any("the adapters: en-de" in f and "the passport has" in f for f in found)
    assert verify(adapter) == 1
    assert "adapter en-de: en-de" in faults(capsys.readouterr().out)[0]


def test_a_passport_of_another_model_is_no_crash(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = shutil.copytree(tiny_run / "adapters" / "en-de", tmp_path / "en-de")
    passport = Passport.read(adapter)
    foreign = [replace(output, prompt=[10**6]) for output in passport.golden]
    replace(passport, golden=foreign).write(adapter)
    assert verify(adapter) == 1
    assert "golden prompts have token 1000000" in faults(capsys.readouterr().out)[0]


@pytest.mark.parametrize("strategy", ["lag", "lora_library"])
def test_an_evaluation_of_a_library_is_what_it_says(
    strategy: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = shutil.copytree(tiny_run / "adapters", tmp_path / "library")
    small = ["model=tiny", "model.hidden=32", "data=tongues", "data.directions=[en-de,en-fr]"]
    small += ["data.test.size=3", *(f"+{s}" for s in LENGTH), f"runs={tmp_path}/runs", "device=cpu"]
    evaluate(config("evaluate", f"strategy={strategy}", f"strategy.library={library}", *small))
    (folder,) = folders(tmp_path / "runs")
    capsys.readouterr()
    assert verify(folder) == 0, faults(capsys.readouterr().out)
    found = verdicts(capsys.readouterr().out)
    assert found["golden outputs from the strategy"] == "good"
    assert found["frozen is frozen"] == "good"
    weights = library / "en-de" / "adapter_model.safetensors"
    name = sorted(load_file(weights))[0]
    with flipped(weights, bit_of(weights, name)):
        assert verify(folder) == 1
        (fault,) = faults(capsys.readouterr().out)
        assert str(weights) in fault and f"tensor {name} has changed" in fault


@pytest.mark.slow
def test_so_is_one_of_a_base_as_it_is(
    base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["model=local", f"model.path={base_folder}", "data=tongues", "data.test.size=3"]
    given += ["data.directions=[en-de]", *(f"+{s}" for s in LENGTH), f"runs={tmp_path}/runs"]
    evaluate(config("evaluate", *given, "device=cpu"))
    (folder,) = folders(tmp_path / "runs")
    capsys.readouterr()
    assert verify(folder) == 0, faults(capsys.readouterr().out)
    found = verdicts(capsys.readouterr().out)
    assert found["untrained directions have the base's logits"] == "good"
    assert found["base files are as before"] == found["frozen is frozen"] == "good"


@pytest.mark.parametrize("settings", [[], ["adapter=en-fr"]])
def test_so_is_one_of_a_run(
    settings: list[str],
    run_on_files: Path,
    base_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [f"run={run_on_files}", f"runs={tmp_path}/runs", "limit=2", "device=cpu", *settings]
    evaluate(config("evaluate", *given))
    (folder,) = folders(tmp_path / "runs")
    capsys.readouterr()
    assert verify(folder) == 0, faults(capsys.readouterr().out)
    assert verdicts(capsys.readouterr().out)["files used are as then"] == "good"
    used = "adapters/en-fr/adapter_config.json" if settings else "checkpoints/best.ckpt"
    for file in (run_on_files / used, base_folder / "config.json"):
        with flipped(file, 8 * 100):
            assert verify(folder) == 1
            (fault,) = faults(capsys.readouterr().out)
            assert str(file) in fault


def test_a_routed_library_has_its_aligned_forms_held_to_the_adapters(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = shutil.copytree(tiny_run / "adapters", tmp_path / "library")
    assert verify(library, "strategy=lag") == 0
    found = verdicts(capsys.readouterr().out)
    assert found["aligned forms of library are the adapters"] == "good"
    assert found["golden outputs"] == "not checked"
    file = library / "en-fr" / "aligned.safetensors"
    name = next(n for n in sorted(load_file(file)) if n.endswith(".b_star"))
    with flipped(file, bit_of(file, name) + 30):  # in the exponent
        assert verify(library, "strategy=lag") == 1
        (fault,) = faults(capsys.readouterr().out)
        assert "adapter en-fr: tensor " + name.removesuffix(".b_star") in fault


def test_checks_are_written_as_json(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "checks.json"
    adapter = tiny_run / "adapters" / "en-de"
    assert verify(adapter, f"out={out}") == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["good"] is True and written["target"] == str(adapter)
    assert {check["verdict"] for check in written["checks"]} <= {"good", "not checked"}
    assert all(check["compared"] for check in written["checks"])


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere"], 2, "target=nowhere is no folder: give a run"),
        (["RUN", "RUN"], 2, "polylect verify takes one folder"),
        (["RUN", "turns=0"], 2, "turns must be at least 1"),
        (["RUN", "prompts=words"], 2, "prompts=words does not exist"),
        (["http://localhost:1/v1"], 2, "is a server: give passport=FOLDER"),
        (["ftp://host", "passport=RUN"], 2, "give one as http://HOST:PORT/v1"),
        (["http://localhost:1", "passport=RUN"], 2, "does not answer"),
        (["http://localhost:1", "passport=EMPTY"], 2, "passport=EMPTY: EMPTY has no passport"),
        ([], 2, "target must be given"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    arguments: list[str],
    code: int,
    sentence: str,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [a.replace("RUN", str(tiny_run)).replace("EMPTY", str(tmp_path)) for a in arguments]
    assert run(["verify", *given]) == code
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("polylect: ") and sentence.replace("EMPTY", str(tmp_path)) in error


def test_the_command_ends_with_one_where_something_has_changed(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_run / "adapters" / "en-de", tmp_path / "en-de")
    assert run(["verify", str(folder), "turns=1"]) == 0
    (folder / "adapter_config.json").write_text("{}")
    assert run(["verify", str(folder)]) == 1
    shown = capsys.readouterr().out
    assert f"FAILED: {folder}/adapter_config.json is not as it was written" in shown
    assert "is NOT what it says" in shown


@pytest.mark.slow
def test_a_flipped_bit_in_any_file_fails_with_a_sentence_that_names_it(
    run_on_files: Path, base_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Random bits, seeded, in every file of a run folder and of its base."""
    generator = random.Random(16)
    inside = sorted(path for path in run_on_files.rglob("*") if path.is_file())
    kinds = {path.suffix for path in inside}
    assert {".json", ".yaml", ".ckpt", ".safetensors", ".txt", ".png", ".csv"} <= kinds
    files = inside + sorted(base_folder.glob("*"))
    for file in files:
        if file.name == "generation_config.json":  # which takes no part
            continue
        for _ in range(8):
            with flipped(file, generator.randrange(8 * file.stat().st_size)):
                assert verify(run_on_files) == 1, file
                found = faults(capsys.readouterr().out)
                assert any(str(file) in fault for fault in found), (file, found)
    assert verify(run_on_files) == 0


@pytest.mark.slow
def test_a_flipped_bit_in_any_file_of_a_merged_model_does_so(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "merged"
    assert run(["export", f"run={tiny_run}", f"out={out}", "name=en-de", "device=cpu"]) == 0
    generator = random.Random(16)
    for file in sorted(out.iterdir()):
        for _ in range(8):
            with flipped(file, generator.randrange(8 * file.stat().st_size)):
                assert verify(out) == 1, file
                found = faults(capsys.readouterr().out)
                assert any(str(file) in fault for fault in found), (file, found)
