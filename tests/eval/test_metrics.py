"""Scores and signatures are sacreBLEU's own, whatever the language and the number of references."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from polylect.data.languages import LANGUAGES
from polylect.eval import metrics
from polylect.eval.metrics import Score, bleu_tokenizer, reference_streams, score

HYPOTHESES = ["The cat sits on the red mat.", "A dog ran home, quickly!", "It cost 1,250.50 euros."]
FIRST = ["The cat sat on the red mat.", "A dog ran home quickly!", "It cost 1,250.50 euros."]
SECOND = ["On the red mat sat a cat.", "One dog quickly ran home.", "The price was 1,250.50 euros."]
SINGLE = [[line] for line in FIRST]
DOUBLE = [list(pair) for pair in zip(FIRST, SECOND, strict=True)]


def by_name(scores: list[Score]) -> dict[str, Score]:
    return {s.name: s for s in scores}


@pytest.mark.parametrize(
    ("references", "streams"), [(SINGLE, [FIRST]), (DOUBLE, [FIRST, SECOND])], ids=["one", "two"]
)
def test_scores_equal_sacrebleus_corpus_functions(references, streams):
    actual = by_name(
        score(HYPOTHESES, references, metrics=["bleu", "chrf", "chrf++", "ter"], target="en")
    )
    assert actual["bleu"].value == sacrebleu.corpus_bleu(HYPOTHESES, streams).score
    assert actual["chrf"].value == sacrebleu.corpus_chrf(HYPOTHESES, streams).score
    assert actual["chrf++"].value == sacrebleu.corpus_chrf(HYPOTHESES, streams, word_order=2).score
    assert actual["ter"].value == sacrebleu.corpus_ter(HYPOTHESES, streams).score
    assert 0 < actual["ter"].value < 100 and 0 < actual["bleu"].value < 100


@pytest.mark.parametrize(
    ("target", "flags", "hypotheses", "references"),
    [
        ("de", [], HYPOTHESES, FIRST),
        ("hi", ["--tokenize", "intl"], ["यह एक बड़ा घर है।"], ["यह एक बड़ा नया घर है।"]),
        (
            "zh",
            ["--tokenize", "zh", "--ter-normalized", "--ter-asian-support"],
            ["我今天早上喝茶。"],
            ["我今天早上喝了绿茶。"],
        ),
    ],
)
def test_scores_and_signatures_equal_the_command_line(
    tmp_path: Path, target, flags, hypotheses, references
):
    (tmp_path / "hyp").write_text("\n".join(hypotheses) + "\n", encoding="utf-8")
    (tmp_path / "ref").write_text("\n".join(references) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-m", "bleu", "chrf", "ter"]
    command += ["--chrf-word-order", "2", "--width", "12", *flags]
    run = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, encoding="utf-8")
    actual = score(
        hypotheses, [[r] for r in references], metrics=["bleu", "chrf++", "ter"], target=target
    )
    for ours, theirs in zip(actual, json.loads(run.stdout), strict=True):
        assert ours.signature == theirs["signature"]
        assert ours.value == pytest.approx(theirs["score"], abs=1e-9)


@pytest.mark.parametrize(
    ("hypothesis", "reference", "metric", "value"),
    [
        ("one two three four", "one two three four", "bleu", 100.0),
        ("one two three four", "five six seven eight", "bleu", 0.0),
        # Precisions 4/5, 3/4, 2/3, 1/2: their product is 1/5.
        ("one two three four nine", "one two three four five", "bleu", 100 * 0.2**0.25),
        ("a b c d", "a b x d", "ter", 25.0),  # one substitution, four words
        ("abc", "abc", "chrf", 100.0),
        ("ab", "cd", "chrf", 0.0),
        ("ab", "ac", "chrf", 25.0),  # one of two letters, no pair of letters
        ("", "a word", "chrf++", 0.0),
    ],
)
def test_scores_worked_by_hand(hypothesis, reference, metric, value):
    (actual,) = score([hypothesis], [[reference]], metrics=[metric], target="en")
    assert actual.value == pytest.approx(value)


def test_lines_may_have_different_numbers_of_references():
    ragged = [DOUBLE[0], SINGLE[1], SINGLE[2]]
    names = ["bleu", "chrf", "chrf++", "ter"]
    actual = by_name(score(HYPOTHESES, ragged, metrics=names, target="en"))
    assert all(s.signature.startswith("nrefs:var|") for s in actual.values())
    # A missing reference is no reference: repeating the one there is must change nothing.
    repeated = [DOUBLE[0], SINGLE[1] * 2, SINGLE[2] * 2]
    for s in score(HYPOTHESES, repeated, metrics=names, target="en"):
        assert actual[s.name].value == pytest.approx(s.value)


@given(st.lists(st.lists(st.text(min_size=1), min_size=1, max_size=4), min_size=1, max_size=6))
def test_reference_streams_keep_every_reference_in_its_line_and_are_rectangular(references):
    streams = reference_streams(["x"] * len(references), references)
    assert {len(stream) for stream in streams} == {len(references)}
    lines = [[r for r in line if r is not None] for line in zip(*streams, strict=True)]
    assert lines == references


@pytest.mark.parametrize(
    ("target", "tokenizer"),
    [
        ("de", "13a"),
        ("pt_BR", "13a"),
        ("ru", "13a"),
        ("qaa", "13a"),
        ("hi", "intl"),
        ("hi_Latn", "13a"),
        ("ta", "intl"),
        ("ar", "intl"),
        ("zh", "zh"),
        ("zh_Hant", "zh"),
        ("th", "char"),
    ],
)
def test_tokenizer_follows_the_target_language(target, tokenizer):
    assert bleu_tokenizer(target) == tokenizer
    (actual,) = score(["a b"], [["a b"]], metrics=["bleu"], target=target)
    assert f"|tok:{tokenizer}|" in actual.signature


def test_every_known_language_in_a_script_of_its_own_has_a_tokenizer_that_knows_it():
    european = {"Latin", "Cyrillic", "Greek"}
    for code, entry in LANGUAGES.items():
        assert (bleu_tokenizer(code) == "13a") == (entry.scripts[0] in european), code


@pytest.mark.parametrize("target", ["ja", "ko"])
def test_without_mecab_japanese_and_korean_are_scored_by_character(monkeypatch, target):
    assert bleu_tokenizer(target) in (f"{target}-mecab", "char")
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    assert bleu_tokenizer(target) == "char"


def test_indic_full_stop_is_a_token_of_its_own():
    hypothesis, reference = "राम ने कल सुबह एक आम खाया।", "राम ने कल सुबह एक आम खाया"
    (intl,) = score([hypothesis], [[reference]], metrics=["bleu"], target="hi")
    glued = sacrebleu.corpus_bleu([hypothesis], [[reference]], tokenize="13a").score
    assert intl.value > glued


@pytest.mark.parametrize(
    ("hypotheses", "references", "names", "message"),
    [
        ([], [], ["bleu"], "nothing to score"),
        (["a", "b"], [["a"]], ["bleu"], "2 hypotheses .* 1 lines"),
        (["a", "b"], [["a"], []], ["bleu"], "hypothesis 2 of 2 has no reference"),
        (["a"], ["a"], ["bleu"], "hypothesis 1 are one string"),
        (["a"], [["a"]], ["chrf+"], "unknown metric 'chrf\\+'; did you mean chrf"),
        (["a"], [["a"]], ["BLEU"], "did you mean bleu"),
        (
            ["a"],
            [["a"]],
            ["comet"],
            "metric 'comet'; known: bleu, chrf, chrf\\+\\+, spbleu, ter",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_sentence(hypotheses, references, names, message):
    with pytest.raises(ValueError, match=message):
        score(hypotheses, references, metrics=names, target="en")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the one where sacreBLEU keeps tokenizers; no network."""
    from sacrebleu.tokenizers import tokenizer_spm

    def unreachable(url: str) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(tokenizer_spm, "SACREBLEU_DIR", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    return tmp_path / "models"


def test_spbleu_is_bleu_over_the_pieces_of_its_tokenizer(models: Path, tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    from sacrebleu.metrics import BLEU

    lines = ["यह एक बड़ा नया घर है।", "वह किताब पढ़ता है।", "The cat sat on the red mat."] * 20
    (tmp_path / "text").write_text("\n".join(lines), encoding="utf-8")
    models.mkdir()
    sentencepiece.SentencePieceTrainer.Train(
        input=str(tmp_path / "text"),
        model_prefix=str(models / "made"),
        hard_vocab_limit=False,
        minloglevel=3,
    )
    (models / "made.model").rename(models / "flores200sacrebleuspm")
    hypotheses, references = ["यह एक बड़ा घर है।"], [["यह एक बड़ा नया घर है।"]]
    (actual,) = score(hypotheses, references, metrics=["spbleu"], target="hi")
    assert "tok:flores200" in actual.signature
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(models / "flores200sacrebleuspm"))
    cut = [" ".join(pieces.EncodeAsPieces(text)) for text in (hypotheses[0], references[0][0])]
    assert actual.value == BLEU(tokenize="none").corpus_score(cut[:1], [cut[1:]]).score


def test_spbleu_without_its_tokenizer_is_a_sentence(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "find_spec", lambda name: None)
        with pytest.raises(ValueError, match="needs sentencepiece, which is not installed: pip"):
            score(["a"], [["a"]], metrics=["spbleu"], target="en")
    pytest.importorskip("sentencepiece")
    for damaged, sentence in (
        (False, "is not there and cannot be downloaded"),
        (True, "is damaged"),
    ):
        if damaged:
            (models / "flores200sacrebleuspm").write_bytes(b"no model")
        with pytest.raises(ValueError, match=sentence) as error:
            score(["a"], [["a"]], metrics=["spbleu"], target="en")
        assert str(models) in str(error.value) and "leave spbleu out" in str(error.value)
        assert "\n" not in str(error.value)
