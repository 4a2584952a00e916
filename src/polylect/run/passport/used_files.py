"""Files outside a run folder that its outputs come from: adapters of libraries, a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polylect.config.roots import plain
from polylect.library import AdapterLibrary
from polylect.library.folder import ABOUT
from polylect.library.peft_format import CONFIG, WEIGHTS
from polylect.run.build import checkpoint_path


def used_files(settings: Mapping[str, Any]) -> dict[str, Path]:
    """Return by a name the files that an evaluation with these settings uses.

    Args:
        settings: `run` with `adapter`, or `strategy` with `library`, as in its configuration.

    Raises FileNotFoundError where there is no such run.
    """
    run, strategy = settings.get("run"), plain(settings.get("strategy")) or {}
    if run and not settings.get("adapter"):
        path = checkpoint_path(run)
        return {f"run/{path.name}": path}
    library = str(Path(run) / "adapters") if run else strategy.get("library")
    folders = library if isinstance(library, Mapping) else {"library": library}
    return {
        f"{name}/{adapter}/{file}": Path(folder) / adapter / file
        for name, folder in folders.items()
        if folder
        for adapter in AdapterLibrary(folder).names
        for file in (CONFIG, WEIGHTS, ABOUT)
        if (Path(folder) / adapter / file).is_file()
    }
