"""Passports of what `polylect export` writes; models translate for theirs once they are loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from polylect.files import read_json
from polylect.library.peft_format import CONFIG
from polylect.models.backbone import load_backbone
from polylect.models.mixture import MODEL_TYPE, load_mixture
from polylect.run.passport.file import PASSPORT, Passport
from polylect.run.passport.golden import record_outputs
from polylect.run.passport.writer import PassportWriter
from polylect.strategies.frozen import Frozen


def load_exported(folder: Path, template: str, directions: Sequence[str], dtype: str) -> Frozen:
    """Return an exported model, plain or a mixture, as a strategy that does nothing to it.

    Args:
        dtype: of its weights, such as "float32".

    Raises what loading raises.
    """
    config = read_json(folder / "config.json", "the configuration of a model")
    module = Frozen(directions=directions, template=template)
    if isinstance(config, dict) and config.get("model_type") == MODEL_TYPE:
        module.set_backbone(*load_mixture(folder, dtype=getattr(torch, dtype)))
    else:
        module.set_backbone(*load_backbone(str(folder), dtype=dtype))
    return module


def write_export_passports(
    module: Any, folder: Path, form: str, name: str | None, run: str | None
) -> list[str]:
    """Write the passport of each part of an export.

    Args:
        module: what was exported.
        folder: of the export.
        form, name, run: as given to `polylect export`.

    Returns a sentence on each part.
    """
    library = getattr(module, "adapter_index", None)
    known = module.directions if library is None else _served(library)
    data, scores = _of_run(run)
    writer = PassportWriter(module, known, data, scores)
    if form == "rows":
        writer.write("rows", folder)
        return [f"passport: {len(writer.golden)} golden outputs of the run."]
    if form == "adapters":
        for part in _parts(folder, CONFIG):
            writer.write_adapter(part)
        return [f"passport: {len(writer.golden)} golden outputs of the run."]
    sentences = []
    for part in _parts(folder, "config.json"):
        own = part.name if part != folder else name
        directions = [d for d in known if "-" in d and _serves(module, d, own)]
        dtype = str(next(module.backbone.parameters()).dtype).removeprefix("torch.")
        loaded = load_exported(part, module.template_name, directions, dtype).to(module.device)
        loaded.generation = module.generation
        golden = record_outputs(loaded, directions)
        writer.write("model", part, directions, golden)
        same = sum(output in writer.golden for output in golden)
        what = f"{part.name}: " if part != folder else ""
        sentences.append(f"{what}passport: {same} of {len(golden)} golden outputs are the run's.")
    return sentences


def _served(library: Any) -> list[str]:
    """The directions that a library serves, each by one adapter."""
    served = {d: None for name in library.names for d in library.directions_of(name)}
    return [direction for direction in served if "-" in direction]


def _parts(folder: Path, file: str) -> list[Path]:
    """The folder, or those in it, that hold this file."""
    if (folder / file).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{file}"))


def _serves(module: Any, direction: str, name: str | None) -> bool:
    """Whether the model that was written for an adapter, a direction or all translates this one."""
    if name is None or name == "model" or direction == name:
        return True
    adapter = getattr(module, "adapter", None)
    return adapter is not None and adapter(direction) == name


def _of_run(run: str | None) -> tuple[Any, Any]:
    """Hashes of the data and scores that a run's passport has; none where it has no passport."""
    if run is None or not (Path(run) / PASSPORT).is_file():
        return None, None
    passport = Passport.read(Path(run))
    return passport.data, passport.scores
