"""Configuration: the typed roots, where the files are, and the check before anything heavy is done.

The root of each program is a dataclass, so the types of our own scalars are checked while Hydra
composes. Below the root the signature of each `_target_` is the schema: `validate` binds every
node to the constructor it names and reports a wrong key or type by its config path.
"""

import inspect
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from polylect.hints import nearest

_NUMBER = float | int  # a float parameter that takes 1 for 1.0
_TYPES = (int, float, bool, str, _NUMBER)
_SIMPLE = (*_TYPES, *(kind | None for kind in _TYPES))


class ConfigError(ValueError):
    """A setting is wrong; the message is one sentence for the user."""


@dataclass
class Train:
    """Root of `polylect train`."""

    name: str = "tongues"  # the run folder is runs/<name>/<time>
    runs: str = "runs"  # folder that collects the run folders
    seed: int = 1
    dry_run: bool = False  # show what the model would see, train nothing
    resume: str | None = None  # checkpoint to continue from, with optimizer and data position
    init_from: str | None = None  # checkpoint to start from, weights only (the next stage)
    evaluate: bool = True  # score the best checkpoint on the test sets at the end
    evaluate_base: bool = False  # score the untouched base beside it
    model: Any = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    strategy: Any = field(default_factory=dict)
    optim: Any = field(default_factory=dict)
    trainer: Any = field(default_factory=dict)
    logger: Any = None
    callbacks: Any = field(default_factory=dict)
    generation: Any = field(default_factory=dict)
    metrics: list[str] = field(default_factory=lambda: ["bleu", "chrf++", "ter"])


@dataclass
class Evaluate:
    """Root of `polylect evaluate`."""

    run: str | None = None  # run folder or checkpoint to score; null scores `model` as it is
    name: str = "evaluate"
    runs: str = "runs"
    seed: int = 1
    split: str = "test"
    limit: int | None = None  # score only the first so many sentences of each direction
    device: str = "auto"
    model: Any = None  # with run=null: the base model to score
    strategy: Any = None  # with run=null: one that needs no training; null is the base as it is
    data: Any = None  # null takes the data of the run
    memory: Any = None  # similar sentences with their translations, shown before each source
    generation: Any = field(default_factory=dict)
    metrics: list[str] = field(default_factory=lambda: ["bleu", "chrf++", "ter"])


@dataclass
class Answer:
    """Root of `polylect answer`."""

    name: str = "answer"
    runs: str = "runs"
    seed: int = 1
    limit: int | None = None  # only the first so many questions of each data set
    oracle: str | None = None  # run folder of the Oracle's answers, to take the share of its scores
    retrieval: str | None = None  # passage: BM25's best is shown; adapter: its article's is named
    passage_words: int = 100  # length of a passage
    device: str = "auto"
    model: Any = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    strategy: Any = field(default_factory=dict)
    generation: Any = field(default_factory=dict)


@dataclass
class Translate:
    """Root of `polylect translate`."""

    run: str = "???"  # run folder or checkpoint
    direction: str | None = None  # null: a second, tab-separated column names it line by line
    input: str = "-"  # file, or - for standard input
    output: str = "-"  # file, or - for standard output
    start: int = 0  # lines to skip: how an interrupted job goes on
    lines_per_chunk: int = 256  # lines read ahead, sorted by length and translated together
    device: str = "auto"
    memory: Any = None  # similar sentences with their translations, shown before each source
    generation: Any = field(default_factory=dict)


@dataclass
class Pretrain:
    """Root of `polylect pretrain`."""

    out: str = "???"  # folder to write: a plain Hugging Face model
    seed: int = 1
    languages: list[str] = field(default_factory=list)
    text: Any = None  # monolingual text: one corpus for all languages, or per language
    root: str | None = None  # folder that relative paths start from
    retellings: dict[str, int] = field(default_factory=dict)  # embedded texts, see pretrain.py
    base: Any = field(default_factory=dict)  # sizes and optimisation


@dataclass
class Layers:
    """Which layers `polylect detect` chooses."""

    k: int = 4
    rule: Any = "relevant"  # relevant, per_direction, random, last, all, or a list of layers
    form: str = "vector"  # what is compared between layers: vector, normalised or scalar


@dataclass
class Categories:
    """How `polylect detect` sorts the neurons of the chosen layers."""

    rule: str = "std"  # std, cv, sum, entropy or random
    rho: float = 0.7  # share of general neurons
    own: float = 0.9  # a direction within this of the largest score owns a specific neuron
    share: float = 1.0  # of all neurons, the most aware; the others belong to nobody
    positions: str = "all"  # where awareness counts: all, source or target tokens


@dataclass
class Detect:
    """Root of `polylect detect`."""

    name: str = "detect"
    runs: str = "runs"
    seed: int = 1  # of the random rules
    resume: str | None = None  # run folder of an interrupted detection to go on with
    scores: str | None = None  # neuron file whose scores are used: no model and no data are read
    split: str = "val"  # text to measure on; train where a direction has no val corpus
    sentences: int | None = 512  # of each direction; null for all
    save_every: int = 50  # batches after which the sums are saved, for resume
    device: str = "auto"
    model: Any = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    layers: Layers = field(default_factory=Layers)
    categories: Categories = field(default_factory=Categories)


@dataclass
class Recipe:
    """Root of `polylect recipe`."""

    name: str = "recipe"
    runs: str = "runs"
    seed: int = 1  # of every stage
    resume: str | None = None  # folder of an interrupted recipe: its finished stages are kept
    common: list[str] = field(default_factory=list)  # overrides of every stage
    extra: dict[str, list[str]] = field(default_factory=dict)  # overrides of a stage, by its name
    stages: Any = field(default_factory=dict)  # name: {program, overrides}, in their order


@dataclass
class Library:
    """Root of `polylect library`."""

    path: str = "???"  # folder of adapters
    action: str = "list"  # list, check, align, compare, add, remove
    adapter: str | None = None  # add, remove: its name; add takes that of the folder by default
    source: str | None = None  # add: the PEFT folder to copy
    directions: list[str] | None = None  # add: those that it serves
    measure: str = "update"  # compare: the table to show; update, arrow or subspace
    out: str | None = None  # compare: JSON file to write, with all three tables
    model: Any = None  # check: the base that adapters are to fit


SCHEMAS = {
    "train": Train,
    "evaluate": Evaluate,
    "answer": Answer,
    "translate": Translate,
    "detect": Detect,
    "pretrain": Pretrain,
    "recipe": Recipe,
    "library": Library,
}

_store = ConfigStore.instance()
for _name, _schema in SCHEMAS.items():
    _store.store(name=f"{_name}_schema", node=_schema)


def conf_folder() -> Path:
    """The folder of YAML files: beside `src` in a checkout, inside the package in a wheel."""
    package = Path(__file__).parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def target_parameters(node: Any) -> dict[str, inspect.Parameter]:
    """The parameters that the node's `_target_` takes by name; empty where it takes any.

    Raises ConfigError where the target cannot be imported.
    """
    from hydra.utils import get_object

    path = node["_target_"]
    logging.getLogger("hydra.utils").disabled = True  # it would print what is raised as well
    try:
        target = get_object(path)
    except Exception as error:
        raise ConfigError(f"_target_ {path} cannot be imported: {error}") from error
    found: dict[str, inspect.Parameter] = {}
    for callable_ in _constructors(target):
        parameters = inspect.signature(callable_).parameters
        found |= {name: p for name, p in parameters.items() if name not in found}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
            return {n: p for n, p in found.items() if n != "self" and p.kind in named}
    return {}


def _constructors(target: Any) -> Iterator[Any]:
    """The target itself, or of a class each `__init__` that `**keywords` are handed up to."""
    if not inspect.isclass(target):
        yield target
        return
    for cls in target.__mro__[:-1]:
        if "__init__" in vars(cls):
            yield cls.__init__


def validate(cfg: DictConfig) -> None:
    """Check every node that names a `_target_` against that target's signature.

    Raises:
        ConfigError: all mistakes together, one line each, with the config path.
    """
    mistakes = list(_root_mistakes(cfg)) + list(_mistakes(cfg, ""))
    if mistakes:
        raise ConfigError("\n".join(mistakes))


def _root_mistakes(cfg: DictConfig) -> Iterator[str]:
    """Keys added with `+key=…` at the root, which nothing would ever read."""
    schema = OmegaConf.get_type(cfg)
    if schema in SCHEMAS.values():
        known = [f.name for f in fields(schema)]
        for key in cfg:
            if key not in known:
                yield f"config key {key} does not exist; {nearest(str(key), known)}"
            elif OmegaConf.is_missing(cfg, key):
                yield f"config key {key} must be given, as in {key}=VALUE"


def _mistakes(node: Any, path: str) -> Iterator[str]:
    if not isinstance(node, DictConfig):
        return
    if "_target_" in node:
        yield from _signature_mistakes(node, path)
    for key in node:
        if not OmegaConf.is_missing(node, key):
            yield from _mistakes(node[key], f"{path}.{key}" if path else str(key))


def _signature_mistakes(node: DictConfig, path: str) -> Iterator[str]:
    parameters = target_parameters(node)
    if not parameters:
        return
    given = [str(key) for key in node if not str(key).startswith("_")]
    for key in given:
        if key not in parameters:
            yield f"config key {path}.{key} does not exist; {nearest(key, list(parameters))}"
    # OmegaConf converts and checks simple types; everything else is the constructor's business.
    missing = [key for key in given if OmegaConf.is_missing(node, key)]
    for key in missing:
        yield f"config key {path}.{key} must be given, as in {path}.{key}=VALUE"
    typed = [(k, parameters[k].annotation) for k in given if k in parameters and k not in missing]
    simple = [(k, annotation) for k, annotation in typed if annotation in _SIMPLE]
    schema = OmegaConf.structured(make_dataclass("Schema", [(k, t, MISSING) for k, t in simple]))
    for key, annotation in simple:
        try:
            schema[key] = node[key]
        except OmegaConfBaseException:
            wanted = getattr(annotation, "__name__", str(annotation))
            yield f"config key {path}.{key} must be of type {wanted}, got {node[key]!r}"


def plain(node: Any) -> Any:
    """The node as plain Python values, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
