"""The project's workspace and report on Weights & Biases, made from the grammar of metric names.

    pip install "polylect[dashboards]"
    python experiments/tools/wandb_dashboard.py ENTITY PROJECT
    python experiments/tools/wandb_dashboard.py ENTITY PROJECT --group tongues/TIME    # a sweep
    python experiments/tools/wandb_dashboard.py ENTITY PROJECT --show    # sends nothing

Without --show it needs an account, and the project with the runs of `logger=wandb`. Each part of
the dashboard stands for a prefix of metrics' names, so it fits any strategy and any directions.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STEP = "trainer/global_step"


@dataclass(frozen=True)
class Panel:
    """A picture of metrics: lines over the steps, bars of last values, or logged media.

    Attributes:
        kind: "lines", "bars" or "media".
        metrics: names; of lines, a regular expression, as one panel has all directions.
    """

    kind: str
    title: str
    metrics: str | tuple[str, ...]


PARTS: dict[str, tuple[Panel, ...]] = {
    "Training": (
        Panel("lines", "loss (nats per target token)", r"^(train|val)/loss$"),
        Panel("lines", "training loss by direction", r"^train/running/.*"),
        Panel("lines", "validation loss by direction", r"^val/loss/.*"),
        Panel("lines", "validation chrF++", r"^val/chrf.*"),
        Panel("lines", "learning rate", r"^train/lr$"),
    ),
    "Scores": (
        Panel("bars", "chrF++", ("test/chrf++/mean", "base/chrf++/mean")),
        Panel("bars", "BLEU", ("test/bleu/mean", "base/bleu/mean")),
        Panel("bars", "TER", ("test/ter/mean", "base/ter/mean")),
        Panel("bars", "off target and empty", ("test/off_target/mean", "test/empty/mean")),
        Panel("media", "translations", ("translations",)),
    ),
    "Interference": (
        Panel("lines", "cosine of the directions' gradients", r"^ledger/cosine/.*"),
        Panel("lines", "share of an update that the others take back", r"^ledger/cancelled/.*"),
        Panel(
            "media",
            "matrices",
            (
                "matrices/source_by_target/chrf++",
                "matrices/gradient_cosine",
                "matrices/adapter_by_direction",
            ),
        ),
        Panel("media", "pictures", ("pictures/interference", "pictures/transfer")),
    ),
    "Routing, experts, neurons": (
        Panel("lines", "routing: shares of adapters and experts, gates, entropy", r"^routing/.*"),
        Panel("lines", "neurons", r"^neurons/.*"),
        Panel(
            "media",
            "heat maps",
            ("pictures/adapter_shares", "pictures/routing_accuracy", "pictures/neurons"),
        ),
    ),
    "Data": (
        Panel("lines", "share of the directions", r"^data/(share|wanted_share)/.*"),
        Panel("lines", "padding", r"^data/padding$"),
    ),
}


def panels_of(part: str) -> list[Any]:
    """Return the panels of a part as objects of wandb-workspaces."""
    import wandb_workspaces.reports.v2 as wr

    make: dict[str, Callable[[Panel], Any]] = {
        "lines": lambda p: wr.LinePlot(title=p.title, x=STEP, metric_regex=p.metrics),
        "bars": lambda p: wr.BarPlot(title=p.title, metrics=list(p.metrics)),
        "media": lambda p: wr.MediaBrowser(title=p.title, media_keys=list(p.metrics)),
    }
    return [make[panel.kind](panel) for panel in PARTS[part]]


def make_workspace(entity: str, project: str, group: str | None = None) -> Any:
    """Return a workspace with a section for each part; of one group of runs, if it is given."""
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(name=part, panels=panels_of(part), is_open=part in ("Training", "Scores"))
        for part in PARTS
    ]
    filters = [ws.Metric("group") == group] if group else []
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"polylect {group or 'overview'}",
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=STEP, ignore_outliers=False),
        runset_settings=ws.RunsetSettings(
            filters=filters, groupby=[] if group else [ws.Metric("group")]
        ),
    )


def make_report(entity: str, project: str, group: str | None = None) -> Any:
    """Return a report with a heading and a grid of panels for each part."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    filters = [ws.Metric("group") == group] if group else []
    runs = wr.Runset(name=group or "all runs", filters=filters)  # of the report's own project
    blocks = [
        wr.TableOfContents(),
        wr.P(
            "Losses are nats per target token. Test scores are of test sets that chose nothing; "
            "their signatures are in the summary as signature/METRIC/DIRECTION. Tests of "
            "significance are made by polylect compare and polylect report."
        ),
    ]
    for part in PARTS:
        blocks += [wr.H2(part), wr.PanelGrid(runsets=[runs], panels=panels_of(part))]
    differing = wr.PanelGrid(runsets=[runs], panels=[wr.RunComparer(diff_only="split")])
    blocks += [wr.H2("Settings that differ"), differing]
    return wr.Report(
        entity=entity,
        project=project,
        title=f"polylect: {group or project}",
        description="Training, scores, interference and routing of runs",
        blocks=blocks,
        width="fluid",
    )


def sent(thing: Any) -> dict[str, Any]:
    """Return what a workspace or report is when it is sent."""
    return json.loads(thing._to_model().model_dump_json(by_alias=True, exclude_none=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("entity", help="user or team")
    parser.add_argument("project")
    parser.add_argument("--group", help="of a sweep or recipe: NAME/TIME of its folder")
    parser.add_argument("--show", action="store_true", help="print what would be sent")
    arguments = parser.parse_args()
    about = arguments.entity, arguments.project, arguments.group
    for thing in (make_workspace(*about), make_report(*about)):
        if arguments.show:
            print(json.dumps(sent(thing), indent=1))
        else:
            print(thing.save().url)


if __name__ == "__main__":
    main()
