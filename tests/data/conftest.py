"""Tokenizers made on the spot, each of another family's habits, and small corpora."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

FILES = Path(__file__).parent / "files"


def byte_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """One token per byte, spaces being bytes like any other; puts no special tokens itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, **special)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, with begin, end, padding and the tags <2de>, <2en>, <2ta>."""
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<2de>", "<2en>", "<2ta>"]})
    return tokenizer


@pytest.fixture
def word_tokenizer() -> PreTrainedTokenizerFast:
    """Words with a mark before each, and a begin token put by the tokenizer itself (Llama)."""
    words = ["<unk>", "<s>", "</s>", "▁a", "▁b", "▁x", "▁hot", "▁soup"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture
def files() -> Path:
    return FILES
