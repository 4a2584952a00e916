"""A library of adapters: a folder with one plain PEFT folder for each."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

from polylect.hints import nearest
from polylect.library.adapter import Adapter, misfit
from polylect.library.fingerprint import base_fingerprint
from polylect.library.peft_format import CONFIG, WEIGHTS, read_peft, write_peft

ABOUT = "polylect.json"
_NAME = r"[A-Za-z0-9_-]+"


class AdapterLibrary:
    """Adapters by name, each in a sub-folder that PEFT reads and writes as well.

    Beside PEFT's files lies `polylect.json` with what `Adapter.about` holds. A folder without it,
    trained elsewhere and dropped in, serves the direction it is named after.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def names(self) -> list[str]:
        """The adapters' names, sorted; none where the folder does not exist yet."""
        return sorted(
            entry.parent.name
            for entry in self.path.glob(f"*/{CONFIG}")
            if not entry.parent.name.startswith(".")
        )

    @property
    def directions(self) -> dict[str, str]:
        """The name of the adapter that serves each direction.

        Raises:
            ValueError: two adapters serve the same.
        """
        serving: dict[str, str] = {}
        for name in self.names:
            for direction in self.about(name).get("directions", [name]):
                if direction in serving:
                    raise ValueError(
                        f"{serving[direction]!r} and {name!r} in {self.path} both serve "
                        f"{direction}: take it out of 'directions' in the {ABOUT} of one"
                    )
                serving[direction] = name
        return serving

    def about(self, name: str) -> dict[str, Any]:
        """What `polylect.json` says of an adapter; empty where there is none."""
        path = self._folder(name) / ABOUT
        if not path.is_file():
            return {}
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(about, dict):
            raise ValueError(f"{path} must hold one JSON object")
        return about

    def nbytes(self, name: str) -> int:
        """Bytes of an adapter's tensors, from the file's length and its header alone."""
        path = self._folder(name) / WEIGHTS
        if not path.is_file():
            raise FileNotFoundError(f"{path.parent} has no {WEIGHTS}")
        with path.open("rb") as file:
            return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")

    def load(self, name: str) -> Adapter:
        """Reads an adapter, all of it or none.

        Raises:
            ValueError: no adapter of this name, or a kind that is not supported.
            FileNotFoundError: it has no weights.
        """
        modules, config = read_peft(self._folder(name))
        return Adapter(modules, self.about(name), config)

    def save(self, name: str, adapter: Adapter, *, overwrite: bool = False) -> Path:
        """Writes an adapter; a reader sees the old folder, none, or the whole new one.

        Args:
            name: letters, digits, "_" and "-".
            adapter: `about` must be JSON; its "base_model" goes into PEFT's configuration.
            overwrite: whether an adapter of this name is replaced.

        Raises:
            FileExistsError: the name is taken.
        """
        if not re.fullmatch(_NAME, name):
            raise ValueError(f"adapter name {name!r}: use letters, digits, '_' and '-' only")
        folder = self.path / name
        if folder.exists() and not overwrite:
            raise FileExistsError(f"{folder} exists: choose another name or allow overwriting")
        self.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=self.path) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            write_peft(new, adapter.modules, adapter.about.get("base_model", ""))
            about = json.dumps(dict(adapter.about), indent=2, ensure_ascii=False)
            (new / ABOUT).write_text(about + "\n", encoding="utf-8")
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            new.rename(folder)
        return folder

    def remove(self, name: str) -> None:
        """Deletes an adapter's folder."""
        shutil.rmtree(self._folder(name))

    def check(self, model: nn.Module) -> list[tuple[str, str]]:
        """Every adapter that cannot be used on this base, with the reason."""
        fingerprint = None
        wrong = []
        for name in self.names:
            try:
                adapter = self.load(name)
            except (ValueError, FileNotFoundError) as error:
                wrong.append((name, str(error)))
                continue
            if fingerprint is None and "base_fingerprint" in adapter.about:
                fingerprint = base_fingerprint(model)
            reason = misfit(adapter, model, fingerprint)
            if reason:
                wrong.append((name, reason))
        return wrong

    def _folder(self, name: str) -> Path:
        known = re.fullmatch(_NAME, name) and (self.path / name / CONFIG).is_file()
        if not known:
            names = self.names
            hint = nearest(name, names) if names else "it holds none."
            raise ValueError(f"no adapter {name!r} in {self.path}: {hint}")
        return self.path / name
