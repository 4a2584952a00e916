"""Where a base model comes from, a folder or the hub, and what to say where it cannot be had."""

import os
from pathlib import Path
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PretrainedConfig


def locate(path: str) -> str:
    """The path of a local model folder, or the hub id as it is.

    Raises FileNotFoundError for a folder that holds no model and for what can only have been meant
    as a folder and is not there.
    """
    folder = Path(path).expanduser()
    if path and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(
                f"model.path={path} is a folder without config.json: it must be one written by "
                "save_pretrained or `polylect pretrain`."
            )
        return str(folder)
    # A hub id is NAME or OWNER/NAME.
    if not path or path.startswith((".", "~", os.sep)) or path.count("/") > 1 or "\\" in path:
        raise FileNotFoundError(
            f"model.path={path} is no folder: give one written by save_pretrained or "
            "`polylect pretrain`, or a hub id such as google/gemma-2-2b."
        )
    return path


def read_config(where: str, options: dict[str, Any]) -> PretrainedConfig:
    """The configuration of a causal language model that transformers knows by itself.

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
    """What to do about a model that could not be had, from what the hub's client raised."""
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
