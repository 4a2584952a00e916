"""A metric that made a run is no evidence for it."""

import json
from pathlib import Path

import pytest

from polylect.config.roots import ConfigError
from polylect.run.record import Record
from polylect.run.results.headline import headline_metric, uses_of

CHOSEN = {"callbacks": {"checkpoint": {"monitor": "val/chrf", "mode": "max"}}}


@pytest.mark.parametrize(
    ("config", "metrics"),
    [
        (CHOSEN, {"chrf", "chrf++"}),
        ({"callbacks": {"early": {"monitor": "val/chrf/en-de"}}}, {"chrf", "chrf++"}),
        ({"callbacks": {"checkpoint": {"monitor": "val/loss"}}}, set()),
        ({"callbacks": {"progress": None}}, set()),
        ({"callbacks": None, "data": {"filters": {"duplicate": True}}}, set()),
        ({"data": {"filters": {"comet": 0.7}}}, {"comet"}),
        ({"generation": {"beams": 4, "rerank": "bleu"}}, {"bleu"}),
    ],
)
def test_the_record_says_what_a_metric_was_used_for(config: dict, metrics: set[str]) -> None:
    assert {metric for metric, _ in uses_of(config)} == metrics


def test_an_evaluation_is_judged_by_the_run_that_it_scores(tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    (trained / "checkpoints").mkdir(parents=True)
    Record(run=str(trained), config=CHOSEN).write(trained)
    assert json.loads((trained / "record.json").read_text(encoding="utf-8"))["config"] == CHOSEN
    (chrf, use), (chrf_words, _) = uses_of({"run": str(trained / "checkpoints" / "best.ckpt")})
    assert (chrf, chrf_words) == ("chrf", "chrf++")
    assert use == "chose the checkpoint (callbacks.checkpoint.monitor=val/chrf)"
    assert list(uses_of({"run": str(tmp_path / "gone")})) == []


def test_early_stopping_is_another_use() -> None:
    config = {"callbacks": {"early_stopping": {"monitor": "val/bleu"}}}
    assert ("bleu", "ended the training (callbacks.early_stopping.monitor=val/bleu)") in uses_of(
        config
    )


SCORED = {"a": ["bleu", "chrf++", "ter"], "b": ["ter", "chrf++", "bleu"]}
USES = {"chrf++": ["chrf++ chose the checkpoint of a"]}


def test_the_headline_is_chrf_unless_it_was_used() -> None:
    assert headline_metric(SCORED, {}) == "chrf++"
    assert headline_metric(SCORED, USES) == "bleu"
    assert headline_metric(SCORED, USES, "ter") == "ter"
    assert headline_metric({"a": ["bleu", "ter"], "b": ["ter"]}, {}) == "ter"


def test_what_cannot_be_the_headline_is_refused_with_the_reason() -> None:
    with pytest.raises(
        ConfigError, match=r"nothing here \(chrf\+\+ chose .* of a\): give metric=b"
    ):
        headline_metric(SCORED, USES, "chrf++")
    with pytest.raises(ConfigError, match="not among the scores of a; did you mean chrf"):
        headline_metric({"a": ["chrf", "bleu"], "b": ["chrf"]}, {}, "chrf++")
    with pytest.raises(ConfigError, match="not among the scores of b"):
        headline_metric({"a": ["bleu"], "b": ["ter"]}, {}, "bleu")
    everything = {metric: [f"{metric} chose"] for metric in SCORED["a"]}
    with pytest.raises(ConfigError, match="no metric is left to compare by: bleu chose"):
        headline_metric(SCORED, everything)
    with pytest.raises(ConfigError, match="none in common"):
        headline_metric({"a": ["bleu"], "b": ["ter"]}, {})
