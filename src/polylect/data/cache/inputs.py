"""What a token cache is made from, as hashes, so that a changed input is noticed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from polylect.data.corpora.corpus import Corpus
from polylect.data.prompt import Template

_LAYOUT = 1
"""To be raised where reading, cleaning or the files of a cache change."""

_PROBE = "A sentence, 12 words?"


def cache_inputs(
    direction: str,
    corpora: Sequence[Corpus],
    filters: Mapping[str, Any],
    held_out: Sequence[str],
    tokenizer: Any,
    template: Template,
) -> dict[str, Any]:
    """Return all that the tokens of a direction depend on, as plain values.

    Args:
        filters: of the pairs, with their values.
        held_out: hashes of the texts that a filter drops pairs for.
    """
    return {
        "layout": _LAYOUT,
        "direction": direction,
        "text": [corpus.identity() for corpus in corpora],
        "filters": {**filters, "held_out": sorted(held_out)},
        "tokenizer": tokenizer_hash(tokenizer),
        "template": template_hash(template, tokenizer, direction),
    }


def key_of(inputs: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits by which the inputs are known."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return in words what differs between the inputs of two caches; files are named."""
    differ = [name for name in new if name != "text" and old.get(name) != new[name]]
    before = {str(part["spec"]): part["files"] for part in old.get("text", [])}
    now = {str(part["spec"]): part["files"] for part in new["text"]}
    if before.keys() != now.keys():
        return ["corpora", *differ]
    files = [
        name
        for spec in now
        for name in before[spec].keys() | now[spec].keys()
        if before[spec].get(name) != now[spec].get(name)
    ]
    return sorted(files) + differ


def tokenizer_hash(tokenizer: Any) -> str:
    """Return the SHA-256 of all that a tokenizer computes with.

    Those are the state of its backend, special tokens and chat template. Another release of the
    tokenizers library may write that state otherwise.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    inner = (
        sorted(tokenizer.get_vocab().items()) if backend is None else json.loads(backend.to_str())
    )
    if backend is not None:  # what the last call asked for
        inner |= {"padding": None, "truncation": None}
    state = {
        "backend": inner,
        "special": {k: str(v) for k, v in sorted(tokenizer.special_tokens_map.items())},
        "chat_template": tokenizer.chat_template,
    }
    text = json.dumps(state, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def template_hash(template: Template, tokenizer: Any, direction: str) -> str:
    """Return the SHA-256 of what a template makes of a sentence, whatever its name."""
    source = _PROBE if "-" in direction else None
    pair = template.encode_pairs(tokenizer, [source], [_PROBE], [direction])
    return hashlib.sha256(json.dumps(pair).encode()).hexdigest()
