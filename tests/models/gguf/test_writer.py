"""Whole models as GGUF files: what transformers reads of them, and what is refused."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from helpers import gguf_files

from polylect.cli import run
from polylect.models.gguf.reader import read_gguf
from polylect.models.gguf.writer import write_gguf_model


def make(kind: str, folder: Path) -> tuple[Path, torch.nn.Module]:
    """A base in the format, and a model of its shape with other weights."""
    if kind == "llama":
        model = gguf_files.llama(folder, gguf_files.byte_level())
    else:
        model, _ = gguf_files.gemma3(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return folder / f"{kind}.gguf", model.eval()


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_what_is_written_is_read_as_the_model_it_was(kind: str, tmp_path: Path) -> None:
    base, model = make(kind, tmp_path)
    count = write_gguf_model(tmp_path / "whole.gguf", base, model)
    loaded, _ = read_gguf(tmp_path / "whole.gguf")
    found, expected = loaded.state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0)
    before, after = gguf.GGUFReader(base), gguf.GGUFReader(tmp_path / "whole.gguf")
    assert count == len(before.tensors) == len(after.tensors)
    for name, field in before.fields.items():
        if not name.startswith("GGUF.") and name != "general.file_type":
            assert after.fields[name].contents() == field.contents(), name


def test_a_base_of_another_shape_is_refused(tmp_path: Path) -> None:
    _, model = make("llama", tmp_path)
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((3, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"is of another model: its token_embd.weight has the sh"):
        write_gguf_model(tmp_path / "x.gguf", tmp_path / "other.gguf", model)


def test_an_architecture_that_is_not_known_is_refused(tmp_path: Path) -> None:
    _, model = make("llama", tmp_path)
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "bloom")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match="architecture bloom are not written, only llama"):
        write_gguf_model(tmp_path / "x.gguf", tmp_path / "other.gguf", model)


@pytest.mark.slow
def test_a_run_on_a_gguf_base_becomes_whole_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from helpers.tiny import TRAIN

    monkeypatch.setenv("POLYLECT_CACHE", str(tmp_path / "cache"))
    base, _ = make("llama", tmp_path)
    settings = [
        *(setting for setting in TRAIN if not setting.startswith("model")),
        f"runs={tmp_path / 'runs'}",
        "model=local",
        f"model.path={base}",
        "data.template=plain",
        "data.max_length=120",
        "strategy=full",
        "optim.optimizer.lr=1e-3",
        "trainer.max_steps=1",
    ]
    assert run(["train", *settings]) == 0
    (own,) = tmp_path.glob("runs/*/*/")
    out = tmp_path / "whole"
    command = ["export", f"run={own}", "form=gguf", f"gguf={base}", f"out={out}", "device=cpu"]
    assert run(command) == 0
    said = capsys.readouterr().out
    assert "model: " in said and "read again with transformers, its logits differ by" in said
    assert sorted(path.name for path in out.iterdir()) == ["model.gguf"]  # of two directions
