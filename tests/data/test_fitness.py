"""What is refused of the text of a new language, and what is only said."""

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from polylect.data.audit.fitness import doubts, refusals
from polylect.data.audit.report import data_report
from polylect.data.datamodule import TranslationData

TAMIL = "நான் வீட்டைப் பார்க்கிறேன்"


def judged(
    folder: Path, tokenizer: PreTrainedTokenizerFast, target: str = TAMIL, **settings: Any
) -> tuple[str, str]:
    """The sentences about 600 pairs en-ta, all refusals as one text and all doubts."""
    files = {}
    for split, size, first in (("train", 600, 0), ("val", 5, 1000), ("test", 5, 2000)):
        lines = [f"I see house {first + i}\t{target} {first + i}\n" for i in range(size)]
        (folder / f"{split}.tsv").write_text("".join(lines), encoding="utf-8")
        files[split] = {"kind": "tsv", "path": str(folder / f"{split}.tsv"), "header": False}
    files |= {"max_length": 512, "directions": ["en-ta"], "check_sides": False} | settings
    data = TranslationData(tokenizer=tokenizer, **files)
    data.setup()
    report = data_report(data, None)
    return "\n".join(refusals(data, report)), "\n".join(doubts(data, report))


def test_good_text_is_not_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    refused, doubted = judged(tmp_path, tokenizer)
    assert refused == ""
    assert "ta has" in doubted and "tokens per" in doubted  # the tokenizer does not know it


def test_another_script_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    refused, _ = judged(tmp_path, tokenizer, target="Ich sehe das Haus")
    assert "train en-ta: 0% of the letters on the target side are in the script of ta" in refused
    assert "(Tamil)" in refused


def test_some_foreign_words_are_only_said(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    refused, doubted = judged(tmp_path, tokenizer, target=f"{TAMIL} house")
    assert refused == "" and "of the letters on the target side" in doubted


def test_pairs_of_the_test_set_are_refused_where_they_would_be_learnt(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    train = {"kind": "tsv", "path": str(tmp_path / "train.tsv"), "header": False}
    same = {"test": train | {"stop": 7}}
    refused, doubted = judged(tmp_path, tokenizer, **same)
    assert refused == "" and "of 600 pairs 7 in test are left out" in doubted
    refused, _ = judged(tmp_path, tokenizer, **same, filters={"overlap": False})
    assert "train en-ta: 7 pairs are in the val or test set" in refused


def test_what_hardly_fits_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    refused, _ = judged(tmp_path, tokenizer, max_length=12)
    assert "pairs have more tokens than data.max_length" in refused


@pytest.mark.parametrize(("split", "why"), [("val", "choose by"), ("test", "score")])
def test_a_set_that_is_missing_is_asked_for(
    split: str, why: str, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    refused, _ = judged(tmp_path, tokenizer, **{split: None})
    assert refused == f"en-ta has no data.{split}: give text to {why}."


def test_few_pairs_are_said(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    (tmp_path / "few.tsv").write_text(f"I see\t{TAMIL}\n" * 40, encoding="utf-8")
    few = {"kind": "tsv", "path": str(tmp_path / "few.tsv"), "header": False}
    _, doubted = judged(tmp_path, tokenizer, train=few)
    assert "train en-ta has 40 pairs: expect little of so few." in doubted
