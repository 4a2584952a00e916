"""Exports for llama.cpp: adapters or whole models as GGUF files, with Modelfiles for Ollama."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from polylect.did_you_mean import check_known
from polylect.finite import check_merged
from polylect.library.gguf_format import largest_difference, write_gguf_adapter
from polylect.models.gguf.reader import read_gguf
from polylect.models.gguf.writer import write_gguf_model
from polylect.run.results.export import (
    check_close,
    largest,
    merged_names,
    probe_ids,
    prompt_text,
    stop_texts,
)


def write_adapters(module: Any, folder: Path, name: str | None) -> list[str]:
    """Write a GGUF file for each adapter, or for the one named, and a Modelfile for Ollama beside.

    Returns a sentence on each. Raises ValueError where the strategy has no adapters, or llama.cpp
    does not take them.
    """
    library = module.named_adapters().adapter_index
    if name is not None:
        check_known("name", name, library.names)
    return [_write_adapter(module, own, folder) for own in ([name] if name else library.names)]


def _write_adapter(module: Any, name: str, folder: Path) -> str:
    library, config = module.named_adapters().adapter_index, module.backbone.config
    adapter, file = library.load(name), folder / f"{name}.gguf"
    write_gguf_adapter(file, adapter, config)
    difference = largest_difference(file, adapter, config)
    beside = _write_modelfile(
        module, folder, name, library.directions_of(name), "./base.gguf", f"./{file.name}"
    )
    return (
        f"{name}: {len(adapter.modules)} updates, read again with gguf, differ by at most "
        f"{difference:.1e} from the adapter's.{beside}"
    )


@torch.no_grad()
def write_models(module: Any, folder: Path, name: str | None, base: Path) -> list[str]:
    """Write a whole model as a GGUF file for each direction or adapter, or for the one named.

    Each is read again, by transformers, and held to what was written.

    Args:
        base: GGUF file of the base, whose vocabulary and settings are taken.

    Returns a sentence on each. Raises ValueError where the strategy cannot be written so, or the
    file is of another base.
    """
    sentences = []
    for own in merged_names(module, name):
        with module.context.lock():
            merged, difference = module.merged_model(own, probe_ids(module))
        check_merged(own, merged, difference)
        file = folder / f"{own}.gguf"
        count = write_gguf_model(file, base, merged)
        rows = probe_ids(module)
        expected = merged(input_ids=rows).logits
        # What is read is for saving: it has weights and no tables of positions.
        merged.load_state_dict(read_gguf(file)[0].state_dict())
        actual = merged(input_ids=rows).logits
        check_close(file, actual, expected)
        directions = _directions(module, own)
        beside = _write_modelfile(module, folder, own, directions, f"./{file.name}", None)
        sentences.append(
            f"{own}: {count} tensors; read again with transformers, its logits differ by at most "
            f"{largest(actual, expected)} from those that were written, and these by "
            f"{difference:.1e} from the run's.{beside}"
        )
    return sentences


def _directions(module: Any, name: str) -> list[str]:
    """The directions that a merged model translates: its adapter's, its own, or all."""
    library = getattr(module, "adapter_index", None)
    if library is not None:
        return list(library.directions_of(name))
    return [name] if name in module.directions else list(module.directions)


def _write_modelfile(
    module: Any,
    folder: Path,
    name: str,
    directions: Sequence[str],
    model: str,
    adapter: str | None,
) -> str:
    """Write NAME.Modelfile where there can be one; returns a sentence where there is none."""
    text = modelfile(module, directions, model, adapter)
    if text is None:
        return " It has no Modelfile: Ollama's template is text for one direction."
    (folder / f"{name}.Modelfile").write_text(text, encoding="utf-8")
    return ""


def modelfile(
    module: Any, directions: Sequence[str], model: str, adapter: str | None = None
) -> str | None:
    """Return a Modelfile that lets Ollama ask as the adapter was trained to be asked.

    It is None where that cannot be written as text: for several directions, or a tokenizer that
    does not give back what it was given.

    Args:
        model, adapter: GGUF files, by paths that begin at the Modelfile.
    """
    mark = "{{ .Prompt }}"
    if len(directions) != 1:
        return None
    prompt = prompt_text(module, mark, directions[0])
    if prompt.count(mark) != 1:
        return None
    first = "Put the base as a GGUF file beside this one, then: " if adapter else ""
    lines = [f"# {first}ollama create NAME -f THIS_FILE", f"FROM {model}"]
    if adapter:
        lines.append(f"ADAPTER {adapter}")
    lines += [
        f'TEMPLATE """{prompt}"""',
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
        f"PARAMETER num_predict {module.generation.limit}",
        # Ollama knows no escapes: a line end stands in quotes as it is.
        *(f'PARAMETER stop "{text}"' for text in stop_texts(module)),
    ]
    return "\n".join(lines) + "\n"
