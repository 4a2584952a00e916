"""`dry_run=true`: what the model will see and what the run will cost, before it starts."""

from collections.abc import Mapping
from itertools import cycle
from operator import attrgetter

from omegaconf import DictConfig
from torch import nn

from polylect.config.checks import on_gpu
from polylect.data.audit.page import counts_page
from polylect.data.batch import Example, TranslationBatch, collate
from polylect.data.datamodule import TranslationData
from polylect.models.families import family_of
from polylect.run.budget.report import budget_page, costs_of
from polylect.run.length import processes_of, steps_of
from polylect.run.monitor.memory import BETWEEN_BLOCKS, process_bytes, step_bytes
from polylect.run.processes.checks import is_sharded_by
from polylect.strategies.base import TranslationModule

EXAMPLES = 2
_BATCHES = 64
"""So many of the first batches are looked at for the one that takes most memory."""


def preview(module: TranslationModule, data: TranslationData, cfg: DictConfig) -> str:
    """Return a page of text: examples token by token, parameter counts,
    memory and steps, what is read.

    `audit.counts.complete_report` must have completed the report of the data.
    """
    examples = [] if data.tokenizer is None else _examples(module, data)
    batch, what = _largest(data)
    costs = [*_parameters(module), *_cost(module, data, batch, what, cfg)]
    costs += [*costs_of(module, batch, cfg), *budget_page(cfg, batch)]
    return "\n".join([*examples, *costs, counts_page(data)])


def _examples(module: TranslationModule, data: TranslationData) -> list[str]:
    lines = ["Examples, token by token; [brackets]: learned. The last learned token is the end."]
    for direction in data.directions:
        lines.append(f"\n{direction}")
        for example in _learned(data, direction):
            lines += _example(module, example)
    return [*lines, ""]


def _learned(data: TranslationData, direction: str) -> list[Example]:
    """Return the first examples of a direction that training would not leave out."""
    size, wanted = len(data.pairs(direction, "train")), EXAMPLES
    while True:
        examples = data.examples(direction, "train", wanted)
        fitting = [e for e in examples if e.length <= data.max_length]
        if len(fitting) >= EXAMPLES or wanted >= size:
            return fitting[:EXAMPLES]
        wanted *= 8


def _example(module: TranslationModule, example: Example) -> list[str]:
    tokens = module.tokenizer.convert_ids_to_tokens
    prompt = " ".join(tokens(example.prompt))
    target = " ".join(f"[{token}]" for token in tokens(example.target))
    return [
        f"  {prompt} {target}",
        f"  {len(example.prompt)} prompt + {len(example.target)} learned",
    ]


def _parameters(module: TranslationModule) -> list[str]:
    groups = module.parameter_groups() if module.trains else []
    total = sum(p.numel() for p in module.parameters())
    trained = sum(p.numel() for group in groups for p in group["params"])
    lines = [f"parameters  {total:,} in all, {trained:,} trained ({trained / total:.1%})"]
    named = [g for g in groups if "name" in g]
    return lines + [f"  {g['name']}: {sum(p.numel() for p in g['params']):,}" for g in named]


def _cost(
    module: TranslationModule,
    data: TranslationData,
    batch: TranslationBatch,
    what: str,
    cfg: DictConfig,
) -> list[str]:
    if module.trains:
        memory = _memory(module, batch, what, cfg)
    else:
        memory = [f"memory      weights {_size(_weights(module))}; nothing is trained"]
    return [
        *memory,
        _steps(data, cfg),
        "time        not estimated: training says what is left once it has made some steps",
    ]


def _steps(data: TranslationData, cfg: DictConfig) -> str:
    if data.tokenizer is None and (cfg.trainer.get("max_epochs") or 0) > 0:
        return "steps       not counted: how many batches a pass has takes the tokenizer"
    steps, origin = steps_of(cfg, data)
    batches = steps * int(cfg.trainer.get("accumulate_grad_batches", 1)) * processes_of(cfg)
    return (
        f"steps       {steps:,}, at most {batches * data.tokens_per_batch:,} tokens with padding"
        + (f" ({origin})" if origin else "")
    )


def _largest(data: TranslationData) -> tuple[TranslationBatch, str]:
    """Return the batch that takes most memory, and what it is."""
    if data.tokenizer is None:
        return _full_batch(data), "full batch, half of it learned,"
    stream = data.training_stream(_BATCHES)
    return max(stream, key=lambda batch: (batch.target_tokens, batch.input_ids.numel())), "batch"


def _memory(
    module: TranslationModule, largest: TranslationBatch, what: str, cfg: DictConfig
) -> list[str]:
    """Return the memory held at once, in parts; on a GPU apart from the process's on the host."""
    process = process_bytes(module)
    step = step_bytes(module, largest, str(cfg.trainer.get("precision", "32-true")))
    parts = {"weights": step.weights, "gradients": step.gradients, "optimizer": step.state}
    if is_sharded_by(cfg):
        parts = _shared(parts, module, processes_of(cfg))
    held = sum(parts.values())
    if step.activations is None:
        name = type(module).__name__
        return [
            f"memory      more than {_size(held)}: activations of {name} depend on the text "
            "and are not estimated",
            *_listed(parts),
        ]
    parts["activations"] = step.activations
    held += step.activations
    told = f"a {what} of {largest.rows} x {largest.input_ids.shape[1]} tokens"
    if on_gpu(cfg):
        return [f"memory      about {_size(held)} of each GPU, for {told}", *_listed(parts)]
    parts |= {"between blocks": int(BETWEEN_BLOCKS * held), "process": process}
    return [f"memory      about {_size(sum(parts.values()))}, for {told}", *_listed(parts)]


def _shared(parts: Mapping[str, int], module: TranslationModule, processes: int) -> dict[str, int]:
    """Return what each of several processes holds of what they share out, by FSDP2.

    At a time the weights of two layers are whole, the one that runs and the next, and those of no
    layer.
    """
    layers = module.backbone.get_submodule(family_of(module.backbone.config).layers)
    sizes = [_weights(layer) for layer in layers]
    shares = {f"{name}, a share": size // processes for name, size in parts.items()}
    return shares | {"gathered": _weights(module) - sum(sizes) + 2 * max(sizes)}


def _full_batch(data: TranslationData) -> TranslationBatch:
    """A batch of the longest examples that may be, a half of each learned."""
    rows = max(1, min(data.max_rows, data.tokens_per_batch // data.max_length))
    half = data.max_length // 2
    examples = [
        Example([0] * (data.max_length - half), [0] * half, direction, "", ())
        for direction, _ in zip(cycle(data.directions), range(rows), strict=False)
    ]
    return collate(sorted(examples, key=attrgetter("direction")), 0, "right")


def _listed(parts: Mapping[str, int]) -> list[str]:
    return [f"  {name}: {_size(size)}" for name, size in parts.items()]


def _weights(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _size(size: float | int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
