"""`polylect answer`: questions on articles, answered with adapters of tasks and of articles."""

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config.roots import ConfigError, plain
from polylect.config.validation import validate
from polylect.data.kilt import Question
from polylect.did_you_mean import check_known
from polylect.eval.answers import METRICS, answer_score, oracle_share
from polylect.files import write_json, write_text
from polylect.run.record import Record, advise_on_failure
from polylect.run.session import session

RETRIEVALS = ("passage", "adapter")

_CALIBRATION = 64
"""Texts of each adapter that form=calibrated is measured on."""


def main(cfg: DictConfig) -> float | None:
    """Answer, score and record; returns the mean over the tasks of their scores, 0 to 100."""
    print(f"polylect answer: {cfg.name}, loading …", flush=True)

    _check(cfg)
    with session(cfg) as folder:
        validate(cfg)
        return _run(cfg, folder)


def _check(cfg: DictConfig) -> None:
    if cfg.limit is not None and cfg.limit < 1:
        raise ConfigError(f"limit must be at least 1, got {cfg.limit}.")
    if cfg.retrieval is not None:
        check_known("retrieval", cfg.retrieval, RETRIEVALS, ConfigError)


def _run(cfg: DictConfig, folder: Path) -> float | None:
    begin = time.monotonic()
    from polylect.data.questions import QuestionData
    from polylect.run.build import build_data
    from polylect.run.terminal import quiet
    from polylect.run.untrained_model import build_untrained
    from polylect.translator import device_of

    quiet()
    data = build_data(cfg)
    if not isinstance(data, QuestionData):
        raise ConfigError("polylect answer needs questions: give data=facts or data=kilt.")
    questions = data.questions(cfg.limit)
    if not questions:
        raise ConfigError("there is no question on these articles: see data.source.")
    oracle = _oracle(cfg.oracle, data, questions)
    if cfg.retrieval is not None:
        questions = retrieve(questions, data, cfg.retrieval, cfg.passage_words)
    module = build_untrained(cfg)
    module.to(device_of(cfg.device))
    data.set_backbone(module.backbone, module.tokenizer)
    data.template = module.template
    record = Record(run=str(folder), config=plain(cfg))
    with record.saved_to(folder, begin):
        record.metrics |= answer(module, data, questions, folder, oracle)
    print(f"answers: {folder / 'answers.jsonl'}")
    return record.metrics["objective"]


def retrieve(questions: Sequence[Question], data: Any, how: str, words: int) -> list[Question]:
    """Return the questions with what BM25 finds for them in the articles.

    They stay as they are where it finds none.

    "passage" shows the best passage, "adapter" names the article that has it, in place of the
    right one.
    """
    from polylect.retrieval.documents import Documents

    source = data.source
    documents = Documents({a: "\n".join(source.texts(a)) for a in source.articles}, words=words)
    matched = []
    for question in questions:
        hits = documents.hits(question.text)
        if hits and how == "passage":
            question = replace(question, passage=hits[0].passage.text)
        elif hits:
            question = replace(question, named=hits[0].passage.document)
        matched.append(question)
    return matched


def answer(
    module: Any,
    data: Any,
    questions: Sequence[Question],
    folder: Path,
    oracle: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Answer every question and score them; writes `answers.jsonl` and `scores.json`.

    Args:
        module: a strategy with its base; one that has libraries "task" or "knowledge" is told
            which of their adapters serves each question.
        oracle: scores of the Oracle by data set; None leaves its share out.

    Returns:
        "test": by data set its task, metric and "score", all metrics, how many questions there
        are, how many answers ran into the length cap, and how many questions left no room for one;
        "tasks": score by task; "objective": their mean; where they exist "share" of the Oracle by
        task and on average, and "routing".
    """
    from polylect.layers.adapters.counts import agreement, by_layer
    from polylect.run.results.scoring import translate_all

    if module.libraries:
        adapters_of = data.adapters_by_direction(questions)
        libraries = module.libraries.keys()
        module.serve(
            {
                d: {k: v for k, v in adapters.items() if k in libraries}
                for d, adapters in adapters_of.items()
            }
        )
        if module.is_calibrated:
            module.calibrate(_own_text(data, libraries))
    answers = translate_all(module, data.ask(questions), "answering")
    pairs = list(zip(questions, answers, strict=True))
    lines = [json.dumps(_line(q, a.text), ensure_ascii=False) for q, a in pairs]
    with advise_on_failure("give the same command again"):
        write_text(folder / "answers.jsonl", "".join(f"{line}\n" for line in lines))
    test = {
        name: _scores([(q, a) for q, a in pairs if q.data_set == name], data)
        for name in dict.fromkeys(question.data_set for question in questions)
    }
    tasks = _by_task(test)
    results = {"test": test, "tasks": tasks, "objective": sum(tasks.values()) / len(tasks)}
    if oracle is not None:
        results["share"] = _shares(test, oracle)
    if rows := module.routing_rows():
        results["routing"] = {"agreement": agreement(rows), "layers": by_layer(rows)}
    with advise_on_failure("give the same command again"):
        write_json(folder / "scores.json", results)
    _show(results)
    return results


def _own_text(data: Any, libraries: Iterable[str]) -> Iterator[Any]:
    """Yield batches of the text that the libraries' adapters were trained on, alike for each."""
    from polylect.data.batch import pad_id
    from polylect.data.questions import PARTS, QuestionData
    from polylect.data.stream import EvaluationBatches

    for part in (part for part in PARTS if part in libraries):
        learnt = QuestionData(source=data.source, part=part)
        learnt.tokenizer, learnt.template = data.tokenizer, data.template
        learnt.setup("fit")
        for unit in learnt.directions:
            examples = learnt.examples(unit, "train", _CALIBRATION)
            fitting = [e for e in examples if e.length <= data.context.length]
            yield from EvaluationBatches(
                fitting, data.tokens_per_batch, data.max_rows, pad_id(data.tokenizer)
            )


def _line(question: Question, text: str) -> dict[str, Any]:
    return {
        "id": question.id,
        "data_set": question.data_set,
        "input": question.source,
        "answer": text,
        "gold": list(question.answers),
        "articles": list(question.articles),
        "named": question.article,
    }


def _scores(pairs: Sequence[tuple[Question, Any]], data: Any) -> dict[str, Any]:
    """Return the scores of one data set."""
    texts, gold = [a.text for _, a in pairs], [q.answers for q, _ in pairs]
    values = {metric: answer_score(metric, texts, gold) for metric in METRICS}
    data_set = data.source.data_sets[pairs[0][0].data_set]
    return {
        "task": data_set.task,
        "metric": data_set.metric,
        "score": values[data_set.metric],
        **values,
        "questions": len(pairs),
        "capped": sum(a.capped for _, a in pairs),
        "too_long": sum(a.too_long for _, a in pairs),
    }


def _by_task(test: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean score of each task over its questions."""
    means: dict[str, float] = {}
    for task in dict.fromkeys(row["task"] for row in test.values()):
        own = [row for row in test.values() if row["task"] == task]
        total = sum(row["questions"] for row in own)
        means[task] = sum(row["score"] * row["questions"] for row in own) / total
    return means


def _shares(test: Mapping[str, Mapping[str, Any]], oracle: Mapping[str, float]) -> dict[str, float]:
    """Return each task's share of the Oracle's score, and their mean as "average", in percent."""
    shares = {}
    for task in dict.fromkeys(row["task"] for row in test.values()):
        own = {name: row for name, row in test.items() if row["task"] == task}
        scores = {name: row["score"] for name, row in own.items()}
        shares[task] = oracle_share(scores, oracle, {n: row["questions"] for n, row in own.items()})
    return shares | {"average": sum(shares.values()) / len(shares)}


def _oracle(run: str | None, data: Any, questions: Sequence[Question]) -> dict[str, float] | None:
    """Return the Oracle's scores by data set; raises ConfigError if it answered other questions."""
    if run is None:
        return None
    file = Path(run) / "answers.jsonl"
    if not file.is_file():
        raise ConfigError(f"oracle={run} is no folder of answers: it lacks answers.jsonl.")
    # At LF alone: an answer may hold other characters that end lines elsewhere.
    lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    try:
        answered = [json.loads(line) for line in lines]
    except ValueError as error:
        raise ConfigError(f"oracle={run} has a damaged {file.name}: {error}.") from error
    if [(a["data_set"], a["id"]) for a in answered] != [(q.data_set, q.id) for q in questions]:
        raise ConfigError(f"oracle={run} answered other questions: give the same data and limit.")
    test = Record.read(Path(run)).metrics["test"]
    scores = {name: row["score"] for name, row in test.items()}
    for name, score in scores.items():
        if score <= 0:
            raise ConfigError(
                f"oracle={run} has no right answer in {name}: there is nothing to take a share of."
            )
    return scores


def _show(results: Mapping[str, Any]) -> None:
    """Print a line per data set, the Oracle's share, and how often the right adapter was chosen."""
    for name, row in results["test"].items():
        long = f", {row['too_long']} too long for the model" if row["too_long"] else ""
        print(
            f"{name:20} {row['metric']:12} {row['score']:6.1f}  "
            f"of {row['questions']} questions{long}"
        )
    for task, share in results.get("share", {}).items():
        print(f"share of the Oracle  {task:20} {share:6.1f} %")
    for library, sides in results.get("routing", {}).get("agreement", {}).items():
        shares = ", ".join(f"{side} tokens {100 * share:.1f} %" for side, share in sides.items())
        print(f"right adapter chosen in library {library}: {shares}")
