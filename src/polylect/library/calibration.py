"""What was measured of a library's adapters on text of their own, kept beside them."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polylect.files import Unwritable, whole_file
from polylect.finite import find_nonfinite

FILE = "calibration.safetensors"


def read_calibration(folder: Path, key: str) -> dict[str, Tensor] | None:
    """Return what was kept last, by name; None unless it was kept under this key and is finite."""
    try:
        with safe_open(folder / FILE, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return None if find_nonfinite(tensors) else tensors
    except (OSError, SafetensorError):
        return None


def write_calibration(folder: Path, key: str, tensors: Mapping[str, Tensor]) -> None:
    """Keeps tensors in place of others; says so where the folder cannot be written."""
    contiguous = {name: t.cpu().contiguous() for name, t in tensors.items()}
    try:
        with whole_file(folder / FILE) as partial:
            save_file(contiguous, partial, {"key": key})
    except Unwritable as error:
        print(f"{error}: it will be measured again.")
