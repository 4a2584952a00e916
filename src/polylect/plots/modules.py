"""What detection found of the output rows of modules: whose they are, where, and who is alike."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from polylect.library.neurons.file import NeuronFile
from polylect.library.neurons.kinds import FFN, ModuleNeurons
from polylect.plots.curves import LINES
from polylect.plots.figures import Figure, heat_map, heat_map_size, new_figure

MOST_AWARE = 0.1
"""Of the rows of a module, those of a language: the share that is specific in LANDeRMT."""

FAMILIES = {
    "Germanic": ("en", "de", "nl", "sv", "da", "no", "nb", "is", "af"),
    "Romance": ("fr", "es", "it", "pt", "ro", "ca", "gl"),
    "Slavic": ("cs", "ru", "pl", "uk", "bg", "sk", "sl", "hr", "sr"),
    "Indo-Aryan": ("hi", "bn", "mr", "gu", "pa", "ne", "ur", "as", "or"),
    "Dravidian": ("ta", "te", "kn", "ml"),
    "Semitic": ("ar", "he", "am"),
    "Sinitic": ("zh", "yue"),
    "Turkic": ("tr", "az", "kk", "uz"),
    "Uralic": ("fi", "et", "hu"),
}
_FAMILY_OF = {code: family for family, codes in FAMILIES.items() for code in codes}


def family_of_language(code: str) -> str:
    """Return the branch of a language family; of one that is not known, the code itself."""
    plain = code.partition("_")[0]
    return _FAMILY_OF.get(plain, plain)


def of_modules(found: ModuleNeurons) -> dict[str, Figure]:
    """Return the pictures of the rows of modules, by name; none of FFN neurons alone."""
    files = {kind: file for kind, file in found.kinds.items() if kind != FFN}
    if not files:
        return {}
    figures = {"rows": specific_rows(files)}
    several = len(next(iter(files.values())).directions) > 1
    return figures | {"rows_alike": alike(files)} if several else figures


def by_module(files: Mapping[str, NeuronFile]) -> Float[Tensor, "modules owners"]:
    """Return the share of a module's rows that are specific to an owner, over its layers."""
    return torch.stack([_owned(file).float().mean((0, 2)) for file in files.values()])


def by_layer(files: Mapping[str, NeuronFile]) -> Float[Tensor, "chosen owners"]:
    """Return the share of a chosen layer's rows, of all modules, specific to an owner."""
    return torch.cat([_owned(file).float() for file in files.values()], 2).mean(2)


def _owned(file: NeuronFile) -> Tensor:
    return file.specific & file.selected[:, :, None]


def specific_rows(files: Mapping[str, NeuronFile]) -> Figure:
    """Draw whose the specific rows are: modules by owners, and layers by owners."""
    file = next(iter(files.values()))
    modules, layers = 100 * by_module(files), 100 * by_layer(files)
    width, height = heat_map_size(len(modules), len(file.directions))
    picture = new_figure(2 * width + 1.5, max(height, heat_map_size(len(layers), 1)[1]))
    left, right = picture.subplots(1, 2)
    for axes, values, names, title, unit, origin in (
        (left, modules, list(files), "specific rows by module", "% of the module", "upper"),
        (right, layers, file.layers, "and by layer", "% of the layer's rows", "lower"),
    ):
        heat_map(
            axes, values, names, file.directions, title, unit, text="{:.1f}", vmin=0, origin=origin
        )
        axes.set_xlabel("owner")
    right.set_ylabel("layer")
    return picture


def most_aware_overlap(
    files: Mapping[str, NeuronFile], share: float = MOST_AWARE
) -> Float[Tensor, "owners owners"]:
    """Return the Jaccard index of the rows that owners are most aware of.

    Of every module of a chosen layer these are the `share` with the largest scores. Rows that all
    use are among them, so that all overlaps are large: compare pairs with one another.
    """
    sets = []
    for file in files.values():
        scores = file.scores()[:, list(file.layers)].double()
        count = max(1, round(share * scores.shape[2]))
        best = scores.topk(count, dim=2).indices
        sets.append(torch.zeros_like(scores).scatter_(2, best, 1).flatten(1))
    chosen = torch.cat(sets, 1)
    both = chosen @ chosen.T
    sizes = both.diagonal()
    return (both / (sizes[:, None] + sizes - both)).float()


def alike(files: Mapping[str, NeuronFile]) -> Figure:
    """Draw whose rows are alike: the overlap of every two owners, and within or across families.

    Red is what unrelated sets of this size are expected to have.
    """
    names = next(iter(files.values())).directions
    order = sorted(range(len(names)), key=lambda i: (_family_of_owner(names[i]), i))
    overlap = most_aware_overlap(files)[order][:, order].fill_diagonal_(torch.nan)
    owners = [names[i] for i in order]
    chance = MOST_AWARE / (2 - MOST_AWARE)
    width, height = heat_map_size(len(owners), len(owners))
    picture = new_figure(width + 3.6, max(height, 3.2))
    left, right = picture.subplots(1, 2, width_ratios=[width, 3.2])
    title = f"the {MOST_AWARE:.0%} of rows that each\nis most aware of, by family"
    heat_map(
        left, overlap, owners, owners, title, "Jaccard index", text="{:.2f}", chance=chance, vmin=0
    )
    left.set_xlabel("owner")
    _by_family(right, overlap, owners, chance)
    return picture


def _family_of_owner(owner: str) -> str:
    """The family of a language, or the families of a direction."""
    return "-".join(family_of_language(code) for code in owner.split("-"))


def _by_family(
    axes: Figure, overlap: Float[Tensor, "owners owners"], owners: Sequence[str], chance: float
) -> None:
    pairs: dict[str, list[tuple[float, str]]] = {"same\nfamily": [], "other\nfamily": []}
    same, other = pairs
    for i, one in enumerate(owners):
        for j, two in enumerate(owners[:i]):
            kind = same if _family_of_owner(one) == _family_of_owner(two) else other
            pairs[kind].append((float(overlap[i, j]), f"{two} {one}"))
    for place, values in enumerate(pairs.values()):
        heights = [value for value, _ in values]
        axes.plot([place] * len(values), heights, "o", color=LINES[place], alpha=0.7)
        if heights:
            mean = sum(heights) / len(heights)
            axes.plot([place - 0.25, place + 0.25], [mean, mean], color="black")
        for value, name in {min(values), max(values)} if values else ():
            axes.annotate(name, (place + 0.27, value), fontsize=7, va="center")
    axes.axhline(chance, color="red", linewidth=1.5)
    axes.set_xticks(range(len(pairs)), list(pairs))
    axes.set_title("mean (black) by family", fontsize="medium")
    axes.set(xlim=(-0.5, 1.8), ylim=(0, None))
    axes.set_ylabel("Jaccard index")
