"""Base models: loaded from a folder or the Hugging Face hub, or random and small for tests."""

from collections.abc import Sequence
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from polylect.did_you_mean import check_known
from polylect.models.families import family as find_family
from polylect.models.gradient_checkpointing import checkpoint_layers
from polylect.models.precision import DTYPES, check_4bit_works, four_bits, known_dtype
from polylect.models.source import check_files, locate, read_config
from polylect.models.tokenizer import train_tokenizer

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flex_attention")


def load_backbone(
    path: str,
    *,
    dtype: str = "float32",
    attention: str | None = None,
    quantize: str | None = None,
    revision: str | None = None,
    gradient_checkpointing: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer.

    Code that comes with a model is never run (no `trust_remote_code`). Of the model's generation
    settings only the end, begin and padding tokens are kept: many checkpoints ship sampling
    settings that would make translations random. A tokenizer without a padding token pads with its
    end token; that is safe because labels and attention are masked by position, not by token.

    Args:
        path: a folder written by `save_pretrained` or `polylect pretrain`, a GGUF file or a folder
            with one (de-quantised once, see `polylect.models.gguf.cache`), or a hub id.
        dtype: of the weights: "float32", "bfloat16", "float16", "checkpoint" for the one that they
            are stored in, or "auto": bfloat16 where hardware computes in it, else float32.
        attention: implementation, None for the model's own default (sdpa where it is exact; Gemma 2
            and BLOOM have to be eager).
        quantize: "4bit" holds the frozen weights in 4 bits (NF4, bitsandbytes, CUDA only).
        revision: branch, tag or commit of a hub model.
        gradient_checkpointing: see `checkpoint_layers`.

    Raises:
        ValueError: a bad setting, an encoder-decoder model, a model whose code would have to be
            trusted, weights missing from the checkpoint, a tokenizer that does not fit the model.
        FileNotFoundError: no such folder, or a hub model that cannot be had.
        RuntimeError: 4-bit weights were asked for where they cannot work.
    """
    dtype = known_dtype(dtype)
    if attention is not None:
        check_known("model.attention", attention, ATTENTION)
    options: dict[str, Any] = {"trust_remote_code": False, "revision": revision}
    if quantize is not None:
        check_known("model.quantize", quantize, ("4bit",))
        check_4bit_works()
    where = locate(path)
    check_files(where)
    config = read_config(where, options)
    tokenizer = read_tokenizer(where, options)
    if quantize is not None:
        options |= four_bits(torch.bfloat16 if dtype == "checkpoint" else DTYPES[dtype])
    model = _weights(where, config, options | {"dtype": DTYPES[dtype]}, attention)
    _fit(where, model, tokenizer)
    if gradient_checkpointing:
        checkpoint_layers(model)
    model.config._name_or_path = path  # not where a GGUF file was unpacked
    return model, tokenizer


def load_tokenizer(
    path: str, revision: str | None = None
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    """Return the configuration and the tokenizer of a base model, without its weights.

    Takes and raises what `load_backbone` does.
    """
    options: dict[str, Any] = {"trust_remote_code": False, "revision": revision}
    where = locate(path)
    return read_config(where, options), read_tokenizer(where, options)


def read_tokenizer(where: str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a base model, with a padding token.

    Raises ValueError where none loads, from what transformers raised, and where it has no end
    token.
    """
    # AutoTokenizer gives some model types (qwen2) the splitting of their first checkpoint, whatever
    # tokenizer.json says; a folder that declares no special class means its tokenizer.json.
    generic = ("TokenizersBackend", "PreTrainedTokenizerFast")
    try:
        declared = get_tokenizer_config(where, **options).get("tokenizer_class")
        loader = PreTrainedTokenizerFast if declared in generic else AutoTokenizer
        tokenizer = loader.from_pretrained(where, **options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model.path={where} has no tokenizer that loads: tokenizer.json and "
            "tokenizer_config.json must lie beside the weights, whole; copy them there."
        ) from error
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"model.path={where} has a tokenizer without an end token (eos_token), so no "
            "translation could end; set it in tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tiny_backbone(
    family: str = "llama",
    *,
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    vocabulary: int = 512,
    context: int = 1024,
    languages: Sequence[str] = ("en", "de", "fr", "cs", "hi", "ta"),
    texts: Sequence[str] | None = None,
    seed: int = 0,
    gradient_checkpointing: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a random model of any family with a small tokenizer, made on the spot.

    Args:
        family: a name of `FAMILIES`.
        languages: each gets a tag token <2xx>.
        texts: what the tokenizer learns from; a few sentences of its own by default.
        seed: of the weights; the caller's random state is left alone.
        gradient_checkpointing: see `checkpoint_layers`.

    Raises ValueError for an unknown family or sizes that do not fit.
    """
    tags = [f"<2{language}>" for language in languages]
    tokenizer = train_tokenizer(texts or _SENTENCES, vocabulary, tags)
    model = random_model(
        family, tokenizer, layers=layers, hidden=hidden, ffn=2 * hidden, heads=heads,
        context=context, seed=seed,
    )  # fmt: skip
    if gradient_checkpointing:
        checkpoint_layers(model)
    return model.eval(), tokenizer


def random_model(
    family: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    layers: int,
    hidden: int,
    ffn: int,
    heads: int,
    context: int,
    seed: int,
) -> PreTrainedModel:
    """Return an untrained model of a family around a tokenizer, with tied embeddings.

    BLOOM has no FFN width of its own: it is four times the hidden size.
    Raises ValueError for an unknown family or a hidden size the heads do not divide evenly.
    """
    kind = find_family(family).model_types[0]
    if min(layers, hidden, ffn, heads, context) < 1 or hidden % (2 * heads):
        raise ValueError(
            f"layers, hidden, ffn, heads and context must be positive and hidden a multiple of "
            f"2 x heads, got {layers}, {hidden}, {ffn}, {heads} and {context}."
        )
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "query_pre_attn_scalar": hidden // heads,
        "max_position_embeddings": context,
        "tie_word_embeddings": True,
    }
    defaults = AutoConfig.for_model(kind)
    config = AutoConfig.for_model(
        kind,
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{key: value for key, value in sizes.items() if hasattr(defaults, key)},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _weights(
    where: str, config: PretrainedConfig, options: dict[str, Any], attention: str | None
) -> PreTrainedModel:
    attention_options = {} if attention is None else {"attn_implementation": attention}
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            where, config=config, output_loading_info=True, **options, **attention_options
        )
    except (SafetensorError, UnpicklingError) as error:
        raise ValueError(
            f"model.path={where} has weights that are damaged, or that hold more than tensors: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except OSError as error:
        raise FileNotFoundError(
            f"model.path={where} has weights that cannot be read, or none: copy or download the "
            f"whole folder ({str(error).strip().splitlines()[0]})"
        ) from error
    except (ValueError, ImportError) as error:
        if attention is None or "attention" not in str(error).lower():
            raise
        raise ValueError(
            f"model.attention={attention} does not work for {config.model_type} here; leave "
            "model.attention=null for the default."
        ) from error
    # transformers fills missing weights with random numbers and only prints a table.
    if missing := sorted(loaded["missing_keys"]):
        raise ValueError(
            f"model.path={where} lacks {len(missing)} weights of a {config.model_type} model, "
            f"such as {missing[0]}."
        )
    return model


def _fit(where: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokenizer fits the embedding, and settle the ids that generation uses."""
    rows = model.get_input_embeddings().num_embeddings
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise ValueError(
            f"model.path={where} has a tokenizer with ids up to {largest} but an embedding of only "
            f"{rows} rows: tokenizer and model do not belong together."
        )
    generation = model.generation_config
    ends = generation.eos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=generation.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        pad_token_id=tokenizer.pad_token_id,
    )


# Only the tests' tokenizer learns from these.
_SENTENCES = (
    "The small cat sees the old house.",
    "We read the new book in the garden today.",
    "Die kleine Katze sieht das alte Haus.",
    "Wir lesen heute das neue Buch im Garten.",
    "Le petit chat voit la vieille maison.",
    "Nous lisons le nouveau livre dans le jardin aujourd'hui.",
    "Malá kočka vidí starý dům.",
    "छोटी बिल्ली पुराना घर देखती है।",
    "हम आज बगीचे में नई किताब पढ़ते हैं।",
    "சிறிய பூனை பழைய வீட்டைப் பார்க்கிறது.",
)
