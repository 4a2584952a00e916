"""An index from the layers of a base to the aligned adapters that change them."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import nn

from polylect.library.adapter import incompatibility
from polylect.library.aligned_library import AlignedLibrary
from polylect.library.folder import AdapterLibrary


def adapters_by_layer(
    aligned: AlignedLibrary, base: nn.Module, fingerprint: str, *, any_base: bool = False
) -> dict[str, dict[str, int]]:
    """Return for each layer, by path, the adapters that change it, and their ranks.

    Aligns the adapters where that has to be done, and says so; and which arrows say little.

    Args:
        fingerprint: of the base.
        any_base: takes adapters of another base of the same shape.

    Raises:
        ValueError: an adapter does not fit the base, or none changes anything.
    """
    aligned_count, weak = 0, []
    members: dict[str, dict[str, int]] = {}
    for name in aligned.library.names:
        aligned_count += aligned.prepare(name)
        outline = aligned.outline(name)
        if any_base:
            config = {**outline.config, "base_model_name_or_path": ""}
            outline = replace(outline, about={}, config=config)
        if reason := incompatibility(outline, base, fingerprint):
            raise ValueError(
                f"adapter {name!r} of {aligned.library.path} does not fit: {reason}; "
                "see `polylect library action=check`."
            )
        if weakness := aligned.weakness(name):
            weak.append(f"{name} {weakness}")
        for path, strengths in aligned.strengths(name).items():
            if strengths[0] > 0:
                members.setdefault(path, {})[name] = len(strengths)
    if aligned_count:
        print(f"{aligned.library.path}: {aligned_count} adapters aligned.")
    if weak:
        print(f"{aligned.library.path}: of {len(weak)} adapters arrows say little: {weak[0]}.")
    if not members:
        raise ValueError(f"no adapter of {aligned.library.path} changes anything: train them.")
    return members


def check_head(
    base: nn.Module,
    libraries: Mapping[str, AdapterLibrary],
    members: Mapping[str, Iterable[str]],
) -> None:
    """Raises ValueError where adapters change the output head and are chosen for whole rows.

    Args:
        members: paths of the layers that are changed, by those libraries of which that is so.
    """
    head = base.get_output_embeddings()
    for name, paths in members.items():
        for path in paths:
            if base.get_submodule(path) is head:
                raise ValueError(
                    f"{libraries[name].path} has adapters on the output head ({path}), which sees "
                    "tokens without their rows, so they can only be chosen token by token: take "
                    "strategy.level=token, without router=oracle and strategy.named, or adapters "
                    "that leave the head alone."
                )
