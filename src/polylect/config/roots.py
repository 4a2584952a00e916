"""Configuration: the typed roots of the programs, and where the files are.

The root of each program is a dataclass, so the types of our own scalars are checked while Hydra
composes. What stands below the root `polylect.config.validation` checks.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from polylect.config.large_roots import AddLanguage, Compare, Report, Serve, Train


class ConfigError(ValueError):
    """A setting is wrong; the message is one sentence for the user."""


@dataclass
class Evaluate:
    """Root of `polylect evaluate`."""

    run: str | None = None  # run folder or checkpoint to score; null scores `model` as it is
    name: str = "evaluate"
    runs: str = "runs"
    seed: int = 1
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    split: str = "test"
    limit: int | None = None  # score only the first so many sentences of each direction
    device: str = "auto"
    model: Any = None  # with run=null: the base model to score
    strategy: Any = None  # with run=null: one that needs no training; null is the base as it is
    library: Any = None  # folder of PEFT adapters for the strategy; without one: lora_library
    adapter: str | None = None  # of the library or run, for all lines, whichever direction it has
    data: Any = None  # null takes the data of the run
    compare: Any = None  # run folder, or a list: what they scored is tested against this system
    shots: int = 0  # examples from data.train, the same ones before all sources of a direction
    memory: Any = None  # similar sentences with their translations, shown before each source
    logger: Any = None  # beside the record: csv, wandb, tensorboard, or several
    generation: Any = field(default_factory=dict)
    metrics: list[str] = field(default_factory=lambda: ["bleu", "chrf++", "ter"])


@dataclass
class Answer:
    """Root of `polylect answer`."""

    name: str = "answer"
    runs: str = "runs"
    seed: int = 1
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
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

    run: str | None = None  # run folder or checkpoint; null translates with `model`
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    model: Any = None  # with run=null: the base model
    library: Any = None  # with run=null: folder of PEFT adapters for the strategy
    strategy: Any = None  # with run=null: one that needs no training; null: lora_library or frozen
    template: str | None = None  # with run=null: of prompts; null: that of the adapters, or plain
    direction: str | None = None  # null: a second, tab-separated column names it line by line
    adapter: str | None = None  # for all lines; null: the one that serves the direction
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
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    languages: list[str] = field(default_factory=list)
    text: Any = None  # monolingual text: one corpus for all languages, or per language
    root: str | None = None  # folder that relative paths start from
    retellings: dict[str, int] = field(default_factory=dict)  # embedded texts, see pretrain.py
    base: Any = field(default_factory=dict)  # sizes and optimisation


@dataclass
class Trim:
    """Root of `polylect trim`."""

    out: str = "???"  # folder to write: a plain Hugging Face model
    seed: int = 1  # of the embeddings of new tokens
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    count: int | None = None  # keep tokens that occur so often in data.train; 1 if no rule is given
    coverage: float | None = None  # or the most frequent ones that make up this share of it
    size: int | None = None  # or as many as fit into so many entries
    languages: list[str] = field(default_factory=list)  # keep all tokens in the scripts of these
    tokens: list[str] = field(default_factory=list)  # new special tokens, such as <2ta>
    lines: int = 40  # held-out lines of each language to measure the likelihood on; 0 for none
    model: Any = field(default_factory=dict)
    data: Any = None  # train decides what is kept, test (else val) is measured


@dataclass
class Layers:
    """Which layers `polylect detect` chooses."""

    k: int = 4
    rule: Any = "relevant"  # relevant, per_direction, random, last, all, or a list of layers
    form: str = "vector"  # what is compared between layers: vector, normalised or scalar


@dataclass
class Categories:
    """How `polylect detect` sorts the neurons of the chosen layers."""

    rule: str = "std"  # std, cv, sum, entropy, random or rotated
    rho: float = 0.9  # share of general neurons
    own: float = 0.9  # a direction within this of the largest score owns a specific neuron
    share: float = 1.0  # of all neurons, the most aware; the others belong to nobody
    positions: str = "all"  # where awareness counts: all, source or target tokens
    per_language_normalisation: bool = True  # scores of a language are divided by their mean


@dataclass
class Detect:
    """Root of `polylect detect`."""

    name: str = "detect"
    runs: str = "runs"
    seed: int = 1  # of the random rules
    dry_run: bool = False  # show memory and cost, measure nothing; needs no weights
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    resume: str | None = None  # run folder of an interrupted detection to go on with
    neurons: Any = None  # ffn, rows (of all modules), modules as in [self_attn.q_proj]; null: ffn
    scores: str | None = None  # neuron file whose scores are used: no model and no data are read
    split: str = "val"  # text to measure on; train where a direction has no val corpus
    sentences: int | None = 512  # of each direction; null for all
    average: str = "tokens"  # awareness: mean over all tokens; sentences: sum of means of sentences
    label_shift: bool = False  # each position is asked for the token after the next one
    pad_labels: bool = False  # padding is learned as tokens of the target
    precision: str = "32-true"  # bf16-mixed: products in bfloat16; auto: what is fast here
    save_every: int = 50  # batches after which the sums are saved, for resume
    device: str = "auto"
    model: Any = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    logger: Any = None  # beside the record: csv, wandb, tensorboard, or several
    layers: Layers = field(default_factory=Layers)
    categories: Categories = field(default_factory=Categories)


@dataclass
class Recipe:
    """Root of `polylect recipe`."""

    name: str = "recipe"
    runs: str = "runs"
    seed: int = 1  # of every stage that gives none of its own
    resume: str | None = None  # folder of an interrupted recipe: its finished stages are kept
    reuse: bool = True  # stages that any recipe has done with the same settings, files and code
    dry_run: bool = False  # list the stages with their steps, run nothing
    like: str | None = None  # dry_run: this recipe's folder with few steps, by which hours are told
    common: list[str] = field(default_factory=list)  # overrides of every stage
    extra: dict[str, list[str]] = field(default_factory=dict)  # overrides of a stage, by its name
    shared: Any = field(default_factory=dict)  # overrides, or lists of them, for ${shared.NAME}
    stages: Any = field(
        default_factory=dict
    )  # name: {program, overrides[, trials]}, in their order


@dataclass
class Library:
    """Root of `polylect library`."""

    path: str = "???"  # folder of adapters
    action: str = "list"  # list, check, align, inputs, compare, add, remove
    seed: int = 1
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    adapter: str | None = None  # add, remove: its name; add takes that of the folder by default
    sentences: int = 300  # inputs: of each adapter's training text
    source: str | None = None  # add: the PEFT folder to copy
    directions: list[str] | None = None  # add: those that it serves
    measure: str = "update"  # compare: the table to show; update, arrow or subspace
    out: str | None = None  # compare: JSON file to write, with all three tables
    model: Any = None  # check, inputs: the base that adapters are to fit
    data: Any = None  # inputs: what the adapters were trained on


@dataclass
class Export:
    """Root of `polylect export`."""

    run: str | None = None  # run folder or checkpoint; null takes `model` and `library`
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    model: Any = None  # with run=null: the base model
    library: Any = None  # with run=null: folder of PEFT adapters
    strategy: Any = None  # with run=null: null is lora_library
    form: str = "merged"  # or adapters, gguf, rows, model
    name: str | None = None  # one direction or adapter, written to `out` itself; null: all
    out: str = "???"  # folder to make
    gguf: str | None = None  # with form=gguf: the base in that format, for whole models beside it
    hub: str | None = None  # OWNER/NAME: upload it there, with a model card
    dry_run: bool = False  # with hub: write and show what would be uploaded, and upload nothing
    device: str = "auto"
    generation: Any = field(default_factory=dict)


@dataclass
class Verify:
    """Root of `polylect verify`; the target may be given without `target=`."""

    target: str = "???"  # run, adapter or model folder, a folder of such, or a server's address
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    seed: int = 1  # of what is switched when
    turns: int = 20  # random batches, with adapters loaded and unloaded in between
    passport: str | None = None  # of a server: folder whose golden outputs it has to reproduce
    name: str | None = None  # of a server: its model; null: named as direction or adapter
    prompts: str = "ids"  # to a server: token ids, or text
    key_file: str | None = None  # of a server that wants a key: file with one
    model: Any = None  # of adapters: their base, where they do not name it
    strategy: Any = None  # of a folder of adapters: one that routes; null: lora_library
    device: str = "auto"
    out: str | None = None  # JSON file to write, with all checks


@dataclass
class Init:
    """Root of `polylect init`; the folder may be given without `folder=`."""

    folder: str = "???"  # to lay the project in


@dataclass
class Data:
    """Root of `polylect data`."""

    seed: int = 1
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    sample: int | None = 20000  # most pairs of each corpus to tokenise; null for all
    repetitions: bool = True  # false: not counted, and memory does not grow with the texts
    out: str | None = None  # JSON file to write, with all that is printed and more
    model: Any = field(default_factory=dict)  # whose tokenizer and context count
    data: Any = field(default_factory=dict)


_ROOTS = (
    Init, Train, Evaluate, Answer, Translate, Serve, Detect, Pretrain, Trim, Recipe, Library,
    Compare, Report, Export, Verify, Data, AddLanguage,
)  # fmt: skip
SCHEMAS = {re.sub(r"(?<=[a-z])(?=[A-Z])", "-", root.__name__).lower(): root for root in _ROOTS}

_store = ConfigStore.instance()
for _name, _schema in SCHEMAS.items():
    _store.store(name=f"{_name}_schema", node=_schema)


def conf_folder() -> Path:
    """Return the folder of YAML files: beside `src` in a checkout, in the package in a wheel."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def plain(node: Any) -> Any:
    """Return the node as plain Python values, interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
