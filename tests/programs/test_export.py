"""The export program: what was trained as a plain model, adapters, rows, each loaded again."""

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.neurons import write_neurons
from helpers.tiny import train
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from polylect.cli import run
from polylect.layers.neurons.rows import NeuronRows
from polylect.models.backbone import tiny_backbone
from polylect.models.mixture import load_mixture
from polylect.run.build import load

TEXT = "The small cat sees the old house."


def export(out: Path, *settings: str) -> int:
    return run(["export", f"out={out}", "device=cpu", *settings])


def of_run(folder: Path, direction: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, and the logits that the checkpoint of a run gives for them."""
    module, _ = load(folder)
    ids = torch.tensor([module.prompt(TEXT, direction).prompt])
    with torch.no_grad(), module.context.route([direction], None, torch.tensor([ids.shape[1]])):
        return ids, module.backbone(input_ids=ids).logits


def plain(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_a_run_becomes_a_plain_model_for_each_direction(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sub" / "merged"
    assert export(out, f"run={tiny_run}") == 0
    stdout = capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["en-de", "en-fr"]
    for direction in ("en-de", "en-fr"):
        assert f"{direction}: loaded with transformers, its logits differ by at most 0.0" in stdout
        ids, expected = of_run(tiny_run, direction)
        torch.testing.assert_close(logits(plain(out / direction), ids), expected)
        assert AutoTokenizer.from_pretrained(out / direction)(TEXT)["input_ids"]
    assert export(out, f"run={tiny_run}") == 2
    assert "exists already and is not overwritten" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["run", "checkpoint", "library"])
def test_one_direction_is_written_to_the_folder_itself(
    what: str, tiny_run: Path, tmp_path: Path
) -> None:
    given = {
        "run": [f"run={tiny_run}"],
        "checkpoint": [f"run={tiny_run}/checkpoints/best.ckpt"],
        "library": ["model=tiny", "model.hidden=32", f"library={tiny_run}/adapters"],
    }[what]
    assert export(tmp_path / "one", *given, "name=en-fr") == 0
    ids, expected = of_run(tiny_run, "en-fr")
    torch.testing.assert_close(logits(plain(tmp_path / "one"), ids), expected)


def test_peft_reads_the_adapters_of_a_checkpoint(
    tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_of = f"run={tiny_run}/checkpoints/best.ckpt"
    assert export(tmp_path / "all", run_of, "form=adapters") == 0
    assert "en-de: loaded with PEFT, its logits differ by at most" in capsys.readouterr().out
    assert export(tmp_path / "one", run_of, "form=adapters", "name=en-de") == 0
    ids, expected = of_run(tiny_run, "en-de")
    for folder in (tmp_path / "all" / "en-de", tmp_path / "one"):
        model = PeftModel.from_pretrained(tiny_backbone(hidden=32)[0], folder).eval()
        torch.testing.assert_close(logits(model, ids), expected)
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == ["en-de", "en-fr"]


@pytest.mark.parametrize("what", ["run", "library"])
def test_adapters_become_gguf_files(
    what: str, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {
        "run": [f"run={tiny_run}"],
        "library": ["model=tiny", "model.hidden=32", f"library={tiny_run}/adapters"],
    }[what]
    assert export(tmp_path / "all", *given, "form=gguf") == 0
    said = capsys.readouterr().out
    assert "en-de: " in said and "read again with gguf, differ by at most" in said
    names = {f"{name}.{kind}" for name in ("en-de", "en-fr") for kind in ("gguf", "Modelfile")}
    assert {path.name for path in (tmp_path / "all").iterdir()} == names
    text = (tmp_path / "all" / "en-de.Modelfile").read_text(encoding="utf-8")
    assert "ADAPTER ./en-de.gguf\n" in text
    assert text.count("{{ .Prompt }}") == 1
    assert "PARAMETER stop" not in text, "the end token is in the GGUF file"
    assert export(tmp_path / "one", *given, "form=gguf", "name=en-fr") == 0
    assert {p.name for p in (tmp_path / "one").iterdir()} == {"en-fr.gguf", "en-fr.Modelfile"}
    assert export(tmp_path / "none", f"run={tiny_run}/checkpoints/best.ckpt", "form=gguf") == 2
    assert "has no adapters to load" in capsys.readouterr().err


def test_a_run_of_all_weights_is_one_plain_model(tmp_path: Path) -> None:
    trained = train(tmp_path, "strategy=full", "optim=full")
    ids, expected = of_run(trained, "en-de")
    for form in ("merged", "model"):
        assert export(tmp_path / form, f"run={trained}", f"form={form}") == 0
        torch.testing.assert_close(logits(plain(tmp_path / form), ids), expected)


@pytest.fixture(scope="module")
def neuron_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of LANDeRMT by their gate."""
    folder = tmp_path_factory.mktemp("neurons")
    model, _ = tiny_backbone(hidden=32)
    file = write_neurons(folder, model, ("en-de", "en-fr"))
    settings = ["strategy=landermt", f"strategy.neurons={file}"]
    return {
        gate: train(folder / gate, *settings, f"strategy.gate={gate}") for gate in ("none", "token")
    }


def test_rows_of_neurons_give_the_run_on_its_base(
    neuron_runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = neuron_runs["none"]
    assert export(tmp_path / "rows", f"run={trained}", "form=rows") == 0
    assert "en-de: loaded with the rows in the base's weights" in capsys.readouterr().out
    assert export(tmp_path / "merged", f"run={trained}", "name=en-de") == 0
    ids, expected = of_run(trained, "en-de")
    base, _ = tiny_backbone(hidden=32)
    NeuronRows.read(tmp_path / "rows" / "en-de.safetensors").put_on(base)
    torch.testing.assert_close(logits(base, ids), expected)
    torch.testing.assert_close(logits(plain(tmp_path / "merged"), ids), expected)


def test_what_a_gate_weighs_has_rows_and_no_plain_model(
    neuron_runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = neuron_runs["token"]
    assert export(tmp_path / "merged", f"run={trained}") == 2
    error = capsys.readouterr().err.strip()
    assert "only a run with strategy.gate=none can be written" in error
    assert "form=rows" in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
    assert export(tmp_path / "rows", f"run={trained}", "form=rows") == 0
    assert "a gate weighs these rows" in capsys.readouterr().out


def test_a_mixture_is_exported_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = train(tmp_path / "runs", "strategy=mix_moe")
    assert export(tmp_path / "merged", f"run={trained}") == 2
    error = capsys.readouterr().err.strip()
    assert "decides token by token" in error and "form=model" in error
    assert export(tmp_path / "mixture", f"run={trained}", "form=model") == 0
    ids, expected = of_run(trained, "en-de")
    model, _ = load_mixture(tmp_path / "mixture")
    torch.testing.assert_close(logits(model, ids), expected)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            ["run=RUN", "form=peft"],
            "form=peft does not exist; known: adapters, gguf, merged, model",
        ),
        (["run=RUN", "form=rows"], "LoRASwitch is not exported with form=rows: give form=adapters"),
        (["run=RUN", "name=en-da"], "name=en-da does not exist; did you mean en-de"),
        (["run=RUN", "form=adapters", "name=en-da"], "name=en-da does not exist; did you mean"),
        (["run=nowhere"], "nowhere is neither a checkpoint nor a run folder"),
        (["model=tiny"], "strategy Frozen cannot be written into the weights of its base: use"),
        (["model=tiny", "library=RUN/adapters", "form=adapters"], "form=adapters is of a run"),
        (["run=RUN", "library=x"], "give run=… or library=…, not both"),
        (["run=RUN", "device=tpu"], "device=tpu does not exist"),
        ([], "give run=FOLDER, or model=…"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence(
    settings: list[str],
    sentence: str,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = [s.replace("RUN", str(tiny_run)) for s in settings]
    assert run(["export", f"out={tmp_path}/out", *settings]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("polylect: ") and sentence in error
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    assert export(tmp_path / "out", f"run={tiny_run}") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "out cannot be written (No space left on device): make room" in error
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert export(tmp_path / "file" / "out", f"run={tiny_run}") == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err


def test_what_was_written_wrongly_is_found(
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = shutil.copytree(tiny_run / "adapters", tmp_path / "library")
    real = AutoModelForCausalLM.from_pretrained

    def damaged(*given: Any, **settings: Any) -> Any:
        model = real(*given, **settings)
        with torch.no_grad():
            model.lm_head.weight.mul_(1.1)
        return model

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", damaged)
    given = ["model=tiny", "model.hidden=32", f"library={library}"]
    assert export(tmp_path / "out", *given) == 2
    assert "does not compute what the run does" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
