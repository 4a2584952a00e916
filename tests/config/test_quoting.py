"""Values that a person types, as Hydra's grammar takes them."""

from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from polylect.cli import run
from polylect.config.quoting import quote


def read(value: str) -> Any:
    """What Hydra makes of the quoted value; of a sweep the choices."""
    parsed = OverridesParser.create().parse_override(f"x={quote(value)}")
    if not parsed.is_sweep_override():
        return parsed.value()
    choices = [f"x={choice}" for choice in parsed.sweep_string_iterator()]
    return tuple(o.value() for o in OverridesParser.create().parse_overrides(choices))


VALUES = [
    # What Hydra takes bare stays as it is, with its type.
    ("[1,2.5,true,null,en-de,'a, b']", [1, 2.5, True, None, "en-de", "a, b"]),
    ("[[1,2],{a: [b]}]", [[1, 2], {"a": ["b"]}]),
    ("[]", []),
    ("{}", {}),
    # Overrides in a list, with lists, mappings and quotes of their own
    ("[a=b,c=[d,e],f={g: h, i: 'j'}]", ["a=b", "c=[d,e]", "f={g: h, i: 'j'}"]),
    ("{one: [a=b], two: [c=1]}", {"one": ["a=b"], "two": ["c=1"]}),
    ("[a=b],[a=c]", (["a=b"], ["a=c"])),
    (r"[a='it\'s, so',b]", [r"a='it\'s, so'", "b"]),
    (r"['a\\',b=c]", ["a\\", "b=c"]),
    # Paths
    ("my/train.{lang}", "my/train.{lang}"),
    ("{lang}/train.txt", "{lang}/train.txt"),
    ("{oracle}", "{oracle}"),
    ("{kind: aligned, path: x/{lang}.gz}", {"kind": "aligned", "path": "x/{lang}.gz"}),
    ("[a/{lang}.gz, b/{src}-{tgt}.{lang}]", ["a/{lang}.gz", "b/{src}-{tgt}.{lang}"]),
    ("{'en-ta': x, \"*\": y.{lang}}", {"en-ta": "x", "*": "y.{lang}"}),
    ("p/O'Brien/x", "p/O'Brien/x"),
    ("[p/O'Brien/x=1]", ["p/O'Brien/x=1"]),
    ("a, {b} and ", "a, {b} and "),
    ("C=\\", "C=\\"),
]


@pytest.mark.parametrize(("typed", "meant"), VALUES)
def test_a_value_is_read_as_it_is_meant(typed: str, meant: Any) -> None:
    assert read(typed) == meant


@pytest.mark.parametrize(("typed", "meant"), VALUES)
def test_what_is_quoted_may_be_quoted_again(typed: str, meant: Any) -> None:
    if not isinstance(meant, str):  # a text has become another one
        assert read(quote(typed)) == meant


@pytest.mark.parametrize("typed", ["[a=b", "[a=b]]", "{a: [b=c}", "{a: b=c", "['a=b]", "[a=b)]"])
def test_brackets_and_quotes_that_do_not_match_are_an_error(typed: str) -> None:
    with pytest.raises(ValueError, match=r"is missing|closes nothing"):
        quote(typed)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("output=a,b", "type output=[a,b] for a list, \"output='a,b'\" for one text with commas"),
        ("output=[a,b]", "config key output must be one text, got ['a', 'b']: give output=TEXT."),
        ("memory.corpus=[p/O'Brien/x, b", "a bracket is missing"),
    ],
)
def test_a_value_that_is_several_is_told_in_the_form_to_type(
    typed: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["translate", typed, "--cfg", "job"]) == 2
    stderr = capsys.readouterr().err
    assert said in stderr and stderr.count("\n") == 1


def test_texts_stay_what_was_typed(capsys: pytest.CaptureFixture[str]) -> None:
    mapping = "memory.corpus={'en-ta': [p/O'Brien/x, 'b c']}"
    assert run(["translate", "output=p/O'Brien/x", "run=1e3", mapping, "--cfg", "job"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["output"], shown["run"]) == ("p/O'Brien/x", "1e3")
    assert shown["memory"]["corpus"] == {"en-ta": ["p/O'Brien/x", "b c"]}
