"""What other programs do for `polylect add-language`, each in a process of its own."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString

from polylect.config.folders import search_path_of_job
from polylect.config.roots import ConfigError
from polylect.files import read_json
from polylect.library import AdapterLibrary
from polylect.run.passport.file import PASSPORT
from polylect.run.sweep.process import RUN_FOLDER, run_subprocess

_OWN = ("library", "start", "sentences", "server", "key_file")
"""Settings that `polylect train` does not have."""


def train(folder: Path, starts: Mapping[str, Path]) -> dict[str, Path]:
    """Run `polylect train` with the settings of this command; returns the new adapters' folders.

    Args:
        folder: of this run; that of the training is made in it.
        starts: PEFT folder with which each adapter begins; the others begin at random.
    """
    given = [o for o in _given() if o.lstrip("+~").partition("=")[0] not in _OWN]
    if not any(o.startswith("name=") for o in given):
        given.append("name=add-language")
    if starts:
        pairs = ", ".join(f"{name}: {_text(path.absolute())}" for name, path in starts.items())
        given.append(f"strategy.start={{{pairs}}}")
    own = folder / "train"
    code = _run("train", [*search_path_of_job(), *given], {RUN_FOLDER: str(own)})
    if code:
        raise ConfigError(
            f"training failed with exit code {code}, and {folder} has no adapter yet: go on with "
            f"polylect train resume={own} and add {own / 'adapters'} with polylect library "
            "action=add, or begin anew."
        )
    library = AdapterLibrary(own / "adapters")
    return {name: library.folder(name) for name in library.names}


def prove(folder: Path, library: AdapterLibrary, new: Mapping[str, Path]) -> dict[str, Any]:
    """Run `polylect verify` on the library with the new adapters in it, as it will be.

    Adapters without a passport are not verified, since nothing says what they were.

    Returns:
        the adapters that were verified, the number of checks, and adapters without a passport.
    """
    known = [name for name in library.names if (library.folder(name) / PASSPORT).is_file()]
    others = sorted(set(library.names) - set(known))
    if others:
        print(f"note: no passport says what {', '.join(others)} did before: not verified")
    links = folder / "library"
    links.mkdir()
    folders = {name: library.folder(name) for name in known} | dict(new)
    for name, path in folders.items():
        (links / name).symlink_to(path.absolute())
    out = folder / "verify.json"
    of_base = [o for o in _given() if o.lstrip("+~").startswith(("model=", "model.", "packages="))]
    settings = [f"target={_text(links)}", f"out={_text(out)}", *of_base]
    if code := _run("verify", [*search_path_of_job(), *settings]):
        raise ConfigError(
            f"polylect verify {links} ends with {code}: the sentences above say what is not as it "
            f"was. Nothing was added to {library.path}; the new adapter is in {folder / 'train'}."
        )
    checks = read_json(out, "the checks of polylect verify")["checks"]
    return {"adapters": [*known, *new], "checks": len(checks), "without_passport": others}


def add(library: AdapterLibrary, new: Mapping[str, Path]) -> None:
    """Copy the new adapters into the library, with `polylect library action=add`."""
    for path in new.values():
        settings = [f"path={_text(library.path)}", "action=add", f"source={_text(path)}"]
        if code := _run("library", settings):
            raise ConfigError(f"{path} could not be added to {library.path} (exit code {code}).")


def verify_server(url: str, folder: Path, key_file: str | None) -> None:
    """Hold a server to the golden outputs of an adapter in a library, with `polylect verify`."""
    settings = [f"target={_text(url)}", f"passport={_text(folder)}", f"name={_text(folder.name)}"]
    if key_file:
        settings.append(f"key_file={_text(key_file)}")
    if code := _run("verify", settings):
        raise ConfigError(
            f"{url} has loaded {folder.name} and does not answer as its passport says (exit code "
            f"{code})."
        )


def _run(program: str, overrides: Sequence[str], more: Mapping[str, str] | None = None) -> int:
    print(f"polylect {program} {' '.join(overrides)}", flush=True)
    command = [sys.executable, "-m", "polylect.cli", program, *overrides]
    environment = {k: v for k, v in os.environ.items() if k != RUN_FOLDER}
    return run_subprocess(command, None, environment | dict(more or {}))


def _given() -> list[str]:
    """The overrides of this command."""
    return list(HydraConfig.get().overrides.task)


def _text(value: Any) -> str:
    return QuotedString(str(value), Quote.single).with_quotes()
