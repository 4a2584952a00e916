"""What a run has written beside its checkpoint: adapters, rows, a model; each held to it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polylect.layers.lora.attach import lora_layers
from polylect.layers.neurons.rows import NeuronRows
from polylect.library import Adapter, AdapterLibrary
from polylect.run.passport.file import Passport
from polylect.run.passport.hashes import stored_tensors
from polylect.run.untrained_model import has_adapters, load_adapters
from polylect.run.verify.base import check_base, check_switching, golden_rows
from polylect.run.verify.check import Check, not_checked
from polylect.run.verify.frozen import check_copies
from polylect.run.verify.loaders import load_model
from polylect.run.verify.outputs import check_outputs
from polylect.strategies.frozen import Frozen


def check_parts(
    module: Any, passport: Passport, folder: Path, cfg: Any, base: Callable[[], Any]
) -> Iterator[Check]:
    """Yield the checks of what a run folder holds beside its checkpoint.

    Args:
        module: the strategy with the checkpoint's weights.
        base: reads the base from its file once more.
    """
    if has_adapters(folder):
        yield from _check_adapters(module, passport, folder, cfg)
    for file in sorted((folder / "rows").glob("*.safetensors")):
        yield from _check_rows(module, passport, file, base)
    if (folder / "model").is_dir():
        stored = {}
        for file in sorted((folder / "model").glob("*.safetensors")):
            stored |= stored_tensors(file)
        yield check_copies("the exported model", dict(module.backbone.state_dict()), stored)
        exported = load_model(folder / "model", passport).to(module.device)
        yield check_outputs(exported, passport, "the exported model")


def _check_adapters(module: Any, passport: Passport, folder: Path, cfg: Any) -> Iterator[Check]:
    library, layers = AdapterLibrary(folder / "adapters"), lora_layers(module.backbone)
    for name in library.names:
        kept = _factors(Adapter.of_layers(layers, name))
        yield check_copies(f"adapter {name}", kept, _factors(library.load(name)))
    loaded = load_adapters(folder, None, cfg.packages, model=cfg.model)[0].to(module.device)
    rows = golden_rows(passport, loaded)
    yield check_switching(loaded, rows, cfg.turns, cfg.seed).of("adapters")
    yield check_outputs(loaded, passport, "the adapters")


def _factors(adapter: Adapter) -> dict[str, Tensor]:
    factors = {f"{path}.lora_A.weight": update.a for path, update in adapter.modules.items()}
    return factors | {f"{path}.lora_B.weight": u.b for path, u in adapter.modules.items()}


def _check_rows(
    module: Any, passport: Passport, file: Path, base: Callable[[], Any]
) -> Iterator[Check]:
    direction = file.stem
    kept = NeuronRows.from_model(module.backbone, direction, module.base_fingerprint)
    rows = NeuronRows.read(file)
    yield check_copies(f"rows of {direction}", _values(kept), _values(rows))
    yield check_row_outputs(file, passport, base(), module.tokenizer, module.device)


def check_row_outputs(
    file: Path, passport: Passport, base: Any, tokenizer: Any, device: torch.device
) -> Check:
    """Compare the golden outputs of a direction with what its rows make of the base.

    Args:
        base: read from its file; the rows are written into it.
    """
    how, rows = f"the rows of {file.stem}", NeuronRows.read(file)
    if rows.about.get("gated"):
        why = "a gate weighs them, so that without the run they say less"
        return not_checked(f"golden outputs from {how}", why)
    module = Frozen(directions=passport.directions, template=passport.template)
    module.set_backbone(base, tokenizer)
    faults = check_base(module, passport).faults
    rows.put_on(module.backbone)
    check = check_outputs(module.to(device), passport.of_directions([file.stem]), how)
    return replace(check, faults=(*faults, *check.faults))


def _values(rows: NeuronRows) -> dict[str, Tensor]:
    named = {f"{path}.values": tensor for path, tensor in rows.values.items()}
    named |= {f"{path}.index": tensor for path, tensor in rows.index.items()}
    return named | {f"{path}.bias": tensor for path, tensor in rows.biases.items()}
