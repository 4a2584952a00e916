"""Cut vocabularies: what is kept is tokenised and scored exactly as before."""

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from polylect.models.backbone import random_model, tiny_backbone
from polylect.models.families import FAMILIES
from polylect.models.tokenizer import train_tokenizer
from polylect.models.vocabulary.metrics import compare_tokens, nats_per_character
from polylect.models.vocabulary.selection import (
    count_tokens,
    encode,
    frequent_tokens,
    prompt_tokens,
    script_tokens,
)
from polylect.models.vocabulary.tokens import Vocabulary
from polylect.models.vocabulary.trimming import trim_model, trim_tokenizer
from polylect.tongues import retellings

TEXTS = [line for other in ("de", "hi") for line in retellings(("en", other), "train", 60)]
SEEN, OTHER = TEXTS[:20], TEXTS[20:]


def over_bytes() -> PreTrainedTokenizerBase:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=["</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>")


def unigram() -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>")


KINDS = {
    "byte fallback": lambda: train_tokenizer(TEXTS, 900, ["<2de>"]),
    "over bytes": over_bytes,
    "unigram": unigram,
}


@pytest.fixture(scope="module", params=KINDS)
def whole(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return KINDS[request.param]()


def choose(tokenizer: PreTrainedTokenizerBase, **rule: float) -> list[int]:
    vocabulary = Vocabulary(tokenizer)
    counts = count_tokens(tokenizer, SEEN)
    return sorted(frequent_tokens(counts, vocabulary, vocabulary.required_ids(), **rule))


def test_text_whose_tokens_are_kept_is_tokenised_as_before(whole: PreTrainedTokenizerBase) -> None:
    kept = choose(whole, count=1)
    cut = trim_tokenizer(whole, kept)
    assert len(cut) == len(kept) < len(whole)
    old = encode(whole, TEXTS)
    new = [[kept[i] for i in ids] for ids in encode(cut, TEXTS)]
    fitting = [set(ids) <= set(kept) for ids in old]
    assert all(fitting[: len(SEEN)]) and not all(fitting)
    assert all(a == b for a, b, fits in zip(old, new, fitting, strict=True) if fits)
    fit = compare_tokens(whole, cut, kept, TEXTS)
    assert fit.same == sum(fitting) / len(TEXTS)
    assert fit.after > fit.before


def test_characters_of_kept_words_write_other_words(whole: PreTrainedTokenizerBase) -> None:
    cut = trim_tokenizer(whole, choose(whole, count=1))
    letters = {letter for text in SEEN for letter in text}
    words = [word for text in OTHER for word in text.split() if set(word) <= letters]
    assert len(words) > 20
    assert not any(cut.unk_token_id in ids for ids in encode(cut, words))


def test_what_cannot_be_written_without_bytes_is_counted() -> None:
    whole = KINDS["unigram"]()
    kept = choose(whole, count=1)
    fit = compare_tokens(whole, trim_tokenizer(whole, kept), kept, ["漢字 漢字"])
    assert fit.bytes_before > 0.5 and fit.bytes_after > 0.5


def test_special_tokens_keep_their_places_in_what_is_encoded() -> None:
    whole = KINDS["byte fallback"]()
    kept = choose(whole, count=1)
    cut = trim_tokenizer(whole, kept, ["<2ta>"])
    assert [kept[i] for i in cut(SEEN[0]).input_ids] == whole(SEEN[0]).input_ids
    assert cut.convert_tokens_to_ids("<2ta>") == len(kept)
    assert cut.special_tokens_map == whole.special_tokens_map
    for text in (*OTHER, "ஃ naïve 漢字 1984;"):  # through bytes, where need be
        assert cut.decode(encode(cut, [text])[0]) == text


@pytest.mark.parametrize("rule", [{"count": 5}, {"coverage": 0.8}, {"size": 560}])
def test_rules_keep_less_and_are_kept_to(rule: dict[str, float]) -> None:
    whole = KINDS["byte fallback"]()
    vocabulary, counts = Vocabulary(whole), count_tokens(whole, SEEN)
    always = vocabulary.closure(vocabulary.required_ids())
    kept = set(choose(whole, **rule))
    assert always < kept < set(choose(whole, count=1))
    assert kept == vocabulary.closure(kept)
    frequent = [i for i, n in counts.most_common() if n >= 5]
    if "count" in rule:
        assert kept == vocabulary.closure([*always, *frequent])
    elif "coverage" in rule:
        covered = sum(counts[i] for i in kept) / counts.total()
        assert 0.8 <= covered < 1
    else:
        assert len(kept) <= 560 and counts.most_common(1)[0][0] in kept


def test_prompts_and_scripts_are_kept_where_they_are_asked_for() -> None:
    whole = KINDS["byte fallback"]()
    vocabulary = Vocabulary(whole)
    prompt = prompt_tokens(whole, ["en-de"])
    assert whole.convert_tokens_to_ids("<2de>") in prompt and whole.eos_token_id in prompt
    hindi = script_tokens(vocabulary, ["hi"])
    letters = "".join(vocabulary.text(vocabulary.tokens[i]) or "" for i in hindi)
    assert "क" in letters and not any(c.isascii() and c.isalpha() for c in letters)
    with pytest.raises(ValueError, match=r"size=10 is less than the \d+ entries"):
        choose(whole, size=10)


def test_placeholders_go_and_other_special_tokens_stay() -> None:
    whole = train_tokenizer(TEXTS, 900, ["<2de>", "<unused17>", "<|reserved_special_token_3|>"])
    always = {whole.convert_ids_to_tokens(i) for i in Vocabulary(whole).required_ids()}
    assert {"<s>", "</s>", "<unk>", "<pad>", "<2de>", "<0x7F>", "."} <= always
    assert not {"<unused17>", "<|reserved_special_token_3|>"} & always


def test_other_kinds_are_refused_with_a_sentence() -> None:
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0})))
    with pytest.raises(ValueError, match="of the kind WordLevel cannot be cut: it takes BPE"):
        Vocabulary(words)
    plain = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0}, [])))
    with pytest.raises(ValueError, match="of the kind BPE without bytes cannot be cut"):
        Vocabulary(plain)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_logits_over_the_kept_entries_stay(family: str) -> None:
    model, whole = tiny_backbone(family, hidden=32, texts=TEXTS, vocabulary=900)
    kept = choose(whole, count=1)
    tokenizer = trim_tokenizer(whole, kept, ["<2ta>"] if "<2ta>" not in whole.get_vocab() else [])
    old = [whole(text).input_ids for text in SEEN[:3]]
    before = [model(torch.tensor([ids])).logits[..., kept] for ids in old]
    nats = nats_per_character(model, whole, SEEN[:3])
    trim_model(model, kept, new=2)
    for ids, logits in zip([tokenizer(t).input_ids for t in SEEN[:3]], before, strict=True):
        after = model(torch.tensor([ids])).logits[..., : len(kept)]
        torch.testing.assert_close(after, logits, atol=1e-5, rtol=1e-5)
    assert model.config.vocab_size == len(kept) + 2 == model.get_input_embeddings().num_embeddings
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert nats_per_character(model, tokenizer, SEEN[:3]) < nats  # fewer rivals


@torch.no_grad()
def test_a_head_of_its_own_is_cut_like_the_embedding() -> None:
    whole = KINDS["byte fallback"]()
    model = random_model("llama", whole, layers=1, hidden=32, ffn=64, heads=4, context=256, seed=1)
    model.config.tie_word_embeddings = False
    model = type(model)(model.config).eval()
    kept = choose(whole, count=1)
    ids = whole(SEEN[0]).input_ids
    before = model(torch.tensor([ids])).logits[..., kept]
    trim_model(model, kept)
    after = model(torch.tensor([[kept.index(i) for i in ids]])).logits
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
