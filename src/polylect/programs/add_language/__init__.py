"""`polylect add-language`: one adapter more, beside a library that stays as it is."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.config.validation import validate
from polylect.did_you_mean import check_known
from polylect.run.record import Record

STARTS = ("nearest", "mean", "cold")
_STRATEGY = "polylect.strategies.lora_switch.LoRASwitch"
_SAMPLE = 20_000  # pairs of each corpus that are tokenised for the report


def main(cfg: DictConfig) -> None:
    """Check, find the nearest, train, score, prove, add; raises ConfigError where one fails."""
    from polylect.run.session import session

    print(f"polylect add-language: to {cfg.library}, loading …", flush=True)
    with session(cfg) as folder:
        validate(cfg)
        _check(cfg)
        _run(cfg, folder)


def _check(cfg: DictConfig) -> None:
    """Check the settings that need no file."""
    if cfg.strategy.get("_target_") != _STRATEGY:
        raise ConfigError(
            "add-language trains a LoRA adapter: take strategy=lora_switch, or strategy=lora for "
            "one of several directions."
        )
    if cfg.strategy.get("start") is not None:
        raise ConfigError(f"give start={'|'.join(STARTS)}|NAME in place of strategy.start.")
    for key in ("resume", "config", "init_from"):
        if cfg[key] is not None:
            raise ConfigError(
                f"{key}={cfg[key]} is for polylect train: train with it, and give the adapter to "
                "polylect library action=add."
            )
    if cfg.sentences < 1:
        raise ConfigError(f"sentences must be at least 1, got {cfg.sentences}.")
    if cfg.start != "cold" and cfg.strategy.get("init", "kaiming") != "kaiming":
        raise ConfigError(
            f"strategy.init={cfg.strategy.init} says how A begins, and so does start={cfg.start}: "
            "give start=cold."
        )


def _run(cfg: DictConfig, folder: Path) -> None:
    from polylect.library import AdapterLibrary
    from polylect.library.folder import what_is_no_library
    from polylect.programs.add_language.server import Server
    from polylect.programs.add_language.stages import add, prove, train
    from polylect.run.build import build_data
    from polylect.run.terminal import quiet
    from polylect.strategies.lora.settings import adapter_of_directions

    begin = time.monotonic()
    quiet()
    library = AdapterLibrary(cfg.library)
    if not library.names:
        raise ConfigError(f"library={cfg.library} {what_is_no_library(library.path)}")
    check_known("start", cfg.start, [*STARTS, *library.names], ConfigError)
    server = Server(cfg.server, cfg.key_file) if cfg.server else None
    data = build_data(cfg)
    adapter_of = adapter_of_directions(plain(cfg.strategy.adapters), data.directions)
    _check_new(cfg, library, adapter_of)
    if server is not None:
        server.check_free(set(adapter_of.values()))
    before = {name: library.digest(name) for name in library.names}
    base, tokenizer = _base(cfg, data)
    _check_text(cfg, data, folder)
    found = _similarities(cfg, library, data, adapter_of, base, tokenizer)
    chosen = {name: _chosen(cfg.start, name, own) for name, own in found.items()}
    if cfg.dry_run:
        train(folder, {})
        return
    folder.mkdir(parents=True, exist_ok=True)
    starts = _starts(cfg, library, chosen, folder)
    del base, tokenizer  # the stages load their own
    record = Record(run=str(folder), config=plain(cfg))
    record.metrics |= {"similarities": found, "began_with": chosen}
    record.data = data.report
    with record.saved_to(folder, begin):
        trained = train(folder, starts)
        record.metrics["verified"] = prove(folder, library, trained)
        add(library, trained)
        changed = [name for name in before if library.digest(name) != before[name]]
        if changed:
            raise ConfigError(f"{library.path / changed[0]} has changed since it was read.")
        if server is not None:
            server.load(library, trained)
        metrics = Record.read(folder / "train").metrics
        record.metrics |= {k: metrics[k] for k in ("base", "test", "objective") if k in metrics}
    print(f"added to {library.path}: {', '.join(trained)}; the {len(before)} others are as before")
    print(f"run folder: {folder}", flush=True)


def _check_new(cfg: DictConfig, library: Any, adapter_of: Mapping[str, str]) -> None:
    """Raises ConfigError where the library has the adapter or direction, or another template."""
    from polylect.run.untrained_model import check_template

    for direction, name in adapter_of.items():
        served = {d: n for n in library.names for d in library.about(n).get("directions", [n])}
        if name in library.names or direction in served:
            have = name if name in library.names else served[direction]
            raise ConfigError(
                f"{library.path} has {have} for {direction} already: give another of "
                "data.directions, or take it out first with polylect library action=remove "
                f"adapter={have}."
            )
    check_template(DictConfig({"library": str(library.path)}), cfg.data.template)


def _base(cfg: DictConfig, data: Any) -> tuple[Any, Any]:
    from polylect.run.precision import settle_dtype

    settle_dtype(cfg, frozen_base=True)
    base, tokenizer = instantiate(cfg.model, "model", cfg.packages, _convert_="all")
    data.set_backbone(base, tokenizer)
    data.check_context()
    return base, tokenizer


def _check_text(cfg: DictConfig, data: Any, folder: Path) -> None:
    """Say what is doubtful about the text; raises ConfigError where it is not fit to train on."""
    from polylect.data.audit.fitness import doubts, refusals
    from polylect.data.audit.report import data_report, report_page
    from polylect.files import write_json

    data.setup()
    report = data_report(data, _SAMPLE)
    print(report_page(data, report))
    if faults := refusals(data, report):
        raise ConfigError("\n".join(faults))
    for sentence in doubts(data, report):
        print(f"note: {sentence}")
    if not cfg.dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "data.json", report)


def _similarities(
    cfg: DictConfig,
    library: Any,
    data: Any,
    adapter_of: Mapping[str, str],
    base: Any,
    tokenizer: Any,
) -> dict[str, dict[str, float]]:
    """Return, and show, how near the adapters of the library are to the text of each new one."""
    from polylect.eval.table import Table, show
    from polylect.programs.add_language.nearest import similarities
    from polylect.strategies.lora.input_statistics import own_text

    wrong = dict(library.check(base))
    fitting = [name for name in library.names if name not in wrong]
    for name, reason in wrong.items():
        print(f"note: {name} is not compared: {reason}")
    if cfg.start == "cold":
        return {name: {} for name in adapter_of.values()}
    if not fitting:
        raise ConfigError(f"no adapter of {library.path} fits the base: give start=cold.")
    if cfg.start in wrong:
        raise ConfigError(f"start={cfg.start} does not fit: {wrong[cfg.start]}")
    found = {}
    for name in dict.fromkeys(adapter_of.values()):
        own = {d: a for d, a in adapter_of.items() if a == name}
        text = own_text(data, own, cfg.sentences, tokenizer)
        values = similarities(library, fitting, base, text)
        found[name] = dict(sorted(values.items(), key=lambda item: -item[1]))
    names = next(iter(found.values()))
    rows = [(name, *(f"{own[name]:.4f}" for own in found.values())) for name in names]
    note = "Cosine of an adapter's update and the step that the new text asks for."
    show(Table(("nearness", *found), tuple(rows), (note,)))
    return found


def _chosen(start: str, name: str, similarities: Mapping[str, float]) -> list[str]:
    """Return the adapters that a new one begins with; says so where the nearest is not near."""
    if start == "cold":
        return []
    if start == "mean":
        return list(similarities)
    if start != "nearest":
        return [start]
    nearest = max(similarities, key=similarities.__getitem__)
    if similarities[nearest] > 0:
        return [nearest]
    print(f"note: no adapter goes the way that {name} has to: it begins at random")
    return []


def _starts(
    cfg: DictConfig, library: Any, chosen: Mapping[str, list[str]], folder: Path
) -> dict[str, Path]:
    """Return the PEFT folder with which each adapter begins.

    That is the one in the library where it is one of a rank that fits, else the mean, written here.
    """
    from polylect.library import Adapter, AdapterLibrary
    from polylect.programs.add_language.nearest import mean_update
    from polylect.strategies.lora.settings import rank_of_adapters

    ranks = rank_of_adapters(plain(cfg.strategy.rank), list(chosen))
    starts = {}
    for name, own in chosen.items():
        adapters = [library.load(other) for other in own]
        if not own:
            continue
        highest = max(len(u.a) for adapter in adapters for u in adapter.modules.values())
        if len(own) == 1 and highest <= ranks[name]:
            starts[name] = library.folder(own[0])
            print(f"{name} begins with {own[0]}")
            continue
        updates, kept = mean_update(adapters, ranks[name])
        about = {k: v for k, v in adapters[0].about.items() if k.startswith("base_")}
        starts[name] = AdapterLibrary(folder / "start").save(name, Adapter(updates, about))
        print(
            f"{name} begins with the mean of {', '.join(own)} at rank {ranks[name]}, which keeps "
            f"{kept:.0%} of its squared singular values"
        )
    return starts
