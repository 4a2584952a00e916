"""The dashboard on Weights & Biases: what would be sent, and that runs have such metrics."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb_dashboard
from wandb_dashboard import PARTS, make_report, make_workspace, sent

from polylect.programs.report.pictures import CAPTIONS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # wandb-workspaces' own
LOGGED_BY_SOME = [  # by strategies and callbacks that the run of this test does not have
    "ledger/cosine/en-de/en-fr", "ledger/cancelled/en-de", "val/chrf/en-de",
    "routing/model.layers.0/entropy", "neurons/ffn/en-de",
]  # fmt: skip


def panels(part: str, kind: str) -> list[Any]:
    return [panel for panel in PARTS[part] if panel.kind == kind]


def test_every_panel_shows_what_some_run_logs(tiny_run: Path) -> None:
    with (tiny_run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        names = [*next(csv.reader(file)), *LOGGED_BY_SOME]
    for part in PARTS:
        for panel in panels(part, "lines"):
            assert any(re.search(panel.metrics, name) for name in names), panel
        for panel in panels(part, "bars"):
            assert set(panel.metrics) & set(names), panel
        for panel in panels(part, "media"):
            pictures = [m.removeprefix("pictures/") for m in panel.metrics if m[:4] == "pict"]
            assert set(pictures) <= CAPTIONS.keys()


def strings(node: Any, key: str) -> Iterator[Any]:
    """All values of a key, wherever in the object."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from strings(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from strings(value, key)


def test_what_is_sent_has_every_panel_and_the_group() -> None:
    pytest.importorskip("wandb_workspaces", reason="no wandb-workspaces: polylect[dashboards]")
    workspace = sent(make_workspace("me", "mine", "tongues/noon"))
    report = sent(make_report("me", "mine", "tongues/noon"))
    titles = [panel.title for panels in PARTS.values() for panel in panels]
    expressions = [p.metrics for ps in PARTS.values() for p in ps if p.kind == "lines"]
    for thing in (workspace, report):
        assert thing["project"] == "mine" or thing["project"]["name"] == "mine"
        found = [*strings(thing, "chartTitle"), *strings(thing, "title")]
        assert [title for title in found if title in titles] == titles
        assert list(strings(thing, "metricRegex")) == expressions
        assert "translations" in str(list(strings(thing, "mediaKeys")))
        assert "tongues/noon" in json.dumps(list(strings(thing, "filters")))
    sections = workspace["spec"]["section"]["panelBankConfig"]["sections"]
    assert [section["name"] for section in sections] == list(PARTS)
    assert "group" in json.dumps(sent(make_workspace("me", "mine"))["spec"]["section"]["runSets"])


def test_show_sends_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("wandb_workspaces", reason="no wandb-workspaces: polylect[dashboards]")
    monkeypatch.setattr(sys, "argv", ["wandb_dashboard.py", "me", "mine", "--show"])
    wandb_dashboard.main()
    assert capsys.readouterr().out.count('"metricRegex"') > 10
