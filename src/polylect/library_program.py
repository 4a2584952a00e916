"""`polylect library`: look after a folder of adapters."""

import math
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional

from polylect import plots
from polylect.config import ConfigError, plain, validate
from polylect.data.languages import split_direction
from polylect.hints import nearest
from polylect.layers.alignment import align, subspace_overlaps, update_cosines
from polylect.library import AdapterLibrary
from polylect.library.aligned import AlignedLibrary
from polylect.library.folder import ABOUT
from polylect.library.peft_format import CONFIG, WEIGHTS, read_peft
from polylect.record import write_json

MEASURES = ("update", "arrow", "subspace")
_SHOWN = 20  # adapters in a table of all against all


def main(cfg: DictConfig) -> None:
    """Do what `action` says."""
    validate(cfg)
    if cfg.action not in ACTIONS:
        raise ConfigError(f"action={cfg.action} does not exist; {nearest(cfg.action, ACTIONS)}")
    library = AdapterLibrary(cfg.path)
    if cfg.action != "add" and not library.names:
        raise ConfigError(f"path={cfg.path} holds no adapter: it must be a folder of PEFT folders.")
    ACTIONS[cfg.action](library, cfg)


def _list(library: AdapterLibrary, cfg: DictConfig) -> None:
    from polylect.eval.table import Table, show

    aligned = AlignedLibrary(library, align)
    rows = [_described(aligned, name) for name in library.names]
    header = ("adapter", "directions", "ranks", "modules", "MiB", "aligned", "base")
    show(Table(header, tuple(rows)))


def _described(aligned: AlignedLibrary, name: str) -> tuple[str, ...]:
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
    wrong = dict(_unfit(library, cfg.model))
    for name in library.names:
        print(f"{name}  {wrong.get(name, 'good')}")
    try:
        library.directions  # noqa: B018 (raises where two adapters serve the same)
    except ValueError as error:
        print(f"note: {error}; else the first of them does")
    if wrong:
        raise ConfigError(f"{len(wrong)} of {len(library.names)} adapters cannot be used.")


def _unfit(library: AdapterLibrary, model: Any) -> list[tuple[str, str]]:
    if not model:
        found = []
        for name in library.names:
            try:
                library.load(name)
            except (ValueError, FileNotFoundError) as error:
                found.append((name, str(error)))
        return found
    from hydra.utils import instantiate

    return library.check(instantiate(model, _convert_="all")[0])


def _align(library: AdapterLibrary, cfg: DictConfig) -> None:
    aligned = AlignedLibrary(library, align)
    made = sum(aligned.prepare(name) for name in library.names)
    for name in library.names:
        if weakness := aligned.weakness(name):
            print(f"{name} {weakness}.")
    print(f"{made} adapters aligned, {len(library.names) - made} were so before.")


def _compare(library: AdapterLibrary, cfg: DictConfig) -> None:
    from polylect.eval.table import Table, show

    if cfg.measure not in MEASURES:
        raise ConfigError(f"measure={cfg.measure} does not exist; {nearest(cfg.measure, MEASURES)}")
    found = similarities(library)
    if cfg.out:
        out = Path(cfg.out)
        write_json(out, {"adapters": library.names, **found})
        print(f"similarities: {out}")
        plots.save_all(lambda: {out.stem: plots.similarity(out)}, out.parent)
    names = library.names[:_SHOWN]
    rows = [
        (name, *("-" if v is None else f"{v:.2f}" for v in row[:_SHOWN]))
        for name, row in zip(names, found[cfg.measure], strict=False)
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
    """How alike any two adapters are, by measure; None where they have no layer in common."""
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
    for path, found in members.items():
        a = _stacked([aligned.factor(names[i], path, "a_star") for i in found])
        b = _stacked([aligned.factor(names[i], path, "b_star").T for i in found]).mT
        both = torch.meshgrid(torch.tensor(found), torch.tensor(found), indexing="ij")
        layers[both] += 1
        sums["update"][both] += update_cosines(a, b)
        sums["arrow"][both] += (a[:, 0] @ a[:, 0].T).abs()
        sums["subspace"][both] += subspace_overlaps(a)
    return {
        measure: [[None if math.isnan(v) else v for v in row] for row in (total / layers).tolist()]
        for measure, total in sums.items()
    }


def _stacked(factors: list[Tensor]) -> Tensor:
    """Lower ranks filled up with zeros."""
    rank = max(map(len, factors))
    return torch.stack([functional.pad(f, (0, 0, 0, rank - len(f))).float() for f in factors])


def _add(library: AdapterLibrary, cfg: DictConfig) -> None:
    if not cfg.source:
        raise ConfigError("give source=FOLDER: the PEFT folder to add.")
    source = Path(cfg.source).resolve()
    read_peft(source)  # refuses what could not be used
    name = cfg.adapter or source.name
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ConfigError(f"adapter={name}: use letters, digits, '_' and '-' only.")
    for direction in cfg.directions or ():
        split_direction(direction)
    if (folder := library.path / name).exists():
        raise FileExistsError(f"{folder} exists: choose another name with adapter=NAME.")
    library.path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".adding-", dir=library.path) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        for part in (CONFIG, WEIGHTS, ABOUT):
            if (source / part).is_file():
                shutil.copyfile(source / part, new / part)
        if cfg.directions:
            about = AdapterLibrary(scratch).about("new") | {"directions": plain(cfg.directions)}
            write_json(new / ABOUT, about)
        new.rename(folder)
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
    "compare": _compare,
    "add": _add,
    "remove": _remove,
}
