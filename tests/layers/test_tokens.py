"""What layers learn of the tokens of a pass, and what they keep of earlier ones: with real caches.

A two-layer model whose feed-forward networks are multiplied by a number read off router features:
if a feature differs between one pass and many, or between a beam and its neighbour, logits do.
"""

import copy
import inspect

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaForCausalLM

from polylect.layers.experts.features import FEATURES, RouterFeatures, router_features
from polylect.layers.tokens import RowMemory, Tokens, watch_tokens

# The keyword has been renamed, and the old one warns: whichever this release has.
CACHE = {"cache", "past_key_values"} & set(inspect.signature(LlamaForCausalLM.forward).parameters)
CACHE = CACHE.pop()
PROMPTS = [[3, 4, 5, 6, 7], [8, 9], [11, 12, 13, 14]]


class Featured(nn.Module):
    """A feed-forward network times 1 + w · f."""

    def __init__(
        self, mlp: nn.Module, features: RouterFeatures, tokens_by_layer: dict[str, Tokens]
    ) -> None:
        super().__init__()
        self.mlp, self.features, self.told = mlp, features, tokens_by_layer
        self.w = nn.Parameter(torch.randn(features.size), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) * (1 + self.features(x, self.told["tokens"]) @ self.w)[..., None]


def featured(model: LlamaForCausalLM, name: str, lengths: Tensor) -> LlamaForCausalLM:
    tokens_by_layer: dict[str, Tokens] = {}
    for layer in model.model.layers:
        layer.mlp = Featured(layer.mlp, router_features(name, 32, window=4), tokens_by_layer)
    watch_tokens(
        model.base_model,
        lambda rows: lengths.repeat_interleave(rows // len(lengths)),
        lambda tokens: tokens_by_layer.update(tokens=tokens),
    )
    return model


def padded(rows: list[list[int]], side: str) -> tuple[Tensor, Tensor]:
    length = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), length).long(), torch.zeros(len(rows), length).long()
    for k, row in enumerate(rows):
        at = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids[k, at], mask[k, at] = torch.tensor(row), 1
    return ids, mask


LENGTHS = torch.tensor([len(prompt) for prompt in PROMPTS])


@pytest.fixture(params=[name for name in FEATURES if name != "none"])
def model(request: pytest.FixtureRequest, llama: LlamaForCausalLM) -> LlamaForCausalLM:
    nn.init.normal_(llama.lm_head.weight)
    return featured(llama, request.param, LENGTHS)


def test_padding_has_no_position():
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    tokens = Tokens.from_mask(mask, torch.tensor([2, 3]))
    assert tokens.positions[0, 2:].tolist() == [0, 1, 2, 3]
    assert tokens.positions[1, :4].tolist() == [0, 1, 2, 3]
    assert tokens.prompt.int().tolist() == [[0, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]]


def test_a_later_pass_goes_on_where_the_cache_ends():
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    tokens = Tokens.from_mask(mask, torch.tensor([2, 6]), past_length=4)
    assert tokens.positions.tolist() == [[2, 3], [4, 5]]
    assert tokens.prompt.tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("beams", [1, 4])
def test_decoding_with_a_cache_is_decoding_without(model: LlamaForCausalLM, beams: int):
    ids, mask = padded(PROMPTS, "left")
    settings = {
        "attention_mask": mask,
        "num_beams": beams,
        "max_new_tokens": 9,
        "do_sample": False,
        "return_dict_in_generate": True,
        "output_scores": True,
    }
    cached = model.generate(ids, **settings)
    plain = model.generate(ids, use_cache=False, **settings)
    assert torch.equal(cached.sequences, plain.sequences)
    for one, other in zip(cached.scores, plain.scores, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_without_reordering_beams_would_take_each_others_memory(
    llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
):
    # That the test above can fail.
    nn.init.normal_(llama.lm_head.weight)
    model = featured(llama, "fft_short_time", LENGTHS)
    ids, mask = padded(PROMPTS, "left")
    settings = {"attention_mask": mask, "num_beams": 4, "max_new_tokens": 9}
    plain = model.generate(ids, use_cache=False, **settings)
    monkeypatch.setattr(RowMemory, "_replace", lambda self, change: None)
    assert not torch.equal(model.generate(ids, **settings), plain)


def test_a_sentence_in_pieces_is_the_sentence(model: LlamaForCausalLM):
    ids, mask = padded([[*prompt, 20, 21, 22, 23, 24, 25] for prompt in PROMPTS], "left")
    whole = model(ids, attention_mask=mask).logits
    cache, pieces, start = DynamicCache(config=model.config), [], 0
    for end in (4, 5, 9, 10, 11):
        piece = model(
            ids[:, start:end], attention_mask=mask[:, :end], use_cache=True, **{CACHE: cache}
        )
        pieces.append(piece.logits)
        start = end
    real = mask.bool()
    torch.testing.assert_close(torch.cat(pieces, 1)[real], whole[real], atol=1e-5, rtol=1e-4)


def test_padding_on_either_side_changes_nothing(model: LlamaForCausalLM):
    rows = [[*prompt, 20, 21, 22] for prompt in PROMPTS]
    results = []
    for side in ("left", "right"):
        ids, mask = padded(rows, side)
        results.append(model(ids, attention_mask=mask).logits[mask.bool()])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-4)
    without_mask = model(torch.tensor(rows[:1]).repeat(3, 1)).logits[0]
    torch.testing.assert_close(without_mask, results[0][: len(rows[0])], atol=1e-5, rtol=1e-4)


def cache_in_use() -> tuple[DynamicCache, nn.Module]:
    cache, layer = DynamicCache(), nn.Identity()
    cache.update(torch.randn(3, 1, 2, 4), torch.randn(3, 1, 2, 4), 0)
    none = torch.zeros(3, dtype=torch.long)
    Tokens.from_mask(torch.ones(3, 2).long(), none, cache).keep(layer, torch.arange(3.0)[:, None])
    return cache, layer


def recalled(cache: DynamicCache, layer: nn.Module) -> list[float]:
    tokens = Tokens.from_mask(torch.ones(1, 3).long(), torch.zeros(1).long(), cache, past_length=2)
    return tokens.recall(layer).flatten().tolist()


def test_what_is_kept_goes_where_the_rows_of_the_cache_go():
    cache, layer = cache_in_use()
    keys = cache.layers[0].keys
    cache.reorder_cache(torch.tensor([2, 0, 0]))
    assert recalled(cache, layer) == [2, 0, 0]
    assert torch.equal(cache.layers[0].keys, keys[[2, 0, 0]])
    cache.batch_repeat_interleave(2)
    assert recalled(cache, layer) == [2, 2, 0, 0, 0, 0]
    cache.batch_select_indices(torch.tensor([1, 5]))
    assert recalled(cache, layer) == [2, 0]
    assert isinstance(cache, DynamicCache)


def test_a_copied_cache_has_a_memory_of_its_own():
    cache, layer = cache_in_use()
    copied = copy.deepcopy(cache)
    copied.reorder_cache(torch.tensor([1, 1, 1]))
    assert (recalled(copied, layer), recalled(cache, layer)) == ([1, 1, 1], [0, 1, 2])


def test_a_reset_cache_begins_anew():
    cache, layer = cache_in_use()
    cache.reset()
    assert (
        Tokens.from_mask(torch.ones(1, 3).long(), torch.zeros(1).long(), cache).recall(layer)
        is None
    )
    with pytest.raises(RuntimeError, match="kept nothing"):
        recalled(cache, layer)


def test_a_cache_filled_elsewhere_is_refused():
    with pytest.raises(RuntimeError, match=r"2 tokens .* pass the empty cache to the first"):
        recalled(DynamicCache(), nn.Identity())


def test_memory_cannot_go_back():
    cache, _ = cache_in_use()
    assert not cache.is_croppable
    with pytest.raises(ValueError, match="decode without an assistant model"):
        cache.crop(-1)


def test_a_mask_that_does_not_fit_is_refused(llama: LlamaForCausalLM):
    model = featured(llama, "fft", LENGTHS)
    with pytest.raises(ValueError, match=r"shape \(3, 4\).*\(3, 5\)"):
        model(torch.ones(3, 5).long(), attention_mask=torch.ones(3, 4))
