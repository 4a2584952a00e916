"""The typed roots of the programs with most settings, of which `polylect.config.roots` has all."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Train:
    """Root of `polylect train`."""

    name: str = "tongues"  # the run folder is runs/<name>/<time>
    runs: str = "runs"  # folder that collects the run folders
    seed: int = 1
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    dry_run: bool = False  # show what the model would see, train nothing
    # With dry_run: the rank, width or share with so many trained parameters, or floating-point
    # operations per token of a training step.
    budget: Any = field(default_factory=lambda: {"parameters": None, "operations": None})
    config: str | None = None  # run folder whose settings are taken, to make that run again
    resume: str | None = None  # checkpoint to continue from, with optimizer and data position
    init_from: str | None = None  # checkpoint to start from, weights only (the next stage)
    evaluate: bool = True  # score the best checkpoint on the test sets at the end
    evaluate_base: bool = False  # score the untouched base beside it
    objective: str | None = None  # told a sweeper; null: mean test chrF++; or val/chrf, by which
    # callbacks.checkpoint then chooses, too, as in sweep=optuna
    model: Any = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    memory: Any = None  # similar sentences with their translations, shown before training sources
    strategy: Any = field(default_factory=dict)
    optim: Any = field(default_factory=dict)
    trainer: Any = field(default_factory=dict)
    logger: Any = None  # csv, wandb, tensorboard, none, or several as in [wandb,tensorboard]
    callbacks: Any = field(default_factory=dict)
    generation: Any = field(default_factory=dict)
    metrics: list[str] = field(default_factory=lambda: ["bleu", "chrf++", "ter"])


@dataclass
class AddLanguage(Train):
    """Root of `polylect add-language`: settings of `polylect train` for what is new, and of it."""

    library: str = "???"  # folder of adapters that gets the new one
    start: str = "nearest"  # mean: of all that fit; cold: none; or the name of an adapter
    sentences: int = 200  # of the new training text, by which adapters are compared
    server: str | None = None  # address of a `polylect serve` that serves the library
    key_file: str | None = None  # with a key that it wants, if any


@dataclass
class Compare:
    """Root of `polylect compare`; its run folders may be given without `systems=`."""

    systems: list[str] = field(default_factory=list)  # run folders with scores, the baseline first
    groups: dict[str, list[str]] = field(default_factory=dict)  # or runs of each system, by name
    metric: str | None = None  # that decides; null: chrf++, or the first that made none of the runs
    test: str = "bootstrap"  # of two runs, paired; bootstrap, randomization or both
    samples: int = 1000  # resamples, or trials of the randomisation
    margin: float | None = None  # points that do not matter: equivalence is tested; state it before
    level: float = 0.05  # at which p-values, corrected, are significant
    power: float = 0.8  # of the smallest difference that would be seen
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    out: str | None = None  # file to write: .json, .md or .tsv
    picture: str | None = None  # .png to draw: the differences with their intervals
    seed: int = 1  # of the order in which human judges see two outputs
    judge: str | None = None  # .tsv to write for them: where the first two systems differ most
    judge_lines: int = 50  # of each direction
    marks: list[str] = field(default_factory=list)  # such files with marks: their verdict, no more
    neural: list[str] = field(default_factory=list)  # comet, metricx: scored if installed
    neural_folder: str = "neural"  # for what their commands read and write
    metricx_python: str | None = None  # interpreter of an environment that has metricx24


@dataclass
class Report:
    """Root of `polylect report`; its folders may be given without `folders=`."""

    folders: list[str] = field(default_factory=list)  # of runs, sweeps, recipes; baseline first
    groups: dict[str, list[str]] = field(default_factory=dict)  # runs of a system, by its name
    out: str | None = None  # file to write: .html, .md or .tex; null: report.html, .md or .tex
    form: str | None = None  # html, markdown or latex; null: by the ending of out
    title: str | None = None  # null: names the run, or says how many
    lines: int = 4  # of each direction that are shown side by side
    metric: str | None = None  # that is tested; null: as polylect compare chooses
    test: str = "bootstrap"  # of two runs, paired; bootstrap, randomization or both
    samples: int = 1000  # resamples, or trials of the randomisation
    margin: float | None = None  # points that do not matter: equivalence is tested; state it before
    level: float = 0.05  # at which p-values, corrected, are significant
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name


@dataclass
class Serve:
    """Root of `polylect serve`."""

    run: str | None = None  # run folder or checkpoint; null serves `model`
    packages: list[str] = field(default_factory=list)  # your own ones, which _target_ may name
    model: Any = None  # with run=null: the base model
    library: Any = None  # with run=null: folder of PEFT adapters for the strategy
    strategy: Any = None  # with run=null: one that needs no training; null: lora_library or frozen
    template: str | None = None  # with run=null: of prompts; null: that of the adapters, or plain
    adapters: str | None = None  # folder to load others from while it runs; null: that of the run
    beside: str | None = None  # another run, for comparison on the page; its API is under /beside
    host: str = "127.0.0.1"  # this machine alone; 0.0.0.0 lets others in, with a key
    port: int = 8000  # 0 for a free one
    key_file: str | None = None  # keys, one a line, of which each request must send one
    open: bool = False  # let other machines in without a key
    max_bytes: int = 1048576  # of a request's body; above: 413
    max_upload: int = 0  # bytes of an adapter that a client may upload into `adapters`
    max_texts: int = 256  # in a request, lines counted; above: 413
    queue: int = 2048  # texts that may wait, of all requests; above: 429
    timeout: float = 300  # seconds from a request to its answer; above: 503
    wait_ms: float = 5  # without a new text, after which a free model begins with those that came
    stop_seconds: int = 60  # after SIGTERM, for requests that run
    log_texts: bool = False  # write texts and translations to the log
    device: str = "auto"
    memory: Any = None  # similar sentences with their translations, shown before each source
    generation: Any = field(default_factory=dict)
