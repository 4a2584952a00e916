"""Hashes of files, of the tensors in them, and the files of a base."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from polylect.files import file_digest, load_saved, load_tensors
from polylect.library.fingerprint import digest_of

SHORT = 16
"""Hexadecimal digits of a tensor's hash that are kept: enough to name the one that changed."""

_TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt", "*.jinja")
_BASE_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")


def tensor_digest(tensor: Tensor) -> str:
    """Return the first digits of the SHA-256 of a tensor's bytes."""
    return digest_of(tensor)[:SHORT]


def short(digests: Mapping[str, str]) -> dict[str, str]:
    """Return the first digits of the hashes in what `tensor_digests` returns."""
    return {name: digest.rpartition(" ")[2][:SHORT] for name, digest in digests.items()}


def stored_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a file by name; none where it is of another kind.

    Those of a checkpoint are named by where they stand in it.
    Raises ValueError where it is damaged.
    """
    if path.suffix == ".safetensors":
        return load_tensors(path, "a file of tensors")[0]
    if path.suffix == ".ckpt":
        return dict(_tensors_in("", load_saved(path, "a checkpoint")))
    return {}


def _tensors_in(where: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield where, value
    elif isinstance(value, dict | list | tuple):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in entries:
            yield from _tensors_in(f"{where}.{key}" if where else str(key), inner)


def file_entry(path: Path) -> dict[str, Any]:
    """Return what a passport says of a file: its hash, and those of the tensors in it."""
    tensors = {name: tensor_digest(tensor) for name, tensor in stored_tensors(path).items()}
    return {"sha256": file_digest(path), "tensors": tensors}


def base_files(path: str) -> dict[str, Path]:
    """Return the files of a base that decide what it computes, by name.

    Args:
        path: a folder, a GGUF file, or a hub id in the local cache; other bases have no files.
    """
    where = Path(path).expanduser()
    if path and where.is_file():
        return {where.name: where}
    folder = where if path and where.is_dir() else _cached(path)
    if folder is None:
        return {}
    patterns = (*_BASE_FILES, *_TOKENIZER_FILES)
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    files = files or set(folder.glob("*.gguf"))
    return {file.name: file for file in sorted(files)}


def _cached(hub_id: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(hub_id, "config.json")
    except HFValidationError:  # of a base that was made without files
        return None
    return Path(file).parent if isinstance(file, str) else None
