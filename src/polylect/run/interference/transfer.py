"""What a training did to the model and to other directions: transfer and forgetting of a run.

Forgetting is what text and directions that were not trained lose against the base. Transfer is what
a direction gains or loses by being trained together with others, against being trained alone on as
many tokens of its own.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from polylect.config.targets import instantiate
from polylect.eval.metrics import score
from polylect.eval.significance import holm
from polylect.run.build import build_data
from polylect.run.record import Record
from polylect.run.results.comparison import compare_systems, systems_of
from polylect.run.results.scored_run import ScoredRun
from polylect.run.results.scoring import likelihood
from polylect.strategies.lora_library import LoRALibrary
from polylect.translator import Translator

METRICS = ("bleu", "chrf++")
_TRIALS, _CUT = 6, 200  # bounds on a batch that are tried; batches that are cut with each
TOLERANCE = 0.05
"""By how much the tokens of a direction may differ between the run together and that alone."""


@dataclass(frozen=True)
class Questions:
    """What is measured of every run of an experiment.

    Attributes:
        text: configuration whose `data` has monolingual test sets that were not trained.
        untrained: one whose `data` has test sets of directions that were not trained.
        matrix: sentences of each trained direction for every adapter of a run; 0 for no matrix.
        sentences: of each untrained direction that are translated; None for all.
    """

    text: DictConfig
    untrained: DictConfig | None = None
    matrix: int = 0
    sentences: int | None = None


def measure_transfer(
    run: Path, questions: Questions, alone: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    """Return what a run did to the model and to other directions, and they to it.

    Args:
        run: folder of a training, or of the evaluation of a base as it is.
        questions: what is measured.
        alone: by direction the folder of a run that trained it alone, see `alone_settings`.

    Returns:
        - nats_per_token, nats_per_character: of the monolingual text, by adapter ("none" without
          any, and for strategies that have none to switch), then by language; "stage 1" is the
          stage that the run went on from, if any
        - nats_per_target: nats per target token of the run's own test sets, by direction
        - untrained: by adapter and untrained direction BLEU and chrF++ and nats_per_target
        - before: the same three of the base, of a training
        - matrix: BLEU and chrF++ of every adapter in every trained direction
        - alone: by direction the run against the one alone, see `against_alone`

    Raises:
        FileNotFoundError, ValueError: a folder is no run, or a run alone is not comparable.
    """
    record = Record.read(run)
    trained = (run / "config.yaml").is_file()
    translator = Translator.from_run(run) if trained else _base(record)
    is_library = isinstance(translator.module, LoRALibrary)
    adapters = translator.adapters if trained and is_library else []
    own = OmegaConf.create({"data": record.config["data"]})
    analysis: dict[str, Any] = _stage_before(record)
    for adapter in ("", *adapters):
        with use_adapter(translator, adapter):
            for part, values in _of_untrained(translator, questions).items():
                analysis.setdefault(part, {})[adapter or "none"] = values
    with nullcontext() if trained else use_adapter(translator, ""):
        analysis["nats_per_target"] = _likelihoods(translator, own)[0]
    if questions.matrix and len(adapters) > 1:
        analysis["matrix"] = {}
        for adapter in adapters:
            with use_adapter(translator, adapter):
                scores = _translation_scores(translator, own, questions.matrix)
            analysis["matrix"][adapter] = scores
    if trained:
        base = _base(record)
        with use_adapter(base, ""):
            analysis["before"] = _of_untrained(base, questions)
    if alone:
        analysis["alone"] = against_alone(run, alone)
    return analysis


def _stage_before(record: Record) -> dict[str, Any]:
    if not (before := record.config.get("init_from")):
        return {}
    scores = Record.read(Path(before)).metrics["test"]
    nats = {name: own["nats_per_token"] for name, own in scores.items() if "nats_per_token" in own}
    return {"nats_per_token": {"stage 1": nats}}


def _base(record: Record) -> Translator:
    """The model that a training began with, or that an evaluation scored."""
    backbone, tokenizer = instantiate(record.config["model"], "model", _convert_="all")
    return Translator.from_base(backbone, tokenizer, template=record.config["data"]["template"])


def _of_untrained(translator: Translator, questions: Questions) -> dict[str, Any]:
    """What a model, as it is set up, makes of text and directions that were not trained."""
    tokens, characters = _likelihoods(translator, questions.text)
    parts: dict[str, Any] = {"nats_per_token": tokens, "nats_per_character": characters}
    if questions.untrained is None:
        return parts
    nats, _ = _likelihoods(translator, questions.untrained)
    values = _translation_scores(translator, questions.untrained, questions.sentences)
    parts["untrained"] = {d: row | {"nats_per_target": nats[d]} for d, row in values.items()}
    return parts


def _likelihoods(
    translator: Translator, cfg: DictConfig
) -> tuple[dict[str, float], dict[str, float]]:
    """Nats per target token and per character of the test sets, by direction or language."""
    data = _data(translator, cfg)
    pairs = zip(data.directions_of("test"), data.test_dataloader(), strict=True)
    found = {name: likelihood(translator.module, batches) for name, batches in pairs}
    return (
        {name: own.per_token for name, own in found.items()},
        {name: own.per_character for name, own in found.items()},
    )


def _translation_scores(
    translator: Translator, cfg: DictConfig, sentences: int | None
) -> dict[str, Any]:
    """Value and signature of each metric in every direction."""
    data = _data(translator, cfg)
    rows = {}
    for direction in (d for d in data.directions_of("test") if "-" in d):
        prompts = data.prompts(direction, "test", sentences)
        hypotheses = [t.text for t in translator.module.translate(prompts)]
        references = [prompt.references for prompt in prompts]
        target = direction.split("-")[1]
        values = score(hypotheses, references, metrics=list(METRICS), target=target)
        rows[direction] = {s.name: {"value": s.value, "signature": s.signature} for s in values}
    return rows


def _data(translator: Translator, cfg: DictConfig) -> Any:
    data = build_data(cfg)
    data.tokenizer, data.template = translator.module.tokenizer, translator.module.template
    data.setup("test")
    return data


def use_adapter(translator: Translator, adapter: str) -> AbstractContextManager[Any]:
    """Every row through this adapter of a library, or none; other strategies as they are."""
    if isinstance(translator.module, LoRALibrary):
        return translator.module.use_adapter(adapter)
    return nullcontext()


# Together against alone.


def alone_settings(run: Path, direction: str) -> list[str]:
    """Return overrides with which the training of a run is of one direction alone.

    It makes as many steps, each with about as many tokens of the direction as it had together: the
    bound on a batch is the best of a few with which the training text was cut for a while.
    Raises ValueError for a direction that the run did not train.
    """
    record = Record.read(run)
    drawn = record.data.get("drawn", {})
    wanted = _drawn(run, record, direction) / drawn["batches"]
    tokenizer = _base(record).module.tokenizer
    share = wanted * drawn["batches"] / sum(drawn["target_tokens"].values())
    size = round(record.config["data"]["tokens_per_batch"] * share)
    length = min(drawn["batches"], _CUT)
    tried: dict[int, float] = {}
    while size not in tried and len(tried) < _TRIALS:
        tried[size] = _tokens_of_a_batch(record, direction, tokenizer, size, length)
        size = max(1, round(size * wanted / tried[size]))
    best = min(tried, key=lambda size: abs(tried[size] - wanted))
    return [f"data.directions=[{direction}]", f"data.tokens_per_batch={best}"]


def _tokens_of_a_batch(
    record: Record, direction: str, tokenizer: Any, size: int, length: int
) -> float:
    """Target tokens in the mean of the first batches of a training of one direction."""
    changed = {"directions": [direction], "tokens_per_batch": size}
    data = build_data(OmegaConf.create({"data": record.config["data"] | changed}))
    data.tokenizer = tokenizer
    data.setup("fit")
    stream = data.training_stream(length)
    for _ in stream:
        pass
    return max(stream.report()["target_tokens"][direction], 1) / length


def against_alone(run: Path, alone: Mapping[str, Path], metric: str = "chrf++") -> dict[str, Any]:
    """Return by direction how a run that trained it with others differs from one of it alone.

    Of each: the target tokens of the direction that both were given, the metric's two values with
    its signature, the difference (above 0: the others help) with its 95 % interval, and p-values of
    a paired bootstrap, by themselves and corrected by Holm's method over the directions.

    Raises:
        FileNotFoundError, ValueError: a folder is no scored run, or the tokens of the direction
            differ by more than 5 %.
    """
    rows: dict[str, Any] = {}
    for direction, folder in alone.items():
        _check_tokens(direction, run, folder)
        both = [ScoredRun.read(folder), ScoredRun.read(run)]
        (found,) = [
            c for c in compare_systems(systems_of(both), metric) if c.direction == direction
        ]
        records = {"together": both[1].record, "alone": both[0].record}
        rows[direction] = {
            "target_tokens": {
                name: record.data["drawn"]["target_tokens"][direction]
                for name, record in records.items()
            },
            metric: {"together": found.system, "alone": found.baseline},
            "signature": found.signature,
            "difference": found.difference,
            "interval": list(found.interval),
            "p": found.p,
        }
    for row, p in zip(rows.values(), holm([row["p"] for row in rows.values()]), strict=True):
        row["p_holm"] = p
    return rows


def _check_tokens(direction: str, run: Path, alone: Path) -> None:
    record = Record.read(alone)
    together, own = (_drawn(r, Record.read(r), direction) for r in (run, alone))
    if abs(own - together) <= TOLERANCE * together:
        return
    size = record.config["data"]["tokens_per_batch"]
    raise ValueError(
        f"{alone} was given {own:,} target tokens of {direction} and {run} {together:,}: train it "
        f"alone with data.tokens_per_batch={round(size * together / own)} and as many steps."
    )


def _drawn(run: Path, record: Record, direction: str) -> int:
    """Target tokens of a direction that a run was given."""
    counts: Mapping[str, int] = record.data.get("drawn", {}).get("target_tokens", {})
    if not counts.get(direction):
        raise ValueError(
            f"{run} did not train {direction}; it trained {', '.join(counts) or 'nothing'}."
        )
    return counts[direction]


def directions_alone(run: Path) -> Sequence[str]:
    """Return the directions of translation that a run has trained, each of which can be alone."""
    counts: Mapping[str, int] = Record.read(run).data.get("drawn", {}).get("target_tokens", {})
    return [direction for direction in counts if "-" in direction]
