"""The base of a loaded strategy: the one of then, and untouched by use."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from polylect.data.batch import Example, TranslationBatch, collate, pad_id
from polylect.data.cache.inputs import tokenizer_hash
from polylect.data.prompt import template as find_template
from polylect.library.fingerprint import digest_of, is_added
from polylect.run.passport.file import Passport
from polylect.run.passport.hashes import short
from polylect.run.verify.check import Check, first_of, not_checked, size


def check_base(module: Any, passport: Passport) -> Check:
    """Compare every tensor of the base, as it was loaded, with the passport's."""
    here, then = short(module.base_digests), passport.base["tensors"]
    changed = [name for name in sorted(here | then) if here.get(name) != then.get(name)]
    compared = f"{len(then)} tensors in {passport.base['dtype']} with their hashes"
    faults = []
    if changed:
        faults.append(
            f"tensor {first_of(changed)} of the base is another than when the passport was "
            f"written: use the base {passport.base['name'] or 'of then'} in "
            f"{passport.base['dtype']}."
        )
    elif module.base_fingerprint != (passport.base["fingerprint"] or ""):
        faults.append("the base has another fingerprint, though no tensor's hash tells: its names.")
    return Check("the base is the same", compared, tuple(faults))


def check_tokenizer(module: Any, passport: Passport, *, has_files: bool = False) -> Check:
    """Compare the tokenizer with its hash, and what the template makes of the golden sentences.

    Args:
        has_files: the tokenizer was written to the folder itself, whose files were compared; read
            from there it may hold the same in another form.
    """
    faults = []
    if not has_files and tokenizer_hash(module.tokenizer) != passport.tokenizer:
        faults.append(
            "tokenizer: it is another than when the passport was written, in its vocabulary, "
            "rules, special tokens or chat template (or another release of tokenizers tells it so)."
        )
    template = find_template(passport.template)
    for output in passport.golden:
        ids = template.encode(module.tokenizer, output.source, output.direction)
        if list(ids) != list(output.prompt):
            faults.append(
                f"template {passport.template}: it makes other tokens than before of "
                f"{output.source!r} in direction {output.direction}."
            )
    what = "" if has_files else "its state, and "
    compared = f"{what}{len(passport.golden)} prompts of template {passport.template}"
    return Check("tokenizer and template are the same", compared, tuple(faults))


def golden_rows(passport: Passport, module: Any) -> list[Example]:
    """Return the golden prompts as rows; of a run without translations one of tokens.

    Raises ValueError for a token that the model does not have.
    """
    size = module.backbone.config.get_text_config().vocab_size
    if (largest := max((max(o.prompt) for o in passport.golden), default=0)) >= size:
        raise ValueError(
            f"the passport is not of this model: golden prompts have token {largest}, and the "
            f"model has {size}."
        )
    rows = [Example(list(o.prompt), [], o.direction, o.source) for o in passport.golden]
    if rows or not module.directions:
        return rows
    return [Example(list(range(16)), [], module.directions[0])]


def batch_of(module: Any, rows: Sequence[Example]) -> TranslationBatch:
    """Return rows as one batch on the module's device, padded on the right."""
    return collate(list(rows), pad_id(module.tokenizer), "right").to(module.device)


@torch.no_grad()
def check_switching(module: Any, rows: Sequence[Example], turns: int, seed: int) -> Check:
    """Use the module in random ways, and compare every tensor of the base before and after.

    A turn sends a random mix of rows through it; where adapters are loaded by name, each row has a
    random one, or none, and some are unloaded in between.
    """
    name = "use and switching change nothing"
    if not rows:
        return not_checked(name, "there is no row to use it on")
    generator = random.Random(seed)
    before = tensor_hashes(module.backbone)
    library = _named(module)
    for _ in range(turns):
        mix = [generator.choice(rows) for _ in range(generator.randint(1, 6))]
        if library is not None:
            mix = [_with_any_adapter(row, library, generator) for row in mix]
            for loaded in library.store.resident:
                if generator.random() < 0.3:
                    library.unload(loaded)
        batch = batch_of(module, mix)
        with module.routing(batch):
            module(batch)
    after = tensor_hashes(module.backbone)
    base = [tensor for tensor in before if not is_added(tensor)]
    stayed = [tensor for tensor in before if tensor in after]
    changed = [tensor for tensor in stayed if before[tensor] != after[tensor]]
    changed += [tensor for tensor in base if tensor not in after]
    nbytes = sum(t.nbytes for n, t in _tensors(module.backbone).items() if n in stayed)
    adapters = f" of {len(library.adapter_index.names)} adapters" if library is not None else ""
    compared = f"{len(stayed)} tensors, {size(nbytes)}, around {turns} random batches{adapters}"
    faults = [f"tensor {first_of(changed)} changed while the model was used."] if changed else []
    return Check(name, compared, tuple(faults))


def tensor_hashes(model: nn.Module) -> dict[str, str]:
    """Return the SHA-256 of every parameter and buffer by name, those not stored included."""
    return {name: digest_of(tensor) for name, tensor in _tensors(model).items()}


def _tensors(model: nn.Module) -> Mapping[str, torch.Tensor]:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    return parameters | dict(model.named_buffers(remove_duplicate=False))


def _named(module: Any) -> Any:
    """The module, if it loads adapters by name."""
    return module if hasattr(module, "store") else None


def _with_any_adapter(row: Example, library: Any, generator: random.Random) -> Example:
    names = ["", *library.adapter_index.names]
    return Example(row.prompt, [], row.direction, adapter=generator.choice(names))
