"""Pictures of the ledger and of responsibility maps."""

from pathlib import Path

import pytest

from polylect.files import write_text
from polylect.plots import interference, responsibility

ROWS = """step,layer,direction,other,cosine
0,model.layers.0,en-de,en-fr,0.5
0,model.layers.0,en-de,en-hi,
0,model.layers.0,en-fr,en-hi,-0.25
0,all,en-de,en-fr,0.4
0,all,en-de,en-hi,
0,all,en-fr,en-hi,-0.2
20,model.layers.0,en-de,en-fr,0.3
20,model.layers.0,en-de,en-hi,
20,model.layers.0,en-fr,en-hi,-0.75
20,all,en-de,en-fr,0.2
20,all,en-de,en-hi,
20,all,en-fr,en-hi,-0.6
"""


def test_cosines_by_pair_layer_and_step(tmp_path: Path) -> None:
    write_text(tmp_path / "ledger" / "cosines.csv", ROWS)
    matrix, layers, history = interference(tmp_path).axes[:3]
    written = {text.get_text() for text in matrix.texts}
    assert written == {"0.30", "-0.40"}  # means over the steps; a pair never seen has none
    assert [label.get_text() for label in layers.get_yticklabels()] == ["model.layers.0"]
    lowest, mean, highest = (line.get_xdata()[0] for line in layers.lines[:3])
    assert (lowest, mean, highest) == pytest.approx((-0.5, -0.05, 0.4))
    lines = {line.get_label(): list(line.get_ydata()) for line in history.lines}
    assert lines["en-fr / en-hi"] == [-0.2, -0.6]
    assert "en-de / en-hi" not in lines


def test_without_a_ledger_there_is_a_way(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="train with callbacks=ledger"):
        interference(tmp_path)


def test_responsibility_has_a_cell_for_each_part_and_direction() -> None:
    changes = [("mt 0", "en-de", 0.5), ("mt 0", "en-fr", 0.0), ("mt 1", "en-fr", -0.25)]
    axes = responsibility(changes, {"en-de": 1.0, "en-fr": None}).axes[0]
    assert sorted(text.get_text() for text in axes.texts) == ["-0.25", "0.00", "0.50"]
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == ["en-de\n1.00", "en-fr\n-"]
