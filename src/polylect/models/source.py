"""Finds a base model in a folder or on the hub, and says what to do where it cannot be had."""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PretrainedConfig

from polylect.files import check_whole
from polylect.models.gguf.cache import gguf_file, unpack


def locate(path: str) -> str:
    """Return the path of a local model folder, or the hub id as it is.

    A GGUF file, or a folder that holds one, is unpacked first (`polylect.models.gguf`).
    Raises FileNotFoundError for a folder that holds no model and for what can only have been meant
    as a folder or file and is not there, and what unpacking raises.
    """
    folder = Path(path).expanduser()
    if path and (file := gguf_file(folder)):
        return str(unpack(file))
    if path and folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            raise FileNotFoundError(
                f"model.path={path} is an adapter and no model: give the base that it was trained "
                "on, and with strategy=lora_library the folder of adapters."
            )
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"model.path={path} is a folder without config.json: it must be one written by "
                "save_pretrained or `polylect pretrain`, or hold one GGUF file."
            )
        return str(folder)
    if path and folder.is_file():
        raise FileNotFoundError(f"model.path={path} is a file: give the folder of a model.")
    # A hub id is NAME or OWNER/NAME.
    looks_local = path.startswith((".", "~", os.sep)) or path.endswith(".gguf") or "\\" in path
    if not path or looks_local or path.count("/") > 1:
        raise FileNotFoundError(
            f"model.path={path} is no folder: give one written by save_pretrained or "
            "`polylect pretrain`, a GGUF file, or a hub id such as google/gemma-2-2b."
        )
    return path


_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def has_weights(path: str, revision: str | None = None) -> bool:
    """Return whether the weights of a base model are on this machine:
    in its folder or the hub's cache.

    Raises FileNotFoundError as `locate` does.
    """
    folder = Path(path).expanduser()
    if gguf_file(folder):
        return True
    if Path(locate(path)).is_dir():
        return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    names = [name for weights in _WEIGHTS for name in (weights, f"{weights}.index.json")]
    return any(
        isinstance(try_to_load_from_cache(path, name, revision=revision), str) for name in names
    )


def is_outline(model: Any) -> bool:
    """Return whether the model has no weights."""
    return any(parameter.is_meta for parameter in model.parameters())


def check_files(where: str) -> None:
    """Raises ValueError for a file of a local model that is empty or was not fetched."""
    folder = Path(where)  # of a hub id there is none, and no file
    weights = [*folder.glob("model*.safetensors")] or [*folder.glob("pytorch_model*.bin")]
    for path in sorted([*weights, *folder.glob("*config.json"), *folder.glob("tokenizer.*")]):
        check_whole(path, "a file of a model")


def read_config(where: str, options: dict[str, Any]) -> PretrainedConfig:
    """Return the configuration of a causal language model that transformers knows by itself.

    Raises FileNotFoundError where it cannot be had and ValueError where it is something else.
    """
    try:
        config = AutoConfig.from_pretrained(where, **options)
    except OSError as error:
        raise FileNotFoundError(_unreachable(where, error)) from error
    except ValueError as error:
        raise ValueError(
            f"model.path={where} is of a kind that transformers does not know by itself, and code "
            "that comes with a model is never run; take a model that transformers supports."
        ) from error
    if config.is_encoder_decoder:
        raise ValueError(
            f"model.path={where} is an encoder-decoder model ({config.model_type}); "
            "a causal language model is needed, such as google/gemma-2-2b."
        )
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"model.path={where} is no causal language model ({config.model_type}).")
    return config


def _unreachable(where: str, error: OSError) -> str:
    """Return what to do about a model that could not be loaded, from the hub client's error."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    causes = (error, error.__cause__, error.__context__)
    if Path(where).is_dir():
        return f"model.path={where} has a config.json that cannot be read: {error}"
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return (
            f"model.path={where} is gated: accept its terms on https://huggingface.co/{where} and "
            "log in with `hf auth login`."
        )
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"model.path={where} is neither a folder here nor a model on the hub."
    return (
        f"model.path={where} is no folder here, is not in the local cache of the hub, and the hub "
        f"was not reached: run `hf download {where}` once on a machine with network, or give the "
        "path of a folder."
    )
