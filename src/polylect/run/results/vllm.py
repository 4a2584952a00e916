"""What vLLM asks of LoRA adapters, checked where they are exported, and requests to it.

vLLM takes one rank and one scaling for a whole adapter (`r` and `lora_alpha` of its configuration;
patterns by module are passed over without a word), ranks up to its --max-lora-rank, which is one of
a few numbers, and nothing but LoRA on linear layers.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polylect.library.adapter import Adapter
from polylect.library.folder import read_about
from polylect.library.peft_format import read_peft
from polylect.run.results.export import prompt_text, stop_texts

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank may be; 16 by default."""

_TEXT = "The boy sleeps."


def max_lora_rank(adapters: Sequence[Adapter]) -> int | None:
    """Return the least --max-lora-rank that takes all of the adapters; None if none does."""
    highest = max(len(u.a) for adapter in adapters for u in adapter.modules.values())
    return next((rank for rank in RANKS if rank >= highest), None)


def vllm_faults(adapter: Adapter, config: Any) -> list[str]:
    """Return in clauses why vLLM would not take an adapter, or would compute something else.

    Args:
        config: of the base, as transformers has it.
    """
    faults = []
    if max_lora_rank([adapter]) is None:
        faults.append(f"its rank is above {RANKS[-1]}")
    scalings: dict[float, str] = {}
    for path, update in adapter.modules.items():
        scalings.setdefault(round(update.scaling, 6), path)
    if len(scalings) > 1:
        (one, first), (other, second) = list(scalings.items())[:2]
        faults.append(
            f"its scaling is {one:g} in {first} and {other:g} in {second}, and vLLM takes one for "
            "all"
        )
    if "lm_head" in adapter.modules:
        tied = getattr(config, "tie_word_embeddings", False)
        why = "which is the embedding as well" if tied else "which few of its models allow"
        faults.append(f"it changes the output head, {why}")
    return faults


def adapters_example(module: Any, folders: Mapping[str, Path], base: str) -> list[str]:
    """Return commands that serve adapters with vLLM and ask one; and sentences on those it refuses.

    Args:
        module: the strategy that has them.
        folders: of the PEFT folders, by name.
        base: where vLLM finds the base.
    """
    taken, lines = {}, []
    for name, folder in folders.items():
        adapter = Adapter(read_peft(folder)[0], read_about(folder))
        if faults := vllm_faults(adapter, module.backbone.config):
            lines.append(f"{name}: not for vLLM, since {' and '.join(faults)}: give form=merged.")
        else:
            taken[name] = adapter
    if not taken:
        return lines
    name, adapter = next(iter(taken.items()))
    modules = " ".join(shlex.quote(f"{name}={folders[name]}") for name in taken)
    return [
        *lines,
        "With vLLM:",
        f"  vllm serve {shlex.quote(base or 'BASE')} --enable-lora --max-lora-rank "
        f"{max_lora_rank(list(taken.values()))} --max-loras {len(taken)} --lora-modules {modules}",
        f"  {request(module, name, adapter.about.get('directions', [name])[0])}",
    ]


def model_example(module: Any, folder: Path, direction: str) -> list[str]:
    """Return commands that serve a plain model with vLLM and ask it."""
    return [
        "With vLLM:",
        f"  vllm serve {shlex.quote(str(folder))}",
        f"  {request(module, str(folder), direction)}",
    ]


def request(module: Any, model: str, direction: str) -> str:
    """Return a command that asks for a translation, in the words that were trained."""
    body = {
        "model": model,
        "prompt": prompt_text(module, _TEXT, direction),
        "max_tokens": module.generation.limit,
        "temperature": 0,
    }
    if stop := stop_texts(module):
        body["stop"] = stop
    text = json.dumps(body, ensure_ascii=False).replace("'", "'\\''")
    head = "curl localhost:8000/v1/completions -H 'Content-Type: application/json'"
    return f"{head} -d '{text}'"
