"""`polylect data`: the report of what train would read."""

import json
from pathlib import Path

import pytest

from polylect.cli import run

FILES = Path(__file__).parents[1] / "data" / "files"
TINY = ["model=tiny", "data=files", f"data.root={FILES}", "data.template=tag"]


def report(tmp_path: Path, *settings: str) -> dict:
    assert run(["data", *TINY, *settings, f"out={tmp_path / 'report.json'}"]) == 0
    return json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))


def test_a_report_on_own_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data_report = report(
        tmp_path,
        "data.directions=[en-de,de-ta]",
        "data.train=garden.{lang}",
        'data.test={en-de: "{pair}/dev.{lang}.gz", de-ta: null}',
        "data.max_length=64",
    )
    assert data_report["counts"]["val"] == {} and set(data_report["fertility"]) == {
        "en",
        "de",
        "ta",
    }
    counts = data_report["counts"]["train"]["de-ta"]
    assert counts["read"] == 6 == counts["left"] + counts["too_long"] and counts["too_long"] > 0
    assert any("data.max_length=64" in sentence for sentence in data_report["warnings"])
    assert data_report["texts"]["train"]["de-ta"]["target"]["own_script"] == 1
    shown = capsys.readouterr().out
    assert "warning: train de-ta" in shown and "tokens per word" in shown


def test_questions_have_counts_and_lengths(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "model=tiny", "data=facts", "data.source.size=3"]) == 0
    shown = capsys.readouterr().out
    assert "train article_" in shown and "longest" in shown and "per word" not in shown


def test_a_base_is_asked_for_its_tokenizer_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder without weights does: those of a large model would take minutes for nothing."""
    from polylect.models.backbone import tiny_backbone

    backbone, tokenizer = tiny_backbone(context=512)
    backbone.config.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    base = ["model=local", f"model.path={tmp_path / 'base'}"]
    data_report = report(tmp_path, *base, "data.directions=[en-de]", "data.train=garden.{lang}")
    assert data_report["counts"]["train"]["en-de"]["left"] == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["sample=0"], "sample must be at least 1"),
        (["data.max_length=2000"], "more than the 1024 tokens"),
        (["data.train=gardn.{lang}"], "the nearest name there is 'garden."),
        (["data.train=null"], "there is nothing to report on"),
    ],
)
def test_a_mistake_is_one_sentence(
    settings: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["data.directions=[en-de]", "data.train=garden.{lang}", "data.tokens_per_batch=9999"]
    assert run(["data", *TINY, *given, *settings]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_report_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.json").write_text("mine")
    assert run(["data", f"out={tmp_path / 'x.json'}"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "x.json").read_text() == "mine"


def test_a_warning_is_said_though_its_module_was_there_before_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hydra silences the loggers that it finds, and checking `data.cache` imports the module."""
    cached = ["data.directions=[en-de]", "data.train=garden.{lang}", f"data.cache={tmp_path}"]
    for template in ("tag", "plain"):
        assert run(["data", *TINY, *cached, f"data.template={template}", "data.processes=1"]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "tokenised anew" in line]
    assert len(said) == 1 and said[0].endswith("these have changed: template")
