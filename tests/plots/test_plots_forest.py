"""Forest plots: what is drawn where."""

import math

from polylect.plots.forest import COLORS, Row, forest


def test_intervals_and_what_was_expected_are_drawn() -> None:
    long = "likeness, of which there is much to say in words " * 2
    rows = [
        Row("gain", 0.02, 0.01, 0.05, (0.01, math.inf), "holds"),
        Row(long, -0.1, -0.2, 0.0, (-1, 1), "fails"),
    ]
    shares = [Row("share", 97, 95, 99, (90, math.inf), "undecided")]
    figure = forest({"nats": rows, "%": shares}, "as claimed")
    nats, share = figure.axes
    assert (nats.get_xlabel(), share.get_xlabel()) == ("nats", "%")
    bands = [(b.get_x(), b.get_x() + b.get_width()) for b in nats.patches]
    left, right = nats.get_xlim()
    assert left < -1 and right > 1
    assert bands == [(0.01, right), (-1, 1)]
    lines = {tuple(line.get_xdata()): line.get_color() for line in nats.lines}
    assert lines[(0.01, 0.05)] == COLORS["holds"] and lines[(-0.2, 0.0)] == COLORS["fails"]
    assert len(share.lines) == 2  # the interval and its point: zero is not in sight
    first, second = nats.get_yticklabels()
    assert first.get_text() == "gain" and second.get_text().count("\n") == 1
    assert nats.yaxis_inverted()  # the first row on top
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["holds", "fails", "undecided", "as claimed"]
    assert figure.legends[0].legend_handles[-1].get_facecolor() == nats.patches[0].get_facecolor()
