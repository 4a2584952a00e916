"""Reads a GGUF file with transformers, and refuses what that would read wrongly."""

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import Sequence, TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from polylect.files import check_whole

_NEEDED = ("gguf", "accelerate")
_LAYERS_OF_27B = {"gemma2": 46, "gemma3_text": 62}


def read_gguf(file: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model of a GGUF file in float32,
    in which every quantised value is exact, and tokenizer.

    Raises:
        RuntimeError: the packages that read such files are missing.
        FileNotFoundError, ValueError: a file that is none, cut short or one part of several, a
            model that transformers does not read from GGUF, or would read without a part of it.
    """
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise RuntimeError(
            f"model.path={file} is a GGUF file, which takes the package "
            f"{' and '.join(missing)}: pip install 'polylect[gguf]'."
        )
    contents = open_gguf(file)
    _check_single(file, contents)
    try:
        config = AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name)
        _set_attention_scale(config)
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
        model, loaded = AutoModelForCausalLM.from_pretrained(
            str(file.parent),
            gguf_file=file.name,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # whatever an unforeseen file makes of transformers' reader
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"model.path={file} holds a model of the architecture {_architecture(contents)!r} that "
            f"transformers does not read from GGUF ({what}): take its Hugging Face folder."
        ) from error
    _check_complete(file, contents, model, loaded["missing_keys"])
    return _without_quantiser(model), _plain_tokenizer(tokenizer, contents)


def open_gguf(file: Path) -> Any:
    """Return the file's metadata and tensors, as the `gguf` library gives them.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is no GGUF file or a damaged one.
    """
    from gguf import GGUFReader

    head = check_whole(file, "a GGUF file")
    if not head.startswith(b"GGUF"):
        raise ValueError(f"model.path={file} is no GGUF file, although it is named like one.")
    try:
        return GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise ValueError(f"model.path={file} is cut short or damaged: copy it again.") from error


def _field(contents: Any, key: str) -> Any:
    field = contents.get_field(key)
    return None if field is None else field.contents()


def _architecture(contents: Any) -> str:
    return str(_field(contents, "general.architecture"))


def _check_single(file: Path, contents: Any) -> None:
    parts = _field(contents, "split.count")
    if parts is not None and int(parts) > 1:
        raise ValueError(
            f"model.path={file} is one of {parts} parts of a model: join them with llama.cpp's "
            "`llama-gguf-split --merge` and give the one file."
        )


def _set_attention_scale(config: PretrainedConfig) -> None:
    """Set Gemma's scale of queries, which no file has; llama.cpp knows it by layers.

    The largest Gemma 2 and 3 take hidden size over heads, the others the size of a head.
    """
    if config.model_type in _LAYERS_OF_27B:
        by_hidden = config.num_hidden_layers == _LAYERS_OF_27B[config.model_type]
        per_head = config.hidden_size // config.num_attention_heads
        config.query_pre_attn_scalar = per_head if by_hidden else config.head_dim


def _check_complete(file: Path, contents: Any, model: PreTrainedModel, missing: Any) -> None:
    """Raise ValueError for what transformers skips in silence, which would be another model."""
    if missing:
        raise ValueError(f"model.path={file} lacks weights of its model, such as {min(missing)}.")
    scaling = _field(contents, f"{_architecture(contents)}.rope.scaling.type")
    if scaling not in (None, "none") and not _scales_positions(model.config):
        _refuse(file, f"its scaling of positions ({scaling})")
    tied = model.config.tie_word_embeddings
    stored = {t.name: int(t.n_elements) for t in contents.tensors}
    if tied:
        stored.pop("output.weight", None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if sum(stored.values()) != parameters:
        rope_factors = "rope_freqs.weight"
        over = (
            f"{rope_factors}, a scaling of positions"
            if rope_factors in stored
            else "weights of other names"
        )
        _refuse(file, f"{sum(stored.values()) - parameters:,} of its numbers ({over})")


def _scales_positions(config: PretrainedConfig) -> bool:
    return "factor" in str(getattr(config, "rope_parameters", None) or config.to_dict())


def _refuse(file: Path, what: str) -> None:
    raise ValueError(
        f"model.path={file} is not used, since transformers would pass over {what}: take the "
        "model's Hugging Face folder."
    )


def _without_quantiser(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with the same weights and without the quantiser, so that it can be saved."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.config.architectures = [type(model).__name__]
    plain.generation_config = model.generation_config
    return plain


_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Kinds of special tokens, and what the format calls them."""


def _plain_tokenizer(tokenizer: PreTrainedTokenizerBase, contents: Any) -> PreTrainedTokenizerBase:
    """Return the tokenizer without a class of its own, defined by tokenizer.json alone.

    Classes such as GemmaTokenizer build themselves anew from vocabulary and merges when loaded, and
    some, such as GPT2Tokenizer, add tokens of their own, for which the model has no embedding.
    """
    size = len(contents.get_field("tokenizer.ggml.tokens").data)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < size]
    ids = {kind: _field(contents, f"tokenizer.ggml.{n}_token_id") for kind, n in _SPECIAL.items()}
    plain = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        chat_template=tokenizer.chat_template,
        clean_up_tokenization_spaces=False,
        **{
            f"{kind}_token": tokenizer.convert_ids_to_tokens(int(index))
            for kind, index in ids.items()
            if index is not None
        },
    )
    if _field(contents, "tokenizer.ggml.add_bos_token"):
        _add_bos(plain)
    return plain


def _add_bos(tokenizer: PreTrainedTokenizerFast) -> None:
    """Begin texts as the file says; older releases of transformers forget it for Gemma 3."""
    bos = tokenizer.bos_token
    if tokenizer("a").input_ids[0] == tokenizer.bos_token_id:
        return
    begin = TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos}:1 $B:1",
        special_tokens=[(bos, tokenizer.bos_token_id)],
    )
    backend = tokenizer.backend_tokenizer
    own = backend.post_processor
    backend.post_processor = begin if own is None else Sequence([own, begin])
