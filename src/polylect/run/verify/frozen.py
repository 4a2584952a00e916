"""What a strategy calls frozen, held to the base's own file."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from polylect.library.fingerprint import is_added
from polylect.run.verify.check import Check, first_of, not_checked, size

_NAME = "frozen is frozen"
_PREFIX = "backbone."


def check_frozen(
    module: Any, base: nn.Module, before: Mapping[str, Tensor] | None, has_stage: bool
) -> Check:
    """Compare each weight that does not train with the base as its own file has it, bit by bit.

    Args:
        module: as its run left it.
        base: read from its file once more, and nothing put into it.
        before: weights of the stage before, by name; what that had trained is compared with them.
        has_stage: whether there was one; without `before` its weights are not compared.
    """
    own, found = base.state_dict(), module.backbone.state_dict()
    trained = {name for name, p in module.backbone.named_parameters() if p.requires_grad}
    tied = {found[name].data_ptr() for name in trained}
    owned = {name.removeprefix(_PREFIX) for name in module.owned_names()}
    faults, compared, unknown, nbytes = [], [], [], 0
    for name, tensor in found.items():
        if name in trained or tensor.data_ptr() in tied:
            continue
        expected, whose = _expected(name, own, before if name in owned else None)
        if expected is None or (name in owned and has_stage and before is None):
            unknown.append(name)
            continue
        compared.append(name)
        nbytes += tensor.nbytes
        if not _same(tensor, expected):
            faults.append(f"tensor {name} is frozen, and is not that of {whose}.")
    faults += [f"tensor {name} of the base is gone." for name in own if name not in found]
    if not compared and not faults:
        return not_checked(_NAME, "the strategy trains every weight")
    note = f"; {len(unknown)} added or of a stage before not" if unknown else ""
    numbers = f"{len(compared)} of {len(found)} tensors, {size(nbytes)}, with the base's file{note}"
    return Check(_NAME, numbers, tuple(faults))


def _expected(
    name: str, own: Mapping[str, Tensor], before: Mapping[str, Tensor] | None
) -> tuple[Tensor | None, str]:
    """What a frozen weight has to be, and whose it is."""
    if before is not None and _PREFIX + name in before:
        return before[_PREFIX + name], "the stage before"
    return own.get(name), "the base's file"


def _same(one: Tensor, other: Tensor) -> bool:
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and torch.equal(_bytes(one), _bytes(other))
    )


def _bytes(tensor: Tensor) -> Tensor:
    """So that a NaN equals itself, and zero is not minus zero."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8)


def check_copies(what: str, kept: Mapping[str, Tensor], written: Mapping[str, Tensor]) -> Check:
    """Compare tensors in an exported file with those of the checkpoint, bit by bit.

    Args:
        what: is compared, such as "adapter en-de".
        kept: those of the checkpoint.
        written: those of the file.
    """
    changed = [n for n in written if n not in kept or not _same(kept[n], written[n])]
    faults = [f"{what}: tensor {first_of(changed)} is not the checkpoint's."] if changed else []
    faults += [
        f"{what}: it has no tensor {name}."
        for name in kept
        if name not in written and is_added(name)
    ]
    nbytes = sum(tensor.nbytes for tensor in written.values())
    return Check(
        f"{what} is the checkpoint's", f"{len(written)} tensors, {size(nbytes)}", tuple(faults)
    )
