"""Embeddings of tokens that no training text had, such as direction tags."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from polylect.data.prompt import Template

log = logging.getLogger(__name__)

_ALIKE = 0.99
"""Cosine of embeddings that are nearly one."""


@torch.no_grad()
def reinitialise(model: nn.Module, tokens: Sequence[int], seed: int) -> None:
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
    noise = torch.randn(len(tokens), weight.shape[1], generator=torch.Generator().manual_seed(seed))
    weight[list(tokens)] = (noise * weight.float().std().cpu()).to(weight)


def warn_if_tags_collapse(
    model: nn.Module, tokenizer: Any, template: Template, directions: Sequence[str]
) -> None:
    """Warns if frozen embeddings of the words that name a direction in a prompt are one vector."""
    embedding = model.get_input_embeddings().weight
    encoded = template.encode_many(tokenizer, ["a"] * len(directions), list(directions))
    prompts = [set(prompt) for prompt in encoded]
    tag_ids = sorted(set.union(*prompts) - set.intersection(*prompts))
    if embedding.requires_grad or len(tag_ids) < 2:
        return
    rows = normalize(embedding.detach()[tag_ids].float(), dim=1)
    if (rows @ rows.T).triu(1).max() > _ALIKE:
        log.warning(
            "the embeddings of %s are nearly one vector and frozen, so nothing above them can tell "
            "what is asked: draw them anew, as `polylect pretrain` does at its end",
            ", ".join(tokenizer.convert_ids_to_tokens(tag_ids)),
        )
