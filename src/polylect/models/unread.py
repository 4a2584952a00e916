"""Embeddings of tokens that no training text had, such as direction tags."""

from collections.abc import Sequence

import torch
from torch import nn


@torch.no_grad()
def redraw(model: nn.Module, tokens: Sequence[int], seed: int) -> None:
    """Draw the input embeddings of these tokens anew, as large as those of the others.

    A token that is never read is pushed in the same direction by every text, as the output layer
    learns not to write it. With tied embeddings all such tokens end up as one (cosine 0.9999 among
    the tags of our base models), and whatever is trained above frozen embeddings cannot tell
    one direction from another.

    Args:
        model: changed in place.
        tokens: ids.
        seed: of the draw; the same whatever else drew random numbers.
    """
    weight = model.get_input_embeddings().weight
    drawn = torch.randn(len(tokens), weight.shape[1], generator=torch.Generator().manual_seed(seed))
    weight[list(tokens)] = (drawn * weight.float().std().cpu()).to(weight)
