"""Attaches the slices of a neuron file to a base model."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from polylect.data.prompt import COUNTRY
from polylect.layers.context import RoutingContext
from polylect.layers.neurons.bank import NeuronBank
from polylect.layers.neurons.ffn import attach_neurons
from polylect.layers.neurons.gates import GateForm
from polylect.layers.neurons.row_bank import RowBank
from polylect.layers.neurons.row_layer import attach_rows
from polylect.layers.neurons.sets import NeuronSet, ownership, rest_of
from polylect.library.neurons.file import NeuronFile, positions_of
from polylect.library.neurons.kinds import FFN, ModuleNeurons
from polylect.models.families import Family


def owners_of(path: str, known: Sequence[str], pairs: Sequence[str]) -> list[str]:
    """Return who of a file has a part in the directions: they themselves, or else their languages.

    Raises ValueError where one of them is not in the file, as a direction or by its languages.
    """
    languages = list(dict.fromkeys(code for pair in pairs for code in pair.split("-")))
    if all(pair in known for pair in pairs):
        return list(pairs)
    if all(code in known for code in languages):
        return languages
    missing = [d for d in pairs if d not in known and not set(d.split("-")) <= set(known)]
    raise ValueError(
        f"{path}: holds no neurons of {', '.join(missing or pairs)}; run `polylect detect` "
        f"with data.directions=[{','.join(pairs)}], or of the languages with "
        f"data.directions=[{','.join(languages)}]."
    )


def check_kinds(path: str, found: ModuleNeurons, family: Family, gate: str, for_rows: bool) -> None:
    """Raises ValueError for settings that are not for these kinds of neurons.

    Args:
        for_rows: whether a setting is used that only rows of modules have.
    """
    rows = [kind for kind in found.kinds if kind != FFN]
    if rows and gate != "none":
        raise ValueError(
            f"{path} has output rows of {rows[0]}, which no gate weighs: give strategy.gate=none."
        )
    if FFN in found.kinds and for_rows:
        raise ValueError(
            f"{path} has neurons of feed-forward networks: strategy.shared and strategy.scaling "
            "are for rows of modules, as `polylect detect neurons=rows` finds."
        )
    both = [kind for kind in rows if kind in family.projections]
    if both and FFN in found.kinds:
        raise ValueError(
            f"{path} has neurons of feed-forward networks and rows of {both[0]}, which are parts "
            "of them: choose with strategy.modules."
        )


def check_shared(shared: bool, decay_frozen: bool, mask_at_step: bool) -> None:
    """Raises ValueError for settings about rows that all directions go through, without such."""
    if (decay_frozen or mask_at_step) and not shared:
        raise ValueError(
            "strategy.decay_frozen and strategy.mask_at_step are about rows that all directions "
            "go through: they need strategy.shared=true."
        )


def check_names(language_names: bool, template: str) -> None:
    """Raises ValueError where prompts do not name what `language_names` says they do."""
    if language_names == (template == COUNTRY):
        raise ValueError(
            f"strategy.language_names={str(language_names).lower()} and data.template={template} "
            f"do not fit: data.template={COUNTRY} names countries."
        )


def sets_of(
    file: NeuronFile, position: int, owners: Sequence[str], trained: str, with_rest: bool
) -> list[NeuronSet]:
    """Return the sets of a chosen layer.

    Args:
        position: of the layer among the chosen ones.
        owners: directions or languages of the file that take part.
        trained: "both", or "general" or "specific" ones only.
        with_rest: the other neurons are a set, too, of nobody's.
    """
    at = [file.directions.index(owner) for owner in owners]
    sets = ownership(
        owners,
        file.general[position],
        file.specific[position][at],
        file.selected[position][at],
    )
    sets = [s for s in sets if trained in ("both", "general" if s.general else "specific")]
    return sets + rest_of(sets, file.general.shape[1]) if with_rest else sets


def awareness_of(
    file: NeuronFile, layer: int, owners: Sequence[str]
) -> dict[str, Float[Tensor, " neurons"]]:
    """Return the scores of a layer by owner, for the positions by which they were sorted."""
    scores = file.scores(positions_of(file.about))[:, layer]
    return {owner: scores[file.directions.index(owner)] for owner in owners}


def attach_ffn(
    block: nn.Module,
    family: Family,
    layer: int,
    sets: Sequence[NeuronSet],
    gates: GateForm,
    literal: bool,
    context: RoutingContext,
) -> None:
    """Give the feed-forward network of a block, the layer's, its slices and gates."""
    rows = {path: block.get_submodule(path) for path in family.projections[:-1]}
    down = block.get_submodule(family.down)
    bank = NeuronBank(
        sets,
        down.in_features,
        gates.make(down.out_features, down.in_features),
        literal,
        context,
        f"layer_{layer}",
        down.weight.device,
    )
    attach_neurons(block.get_submodule(family.ffn), rows, down, bank)


def attach_module(
    block: nn.Module,
    path: str,
    layer: int,
    sets: Sequence[NeuronSet],
    context: RoutingContext,
    **how: Any,
) -> None:
    """Give the module at a path in a block, the layer's, slices of its output rows.

    Args:
        how: see `RowBank`.
    """
    module = block.get_submodule(path)
    name, device = f"layer_{layer}.{path}", module.weight.device
    attach_rows(module, RowBank(sets, len(module.weight), context, name, device, **how))
