"""The typed root of `polylect compare`."""

from dataclasses import dataclass, field


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
    seed: int = 1  # of the order in which human judges see two outputs
    judge: str | None = None  # .tsv to write for them: where the first two systems differ most
    judge_lines: int = 50  # of each direction
    marks: list[str] = field(default_factory=list)  # such files with marks: their verdict, no more
    neural: list[str] = field(default_factory=list)  # comet, metricx: scored if installed
    neural_folder: str = "neural"  # for what their commands read and write
    metricx_python: str | None = None  # interpreter of an environment that has metricx24
