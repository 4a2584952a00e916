"""Statistics of a library's adapters on text of their own, kept beside them."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from polylect.files import Unwritable, load_tensors, open_tensors, whole_file
from polylect.finite import check_written, find_nonfinite
from polylect.library.folder import AdapterLibrary

FILE = "calibration.safetensors"
INPUTS = "inputs.safetensors"

InputMeans = Mapping[str, tuple[Float[Tensor, " in"], int]]
"""By the path of a layer the mean of an adapter's own inputs, and of how many tokens."""


def read_calibration(folder: Path, key: str) -> dict[str, Tensor] | None:
    """Return what was kept last, by name; None unless it was kept under this key and is finite."""
    try:
        with open_tensors(folder / FILE) as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return None if find_nonfinite(tensors) else tensors
    except (OSError, ValueError, SafetensorError):
        return None


def write_calibration(folder: Path, key: str, tensors: Mapping[str, Tensor]) -> None:
    """Keeps tensors in place of others; says so where the folder cannot be written."""
    contiguous = {name: t.cpu().contiguous() for name, t in tensors.items()}
    try:
        with whole_file(folder / FILE) as partial:
            save_file(contiguous, partial, {"key": key})
    except Unwritable as error:
        print(f"{error}: it will be measured again.")


def write_inputs(library: AdapterLibrary, name: str, means: InputMeans) -> None:
    """Puts the means of an adapter's own inputs into its folder, in place of others.

    Raises:
        ValueError: one is not finite; nothing is written.
    """
    tensors = {f"{path}.mean": mean.float().contiguous() for path, (mean, _) in means.items()}
    check_written(f"{INPUTS} of adapter {name!r}", tensors)
    tensors |= {f"{path}.count": torch.tensor(count) for path, (_, count) in means.items()}
    with whole_file(library.folder(name) / INPUTS) as partial:
        save_file(tensors, partial, {"adapter": library.digest(name)})


def read_inputs(library: AdapterLibrary, name: str) -> dict[str, tuple[Tensor, int]]:
    """Return what `write_inputs` wrote.

    Raises:
        ValueError: there is nothing, or it is damaged, or of another adapter of that name.
    """
    path = library.folder(name) / INPUTS
    way = f"measure them with polylect library path={library.path} action=inputs model=… data=…"
    if not path.is_file():
        raise ValueError(
            f"strategy.center=true needs the means of each adapter's inputs, and {path} is not "
            f"there: {way}."
        )
    tensors, about = load_tensors(path, "the means of an adapter's inputs")
    paths = [key.removesuffix(".mean") for key in tensors if key.endswith(".mean")]
    if not all(f"{layer}.count" in tensors for layer in paths) or find_nonfinite(tensors):
        raise ValueError(f"{path} is damaged: {way}.")
    if about.get("adapter") != library.digest(name):
        raise ValueError(f"{path} is of another adapter than the one beside it: {way}.")
    return {p: (tensors[f"{p}.mean"], int(tensors[f"{p}.count"])) for p in paths}
