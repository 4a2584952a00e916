"""Pictures of the rows of modules, and of studies: they show the numbers they should."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.neurons import write_neurons, write_rows

from polylect import plots
from polylect.library.neurons.file import NeuronFile
from polylect.library.neurons.kinds import ModuleNeurons
from polylect.models.backbone import tiny_backbone
from polylect.plots.modules import MOST_AWARE, family_of_language

pytestmark = pytest.mark.pictures

LANGUAGES = ("de", "fr", "en", "hi")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, NeuronFile]:
    model, _ = tiny_backbone(hidden=32)
    return dict(ModuleNeurons.read(write_rows(tmp_path, model, LANGUAGES)).kinds)


def shown(axes: Any) -> np.ndarray:
    (image,) = axes.images
    return np.ma.filled(image.get_array().astype(float), np.nan)


def maps(picture: Any) -> list[Any]:
    return [axes for axes in picture.axes if axes.images]


def test_specific_rows_are_counted_by_module_and_by_layer(files: dict[str, NeuronFile]) -> None:
    left, right = maps(plots.specific_rows(files))
    for m, file in enumerate(files.values()):
        for p in range(len(LANGUAGES)):
            rows = [int(file.specific[layer, p].sum()) for layer in range(len(file.layers))]
            share = 100 * sum(rows) / file.general.numel()
            assert shown(left)[m, p] == pytest.approx(share, rel=1e-5)
    for layer in range(2):
        rows = sum(int(file.specific[layer, 1].sum()) for file in files.values())
        count = sum(file.general.shape[1] for file in files.values())
        assert shown(right)[layer, 1] == pytest.approx(100 * rows / count, rel=1e-5)
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == list(files)


def test_overlap_is_that_of_the_rows_with_the_largest_scores(files: dict[str, NeuronFile]) -> None:
    sets: list[set[tuple[str, int, int]]] = [set() for _ in LANGUAGES]
    for kind, file in files.items():
        scores = file.scores()
        for p, own in enumerate(sets):
            for layer in file.layers:
                count = max(1, round(MOST_AWARE * scores.shape[2]))
                best = scores[p, layer].argsort(descending=True)[:count].tolist()
                own |= {(kind, layer, row) for row in best}
    expected = torch.tensor([[len(a & b) / len(a | b) for b in sets] for a in sets])
    torch.testing.assert_close(plots.most_aware_overlap(files), expected)


def test_owners_stand_by_family_and_pairs_by_whether_they_share_one(
    files: dict[str, NeuronFile],
) -> None:
    picture = plots.alike(files)
    (left,) = maps(picture)
    assert [t.get_text() for t in left.get_xticklabels()] == ["de", "en", "hi", "fr"]
    right = next(axes for axes in picture.axes if axes.get_title() == "mean (black) by family")
    dots = [line for line in right.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [1, 5]  # de en; all other pairs
    overlap = plots.most_aware_overlap(files)
    assert dots[0].get_ydata()[0] == pytest.approx(float(overlap[0, 2]))


def test_a_language_of_no_known_family_is_one_of_its_own() -> None:
    assert family_of_language("pt_BR") == family_of_language("fr") == "Romance"
    assert family_of_language("qaa") == "qaa"


def test_files_of_rows_have_three_maps_whatever_the_modules(tmp_path: Path) -> None:
    model, _ = tiny_backbone(hidden=32)
    rows = ModuleNeurons.read(write_rows(tmp_path, model, LANGUAGES))
    ffn = ModuleNeurons.read(write_neurons(tmp_path, model, LANGUAGES))
    assert set(plots.of_kinds(rows)) == {"rows", "rows_alike"}
    assert set(plots.of_kinds(ffn)) == {"neurons", "overlap"}
    alone = ModuleNeurons.read(write_rows(tmp_path, model, ["de"]))
    assert set(plots.of_kinds(alone)) == {"rows"}
    assert len(plots.save_all(tmp_path, lambda: plots.of_kinds(rows))) == 2


def test_a_study_shows_published_points_and_the_means_of_ours() -> None:
    published = {"authors": {4: 23.1, 1: 21.9}}
    measured = {"fixed": {1: [20.0], 4: [22.0, 23.0]}}
    upper, lower = plots.study(published, measured, "k", "BLEU", 4).axes
    (line,) = [line for line in upper.lines if line.get_label() == "authors"]
    assert list(line.get_xdata()) == [1, 4] and list(line.get_ydata()) == [21.9, 23.1]
    (mean,) = [line for line in lower.lines if line.get_label() == "fixed"]
    assert list(mean.get_ydata()) == [20.0, 22.5]
    (points,) = [line for line in lower.lines if line.get_marker() == "o"]
    assert sorted(points.get_ydata()) == [20.0, 22.0, 23.0]
