"""Tables show what compares, split what does not, and refuse what never should have met."""

import io
import json

import pytest

from polylect.eval.diagnosis import diagnose
from polylect.eval.inference.estimate import Estimate
from polylect.eval.inference.verdict import verdicts
from polylect.eval.metrics import Score, score
from polylect.eval.significance import Comparison
from polylect.eval.table import (
    Table,
    comparison_table,
    diagnosis_table,
    matrix_table,
    scores_table,
    show,
)

SIGNATURE = "nrefs:{nrefs}|case:{case}|eff:no|tok:{tok}|smooth:exp|version:{version}"


def bleu(value: float | int, **changes: object) -> Score:
    fields = {"nrefs": 1, "case": "mixed", "tok": "13a", "version": "2.6.0"} | changes
    return Score("bleu", float(value), SIGNATURE.format(**fields))


def chrf(value: float | int) -> Score:
    return Score(
        "chrf++", float(value), "nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|version:2.6.0"
    )


def test_one_signature_one_column_with_its_mean():
    table = scores_table({"en-de": [bleu(30), chrf(50)], "en-fr": [bleu(40), chrf(61)]})
    assert table.header == ("direction", "BLEU", "chrF++")
    assert table.rows[-1] == ("mean", "35.0", "55.5")
    assert table.notes[0] == f"BLEU: {bleu(0).signature}"


def test_other_tokenizers_and_reference_counts_get_columns_and_means_of_their_own():
    table = scores_table(
        {
            "en-de": [bleu(30), chrf(50)],
            "en-fr": [bleu(40), chrf(60)],
            "en-hi": [bleu(10, tok="intl", nrefs=4), chrf(40)],
        }
    )
    assert table.header == ("direction", "BLEU nrefs:1 tok:13a", "BLEU nrefs:4 tok:intl", "chrF++")
    assert table.rows[2] == ("en-hi", "-", "10.0", "40.0")
    assert table.rows[3] == ("mean", "35.0 (of 2)", "10.0 (of 1)", "50.0")
    assert len(table.notes) == 3


@pytest.mark.parametrize("change", [{"version": "2.0.0"}, {"case": "lc"}])
def test_signatures_that_never_compare_are_refused_by_name(change):
    other = bleu(40, **change)
    with pytest.raises(ValueError, match=next(iter(change))) as error:
        scores_table({"en-de": [bleu(30)], "en-fr": [other]})
    assert bleu(30).signature in str(error.value) and other.signature in str(error.value)


def test_real_scores_of_languages_with_different_tokenizers():
    results = {
        "en-de": score(["ein Haus"], [["das Haus"]], target="de"),
        "en-hi": score(["एक घर"], [["यह घर"]], target="hi"),
    }
    assert scores_table(results).header == ("direction", "BLEU tok:13a", "BLEU tok:intl", "chrF++")


def test_scores_come_from_a_scores_file_as_well():
    row = [bleu(30), chrf(50)]
    entry = {s.name: {"value": s.value, "signature": s.signature} for s in row}
    entry |= {"sentences": 3, "diagnosis": {"segments": 3}}
    stored = json.loads(json.dumps({"en-de": entry}))
    assert scores_table(stored) == scores_table({"en-de": row})
    assert matrix_table({"a": stored}) == matrix_table({"a": {"en-de": row}})


def test_matrix_of_adapters_and_directions():
    table = matrix_table(
        {
            "base": {"en-de": [bleu(1)], "en-hi": [bleu(2, tok="intl"), chrf(3)]},
            "en-de": {"en-de": [bleu(30)]},
        },
        metric="bleu",
    )
    assert table.header == ("adapter", "en-de", "en-hi")
    assert table.rows == (("base", "1.0", "2.0"), ("en-de", "30.0", "-"))
    assert table.notes == (
        f"BLEU, en-de: {bleu(0).signature}",
        f"BLEU, en-hi: {bleu(0, tok='intl').signature}",
    )


@pytest.mark.parametrize("change", [{"version": "2.0.0"}, {"tok": "intl"}, {"nrefs": "var"}])
def test_no_column_of_a_matrix_mixes_signatures(change):
    other = bleu(40, **change)
    with pytest.raises(ValueError, match="column 'en-de'") as error:
        matrix_table({"a": {"en-de": [bleu(30)]}, "b": {"en-de": [other]}}, metric="bleu")
    assert bleu(30).signature in str(error.value) and other.signature in str(error.value)


@pytest.mark.parametrize(
    "make",
    [lambda: scores_table({}), lambda: scores_table({"en-de": []}), lambda: matrix_table({})],
)
def test_nothing_to_show_is_refused(make):
    with pytest.raises(ValueError, match="there are no"):
        make()


def test_diagnosis_table_shows_counts_out_of_what_was_judged():
    diagnosis = diagnose(
        ["It is 5."], ["Es ist."], [["Es ist 5."]], source_lang="en", target_lang="de"
    )
    table = diagnosis_table({"en-de": diagnosis})
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert cells["numbers lost"] == "1/1" and cells["off target"] == "-"
    assert cells["length ratio"] == "0.78" and "length cap" not in cells
    stored = json.loads(json.dumps(diagnosis.to_dict()))
    assert diagnosis_table({"en-de": stored}) == table


def test_comparison_table_says_what_each_comparison_proves():
    estimates = Estimate(5.0, 1.0), Estimate(-1.0, 0.5)
    rows = [
        Comparison("en-de", "b", "bleu", 20.0, 25.0, 0.001, 0.002, "tok:13a", (2, 8), estimates[0]),
        Comparison("en-hi", "b", "bleu", 20.0, 19.0, 0.04, 0.08, "tok:intl", (-2, 0), estimates[1]),
    ]
    table = comparison_table(rows, verdicts(rows))
    assert [row[3] for row in table.rows] == ["+5.0", "-1.0"]
    assert table.header[-1] == "verdict"
    assert [row[-1].split(" (")[0] for row in table.rows] == ["better", "undecided"]
    assert "en-hi, BLEU: tok:intl" in table.notes


TABLE = Table(("direction", "BLEU"), (("en-de", "30.1"), ("a|b", "9.0")), ("BLEU: tok:13a",))


def test_markdown_escapes_what_would_break_it():
    lines = TABLE.markdown().split("\n")
    assert lines[:2] == ["| direction | BLEU |", "| --- | ---: |"]
    assert lines[3] == "| a\\|b | 9.0 |"
    assert lines[-2] == "BLEU: tok:13a"


def test_plain_text_into_a_file_and_rich_on_a_terminal():
    file = io.StringIO()
    show(TABLE, file)
    assert file.getvalue().split("\n")[:3] == [
        "direction  BLEU",
        "en-de      30.1",
        "a|b         9.0",
    ]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    show(TABLE, terminal)
    assert "30.1" in terminal.getvalue() and "─" in terminal.getvalue()
    assert "BLEU: tok:13a" in terminal.getvalue()


def test_show_prints_to_standard_output_by_default(capsys):
    show(TABLE)
    assert capsys.readouterr().out == TABLE.text()
