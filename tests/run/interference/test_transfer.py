"""Transfer and forgetting of runs, against what they are made of."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import config, record, train

from polylect.programs.evaluate import main as evaluate
from polylect.run.build import build_data, load
from polylect.run.interference.transfer import (
    Questions,
    against_alone,
    alone_settings,
    directions_alone,
    measure_transfer,
)
from polylect.run.results.scoring import likelihood

SMALL = ["data=tongues", "data.test.size=4", "data.max_length=256"]


def questions(**more: Any) -> Questions:
    text = config("train", *SMALL, "data.directions=[en,de]")
    untrained = config("train", *SMALL, "data.directions=[de-en]")
    return Questions(text=text, untrained=untrained, sentences=2, **more)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("full"), "strategy=full")


def test_a_training_against_its_base(full: Path, tmp_path: Path) -> None:
    found = measure_transfer(full, questions())
    tiny = ["model=tiny", "model.hidden=32", *SMALL, "data.directions=[en,de]"]
    evaluate(config("evaluate", *tiny, f"runs={tmp_path}"))
    (base,) = tmp_path.glob("*/*")
    of_base = measure_transfer(base, questions())
    assert found["before"]["nats_per_token"] == of_base["nats_per_token"]["none"]
    assert found["before"]["untrained"] == of_base["untrained"]["none"]
    assert "before" not in of_base
    after = found["nats_per_token"]["none"]
    assert after.keys() == {"en", "de"}
    assert after != found["before"]["nats_per_token"]
    (row,) = found["untrained"]["none"].values()
    assert row.keys() == {"bleu", "chrf++", "nats_per_target"}
    assert found["nats_per_target"].keys() == {"en-de", "en-fr"}
    assert json.dumps(found)


def test_adapters_are_measured_one_by_one_and_the_base_stays(tiny_run: Path) -> None:
    found = measure_transfer(tiny_run, questions(matrix=2))
    for part in ("nats_per_token", "nats_per_character", "untrained"):
        assert found[part].keys() == {"none", "en-de", "en-fr"}
        assert found[part]["none"] == found["before"][part]  # switched off, nothing is forgotten
        assert found[part]["en-de"] != found[part]["none"]
    assert found["matrix"].keys() == {"en-de", "en-fr"}
    assert found["matrix"]["en-de"].keys() == {"en-de", "en-fr"}


def test_nats_per_character_are_those_of_the_text(full: Path) -> None:
    module, _ = load(full)
    data = build_data(config("train", *SMALL, "data.directions=[de]"))
    data.tokenizer, data.template = module.tokenizer, module.template
    data.setup("test")
    found = likelihood(module, data.test_dataloader()[0])
    texts = [data.pairs("de", "test")[i].target for i in range(4)]
    ids = [module.template.encode_target(module.tokenizer, text, "de") for text in texts]
    assert found.characters == sum(map(len, texts))
    nats = 0.0
    for text in ids:
        begin = data.examples("de", "test", 1)[0].prompt
        row = torch.tensor([[*begin, *text]])
        with torch.no_grad():
            logits = module.backbone(row).logits[0].log_softmax(-1)
        first = max(len(begin), 1)
        places = range(first, row.shape[1])
        nats -= sum(float(logits[place - 1, row[0, place]]) for place in places)
    assert found.nats == pytest.approx(nats, rel=1e-4)
    assert found.per_character == pytest.approx(nats / sum(map(len, texts)), rel=1e-4)


def test_together_against_alone_at_equal_tokens(tmp_path: Path, tiny_run: Path) -> None:
    assert directions_alone(tiny_run) == ["en-de", "en-fr"]
    settings = alone_settings(tiny_run, "en-de")
    assert settings[0] == "data.directions=[en-de]"
    alone = train(tmp_path, *settings, "evaluate=true")
    counts = [record(r)["data"]["drawn"]["target_tokens"]["en-de"] for r in (tiny_run, alone)]
    assert counts[0] == pytest.approx(counts[1], rel=0.05)
    (row,) = against_alone(tiny_run, {"en-de": alone}).values()
    assert row["target_tokens"] == {"together": counts[0], "alone": counts[1]}
    scores = [record(r)["metrics"]["test"]["en-de"]["chrf++"]["value"] for r in (tiny_run, alone)]
    assert row["difference"] == pytest.approx(scores[0] - scores[1])
    assert row["interval"][0] <= row["difference"] <= row["interval"][1]
    assert math.isfinite(row["p_holm"])


def test_unequal_tokens_are_refused_with_the_way_out(tmp_path: Path, tiny_run: Path) -> None:
    alone = train(tmp_path, "data.directions=[en-de]", "evaluate=true")
    with pytest.raises(ValueError, match=r"target tokens of en-de .* data\.tokens_per_batch=\d+"):
        against_alone(tiny_run, {"en-de": alone})
    with pytest.raises(ValueError, match=r"did not train en-hi; it trained en-de, en-fr"):
        alone_settings(tiny_run, "en-hi")
