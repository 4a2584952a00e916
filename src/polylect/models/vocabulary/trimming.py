"""Trims a vocabulary: tokenizer, embeddings and configuration with only the entries kept."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from polylect.models.vocabulary.tokens import Vocabulary, merges
from polylect.models.vocabulary.untrained_tokens import reinitialise

_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "decoder_start_token_id")


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerBase, kept_ids: Sequence[int], new: Sequence[str] = ()
) -> PreTrainedTokenizerBase:
    """Return the tokenizer with the entries `kept_ids`, renumbered in their order, and new ones.

    Args:
        kept_ids: old ids, ascending; with what `Vocabulary.closure` adds.
        new: special tokens to add, such as "<2ta>"; they get the last ids.
    """
    state = copy.deepcopy(Vocabulary(tokenizer).state)
    ids = {old: index for index, old in enumerate(kept_ids)}
    model = state["model"]
    if model["type"] == "BPE":
        vocabulary = {t: ids[i] for t, i in model["vocab"].items() if i in ids}
        model["merges"] = [
            list(pair)
            for pair in merges(state)
            if pair[0] in vocabulary and pair[1] in vocabulary and "".join(pair) in vocabulary
        ]
        model["vocab"] = vocabulary
    else:
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in ids]
        if model.get("unk_id") is not None:
            model["unk_id"] = ids[model["unk_id"]]
    state["added_tokens"] = [
        token | {"id": ids[token["id"]]} for token in state["added_tokens"] if token["id"] in ids
    ]
    state["post_processor"] = _renumber(state["post_processor"], ids)
    state["padding"] = state["truncation"] = None
    backend = Tokenizer.from_str(json.dumps(state))
    backend.add_special_tokens([AddedToken(token, special=True) for token in new])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        **tokenizer.special_tokens_map,
    )


def _renumber(processor: Any, ids: dict[int, int]) -> Any:
    """Return a post-processor with new ids, as they stand in "ids", "cls" and "sep"."""
    if isinstance(processor, list):
        return [_renumber(entry, ids) for entry in processor]
    if not isinstance(processor, dict):
        return processor
    return {
        key: [ids[i] for i in value]
        if key == "ids"
        else [value[0], ids[value[1]]]
        if key in ("cls", "sep")
        else _renumber(value, ids)
        for key, value in processor.items()
    }


@torch.no_grad()
def trim_model(
    model: PreTrainedModel, kept_ids: Sequence[int], new: int = 0, seed: int = 1
) -> PreTrainedModel:
    """Cut the embeddings and the head of a model in place; nothing else of it changes.

    Args:
        kept_ids: old ids, in the order of the new ones; at most the rows of the embedding.
        new: entries to add, drawn as large as the others (`reinitialise`).
        seed: of the draw.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head is not None and head.weight is embedding.weight
    rows = torch.tensor(kept_ids, device=embedding.weight.device)
    _keep_rows(embedding, rows, new)
    if tied:
        head.weight, head.out_features = embedding.weight, len(kept_ids) + new
    elif head is not None:
        _keep_rows(head, rows, new)
    ids = {old: index for index, old in enumerate(kept_ids)}
    padding = embedding.padding_idx
    embedding.padding_idx = None if padding is None else ids.get(padding)
    added = range(len(kept_ids), len(kept_ids) + new)
    if new:
        reinitialise(model, added, seed)
    model.config.vocab_size = model.vocab_size = len(kept_ids) + new
    for config in (model.config, model.generation_config):
        for key in _IDS:
            if (value := getattr(config, key, None)) is not None:
                setattr(config, key, _renumber_id(value, ids))
    return model


def _keep_rows(module: nn.Module, rows: Tensor, new: int) -> None:
    """Keep these rows of an embedding or a head; the new ones are the mean of all."""
    for name in ("weight", "bias"):
        if (old := getattr(module, name, None)) is not None:
            mean = old.float().mean(0, keepdim=True).to(old)
            values = torch.cat([old[rows], mean.expand(new, *mean.shape[1:])])
            setattr(module, name, nn.Parameter(values, requires_grad=old.requires_grad))
    size = "num_embeddings" if isinstance(module, nn.Embedding) else "out_features"
    setattr(module, size, len(rows) + new)


def _renumber_id(value: int | list[int], ids: dict[int, int]) -> int | list[int] | None:
    if isinstance(value, list):
        return [ids[i] for i in value if i in ids]
    return ids.get(value)
