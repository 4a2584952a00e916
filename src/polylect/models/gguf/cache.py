"""A cache of de-quantised GGUF files, so that only the first start takes minutes."""

import json
import os
import sys
import tempfile
from pathlib import Path

from polylect.files import file_digest
from polylect.models.gguf.reader import read_gguf

_LAYOUT = 1
"""Part of a folder's name; to be raised where `read_gguf` gives something else than before."""


def gguf_file(path: Path) -> Path | None:
    """Return the GGUF file that a path names: itself, or the one in a folder without config.json.

    Raises ValueError for a folder that holds several.
    """
    if path.suffix == ".gguf" and path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    files = sorted(path.glob("*.gguf"))
    if len(files) > 1:
        raise ValueError(
            f"model.path={path} holds {len(files)} GGUF files: give one, as in "
            f"model.path={files[0]}."
        )
    return files[0] if files else None


def unpack(file: Path) -> Path:
    """Return the Hugging Face folder of a GGUF file, written at the first use.

    It lies in `$POLYLECT_CACHE`, else in `polylect` of the user's cache folder, under the SHA-256
    of the file, and appears there whole or not at all, also if several processes write it.
    Raises what `read_gguf` raises, and OSError where the cache cannot be written.
    """
    digest = file_digest(file)
    folder = cache_folder() / "gguf" / f"{digest[:32]}-{_LAYOUT}"
    if not (folder / "config.json").is_file():
        print(f"{file} is de-quantised once, into {folder} …", file=sys.stderr, flush=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as scratch:
            _write(file, digest, new := Path(scratch) / "new")
            try:
                new.rename(folder)
            except OSError:  # another process was first
                if not (folder / "config.json").is_file():
                    raise
    return folder


def cache_folder() -> Path:
    """Return the folder of what can be made again: `$POLYLECT_CACHE`, else by the XDG rules."""
    if own := os.environ.get("POLYLECT_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polylect"


def _write(file: Path, digest: str, folder: Path) -> None:
    model, tokenizer = read_gguf(file)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    source = {"file": file.name, "sha256": digest}
    (folder / "gguf.json").write_text(json.dumps(source) + "\n", encoding="utf-8")
