"""What was measured of a library's adapters on text of their own, kept beside them."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FILE = "calibration.safetensors"


def read_calibration(folder: Path, key: str) -> dict[str, Tensor] | None:
    """What was kept last, by name; None unless it was kept under this key."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def write_calibration(folder: Path, key: str, tensors: Mapping[str, Tensor]) -> None:
    """Keeps tensors in place of others; says so where the folder cannot be written."""
    temporary = folder / f".{FILE}.{os.getpid()}"
    try:
        save_file(
            {name: t.cpu().contiguous() for name, t in tensors.items()}, temporary, {"key": key}
        )
        os.replace(temporary, folder / FILE)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        print(f"{folder / FILE} cannot be written ({error}): it will be measured again.")
