"""The answer program: libraries of tasks and articles, questions, scores, shares of an oracle."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import TRAIN, config, folders, record
from test_recipe import listed

from polylect.cli import run
from polylect.config.roots import ConfigError
from polylect.data.facts import Facts
from polylect.data.kilt import Question
from polylect.data.questions import QuestionData
from polylect.eval.answers import exact_match
from polylect.library.calibration import FILE
from polylect.programs import recipe
from polylect.programs import train as training
from polylect.programs.answer import main, retrieve

MODEL = ["model=tiny", "model.hidden=32"]
FACTS = ["data=facts", "data.source.size=3"]
LIBRARIES = ("task", "knowledge")


def library(runs: Path, part: str) -> Path:
    """Adapters that have learnt for a few steps."""
    dropped = ("data.", "~data", "+data")
    settings = [o for o in TRAIN if not o.startswith(dropped) and "val_check" not in o]
    training.main(config("train", *settings, *FACTS, f"data.part={part}", f"runs={runs}"))
    (made,) = folders(runs)
    assert record(made)["status"] == "done"
    return made / "adapters"


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {part: library(tmp_path_factory.mktemp(part), part) for part in LIBRARIES}


def routed(libraries: dict[str, Path], strategy: str = "lag") -> list[str]:
    given = ",".join(f"{name}: {path}" for name, path in libraries.items())
    return [f"strategy={strategy}", f"strategy.library={{{given}}}"]


def answer(runs: Path, *overrides: str) -> Path:
    before = folders(runs)
    main(config("answer", *MODEL, *FACTS, "generation.extra=4", f"runs={runs}", *overrides))
    (made,) = folders(runs) - before
    return made


def lines(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "answers.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_there_is_an_adapter_for_each_article_and_for_each_task(libraries: dict[str, Path]) -> None:
    names = {part: {p.name for p in libraries[part].iterdir()} for part in LIBRARIES}
    assert names["task"] == {"question_answering", "slot_filling"}
    assert names["knowledge"] == {"article_00", "article_01", "article_02"}


def test_what_was_answered_is_scored_and_recorded(
    libraries: dict[str, Path], tmp_path: Path
) -> None:
    folder = answer(tmp_path, *routed(libraries))
    answered, questions = lines(folder), Facts(size=3).questions()
    assert [(a["id"], a["gold"]) for a in answered] == [(q.id, [*q.answers]) for q in questions]
    run_record = record(folder)
    assert run_record["status"] == "done"
    test = run_record["metrics"]["test"]
    assert {name: (entry["task"], entry["metric"]) for name, entry in test.items()} == {
        "facts": ("question_answering", "exact_match"),
        "slots": ("slot_filling", "accuracy"),
    }
    for name, entry in test.items():
        own = [a for a in answered if a["data_set"] == name]
        hits = sum(exact_match(a["answer"], a["gold"]) for a in own)
        assert entry["exact_match"] == pytest.approx(100 * hits / len(own))
        assert entry["questions"] == len(own)
        assert entry["score"] == entry[entry["metric"]]
    assert run_record["metrics"]["objective"] == sum(entry["score"] for entry in test.values()) / 2
    routing = run_record["metrics"]["routing"]
    assert routing["agreement"].keys() == set(LIBRARIES)
    layers = {(row["library"], row["layer"], row["side"]) for row in routing["layers"]}
    assert len(layers) == len(routing["layers"])
    assert all(sum(row["shares"].values()) == pytest.approx(1) for row in routing["layers"])


def test_the_oracle_has_the_right_adapters_and_shares_are_taken_of_it(
    libraries: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = answer(tmp_path, *routed(libraries), "strategy.router=oracle")
    assert set(lines(oracle)[0]) >= {"id", "data_set", "input", "answer", "gold", "articles"}
    shares = record(oracle)["metrics"]["routing"]["agreement"]
    assert shares == {name: {"source": 1.0, "target": 1.0} for name in LIBRARIES}
    # Random weights answer nothing right, so the scores are put in by hand.
    with pytest.raises(ConfigError, match="has no right answer in facts"):
        answer(tmp_path, *routed(libraries), f"oracle={oracle}")
    run_record = record(oracle)
    for name, score in (("facts", 50.0), ("slots", 25.0)):
        run_record["metrics"]["test"][name]["score"] = score
    (oracle / "record.json").write_text(json.dumps(run_record))
    fixed = {"exact_match": 40.0, "accuracy": 20.0, "token_f1": 1.0}
    monkeypatch.setattr(
        "polylect.programs.answer.answer_score", lambda metric, texts, gold: fixed[metric]
    )
    folder = answer(tmp_path, *routed(libraries), f"oracle={oracle}")
    assert record(folder)["metrics"]["share"] == {
        "question_answering": pytest.approx(80.0),
        "slot_filling": pytest.approx(80.0),
        "average": pytest.approx(80.0),
    }
    with pytest.raises(ConfigError, match="answered other questions"):
        answer(tmp_path, *routed(libraries), f"oracle={oracle}", "limit=1")
    answers = oracle / "answers.jsonl"
    answers.write_bytes(answers.read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"has a damaged answers\.jsonl"):
        answer(tmp_path, *routed(libraries), f"oracle={oracle}")


def test_questions_that_leave_no_room_for_an_answer_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    passages = ["retrieval=passage", "passage_words=30", "+model.context=120"]
    folder = answer(tmp_path, *passages)
    run_record = record(folder)["metrics"]["test"]
    assert all(0 < entry["too_long"] <= entry["questions"] for entry in run_record.values())
    empty = sum(not a["answer"] for a in lines(folder))
    assert empty >= sum(entry["too_long"] for entry in run_record.values())
    message = f"questions, {run_record['facts']['too_long']} too long for the model"
    assert message in capsys.readouterr().out


def test_calibrated_scores_are_measured_once(libraries: dict[str, Path], tmp_path: Path) -> None:
    own = {name: shutil.copytree(path, tmp_path / name) for name, path in libraries.items()}
    first = answer(tmp_path / "runs", *routed(own), "strategy.form=calibrated", "limit=2")
    files = [path / FILE for path in own.values()]
    times = [file.stat().st_mtime_ns for file in files]
    again = answer(tmp_path / "runs", *routed(own), "strategy.form=calibrated", "limit=2")
    assert [file.stat().st_mtime_ns for file in files] == times
    routing = [record(folder)["metrics"]["routing"] for folder in (first, again)]
    assert routing[0] == routing[1]
    plain = answer(tmp_path / "runs", *routed(own), "limit=2")
    assert record(plain)["metrics"]["routing"] != routing[0]


def test_a_base_model_answers_by_itself(tmp_path: Path) -> None:
    folder = answer(tmp_path, "limit=2")
    assert [line["data_set"] for line in lines(folder)] == ["facts", "facts", "slots", "slots"]
    assert "routing" not in record(folder)["metrics"]
    again = answer(tmp_path, "limit=2")
    assert again != folder
    assert lines(again) == lines(folder)


def test_bm25_finds_the_article_of_a_question() -> None:
    pytest.importorskip("bm25s")
    data = QuestionData(source=Facts(size=12))
    questions = data.questions()
    named = retrieve(questions, data, "adapter", 100)
    right = sum(q.named == q.articles[0] for q in named)
    assert right > 0.9 * len(named)
    shown = retrieve(questions, data, "passage", 200)
    answerable = sum(any(answer in q.passage for answer in q.answers) for q in shown)
    assert answerable > 0.9 * len(shown)
    assert [replace(q, passage="") for q in shown] == questions


def test_the_passage_is_in_the_prompt_and_the_found_adapter_named(
    libraries: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("bm25s")
    shown = lines(answer(tmp_path, "retrieval=passage", "limit=1"))
    assert all(len(line["input"].splitlines()) > 1 for line in shown)
    given = [*routed({"knowledge": libraries["knowledge"]}), "+strategy.named=[knowledge]"]
    folder = answer(tmp_path, "retrieval=adapter", *given)
    assert record(folder)["metrics"]["routing"]["agreement"] == {
        "knowledge": {"source": 1.0, "target": 1.0}
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["retrieval=adaptor"], "retrieval=adaptor does not exist; did you mean adapter"),
        (["limit=0"], "limit must be at least 1"),
        (["data=tongues"], "needs questions: give data=facts or data=kilt"),
        (["strategy=lora_switch"], "has to be trained first"),
        (["oracle=nowhere"], "oracle=nowhere is no folder of answers"),
        (["data=kilt"], "does not exist: it should be a file of KILT"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    tmp_path: Path, overrides: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["answer", *MODEL, f"runs={tmp_path}", *overrides]) == 2
    assert message in capfd.readouterr().err
    assert not list(tmp_path.glob("*/*"))


FEW = "data.source.size=4"
BRIEF = {
    "knowledge": ["data.tokens_per_batch=384", "trainer.max_steps=80"],
    "task": ["data.tokens_per_batch=768", "trainer.max_steps=100"],
}
STAGES = config("recipe", "recipe=kilt_small").stages
ANSWERING = [name for name, stage in STAGES.items() if stage.program == "answer"]


def stages_here(runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the recipe, its stages run in this process: others would load libraries."""

    def finished(command: list[str], log: None, environment: dict[str, str]) -> int:
        with monkeypatch.context() as here:
            here.setenv(recipe.RUN_FOLDER, environment[recipe.RUN_FOLDER])
            return run(command[3:])

    monkeypatch.setattr(recipe, "run_subprocess", finished)
    extra = {stage: [FEW] for stage in ANSWERING} | {s: [FEW, *o] for s, o in BRIEF.items()}
    given = (f"+extra.{stage}={listed(*settings)}" for stage, settings in extra.items())
    recipe.main(config("recipe", "recipe=kilt_small", f"runs={runs}", *given))
    (folder,) = folders(runs)
    return folder


def next_article(questions: list[Question], *_: object) -> list[Question]:
    """The questions with the adapter of another article named."""
    after = {f"{n:02}": f"{(n + 1) % 4:02}" for n in range(4)}
    return [replace(question, named=after[question.article]) for question in questions]


@pytest.mark.slow
def test_only_the_right_adapters_know_the_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stages_here(tmp_path / "recipe", monkeypatch)
    metrics = {stage: record(folder / stage)["metrics"] for stage in ANSWERING}
    score = {stage: scores["objective"] for stage, scores in metrics.items()}
    monkeypatch.setattr("polylect.programs.answer.retrieve", next_article)
    parts = {"task": folder / "task" / "adapters", "knowledge": folder / "knowledge" / "adapters"}
    asked = [*routed(parts), "strategy.router=oracle", "retrieval=adapter", FEW, "name=wrong"]
    main(config("answer", *asked, f"runs={tmp_path}"))
    (wrong,) = tmp_path.glob("wrong/*")
    score["wrong"] = record(wrong)["metrics"]["objective"]
    assert score["oracle"] > 40
    assert max(score["base"], score["wrong"]) < 10
    # A search finds the article, so that only the task is left to LAG.
    assert metrics["prag_lag"]["routing"]["agreement"]["knowledge"]["target"] == 1
    routers = ("lag", "arrow", "spectr", "uniform")
    alone = max(score[stage] for stage in routers)
    assert score["prag_lag"] > 1.5 * alone
    # All layers together find more than each by itself.
    assert score["lag_model"] > 1.5 * alone
    assert score["prag_lag_model"] > 0.7 * score["oracle"]
    assert all(0 <= metrics[stage]["share"]["average"] < 40 for stage in routers)
