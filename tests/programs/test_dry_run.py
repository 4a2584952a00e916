"""Dry runs of models of which nothing is here, neither weights nor configuration nor tokenizer."""

import re
from pathlib import Path

import pytest
from helpers.tiny import DATA, config

from polylect.models.backbone import tiny_backbone
from polylect.programs.train import main


def shown(capsys: pytest.CaptureFixture[str], *overrides: str) -> str:
    main(config("train", *DATA, *overrides, "dry_run=true", "trainer.max_steps=7"))
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("model", ["gemma3_270m", "qwen3_600m"])
def test_a_model_that_cannot_be_had_is_estimated_from_its_sizes(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = shown(capsys, f"model={model}", "data.template=plain")
    assert "its published sizes" in told and "tokenizer   not here either" in told
    assert "Examples" not in told and "steps       7, at most" in told
    assert re.search(
        r"memory      about [\d.]+ GiB, for a full batch, half of it learned, of", told
    )
    (weights,) = re.findall(r"  weights: ([\d.]+) GiB", told)
    assert 0.5 < float(weights) < 3
    (row,) = [line.split() for line in told.splitlines() if line.startswith("train en-de")]
    assert row[2] == row[4] and row[3] == "?", row  # read, too long, left
    assert "? not counted, as there is no tokenizer" in told


def test_a_folder_with_a_configuration_alone_will_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but examples and batches is as it is with weights and tokenizer."""
    for part in tiny_backbone(hidden=32):
        part.save_pretrained(tmp_path / "whole")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "config.json").write_bytes((tmp_path / "whole/config.json").read_bytes())
    pages = {
        name: shown(capsys, "model=local", f"model.path={tmp_path / name}", "strategy=full")
        for name in ("whole", "alone")
    }
    assert "what follows is from its configuration" in pages["alone"]
    for part in ("parameters", "  weights:", "  gradients:", "  optimizer:", "steps"):
        one, other = (
            [line for line in page.splitlines() if line.startswith(part)] for page in pages.values()
        )
        assert one == other and len(one) == 1
    sizes = [re.search(r"activations: ([\d.]+) MiB", page) for page in pages.values()]
    whole, alone = (float(size[1]) for size in sizes if size)
    assert alone == pytest.approx(whole, rel=0.3)


@pytest.mark.slow
def test_processes_hold_shares_and_the_weights_of_two_layers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of eight layers on two processes: half of all, a quarter of the layers, and no layer's."""
    base = ["model=tiny", "model.layers=8", "strategy=full"]

    def sizes(trainer: str) -> dict[str, float]:
        told = shown(capsys, *base, f"trainer={trainer}", "trainer.accelerator=cpu")
        return {name: float(size) for name, size in re.findall(r"  ([\w, ]+): ([\d.]+) MiB", told)}

    whole, shares = sizes("ddp"), sizes("fsdp")
    for part in ("weights", "gradients", "optimizer"):
        assert shares[f"{part}, a share"] == pytest.approx(whole[part] / 2, abs=0.06)
    assert whole["weights"] / 4 < shares["gathered"] < whole["weights"]
    assert shares["activations"] == whole["activations"]


def test_passes_over_the_data_are_not_counted_without_a_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_backbone(hidden=32)[0].config.save_pretrained(tmp_path)
    base = ["model=local", f"model.path={tmp_path}", "data.template=plain"]
    told = shown(capsys, *base, "+trainer.max_epochs=2")
    assert "steps       not counted: how many batches a pass has takes the tokenizer" in told
