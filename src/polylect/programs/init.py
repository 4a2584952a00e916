"""`polylect init FOLDER`: a project of the user's own, laid beside the package."""

import shlex
import shutil
from pathlib import Path

from omegaconf import DictConfig

from polylect.config.roots import ConfigError
from polylect.config.validation import validate
from polylect.files import Unwritable

PROJECT = Path(__file__).parents[1] / "project"


def main(cfg: DictConfig) -> None:
    """Copy the project's files and say what to do next.

    Raises:
        ConfigError: a file of that name is there already; then nothing is written.
        Unwritable: the folder cannot be written to.
    """
    validate(cfg)
    folder = Path(cfg.folder)
    files = sorted(
        path.relative_to(PROJECT)
        for path in PROJECT.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    if existing := [name for name in files if (folder / name).exists()]:
        raise ConfigError(
            f"folder={folder} has {existing[0]} already, and nothing is overwritten: name another."
        )
    try:
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, folder / name)
    except OSError as error:
        raise Unwritable(f"folder={folder} cannot be written to: {error.strerror}.") from error
    print("\n".join(str(folder / name) for name in files))
    print(
        f"\nThe way from here is in {folder / 'README.md'}. First:\n"
        f"  cd {shlex.quote(str(folder))}\n"
        "  polylect train --config-dir conf experiment=mine dry_run=true"
    )
