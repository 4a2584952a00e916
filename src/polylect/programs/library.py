"""`polylect library`: look after a folder of adapters."""

import math
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn import functional

from polylect import plots
from polylect.config.base_or_run import LIBRARY
from polylect.config.roots import ConfigError, plain
from polylect.config.targets import instantiate
from polylect.config.validation import validate
from polylect.data.languages import split_direction
from polylect.did_you_mean import check_known
from polylect.files import whole_folder, write_json
from polylect.layers.adapters.alignment import align, subspace_overlaps, update_cosines
from polylect.layers.lora.layer import check_adapter_name, nearest_name
from polylect.library import AdapterLibrary
from polylect.library.aligned_library import AlignedLibrary
from polylect.library.calibration import INPUTS, write_inputs
from polylect.library.folder import ABOUT, read_about, what_is_no_library
from polylect.library.peft_format import CONFIG, PICKLED, WEIGHTS, read_peft
from polylect.run.passport.file import PASSPORT

MEASURES = ("update", "arrow", "subspace")
_SHOWN = 20  # adapters in a table of all against all


def main(cfg: DictConfig) -> None:
    """Do what `action` says."""
    validate(cfg)
    check_known("action", cfg.action, ACTIONS, ConfigError)
    library = AdapterLibrary(cfg.path)
    if cfg.action != "add" and not library.names and not _incomplete_folders(library):
        raise ConfigError(f"path={cfg.path} {what_is_no_library(library.path)}")
    ACTIONS[cfg.action](library, cfg)


def _list(library: AdapterLibrary, cfg: DictConfig) -> None:
    from polylect.eval.table import Table, show

    aligned = AlignedLibrary(library, align)
    incomplete = [folder.name for folder in _incomplete_folders(library)]
    rows = [_describe(aligned, name) for name in sorted({*library.names, *incomplete})]
    header = ("adapter", "directions", "ranks", "modules", "MiB", "aligned", "base")
    show(Table(header, tuple(rows)))


def _describe(aligned: AlignedLibrary, name: str) -> tuple[str, ...]:
    library = aligned.library
    try:
        adapter = library.load(name)
    except (ValueError, FileNotFoundError):
        return (name, "cannot be read: see action=check", *[""] * 5)
    ranks = sorted({len(update.a) for update in adapter.modules.values()})
    return (
        name,
        " ".join(adapter.about.get("directions", [name])),
        " ".join(map(str, ranks)),
        str(len(adapter.modules)),
        f"{adapter.nbytes / 2**20:.1f}",
        aligned.state(name),
        Path(adapter.config.get("base_model_name_or_path") or "-").name,
    )


def _check(library: AdapterLibrary, cfg: DictConfig) -> None:
    """Raises ConfigError if an adapter cannot be used, after a line for each."""
    wrong = _unusable(library, cfg)
    names = sorted({*library.names, *wrong})
    for name in names:
        print(f"{name}  {wrong.get(name, 'good')}")
    for direction, serving in _adapters_by_direction(library).items():
        if len(serving) > 1:
            print(
                f"note: {direction} is served by {' and '.join(serving)}: take it out of "
                f"'directions' in the {ABOUT} of one; else every translation has to name one"
            )
    if wrong:
        raise ConfigError(f"{len(wrong)} of {len(names)} adapters cannot be used.")


def _unusable(library: AdapterLibrary, cfg: DictConfig) -> dict[str, str]:
    """Return what is wrong with each unusable folder, and what to do."""
    base = None
    if cfg.model:
        base, _ = instantiate(cfg.model, "model", cfg.packages, _convert_="all")
    wrong = {
        folder.name: f"{folder} has no {CONFIG}: {_COPY}" for folder in _incomplete_folders(library)
    }
    return wrong | dict(library.check(base)) | _invalid_names(library)


_COPY = "copy or download the whole folder"


def _incomplete_folders(library: AdapterLibrary) -> list[Path]:
    """Return the folders with a part of an adapter but without its configuration."""
    return [
        folder
        for folder in sorted(library.path.glob("[!.]*/"))
        if not (folder / CONFIG).exists()
        and any((folder / part).exists() for part in (WEIGHTS, PICKLED, ABOUT))
    ]


def _invalid_names(library: AdapterLibrary) -> dict[str, str]:
    wrong = {}
    for name in library.names:
        try:
            check_adapter_name(name)
        except ValueError as error:
            wrong[name] = f"rename {library.path / name}: {error}"
    return wrong


def _adapters_by_direction(library: AdapterLibrary) -> dict[str, list[str]]:
    """Return the adapters that say that they serve a direction, by direction."""
    serving: dict[str, list[str]] = {}
    for name in library.names:
        with suppress(ValueError):
            for direction in library.about(name).get("directions", [name]):
                serving.setdefault(direction, []).append(name)
    return serving


def _align(library: AdapterLibrary, cfg: DictConfig) -> None:
    aligned = AlignedLibrary(library, align)
    aligned_count = sum(aligned.prepare(name) for name in library.names)
    for name in library.names:
        if weakness := aligned.weakness(name):
            print(f"{name} {weakness}.")
    print(f"{aligned_count} adapters aligned, {len(library.names) - aligned_count} were so before.")


def _inputs(library: AdapterLibrary, cfg: DictConfig) -> None:
    """Writes beside each adapter the means of what its layers are given on its own text."""
    from polylect.run.build import build_data
    from polylect.run.untrained_model import build_untrained, check_template
    from polylect.strategies.lora.input_statistics import input_means, own_text

    if not cfg.model or not cfg.data:
        raise ConfigError("give model=… and data=…: the base, and what the adapters learnt from.")
    if cfg.sentences < 1:
        raise ConfigError(f"sentences must be at least 1, got {cfg.sentences}.")
    for split in ("val", "test"):
        cfg.data[split] = None
    strategy = OmegaConf.create(LIBRARY | {"library": cfg.path})
    check_template(strategy, cfg.data.get("template") or "plain")
    whole = OmegaConf.merge(plain(cfg), {"strategy": strategy, "generation": None})
    module, data = build_untrained(whole), build_data(cfg)
    data.set_backbone(module.backbone, module.tokenizer)
    data.setup("fit")
    served = {name: library.about(name).get("directions", [name]) for name in library.names}
    for name, directions in served.items():
        texts = {d: name for d in directions if d in data.directions}
        if not texts:
            raise ConfigError(
                f"adapter {name} serves {', '.join(directions)}, of which data.directions has none."
            )
        with module.use_adapter(name):
            module.load(name)
            means = input_means(module, own_text(data, texts, cfg.sentences, module.tokenizer))
        write_inputs(library, name, means[name])
        print(f"{name}  {max(count for _, count in means[name].values())} tokens")


def _compare(library: AdapterLibrary, cfg: DictConfig) -> None:
    from polylect.eval.table import Table, show

    check_known("measure", cfg.measure, MEASURES, ConfigError)
    similarity = similarities(library)
    if cfg.out:
        out = Path(cfg.out)
        write_json(out, {"adapters": library.names, **similarity})
        print(f"similarities: {out}")
        plots.save_all(out.parent, lambda: {out.stem: plots.similarity(out)})
    names = library.names[:_SHOWN]
    rows = [
        (name, *("-" if v is None else f"{v:.2f}" for v in row[:_SHOWN]))
        for name, row in zip(names, similarity[cfg.measure], strict=False)
    ]
    notes = [_MEANING[cfg.measure]]
    if len(library.names) > _SHOWN:
        notes.append(f"The first {_SHOWN} of {len(library.names)} adapters; out=FILE has all.")
    show(Table(("adapter", *names), tuple(rows), tuple(notes)))


_MEANING = {
    "update": "Cosine of the updates B A, mean over the layers that both adapters change.",
    "arrow": "|cosine| of the arrows, mean over the layers that both adapters change.",
    "subspace": "Mean squared cosine between the input spaces, mean over the layers of both.",
}


def similarities(library: AdapterLibrary) -> dict[str, list[list[float | None]]]:
    """Return how alike any two adapters are, by measure.

    It is None where they have no layer in common.
    """
    aligned = AlignedLibrary(library, align)
    names = library.names
    members: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        aligned.prepare(name)
        for path, strengths in aligned.strengths(name).items():
            if strengths[0] > 0:
                members.setdefault(path, []).append(i)
    sums = {measure: torch.zeros(len(names), len(names)) for measure in MEASURES}
    layers = torch.zeros(len(names), len(names))
    for path, changing in members.items():
        a = _stack([aligned.factor(names[i], path, "a_star") for i in changing])
        b = _stack([aligned.factor(names[i], path, "b_star").T for i in changing]).mT
        both = torch.meshgrid(torch.tensor(changing), torch.tensor(changing), indexing="ij")
        layers[both] += 1
        sums["update"][both] += update_cosines(a, b)
        sums["arrow"][both] += (a[:, 0] @ a[:, 0].T).abs()
        sums["subspace"][both] += subspace_overlaps(a)
    return {
        measure: [[None if math.isnan(v) else v for v in row] for row in (total / layers).tolist()]
        for measure, total in sums.items()
    }


def _stack(factors: list[Tensor]) -> Tensor:
    """Return the factors as one tensor, lower ranks padded with zeros."""
    rank = max(map(len, factors))
    return torch.stack([functional.pad(f, (0, 0, 0, rank - len(f))).float() for f in factors])


def _add(library: AdapterLibrary, cfg: DictConfig) -> None:
    if not cfg.source:
        raise ConfigError("give source=FOLDER: the PEFT folder to add.")
    source = Path(cfg.source).resolve()
    read_peft(source)  # refuses what could not be used
    about = read_about(source)
    name = cfg.adapter or source.name
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(
            f"adapter={name}: use letters, digits, '_' and '-' only, as in "
            f"adapter={nearest_name(name)}."
        )
    for direction in cfg.directions or ():
        split_direction(direction)
    if (folder := library.path / name).exists():
        raise FileExistsError(f"{folder} exists: choose another name with adapter=NAME.")
    with whole_folder(folder) as new:
        for part in (CONFIG, WEIGHTS, ABOUT, INPUTS):
            if (source / part).is_file():
                shutil.copyfile(source / part, new / part)
        if not cfg.directions and (source / PASSPORT).is_file():  # else it would not be true
            shutil.copyfile(source / PASSPORT, new / PASSPORT)
        if cfg.directions:
            write_json(new / ABOUT, about | {"directions": plain(cfg.directions)})
    print(f"added: {folder}")


def _remove(library: AdapterLibrary, cfg: DictConfig) -> None:
    if not cfg.adapter:
        raise ConfigError("give adapter=NAME: the adapter to remove.")
    folder = library.path / cfg.adapter
    if cfg.adapter in library.names and folder.is_symlink():
        folder.unlink()
    else:
        library.remove(cfg.adapter)
    print(f"removed: {folder}")


ACTIONS: dict[str, Callable[[AdapterLibrary, DictConfig], None]] = {
    "list": _list,
    "check": _check,
    "align": _align,
    "inputs": _inputs,
    "compare": _compare,
    "add": _add,
    "remove": _remove,
}
