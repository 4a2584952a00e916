"""`polylect answer`: questions on articles, answered with adapters of tasks and of articles."""

import json
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from polylect.config import ConfigError, plain, validate
from polylect.data.kilt import Question
from polylect.eval.answers import METRICS, answer_score, oracle_share
from polylect.hints import nearest
from polylect.record import Record, write_json, write_text

RETRIEVALS = ("passage", "adapter")

_CALIBRATION = 64
"""Texts of each adapter that form=calibrated is measured on."""


def main(cfg: DictConfig) -> float | None:
    """Answer, score and record; returns the mean over the tasks of their scores, 0 to 100."""
    print(f"polylect answer: {cfg.name}, loading …", flush=True)
    from polylect.train import handling, register_resolvers, run_folder, stop

    _check(cfg)
    with run_folder(cfg) as folder, handling({signal.SIGTERM: stop}):
        register_resolvers(folder)
        validate(cfg)
        return _run(cfg, folder)


def _check(cfg: DictConfig) -> None:
    if cfg.limit is not None and cfg.limit < 1:
        raise ConfigError(f"limit must be at least 1, got {cfg.limit}.")
    if cfg.retrieval is not None and cfg.retrieval not in RETRIEVALS:
        raise ConfigError(
            f"retrieval={cfg.retrieval} does not exist; {nearest(cfg.retrieval, RETRIEVALS)}"
        )


def _run(cfg: DictConfig, folder: Path) -> float | None:
    begin = time.monotonic()
    from polylect.build import build_data
    from polylect.data.questions import QuestionData
    from polylect.evaluate import untrained
    from polylect.terminal import quiet
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
        questions = retrieved(questions, data, cfg.retrieval, cfg.passage_words)
    module = untrained(cfg)
    module.to(device_of(cfg.device))
    data.tokenizer, data.template = module.tokenizer, module.template
    record = Record(run=str(folder), config=plain(cfg))
    with record.kept(folder, begin):
        record.metrics |= answer(module, data, questions, folder, oracle)
    print(f"answers: {folder / 'answers.jsonl'}")
    return record.metrics["objective"]


def retrieved(questions: Sequence[Question], data: Any, how: str, words: int) -> list[Question]:
    """The questions with what BM25 finds for them in the articles; as they are where it finds none.

    "passage" shows the best passage, "adapter" names the article that has it, in place of the
    right one.
    """
    from polylect.retrieval.documents import Documents

    source = data.source
    documents = Documents({a: "\n".join(source.texts(a)) for a in source.articles}, words=words)
    found = []
    for question in questions:
        hits = documents.hits(question.text)
        if hits and how == "passage":
            question = replace(question, passage=hits[0].passage.text)
        elif hits:
            question = replace(question, named=hits[0].passage.document)
        found.append(question)
    return found


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
        "test": by data set its task, metric and "score", all metrics, and how many questions there
        are and how many answers ran into the length cap; "tasks": score by task; "objective": their
        mean; where they exist "share" of the Oracle by task and on average, and "routing".
    """
    from polylect.evaluate import decode
    from polylect.layers.route_counts import agreement, by_layer

    if hasattr(module, "serve"):
        of_all = data.serving(questions)
        libraries = module.libraries
        module.serve(
            {d: {k: v for k, v in of.items() if k in libraries} for d, of in of_all.items()}
        )
        if module.router.settings.form == "calibrated":
            module.calibrate(_own_text(data, libraries))
    answers = decode(module, data.ask(questions), "answering")
    pairs = list(zip(questions, answers, strict=True))
    lines = [json.dumps(_line(q, a.text), ensure_ascii=False) for q, a in pairs]
    write_text(folder / "answers.jsonl", "".join(f"{line}\n" for line in lines))
    test = {
        name: _scores([(q, a) for q, a in pairs if q.data_set == name], data)
        for name in dict.fromkeys(question.data_set for question in questions)
    }
    tasks = _by_task(test)
    found = {"test": test, "tasks": tasks, "objective": sum(tasks.values()) / len(tasks)}
    if oracle is not None:
        found["share"] = _shares(test, oracle)
    if rows := module.routed():
        found["routing"] = {"agreement": agreement(rows), "layers": by_layer(rows)}
    write_json(folder / "scores.json", found)
    _show(found)
    return found


def _own_text(data: Any, libraries: Iterable[str]) -> Iterator[Any]:
    """Batches of what the adapters of the libraries have learnt from, alike for each."""
    from polylect.data.batch import EvaluationBatches, pad_id
    from polylect.data.questions import PARTS, QuestionData

    for part in (part for part in PARTS if part in libraries):
        learnt = QuestionData(source=data.source, part=part)
        learnt.tokenizer, learnt.template = data.tokenizer, data.template
        learnt.setup("fit")
        for unit in learnt.directions:
            examples = learnt.examples(unit, "train", _CALIBRATION)
            yield from EvaluationBatches(
                examples, data.tokens_per_batch, data.max_rows, pad_id(data.tokenizer)
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
    """Of one data set."""
    texts, gold = [a.text for _, a in pairs], [q.answers for q, _ in pairs]
    values = {metric: answer_score(metric, texts, gold) for metric in METRICS}
    of = data.source.data_sets[pairs[0][0].data_set]
    return {
        "task": of.task,
        "metric": of.metric,
        "score": values[of.metric],
        **values,
        "questions": len(pairs),
        "capped": sum(a.capped for _, a in pairs),
    }


def _by_task(test: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Mean score of each task over its questions."""
    found: dict[str, float] = {}
    for task in dict.fromkeys(of["task"] for of in test.values()):
        own = [of for of in test.values() if of["task"] == task]
        total = sum(of["questions"] for of in own)
        found[task] = sum(of["score"] * of["questions"] for of in own) / total
    return found


def _shares(test: Mapping[str, Mapping[str, Any]], oracle: Mapping[str, float]) -> dict[str, float]:
    """Share of the Oracle's score by task, and the plain mean of these as "average", in percent."""
    found = {}
    for task in dict.fromkeys(of["task"] for of in test.values()):
        own = {name: of for name, of in test.items() if of["task"] == task}
        scores = {name: of["score"] for name, of in own.items()}
        found[task] = oracle_share(scores, oracle, {n: of["questions"] for n, of in own.items()})
    return found | {"average": sum(found.values()) / len(found)}


def _oracle(run: str | None, data: Any, questions: Sequence[Question]) -> dict[str, float] | None:
    """Scores of the Oracle's run by data set; raises ConfigError if it answered other questions."""
    if run is None:
        return None
    file = Path(run) / "answers.jsonl"
    if not file.is_file():
        raise ConfigError(f"oracle={run} is no folder of answers: it lacks answers.jsonl.")
    answered = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if [(a["data_set"], a["id"]) for a in answered] != [(q.data_set, q.id) for q in questions]:
        raise ConfigError(f"oracle={run} answered other questions: give the same data and limit.")
    test = Record.read(Path(run)).metrics["test"]
    scores = {name: of["score"] for name, of in test.items()}
    for name, score in scores.items():
        if score <= 0:
            raise ConfigError(
                f"oracle={run} has no right answer in {name}: there is nothing to take a share of."
            )
    return scores


def _show(found: Mapping[str, Any]) -> None:
    """One line per data set, the Oracle's share, and how often the right adapter was chosen."""
    for name, of in found["test"].items():
        print(f"{name:20} {of['metric']:12} {of['score']:6.1f}  of {of['questions']} questions")
    for task, share in found.get("share", {}).items():
        print(f"share of the Oracle  {task:20} {share:6.1f} %")
    for library, sides in found.get("routing", {}).get("agreement", {}).items():
        shares = ", ".join(f"{side} tokens {100 * share:.1f} %" for side, share in sides.items())
        print(f"right adapter chosen in library {library}: {shares}")
