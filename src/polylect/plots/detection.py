"""Pictures of a detection, by layer and direction."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from polylect.library.neurons.file import NeuronFile
from polylect.library.neurons.kinds import FFN, ModuleNeurons
from polylect.plots.figures import MOST_ANNOTATED, Figure, heat_map, heat_map_size, new_figure
from polylect.plots.modules import of_modules


def specific_share(file: NeuronFile) -> Float[Tensor, "layers directions"]:
    """Return the share of a layer's neurons that are specific to a direction.

    NaN where it uses no slices.
    """
    shares = torch.full_like(file.relevance.T, torch.nan)
    own = file.specific.to(shares.dtype).mean(-1)
    shares[list(file.layers)] = torch.where(file.selected, own, torch.nan)
    return shares


def specific_counts(file: NeuronFile) -> Float[Tensor, "directions directions"]:
    """Return how many neurons are specific to both directions, over all layers that both use."""
    sets = (file.specific & file.selected[:, :, None]).transpose(0, 1).flatten(1).float()
    return sets @ sets.T


def jaccard(file: NeuronFile) -> Float[Tensor, "directions directions"]:
    """Return the neurons specific to both directions, as a share of those specific to either.

    It is NaN where there are none.
    """
    both = specific_counts(file)
    sizes = both.diagonal()
    return both / (sizes[:, None] + sizes - both)


def chance_overlap(file: NeuronFile) -> Float[Tensor, "directions directions"]:
    """Return the Jaccard index that unrelated sets of these sizes are expected to have."""
    sizes = (file.specific & file.selected[:, :, None]).sum(-1).float()  # (layers, directions)
    both = sizes.T @ sizes / file.specific.shape[-1]
    alone = sizes.sum(0)
    return both / (alone[:, None] + alone - both)


def of_detection(file: NeuronFile) -> dict[str, Figure]:
    """Return all pictures of a neuron file, by name."""
    figures = {"neurons": neuron_map(file)}
    return figures | {"overlap": overlap(file)} if len(file.directions) > 1 else figures


def of_kinds(found: ModuleNeurons) -> dict[str, Figure]:
    """Draw the pictures of FFN neurons, and those of the rows of all modules, by name."""
    figures = of_detection(found.kinds[FFN]) if FFN in found.kinds else {}
    return figures | of_modules(found)


def neuron_map(file: NeuronFile) -> Figure:
    """Draw heat maps of layers by directions: mean awareness, and the share of specific neurons.

    The first one has all layers; the second has those that detection has chosen.
    """
    layers = list(range(file.relevance.shape[1]))
    width, height = heat_map_size(len(layers), len(file.directions))
    picture = new_figure(2 * width, height)
    left, right = picture.subplots(1, 2, sharey=True)
    awareness, share = 1000 * file.scores().mean(-1).T, 100 * specific_share(file)
    bar = heat_map(
        left,
        awareness,
        layers,
        file.directions,
        "mean awareness |h ∂L/∂h|",
        "10⁻³ nats per token",
        text="{:.2g}",
        origin="lower",
        norm="log",  # layers differ by orders of magnitude
    )
    _plain_numbers(bar.ax.yaxis)
    heat_map(
        right,
        share,
        layers,
        file.directions,
        "specific neurons of chosen layers",
        "% of the layer",
        text="{:.1f}",
        origin="lower",
        vmin=0,
    )
    left.set_ylabel("layer")
    return picture


def overlap(file: NeuronFile) -> Figure:
    """Draw the Jaccard index of the sets of specific neurons of every two directions.

    On the diagonal stands how many neurons a direction has; red in the colour bar is the mean over
    pairs of what unrelated sets of these sizes would have. That is no placebo: compare pairs of
    directions with one another, as related languages with others, for neurons dealt out by
    `categories.rule=random` have the same overlaps.
    """
    values, counts = jaccard(file), specific_counts(file)
    values.fill_diagonal_(torch.nan)  # always 1
    pairs = ~torch.eye(len(values), dtype=torch.bool)
    chance = chance_overlap(file)[pairs].nanmean().item()
    chance = None if math.isnan(chance) else chance
    picture = new_figure(*heat_map_size(len(values), len(values)))
    axes = picture.subplots()
    heat_map(
        axes,
        values,
        file.directions,
        file.directions,
        "neurons specific to both,\nof those specific to either",
        "Jaccard index",
        text="{:.2f}",
        chance=chance,
        vmin=0,
        vmax=1,
    )
    axes.set_ylabel("direction")
    if len(values) <= MOST_ANNOTATED:
        for i, count in enumerate(counts.diagonal().tolist()):
            axes.text(i, i, f"{count:.0f}\nneurons", ha="center", va="center", fontsize=8)
    return picture


def _plain_numbers(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers: 2, not 2 x 10^0."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter())
