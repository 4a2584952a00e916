"""Pictures: they show the numbers they should, as whole PNG files."""

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from helpers.tiny import DATA, MODEL, config, folders, train
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from polylect import plots
from polylect.files import Unwritable
from polylect.library.neurons.file import NeuronFile
from polylect.plots.detection import chance_overlap
from polylect.programs import detect
from polylect.run.monitor.loggers import log_pictures

pytestmark = pytest.mark.pictures

DIRECTIONS = ("en-de", "en-fr", "en-hi")
LAYERS, NEURONS = 5, 12


@pytest.fixture
def file() -> NeuronFile:
    """Random scores and owners; en-hi does not use the first of the two chosen layers."""
    specific = torch.rand(2, 3, NEURONS) < 0.5
    return NeuronFile(
        directions=DIRECTIONS,
        layers=(1, 4),
        selected=torch.tensor([[True, True, False], [True, True, True]]),
        general=~specific.any(1),
        specific=specific,
        awareness={side: torch.rand(3, LAYERS, NEURONS) for side in ("source", "target")},
        relevance=torch.rand(3, LAYERS),
        activation=torch.rand(3, LAYERS, NEURONS),
        base_fingerprint="",
        about={"tokens": {"source": [2, 3, 4], "target": [6, 5, 1]}},
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with gates of three steps; en-hi is missing in some batches, and in layer 2."""
    names = ["routing/layer_10/openness/en-hi", "routing/layer_2/openness/en-de"]
    rows = [
        {"step": 4, "train/loss": 3.0, names[0]: 0.25, names[1]: 0.5},
        {"step": 9, "val/loss": 2.0},
        {"step": 9, "train/loss": 2.5, names[1]: 0.75},
        {"step": 14, "train/loss": 2.0, names[0]: 1.0, names[1]: 0.625},
    ]
    with (tmp_path / "metrics.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["step", "train/loss", "val/loss", *names])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def cells(axes: Any) -> np.ndarray:
    """What a heat map shows; NaN where it shows nothing."""
    (image,) = axes.images
    return np.ma.filled(image.get_array().astype(float), np.nan)


def maps(picture: Any) -> list[Any]:
    """The heat maps of a picture, without colour bars."""
    return [axes for axes in picture.axes if axes.images]


def drawn(folder: Path) -> set[str]:
    """The names of the pictures in a run folder."""
    return {path.stem for path in (folder / "plots").iterdir()}


def labels(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def owned(file: NeuronFile, direction: int) -> set[tuple[int, int]]:
    """Neurons of a direction as (layer, neuron), counted one by one."""
    return {
        (layer, neuron)
        for i, layer in enumerate(file.layers)
        for neuron in range(NEURONS)
        if file.selected[i, direction] and file.specific[i, direction, neuron]
    }


def test_the_neuron_map_shows_mean_awareness_and_shares(file: NeuronFile) -> None:
    left, right = maps(plots.neuron_map(file))
    tokens = file.about["tokens"]
    for p in range(3):
        for layer in range(LAYERS):
            sums = [tokens[s][p] * file.awareness[s][p, layer].mean().item() for s in tokens]
            mean = sum(sums) / (tokens["source"][p] + tokens["target"][p])
            assert cells(left)[layer, p] == pytest.approx(1000 * mean, rel=1e-5)
            share = sum(place == layer for place, _ in owned(file, p)) / NEURONS
            used = layer == 4 or (layer == 1 and p != 2)
            expected = 100 * share if used else math.nan
            assert cells(right)[layer, p] == pytest.approx(expected, rel=1e-5, nan_ok=True)
    assert labels(left.xaxis) == labels(right.xaxis) == list(DIRECTIONS)
    assert labels(left.yaxis) == ["0", "1", "2", "3", "4"]
    assert left.get_ylim()[0] < left.get_ylim()[1]  # the first layer at the bottom


def test_overlap_is_the_jaccard_index_of_sets(file: NeuronFile) -> None:
    (axes,) = maps(plots.overlap(file))
    sets = [owned(file, p) for p in range(3)]
    expected = torch.tensor([[len(a & b) / len(a | b) for b in sets] for a in sets])
    torch.testing.assert_close(plots.jaccard(file), expected)
    shown = cells(axes)
    assert np.isnan(shown.diagonal()).all()
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(shown[off], expected.numpy()[off], rtol=1e-6)
    assert axes.images[0].get_clim() == (0, 1), "small overlaps look small"
    texts = {text.get_text() for text in axes.texts}
    assert {f"{len(s)}\nneurons" for s in sets} <= texts
    assert f"{expected[0, 1]:.2f}" in texts


def test_the_overlap_of_chance_is_that_of_unrelated_sets(file: NeuronFile) -> None:
    """Against the mean over random sets of the same sizes in each layer."""
    torch.manual_seed(0)
    counts = (file.specific & file.selected[:, :, None]).sum(-1)
    both, either = torch.zeros(3, 3), torch.zeros(3, 3)
    for _ in range(400):
        sets = torch.zeros(2, 3, NEURONS, dtype=torch.bool)
        for layer in range(2):
            for p in range(3):
                sets[layer, p, torch.randperm(NEURONS)[: counts[layer, p]]] = True
        for i in range(3):
            for j in range(3):
                both[i, j] += (sets[:, i] & sets[:, j]).sum()
                either[i, j] += counts[:, i].sum() + counts[:, j].sum()
    expected = both / (either - both)
    off = ~torch.eye(3, dtype=torch.bool)
    torch.testing.assert_close(chance_overlap(file)[off], expected[off], rtol=0.1, atol=0.01)


def test_directions_without_neurons_overlap_in_nothing(file: NeuronFile, tmp_path: Path) -> None:
    empty = replace(file, specific=torch.zeros_like(file.specific))
    assert plots.jaccard(empty).isnan().all()
    assert len(plots.save_all(tmp_path, lambda: plots.of_detection(empty))) == 2


def test_one_direction_has_no_overlap(file: NeuronFile) -> None:
    alone = replace(
        file,
        directions=("en-de",),
        selected=file.selected[:, :1],
        specific=file.specific[:, :1],
        awareness={side: scores[:1] for side, scores in file.awareness.items()},
        about={"tokens": {"source": [2], "target": [6]}},
        relevance=file.relevance[:1],
        activation=file.activation[:1],
    )
    assert set(plots.of_detection(alone)) == {"neurons"}


def test_openness_is_read_from_the_metrics(run: Path) -> None:
    assert plots.openness(run) == {
        2: {"en-de": [(4, 0.5), (9, 0.75), (14, 0.625)]},
        10: {"en-hi": [(4, 0.25), (14, 1.0)]},
    }


def test_gates_show_the_last_value(run: Path) -> None:
    (axes,) = maps(plots.gates(run))
    np.testing.assert_array_equal(cells(axes), [[0.625, math.nan], [math.nan, 1.0]])
    assert labels(axes.yaxis) == ["2", "10"]
    assert labels(axes.xaxis) == ["en-de", "en-hi"]
    assert axes.images[0].get_clim() == (0, 1)


def test_gates_over_steps_have_a_panel_per_layer_and_a_line_per_direction(run: Path) -> None:
    picture = plots.gates_over_steps(run)
    first, second = picture.axes
    assert [first.get_title(), second.get_title()] == ["layer 2", "layer 10"]
    lines = {line.get_label(): line for line in second.lines}
    assert list(lines["en-hi"].get_xdata()) == [4, 14]
    assert list(lines["en-hi"].get_ydata()) == [0.25, 1.0]
    assert [text.get_text() for text in picture.legends[0].get_texts()] == ["en-de", "en-hi"]


def test_a_run_without_gates_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train with logger=csv"):
        plots.gates(tmp_path / "nowhere")
    (run / "metrics.csv").write_text("step,train/loss\n4,2.0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="tells of no gate"):
        plots.gates(run)


def test_a_png_is_written_whole_and_shows_something(file: NeuronFile, tmp_path: Path) -> None:
    from matplotlib import pyplot
    from matplotlib.image import imread

    files = plots.save_all(tmp_path, lambda: plots.of_detection(file))
    assert files == {n: tmp_path / "plots" / f"{n}.png" for n in ("neurons", "overlap")}
    for path in files.values():
        pixels = imread(path)
        assert min(pixels.shape[:2]) > 200
        assert len(np.unique(pixels[..., :3] @ [1, 1e3, 1e6])) > 50  # colours
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"neurons.png", "overlap.png"}
    assert not pyplot.get_fignums()  # its state is the user's


def test_a_failed_save_leaves_the_former_file(tmp_path: Path) -> None:
    class Failing:
        def savefig(self, path: Path, **_: Any) -> None:
            path.write_bytes(b"half")
            raise OSError("disk full")

    (tmp_path / "a.png").write_bytes(b"former")
    with pytest.raises(Unwritable, match=r"a\.png cannot be written \(disk full\)"):
        plots.save(Failing(), tmp_path / "a.png")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"former"]


def test_what_cannot_be_drawn_or_saved_is_a_warning(
    file: NeuronFile, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing() -> dict[str, Any]:
        raise ZeroDivisionError("a\nbug")

    files = plots.save_all(run, failing, lambda: plots.of_gates(run))
    assert set(files) == {"gates", "gates_over_steps"}, "the others are drawn all the same"
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"warning: pictures are missing in {run / 'plots'} (ZeroDivisionError: a bug)."
    occupied = run / "occupied"
    occupied.write_text("a file")
    assert plots.save_all(occupied, lambda: plots.of_detection(file)) == {}
    assert "warning: pictures are missing" in capsys.readouterr().out


def test_wandb_gets_the_pictures_and_others_nothing(tmp_path: Path) -> None:
    wandb, other = create_autospec(WandbLogger, instance=True), create_autospec(CSVLogger)
    log_pictures([other, wandb], {"gates": tmp_path / "gates.png"}, 7)
    wandb.log_image.assert_called_once_with("pictures/gates", [str(tmp_path / "gates.png")], 7)
    assert not other.mock_calls


def detected(runs: Path) -> Path:
    detect.main(config("detect", *MODEL, *DATA, f"runs={runs}"))
    (folder,) = folders(runs)
    return folder


@pytest.mark.slow
def test_detection_and_training_leave_pictures(tmp_path: Path) -> None:
    folder = detected(tmp_path)
    assert drawn(folder) == {"neurons", "overlap"}
    neurons = f"strategy.neurons={folder / detect.FILE}"
    trained = train(tmp_path, "strategy=landermt", neurons)
    of_every_run = {"training", "directions", "data"}
    own = {"neurons", "overlap", "gates", "gates_over_steps"}
    assert drawn(trained) == own | of_every_run
    openness = plots.openness(trained)
    assert list(openness) == [0, 1]
    assert set(openness[0]) == {"en-de", "en-fr"}
    assert [step for step, _ in openness[0]["en-de"]][-1] == 5  # the last of six steps
