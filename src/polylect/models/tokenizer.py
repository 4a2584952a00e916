"""A byte-pair tokenizer trained from text that gives every text back exactly."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))

# A word keeps its combining marks (vowel signs of Indic scripts are \p{M}, not \p{L}) and joiners;
# digits stand alone, so that numbers are copied digit by digit.
_WORDS = r" ?[\p{L}\p{M}\u200c\u200d]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s"


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, tags: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train a BPE tokenizer with byte fallback.

    Lossless: `decode(encode(text)) == text` for every text without the special tokens' own names.
    No Unicode normalisation is done, a character outside the vocabulary becomes its UTF-8 bytes,
    and the space itself is the word-initial mark (a mark such as U+2581 would come back as a
    space). The first word of a text gets the mark too, and decoding takes it off again.

    `tokenizer(text)` begins with <s>. The ids are <pad> 0, <s> 1, </s> 2, <unk> 3 (never produced),
    then the tags in their order, the 256 bytes, characters and merges.

    Args:
        texts: anything; a few megabytes are enough.
        vocabulary: tokens at most; fewer where the texts have no more pairs to merge.
        tags: further special tokens, such as "<2de>".

    Raises:
        ValueError: no text, or a vocabulary without room for the special tokens and the bytes.
    """
    specials = [*SPECIALS, *dict.fromkeys(tags)]
    room = vocabulary - len(BYTES) - len(specials)
    if room < 1:
        raise ValueError(
            f"vocabulary must be above {vocabulary - room} to hold 256 bytes and "
            f"{len(specials)} special tokens, got {vocabulary}."
        )
    bpe = _with_bytes(_train(texts, vocabulary - len(BYTES), specials, characters=room // 2))
    bpe.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIALS.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens=specials[len(SPECIALS) :],
        clean_up_tokenization_spaces=False,
    )


def _train(texts: Iterable[str], size: int, specials: list[str], characters: int) -> Tokenizer:
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    bpe.normalizer = normalizers.Prepend(" ")
    bpe.pre_tokenizer = pre_tokenizers.Split(Regex(_WORDS), "isolated")
    bpe.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    texts = list(texts)
    if not any(texts):
        raise ValueError("there is no text to train a tokenizer from.")
    counts = Counter(" ".join(texts))
    # Left to itself the trainer picks at random among equally frequent characters.
    alphabet = sorted(counts, key=lambda c: (-counts[c], c))[:characters]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def _with_bytes(bpe: Tokenizer) -> Tokenizer:
    """Return the tokenizer with the 256 bytes put in after the special tokens.

    They join after training because the trainer knows only special tokens, which would be
    recognised where a text spells one out.
    """
    state = json.loads(bpe.to_str())
    specials = len(state["added_tokens"])
    shifted = {
        token: index if index < specials else index + len(BYTES)
        for token, index in state["model"]["vocab"].items()
    }
    state["model"]["vocab"] = shifted | {token: specials + i for i, token in enumerate(BYTES)}
    return Tokenizer.from_str(json.dumps(state))
