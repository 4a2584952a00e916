"""Interference that was planted in synthetic tongues, and what the ledger says of it."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from helpers.interference import measured
from helpers.tiny import config

from polylect import tongues
from polylect.data import prompt
from polylect.data.batch import Example, TranslationBatch, collate, pad_id
from polylect.models.backbone import tiny_backbone
from polylect.run.build import build_strategy
from polylect.run.interference.history import cancelled, cosines, with_total
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import target_losses

DIRECTIONS = ("en-qaa", "en-qab")
STEPS, SENTENCES, HELD_OUT = 60, 8, 40


@pytest.fixture(autouse=True)
def prompts_that_do_not_name_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing but the parameters could keep the directions apart."""
    untold = prompt.PlainTemplate(lambda code: "it")
    monkeypatch.setitem(prompt.TEMPLATES, "untold", untold)


def strategy(name: str) -> TranslationModule:
    torch.manual_seed(0)
    directions = f"data.directions=[{','.join(DIRECTIONS)}]"
    cfg = config("train", "model=tiny", directions, f"strategy={name}", "data.template=untold")
    module = build_strategy(cfg)
    module.set_backbone(*tiny_backbone(hidden=32))
    return module.train()


def batches(module: TranslationModule, dials: dict[str, Any]) -> list[TranslationBatch]:
    """Batches with the same meanings in both tongues; the last is for measuring."""
    size = STEPS * SENTENCES + HELD_OUT
    synthetic = {"qaa": {}, "qab": {"shared_with": "qaa"} | dials}
    texts = {d: tongues.parallel(d, "train", size, synthetic=synthetic) for d in DIRECTIONS}
    cuts = [*range(0, STEPS * SENTENCES, SENTENCES), STEPS * SENTENCES, size]
    made = []
    for begin, end in pairwise(cuts):
        examples = []
        for direction in DIRECTIONS:
            for source, target in texts[direction][begin:end]:
                ids = module.template.encode_target(module.tokenizer, target, direction)
                asked = module.prompt(source, direction).prompt
                examples.append(Example(asked, ids, direction, source, (target,)))
        made.append(collate(examples, pad_id(module.tokenizer), "right"))
    return made


def losses(module: TranslationModule, batch: TranslationBatch) -> torch.Tensor:
    with module.routing(batch):
        return target_losses(module.backbone, batch)[0].mean()


@pytest.mark.parametrize("dials", [{"contradicting": 1.0}, {"shared": 0.8}])
def test_contradiction_is_negative_and_shared_vocabulary_positive(dials: dict[str, Any]) -> None:
    module = strategy("full")
    *training, held_out = batches(module, dials)
    optimizer = torch.optim.AdamW(module.parameter_groups(), lr=0.01)
    for step, batch in enumerate(training):
        # A rate that falls to zero: what both have still to learn in common hides the rest.
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / STEPS)
        optimizer.zero_grad()
        losses(module, batch).backward()
        optimizer.step()
    gram = with_total(measured(module, held_out))
    cosine, shares = float(cosines(gram)[-1, 0, 1]), cancelled(gram)[-1].tolist()
    if "contradicting" in dials:
        assert cosine < -0.3
        assert min(shares) > 0.2
    else:
        assert cosine > 0.5
        assert shares == [0, 0]


def test_separate_parameters_are_exactly_zero() -> None:
    module = strategy("lora_switch")
    *_, held_out = batches(module, {"contradicting": 1.0})
    losses(module, held_out).backward()
    gram = with_total(measured(module, held_out))
    assert (gram.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert not cosines(gram)[:, 0, 1].any()
    assert not cancelled(gram).any()
