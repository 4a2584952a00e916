"""What W&B keeps beside numbers: the source that ran, and what was trained with its passport."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

import polylect
from polylect.config.roots import conf_folder
from polylect.files import read_json
from polylect.run.passport.file import PASSPORT
from polylect.run.passport.writer import PassportWriter

_SOURCE = (".py", ".yaml", ".tsv", ".html", ".css", ".js", ".j2")
_SHOWN = ("kind", "directions", "scores", "tokenizer", "template", "made")  # of a passport


def log_artifacts(
    loggers: Sequence[Any], folder: Path, passport_writer: Callable[[], PassportWriter]
) -> None:
    """Give W&B the source, and each adapter, model and set of rows of a run folder.

    What was trained is not copied: it is read from the run folder when it is uploaded. The passport
    in each of them is their metadata, too. What fails is a warning, as the training is done.

    Args:
        loggers: of the run; without W&B among them nothing is done.
        folder: of the run.
        passport_writer: makes what writes the passports of the parts of the run folder.
    """
    experiments = [logger.experiment for logger in loggers if isinstance(logger, WandbLogger)]
    if not experiments:
        return
    try:
        passport_writer().write_parts(folder)
        for experiment in experiments:
            for artifact in (_source(), *_trained(folder, experiment.id)):
                experiment.log_artifact(artifact)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"warning: W&B does not get all artifacts of {folder} ({reason}).", flush=True)


def _source() -> Any:
    import wandb

    artifact = wandb.Artifact("polylect-source", "code")
    for root in (Path(polylect.__file__).parent, conf_folder()):
        for path in sorted(p for p in root.rglob("*") if p.suffix in _SOURCE):
            artifact.add_file(str(path), f"{root.name}/{path.relative_to(root).as_posix()}")
    return artifact


def _trained(folder: Path, run_id: str) -> Iterator[Any]:
    import wandb

    for path in (*sorted((folder / "adapters").glob("*")), folder / "model", folder / "rows"):
        if not (path / PASSPORT).is_file():
            continue
        passport = read_json(path / PASSPORT, "a passport")
        shown = {key: passport[key] for key in _SHOWN if key in passport}
        shown["base"] = passport["base"]["fingerprint"]
        artifact = wandb.Artifact(f"{path.name}-{run_id}", "model", metadata=shown)
        artifact.add_dir(str(path), policy="immutable")
        yield artifact
