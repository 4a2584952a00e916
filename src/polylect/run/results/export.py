"""Exports of what was trained, checked by other readers than our own before they get their name."""

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from omegaconf import DictConfig
from safetensors import SafetensorError
from torch import Tensor, nn

from polylect.config.roots import ConfigError
from polylect.config.targets import instantiate
from polylect.did_you_mean import check_known
from polylect.files import read_json
from polylect.finite import check_merged
from polylect.layers.neurons.rows import NeuronRows
from polylect.library.folder import AdapterLibrary
from polylect.models.mixture import MODEL_TYPE, load_mixture

_ALL = "model"
"""The name of a plain model that is the same for all directions."""

_TOLERANCE = 1e-3
"""Of the largest logit: what a file may differ from what was in memory when it was written."""


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder that is named `out` when all that was written into it is checked.

    Raises ConfigError where it cannot be written, as on a full disk; nothing of it stays.
    """
    partial = out.with_name(f".{out.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of an export that was killed
        partial.mkdir(parents=True)
        yield partial
        partial.rename(out)
    except (OSError, SafetensorError) as error:
        if isinstance(error, FileNotFoundError | FileExistsError) and error.errno is None:
            raise  # a sentence of ours
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"out={out} cannot be written ({reason}): make room or give another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def probe_ids(module: Any) -> Int[Tensor, "rows length"]:
    """Return rows of token ids, on the module's device, on which two models are compared."""
    size = module.backbone.config.vocab_size
    return torch.arange(256, device=module.device).remainder(size).view(4, 64)


def write_merged(module: Any, folder: Path, name: str | None) -> list[str]:
    """Write a plain Hugging Face model for each direction or adapter, or for the one named.

    Returns a sentence on each. Raises ValueError where the strategy cannot be written so.
    """
    names = merged_names(module, name)
    if name is not None or names == [_ALL]:
        return [save_merged(module, names[0], folder)]
    return [f"{own}: {save_merged(module, own, folder / own)}" for own in names]


def merged_names(module: Any, name: str | None) -> list[str]:
    """Return the names of the plain models that a strategy gives, or the one asked for.

    Raises ValueError where it gives none, or not this one.
    """
    names = list(module.merge_names())
    if name is not None:
        check_known("name", name, names)
        return [name]
    if not names:
        module.merged_model("", probe_ids(module))  # which says why not
    return names


def save_merged(module: Any, name: str, folder: Path) -> str:
    """Write one plain model, load it again and say how far its logits are from the module's."""
    merged, difference = write_model(module, name, folder)
    reloaded = _load_plain(folder, merged)
    rows = probe_ids(module)
    with torch.no_grad():
        expected = merged(input_ids=rows).logits
        actual = reloaded(input_ids=rows).logits
    check_close(folder, actual, expected)
    return (
        f"loaded with transformers, its logits differ by at most {largest(actual, expected)} from "
        f"those that were written, and these by {difference:.1e} from the run's ({_shape(rows)})."
    )


@torch.no_grad()
def write_model(module: Any, name: str, folder: Path) -> tuple[Any, float]:
    """Write a plain model and its tokenizer; it, and how far its logits are from the module's."""
    with module.context.lock():
        merged, difference = module.merged_model(name, probe_ids(module))
    check_merged(name, merged, difference)
    merged.save_pretrained(folder)
    module.tokenizer.save_pretrained(folder)
    return merged, difference


def write_own(
    module: Any, stored: DictConfig, folder: Path, form: str, name: str | None
) -> list[str]:
    """Write what the strategy itself exports, in the form that is asked for.

    Returns a sentence on each part. Raises ConfigError where the strategy has another form.
    """
    export_folder = folder / ".export"
    module.export(export_folder)
    forms = sorted(path.name for path in export_folder.iterdir()) if export_folder.is_dir() else []
    if form not in forms:
        kind = type(module).__name__
        has = f"give form={' or '.join(forms)}" if forms else "it has nothing but form=merged"
        raise ConfigError(f"strategy {kind} is not exported with form={form}: {has}.")
    if form == "model" and name is not None:
        raise ConfigError(f"form=model is one for all directions: leave out name={name}.")
    parts = {
        path.name.removesuffix(".safetensors"): path for path in (export_folder / form).iterdir()
    }
    if form == "model":
        sentences = [_check_model(module, export_folder / form)]
    else:
        if name is not None:
            check_known("name", name, parts)
            parts = {name: parts[name]}
        check = _check_adapter if form == "adapters" else _check_rows
        sentences = [f"{own}: {check(module, stored, path)}" for own, path in sorted(parts.items())]
    alone = name is not None and form == "adapters"
    for path in parts[name].iterdir() if alone else parts.values():
        path.rename(folder / path.name)
    shutil.rmtree(export_folder)
    return sentences


def _check_model(module: Any, folder: Path) -> str:
    """Return how the logits of a folder with all weights compare with the run's."""
    config = read_json(folder / "config.json", "the configuration of a model")
    if config["model_type"] == MODEL_TYPE:
        loaded, _ = load_mixture(folder, dtype=module.backbone.dtype)
        reader = "load_mixture of polylect.models.mixture, which it needs,"
    else:
        loaded, reader = _load_plain(folder, module.backbone), "transformers"
    return _compare_logits(module, module.directions[0], loaded.to(module.device), folder, reader)


def _check_adapter(module: Any, stored: DictConfig, folder: Path) -> str:
    """Return how PEFT's logits with an adapter folder on the stored base compare with the run's."""
    if importlib.util.find_spec("peft") is None:
        AdapterLibrary(folder.parent).load(folder.name)  # which refuses what is not whole
        return "read again; not checked with PEFT, which is not installed (pip install peft)."
    from peft import PeftModel

    loaded = PeftModel.from_pretrained(_base(module, stored), folder).eval()
    return _compare_logits(module, folder.name, loaded, folder, "PEFT")


def _check_rows(module: Any, stored: DictConfig, file: Path) -> str:
    """Return how the logits of a base with the rows of a file compare with the run's."""
    rows = NeuronRows.read(file)
    if rows.about.get("gated"):
        return "read again; a gate weighs these rows, so that without the run they say less."
    base = _base(module, stored)
    rows.put_on(base)
    return _compare_logits(module, file.stem, base, file, "the rows in the base's weights")


def _compare_logits(module: Any, name: str, other: nn.Module, path: Path, reader: str) -> str:
    """Return a sentence on another model's logits; raises RuntimeError where they differ."""
    rows = probe_ids(module)
    with torch.no_grad():
        whole = torch.full((len(rows),), rows.shape[1], device=rows.device)  # all of it is prompt
        with module.context.route([name] * len(rows), None, whole):
            expected = module.backbone(input_ids=rows).logits
        actual = other(input_ids=rows).logits
    check_close(path, actual, expected)
    return (
        f"loaded with {reader}, its logits differ by at most {largest(actual, expected)} from the "
        f"run's ({_shape(rows)})."
    )


def _base(module: Any, stored: DictConfig) -> Any:
    base, _ = instantiate(stored.model, "model", stored.get("packages") or (), _convert_="all")
    return base.to(module.device).eval()


def _load_plain(folder: Path, like: Any) -> Any:
    """Return the model of a folder, read by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(folder)  # which fails where its files are not whole
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=like.dtype)
    return model.to(like.device).eval()


def check_close(
    path: Path,
    actual: Float[Tensor, "rows length tokens"],
    expected: Float[Tensor, "rows length tokens"],
) -> None:
    """Raises RuntimeError where logits differ by more than rounding."""
    scale = float(expected.abs().max())
    if not float((actual - expected).abs().max()) <= _TOLERANCE * max(scale, 1.0):
        raise RuntimeError(
            f"{path.name} was written and, loaded again, does not compute what the run does (its "
            f"logits differ by {largest(actual, expected)}): it is taken away again."
        )


def largest(actual: Tensor, expected: Tensor) -> str:
    return f"{float((actual - expected).abs().max()):.1e}"


def _shape(rows: Int[Tensor, "rows length"]) -> str:
    return f"{len(rows)} rows of {rows.shape[1]} tokens"


def prompt_text(module: Any, text: str, direction: str) -> str:
    """Return a prompt as text, without the begin token, which a server puts there itself."""
    ids, begin = module.prompt(text, direction).prompt, module.tokenizer.bos_token_id
    return module.tokenizer.decode(ids[1:] if ids[:1] == [begin] else ids)


def stop_texts(module: Any) -> list[str]:
    """Return the texts at which a server is to stop, beside the end token that it knows itself.

    A line end, whatever else is in its token, where the prompt asks for one line.
    """
    tokenizer = module.tokenizer
    texts = tokenizer.batch_decode([[i] for i in module.template.stop_ids(tokenizer)])
    known = tokenizer.eos_token
    return list(dict.fromkeys("\n" if "\n" in text else text for text in texts if text != known))
