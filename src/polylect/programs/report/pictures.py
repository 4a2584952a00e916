"""Pictures of a report: those that runs have drawn, and the curves of all runs in one."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

from polylect.plots.curves import read_metrics, training_of_runs
from polylect.plots.figures import DOTS_PER_INCH, FOLDER
from polylect.programs.report.blocks import Block, Heading, Missing, Picture, Section, Text
from polylect.programs.report.folders import Run

CAPTIONS = {
    "training": "loss on training and validation text, and learning rate",
    "directions": "each direction over the steps",
    "data": "shares of the directions in the training text, as read and as drawn",
    "scores": "scores by direction; a ring is the untouched base",
    "interference": "cosines of the directions' gradients: mean, by layer, over the steps",
    "transfer": "what each adapter does to the other directions",
    "adapter_overlap": "overlap of the adapters' updates",
    "adapter_shares": "shares of tokens by adapter",
    "routing_accuracy": "tokens that got the adapter which serves them, by layer",
    "neurons": "awareness of neurons, and the share of specific ones, by layer",
    "overlap": "overlap of the directions' specific neurons",
    "gates": "gates between general and specific neurons",
}
_OF_TRAINING = ("training", "directions", "data")
_ELSEWHERE = (*_OF_TRAINING, "scores", "interference")


def curves_section(runs: Sequence[Run]) -> Section:
    """Return the learning curves of all runs in one picture, then those of each run."""
    section = Section("Learning curves")
    metrics = {}
    untrained = [run.name for run in runs if run.program != "train"]
    if untrained:
        section.blocks.append(Text(f"Nothing was trained by {', '.join(untrained)}."))
    for run in (run for run in runs if run.program == "train"):
        try:
            metrics[run.name] = read_metrics(run.path)
        except (FileNotFoundError, KeyError, ValueError) as error:
            section.blocks.append(Missing(f"{run.name} has no curves: {error}"))
    if len(metrics) > 1 and (figure := training_of_runs(metrics)) is not None:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
        section.blocks.append(Picture("runs", "all runs over the steps", buffer.getvalue()))
    for run in runs:
        section.blocks += drawn_by(run, _OF_TRAINING)
    return section


def routing_section(runs: Sequence[Run]) -> Section:
    """Return what the runs have drawn of adapters, experts, routers, gates and neurons."""
    section = Section("Routing, neurons, experts, adapters")
    without, unfinished = [], []
    for run in runs:
        names = [path.stem for path in _files(run) if path.stem not in _ELSEWHERE]
        section.blocks += drawn_by(run, names)
        if not (run.path / FOLDER).is_dir():
            unfinished.append(run.name)
        elif not names:
            without.append(run.name)
    if without:
        why = "what they trained or ran has no parts that are chosen among."
        section.blocks.append(Text(f"Nothing is drawn of {', '.join(without)}: {why}"))
    if unfinished:
        why = f"there is no folder {FOLDER}, which is written at the end."
        section.blocks.append(Missing(f"No pictures of {', '.join(unfinished)}: {why}"))
    return section


def _files(run: Run) -> list[Path]:
    return sorted((run.path / FOLDER).glob("*.png"))


def drawn_by(run: Run, names: Sequence[str], title: bool = True) -> Iterator[Block]:
    """Yield the pictures of those names that a run has drawn, below its name."""
    files = {path.stem: path for path in _files(run)}
    files = [files[name] for name in names if name in files]
    if files and title:
        yield Heading(run.name)
    for path in files:
        caption = CAPTIONS.get(path.stem, path.stem.replace("_", " "))
        yield Picture(f"{run.name}_{path.stem}", f"{caption} ({run.name})", path.read_bytes())
