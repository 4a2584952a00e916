"""Finds and freezes parts of a model by name."""

import difflib
import re
from collections.abc import Sequence

from torch import nn

Patterns = str | Sequence[str]
"""One regular expression for whole paths, or a list of paths and their endings, as in PEFT.

"all-linear" is every linear layer but the output layer (language model head)."""


def matches(name: str, patterns: Patterns) -> bool:
    """Return whether a module's path is meant:
    a regular expression fits all of it, or it ends so.
    """
    if isinstance(patterns, str):
        return re.fullmatch(patterns, name) is not None
    return any(name == ending or name.endswith(f".{ending}") for ending in patterns)


def find_modules(
    model: nn.Module, patterns: Patterns, kind: type[nn.Module] = nn.Module
) -> dict[str, nn.Module]:
    """Return the submodules of one kind that the patterns name, by path.

    Raises:
        ValueError: a pattern names none, with the module names nearest to it.
    """
    if not patterns:
        raise ValueError("no module patterns given: name at least one, or use 'all-linear'")
    modules = {name: module for name, module in model.named_modules() if isinstance(module, kind)}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        one = pattern if isinstance(patterns, str) else [pattern]
        if not any(matches(name, one) for name in modules):
            raise ValueError(
                f"pattern {pattern!r} matches no {kind.__name__} of {type(model).__name__}: "
                + _nearest_endings(pattern, modules)
            )
    return {name: module for name, module in modules.items() if matches(name, patterns)}


def find_linears(model: nn.Module, patterns: Patterns) -> dict[str, nn.Module]:
    """Return the linear layers that the patterns name, by path; see `Patterns`."""
    if patterns != "all-linear":
        return find_modules(model, patterns, nn.Linear)
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }
    if not linears:
        raise ValueError(f"{type(model).__name__} has no linear layers for 'all-linear'")
    return linears


def freeze(model: nn.Module) -> None:
    """Keep all parameters of `model` from getting gradients."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def _nearest_endings(pattern: str, modules: dict[str, nn.Module]) -> str:
    endings = sorted({name.rpartition(".")[2] for name in modules if name})
    word = re.split(r"[.\\]", pattern)[-1]
    close = difflib.get_close_matches(word, endings, n=3, cutoff=0.5)
    listed = ", ".join(close or endings)
    return f"the nearest names are {listed}" if close else f"its layers end in {listed}"
