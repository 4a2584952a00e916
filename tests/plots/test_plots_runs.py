"""Pictures of every run: curves of what was logged, scores, data, and letters of any script."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from helpers.tiny import record, train
from matplotlib import font_manager
from test_plots_neurons import drawn, labels

from polylect import plots
from polylect.data.stream import EvaluationBatches
from polylect.plots import fonts
from polylect.run.build import build_data, load
from polylect.run.results.scoring import nats_per_token

pytestmark = pytest.mark.pictures


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    rows = [
        {"step": 4, "train/loss": 3.0, "train/lr": 0.1},
        {"step": 4, "train/running/en-de": 3.0, "train/running/en-ta": 4.0},
        {"step": 9, "val/loss": 2.5, "val/loss/en-de": 2.0, "val/loss/en-ta": 3.0},
        {"step": 9, "train/loss": 2.0, "train/lr": 0.05},
        {"step": 9, "train/running/en-de": 1.0, "train/running/en-ta": 4.0},
    ]
    with (tmp_path / "metrics.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def lines(axes: Any) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axes.lines}


def test_the_training_picture_has_losses_and_rates(logged: Path) -> None:
    upper, lower = plots.training(plots.read_metrics(logged)).axes
    assert lines(upper) == {
        "one step": [(4, 3.0), (9, 2.0)],
        "training, running mean over directions": [(4, 3.5), (9, 2.5)],
        "validation": [(9, 2.5)],
    }
    assert next(iter(lines(lower).values())) == [(4, 0.1), (9, 0.05)]


def test_each_direction_has_a_line_in_each_panel_that_was_logged(logged: Path) -> None:
    picture = plots.directions(plots.read_metrics(logged))
    running, validation = picture.axes
    assert lines(running) == {"en-de": [(4, 3), (9, 1)], "en-ta": [(4, 4), (9, 4)]}
    assert lines(validation) == {"en-de": [(9, 2.0)], "en-ta": [(9, 3.0)]}
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["en-de", "en-ta"]
    assert [line.get_color() for line in running.lines] == [
        line.get_color() for line in validation.lines
    ]


def test_of_many_directions_the_extremes_are_named() -> None:
    metrics = {f"val/loss/en-{i:02}": [(1, 5.0), (2, float(i))] for i in range(40)}
    picture = plots.directions(metrics)
    (axes,) = picture.axes
    named = [text.get_text() for text in axes.texts]
    assert named == ["en-00", "en-01", "en-02", "en-37", "en-38", "en-39"]
    assert not picture.legends


def test_scores_are_ranked_beside_the_base() -> None:
    def row(chrf: float, bleu: float) -> dict[str, Any]:
        both = {"chrf++": chrf, "bleu": bleu}
        return {name: {"value": value, "signature": ""} for name, value in both.items()}

    test = {"en-de": row(40, 20), "en-ta": row(60, 10), "de": {"nats_per_token": 2.0}}
    test["en-ta"]["bleu"]["signature"] = "tok:intl"
    left, right = plots.scores(test, {"en-de": row(30, 5)}).axes
    assert labels(left.yaxis) == ["en-de", "en-ta"], "the best is at the top"
    assert [bar.get_width() for bar in left.patches] == [40, 60]
    assert [bar.get_width() for bar in right.patches] == [20, 10]
    assert left.get_title() == "chrF++ (mean 50.0)"
    assert right.get_title() == "BLEU (several signatures)", "no mean over different tokenizers"
    assert list(left.lines[0].get_xdata()) == [30]


def test_data_are_shares_of_what_was_drawn() -> None:
    report = {
        "examples": {"en-de": 30, "en-ta": 10},
        "target_tokens": {"en-de": 100, "en-ta": 100},
    }
    read = {"en-de": {"kept": 90}, "en-ta": {"kept": 10}}
    left, right = plots.data(report, read).axes
    assert labels(left.yaxis) == ["en-ta", "en-de"]
    assert [bar.get_width() for bar in left.patches] == [25, 75]
    assert [bar.get_width() for bar in right.patches] == [50, 50]
    assert list(left.lines[0].get_xdata()) == [10, 90]
    assert "75.0 %  (30)" in {text.get_text() for text in left.texts}


def test_every_run_leaves_pictures(tmp_path: Path) -> None:
    folder = train(tmp_path, "evaluate=true", "+strategy.validate_translations=2")
    every = {"training", "directions", "scores", "data"}
    assert drawn(folder) == every | {"adapter_overlap", "transfer"}
    again = plots.of_run(folder)
    assert set(again) == every
    steps = record(folder)["metrics"]["steps"]
    running = plots.read_metrics(folder)["train/running/en-de"]
    assert [step for step, _ in running] == list(range(steps)), "every step is logged here"
    assert {axes.get_title() for axes in again["directions"].axes} == {
        *("training loss, running mean", "validation loss", "validation chrF++")
    }
    one = train(tmp_path, "strategy=lora", "logger=none")
    assert drawn(one) == {"data"}


def test_transfer_is_the_loss_of_each_direction_with_each_adapter(tmp_path: Path) -> None:
    """Against sentences one by one that claim to be of the adapter's direction."""
    folder = train(tmp_path, "trainer.max_steps=2", "+data.max_rows=4")
    module, stored = load(folder)
    data = build_data(stored)
    data.set_backbone(module.backbone, module.tokenizer)
    data.setup("validate")
    measured = json.loads((folder / "transfer.json").read_text(encoding="utf-8"))
    assert measured["adapters"] == measured["directions"] == ["en-de", "en-fr"]

    def loss(direction: str, adapter: str) -> float:
        examples = [
            replace(example, direction=adapter) for example in data.examples(direction, "val")
        ]
        batches = EvaluationBatches(examples, 512, 1, 0)
        return nats_per_token(module, batches)

    for i, adapter in enumerate(measured["adapters"]):
        expected = [loss(direction, adapter) for direction in measured["directions"]]
        assert measured["loss"][i] == pytest.approx(expected, rel=1e-4)
    expected = [loss(direction, "xx") for direction in measured["directions"]]  # no adapter's
    assert measured["base"] == pytest.approx(expected, rel=1e-4)
    assert measured["base"] != measured["loss"][0]


@pytest.fixture
def no_memory() -> Iterator[None]:
    """Fonts are looked for anew, and the user is told anew."""
    fonts.family_with.cache_clear()
    fonts._noted_scripts.clear()
    before = list(font_manager.fontManager.ttflist)
    yield
    font_manager.fontManager.ttflist = before
    font_manager.fontManager._findfont_cached.cache_clear()
    fonts.family_with.cache_clear()
    fonts._noted_scripts.clear()


LETTER = "\U00016a40"  # of Mro, which no usual font has


def make_font(path: Path) -> None:
    """A font with a box for one letter, half as high as wide."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 500), (1000, 500), (1000, 0)):
        pen.lineTo(point)
    pen.closePath()
    box = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "mro"])
    builder.setupCharacterMap({ord(LETTER): "mro"})
    builder.setupGlyf({".notdef": box, "mro": box})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "mro": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Probe Sans Mro", "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)


def labelled(text: str) -> Any:
    picture = plots.figures.new_figure(2.0, 2.0)
    picture.subplots().set_xticks([0], [text])
    return picture


@pytest.mark.usefixtures("no_memory")
def test_a_font_of_the_system_is_found_by_its_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if it had been installed after matplotlib made its list of fonts."""
    make_font(tmp_path / "probe.ttf")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "probe.ttf")])
    picture = labelled(f"a{LETTER}")
    plots.save(picture, tmp_path / "a.png")
    (label,) = picture.axes[0].get_xticklabels()
    assert label.get_fontfamily()[0] == "Probe Sans Mro"
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("no_memory")
def test_a_script_without_a_font_is_told_once_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    font_manager.fontManager.ttflist = [
        entry for entry in font_manager.fontManager.ttflist if "DejaVu" in entry.name
    ]
    for _ in range(2):
        plots.save(labelled("लड़का தமிழ் 語 ok"), tmp_path / "a.png")
    stdout = capsys.readouterr().out.splitlines()
    assert [line.split()[7] for line in stdout] == ["Devanagari", "Tamil", "Cjk"]
    assert ["fonts-noto-cjk" in line for line in stdout] == [False, False, True]
