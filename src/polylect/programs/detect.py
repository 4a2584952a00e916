"""`polylect detect`: which layers and which neurons matter to which direction or language."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.config.validation import validate
from polylect.data.batch import pad_id
from polylect.data.stream import EvaluationBatches
from polylect.did_you_mean import check_known
from polylect.eval.table import Table, show
from polylect.layers.neurons.awareness import FORMS, SIDES, AwarenessMeter, check_form
from polylect.layers.neurons.categories import check_categories, check_layers, choose_layers
from polylect.layers.neurons.row_awareness import RowMeter
from polylect.layers.neurons.row_layer import row_layers
from polylect.layers.surgery import freeze
from polylect.library import base_fingerprint
from polylect.library.neurons.kinds import FFN, ModuleNeurons
from polylect.models.families import Family, family_of
from polylect.models.outline.model import outline_backbone
from polylect.run.awareness import PARTIAL, costs, load_state, measure
from polylect.run.build import build_data
from polylect.run.neuron_selection import scores_of, select_neurons
from polylect.run.precision import settle_precision
from polylect.run.processes.group import rank
from polylect.run.record import Record
from polylect.run.session import close_wandb, session

FILE = "neurons.safetensors"
ROWS = "rows"  # of all modules
LOADER = "polylect.models.backbone.load_backbone"


def main(cfg: DictConfig) -> None:
    """Measure, or take measured scores; choose layers and categories; write the file.

    Processes that were started together measure together; the first one does the rest.
    """
    if rank() == 0:
        print(f"polylect detect: {cfg.scores or 'base model'}, loading …", flush=True)
    validate(cfg)
    _check(cfg)
    with session(cfg) as folder:
        if rank() == 0:
            _run(cfg, folder)
        elif not (cfg.scores or cfg.dry_run):
            _measure(cfg, folder, None)


def _check(cfg: DictConfig) -> None:
    """Check the settings that need neither model nor data."""
    if cfg.scores is not None and cfg.resume is not None:
        raise ConfigError("give scores or resume, not both: with scores nothing is measured.")
    if cfg.split not in ("train", "val"):
        raise ConfigError(f"split must be train or val, got {cfg.split}.")
    for key in ("sentences", "save_every"):
        if cfg[key] is not None and cfg[key] < 1:
            raise ConfigError(f"{key} must be at least 1, got {cfg[key]}.")
    if str(cfg.layers.rule).endswith(".safetensors"):
        cfg.layers.rule = list(ModuleNeurons.read(cfg.layers.rule).any.layers)
    check_layers(cfg.layers.k, plain(cfg.layers.rule))
    check_form(cfg.layers.form)
    categories = cfg.categories
    if categories.rule == "entropy" and cfg.neurons not in (None, FFN):
        raise ConfigError("categories.rule=entropy is for neurons=ffn: rows have no activation.")
    check_categories(categories.rule, categories.rho, categories.own, categories.share)
    check_known("categories.positions", categories.positions, ("all", *SIDES))
    check_known("average", cfg.average, ("tokens", "sentences"))
    check_known("precision", cfg.precision, ("auto", "32-true", "bf16-mixed"))
    if (notice := settle_precision(cfg, "precision")) and rank() == 0:
        print(notice, flush=True)
    if cfg.resume is not None and not (Path(cfg.resume) / PARTIAL).is_file():
        scores_file = Path(cfg.resume) / FILE
        how = f"it has ended, take scores={scores_file}" if scores_file.is_file() else "begin anew"
        raise ConfigError(f"resume={cfg.resume} has no {PARTIAL} to go on from: {how}.")
    for split in ("train", "val", "test"):  # what is not read need not be given
        if OmegaConf.is_missing(cfg.data, split):
            cfg.data[split] = None


def _run(cfg: DictConfig, folder: Path) -> None:
    if cfg.dry_run:
        print(_dry_run(cfg))
        return
    begin = time.monotonic()
    from polylect import plots
    from polylect.run.monitor.loggers import build_loggers
    from polylect.run.terminal import keep_freed_memory, quiet

    quiet()
    keep_freed_memory()
    loggers = build_loggers(cfg.logger, folder, cfg.packages)
    record = Record(run=str(folder), config=plain(cfg))
    try:
        with record.timed(begin):
            scores = ModuleNeurons.read(cfg.scores) if cfg.scores else _measure(cfg, folder, record)
            scores = _wanted(scores, plain(cfg.neurons))
            neurons = select_neurons(scores, plain(cfg.layers), plain(cfg.categories), cfg.seed)
            neurons.write(folder / FILE)
            (folder / PARTIAL).unlink(missing_ok=True)
            record.metrics |= {"layers": neurons.any.layers, "neurons": neurons.counts()}
    finally:
        # A bad setting leaves no folder behind.
        if record.status == "done" or (folder / "record.json").is_file():
            record.write(folder)
    show(_table(neurons))
    pictures = plots.save_all(folder, lambda: plots.of_kinds(neurons))
    _log(loggers, neurons, pictures, cfg)
    print(f"neurons: {folder / FILE}")


def _log(
    loggers: list[Any], file: ModuleNeurons, pictures: Mapping[str, Path], cfg: DictConfig
) -> None:
    """Tell every logger the counts of neurons, and what a token costs, by direction."""
    from polylect.run.monitor.loggers import log_pictures

    values = {
        f"neurons/{kind}/{direction}": float(count)
        for direction, counts in file.counts().items()
        for kind, count in counts.items()
    }
    nats = file.any.about.get("nats_per_token", {})
    values |= {f"nats_per_token/{direction}": value for direction, value in nats.items()}
    log_pictures(loggers, pictures, 0)
    for logger in loggers:
        logger.log_metrics(values, step=0)
        logger.log_hyperparams(plain(cfg))
        logger.finalize("success")
    close_wandb()


def _measure(cfg: DictConfig, folder: Path, record: Record | None) -> ModuleNeurons | None:
    """Return the scores of all neurons of all layers; nothing is selected yet.

    A process without a record only helps.
    """
    from polylect.translator import device_of

    device = device_of(cfg.device)
    data, split = _read(cfg)
    backbone, tokenizer = instantiate(cfg.model, "model", cfg.packages, _convert_="all")
    data.set_backbone(backbone, tokenizer)
    data.check_context()
    backbone.to(device).eval()
    freeze(backbone)
    meter, kinds = _meter(cfg, backbone, len(data.directions))
    choose_layers(meter.relevance(), 1, plain(cfg.layers.rule))  # or it fails at the very end
    loaders = _batches(data, split, cfg.sentences)
    labels = {"label_shift": cfg.label_shift, "pad_labels": cfg.pad_labels}
    job = {
        "base_fingerprint": base_fingerprint(backbone),
        "directions": list(data.directions),
        "split": split,
        "sentences": cfg.sentences,
        "template": cfg.data.template,
        "max_length": data.max_length,
        "tokens_per_batch": data.tokens_per_batch,
        "max_rows": data.max_rows,
        "data": {d: data.report[split][d]["sha256"] for d in data.directions},
        "neurons": kinds,
        "average": cfg.average,
        "precision": cfg.precision,
        **labels,
    }
    state = load_state(cfg.resume, job)
    if record is not None:
        record.data = data.report
        record.write(folder)
    nats = measure(meter, backbone, loaders, state, cfg.save_every, folder / PARTIAL, labels)
    if record is None:
        return None
    record.metrics["nats_per_token"] = dict(zip(data.directions, nats, strict=True))
    record.metrics["tokens"] = meter.tokens()
    about = {
        **record.metrics,
        "relevance": {form: meter.relevance(form).tolist() for form in FORMS},
        "measured": job,
        "model": plain(cfg.model),
        "versions": record.environment["packages"],
    }
    return scores_of(meter, kinds, about)


def _read(cfg: DictConfig) -> tuple[Any, str]:
    """The data, with the split to measure on read."""
    data = build_data(cfg)
    split = _split(data, cfg.split)
    data.setup("fit" if split == "train" else "validate")
    return data, split


def _meter(
    cfg: DictConfig, backbone: nn.Module, directions: int
) -> tuple[AwarenessMeter, list[str]]:
    """Return what counts for so many directions, and the kinds of neurons that are wanted."""
    family, blocks = _family(backbone)
    downs = [block.get_submodule(family.down) for block in blocks]
    kinds = _kinds(blocks[0], plain(cfg.neurons))
    modules = {k: [block.get_submodule(k) for block in blocks] for k in kinds if k != FFN}
    rows = RowMeter(modules, directions, family.heads_first) if modules else None
    return AwarenessMeter(downs, directions, blocks, rows, cfg.average == "sentences"), kinds


def _dry_run(cfg: DictConfig) -> str:
    """Return what a detection would take, from the base's sizes and tokenizer alone."""
    data, split = _read(cfg)
    settings = plain(cfg.model)
    if settings.pop("_target_") != LOADER:
        raise ConfigError(f"dry_run=true is for bases of {LOADER}: give model=local or a hub's.")
    outline = outline_backbone(**settings)
    if outline.tokenizer is None:
        raise ConfigError(
            f"dry_run=true needs the tokenizer of {settings['path']} to count tokens."
        )
    data.set_backbone(outline.model, outline.tokenizer)
    data.check_context()
    meter, kinds = _meter(cfg, outline.model, len(data.directions))
    return costs(meter, outline.model, kinds, _batches(data, split, cfg.sentences))


def _kinds(block: nn.Module, neurons: str | list[str] | None) -> list[str]:
    """Return the kinds of neurons: FFN neurons, the modules whose rows are meant, or both."""
    modules = list(row_layers(block))
    if neurons == ROWS:
        return modules
    kinds = [neurons or FFN] if not isinstance(neurons, list) else neurons
    for kind in kinds:
        check_known("neurons", kind, [FFN, ROWS, *modules])
    return [k for kind in kinds for k in (modules if kind == ROWS else [kind])]


def _wanted(scores: ModuleNeurons, neurons: str | list[str] | None) -> ModuleNeurons:
    """Return the kinds of a file that are named; all of them if none is."""
    if neurons is None:
        return scores
    own = [neurons] if isinstance(neurons, str) else neurons
    rows = [kind for kind in scores.kinds if kind != FFN]
    return scores.of_kinds([k for kind in own for k in (rows if kind == ROWS else [kind])])


def _split(data: Any, preferred: str) -> str:
    """Return the split to measure on: the held-out one, where every direction has such text."""

    def missing(split: str) -> list[str]:
        return [d for d in data.directions if d not in data.directions_of(split)]

    if not (without := missing(preferred)):
        return preferred
    if preferred == "val" and not missing("train"):
        print(f"there is no val corpus of {', '.join(without)}: the train corpora are measured.")
        return "train"
    raise ConfigError(f"there is no {preferred} corpus of {without[0]}: give data.{preferred}=…")


def _family(backbone: nn.Module) -> tuple[Family, list[nn.Module]]:
    try:
        family = family_of(backbone.config)
    except ValueError as error:
        reason = str(error).partition(";")[0]
        raise ConfigError(f"{reason}: where it keeps its neurons is not known.") from error
    return family, list(backbone.get_submodule(family.layers))


def _batches(data: Any, split: str, sentences: int | None) -> list[EvaluationBatches]:
    """Return the first sentences of each direction, in batches; too long ones are left out."""
    loaders = []
    for direction in data.directions:
        examples = data.examples(direction, split, sentences)
        fitting = [example for example in examples if example.length <= data.max_length]
        if not fitting:
            raise ConfigError(
                f"the first {len(examples)} {split} examples of {direction} all have more than "
                f"data.max_length={data.max_length} tokens."
            )
        too_long = len(examples) - len(fitting)
        data.report[split][direction] |= {"measured": len(fitting), "too_long": too_long}
        pad = pad_id(data.tokenizer)
        loaders.append(EvaluationBatches(fitting, data.tokens_per_batch, data.max_rows, pad))
    return loaders


def _table(found: ModuleNeurons) -> Table:
    rows = tuple((d, *(f"{n:,}" for n in row.values())) for d, row in found.counts().items())
    file = found.any
    header = ("direction", "general", "specific", "to it alone", "of neurons")
    layers = []
    for layer, used in zip(file.layers, file.selected, strict=True):
        last = layer == file.relevance.shape[1] - 1  # has no next one to differ from
        mean = "last" if last else f"D {float(file.relevance[used, layer].mean()):.3g}"
        layers.append(f"{layer} ({mean})")
    return Table(header, rows, (f"layers {', '.join(layers)}",))
