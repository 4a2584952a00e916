"""Passports: what they hold, that PEFT does not mind them, and that nothing else is taken."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.flips import flipped
from helpers.tiny import record
from peft import PeftModel

from polylect.library import AdapterLibrary
from polylect.models.backbone import tiny_backbone
from polylect.run.passport.file import PASSPORT, Passport, _sealed, _text
from polylect.run.passport.golden import own_sentences
from polylect.tongues import meanings, render


@pytest.fixture
def passport(tiny_run: Path) -> Passport:
    return Passport.read(tiny_run / "adapters" / "en-de")


def reseal(folder: Path, passport: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write what someone may have made of a passport, with a seal that fits."""
    value = json.loads(passport.read_text(encoding="utf-8"))
    change(value)
    if value.keys() >= {"kind", "golden"}:
        value["seal"] = json.loads(_text(_sealed({"seal": ""} | _whole(value))))["seal"]
    (folder / PASSPORT).write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _whole(value: dict[str, Any]) -> dict[str, Any]:
    from polylect.run.passport.fields import FIELDS

    return {name: value.get(name) for name in FIELDS}


def test_an_adapter_has_hashes_scores_and_golden_outputs(
    tiny_run: Path, passport: Passport
) -> None:
    made = record(tiny_run)
    assert passport.kind == "adapter" and passport.directions == ["en-de"]
    about = AdapterLibrary(tiny_run / "adapters").about("en-de")
    assert passport.base["fingerprint"] == about["base_fingerprint"]
    assert passport.template == about["template"]
    read = made["data"]["read"]
    assert passport.data == {s: {"en-de": read[s]["en-de"]["sha256"]} for s in read}
    scores = made["metrics"]["test"]["en-de"]
    assert passport.scores == {"en-de": {m: scores[m] for m in ("bleu", "chrf++", "ter")}}
    assert passport.made["commit"] == made["environment"]["commit"]
    assert [output.source for output in passport.golden] == own_sentences("en-de")
    assert passport.decoding.extra == 5  # as the run decodes
    assert sorted(passport.files) == [
        "adapter_config.json", "adapter_model.safetensors", "polylect.json"
    ]  # fmt: skip


def test_the_run_has_those_of_all_directions_and_of_all_files(tiny_run: Path) -> None:
    passport = Passport.read(tiny_run)
    there = {p.relative_to(tiny_run).as_posix() for p in tiny_run.rglob("*") if p.is_file()}
    assert passport.kind == "run" and passport.files.keys() == there - {PASSPORT}
    assert f"adapters/en-de/{PASSPORT}" in passport.files
    assert {output.direction for output in passport.golden} == {"en-de", "en-fr"}


def test_peft_and_the_library_read_the_folder_as_before(tiny_run: Path) -> None:
    assert (tiny_run / "adapters" / "en-de" / PASSPORT).is_file()
    base, _ = tiny_backbone(hidden=32)
    assert PeftModel.from_pretrained(base, tiny_run / "adapters" / "en-de")
    assert AdapterLibrary(tiny_run / "adapters").names == ["en-de", "en-fr"]


def test_golden_sentences_are_polylects_own_in_languages_that_it_speaks() -> None:
    own = [render(meaning, "de") for meaning in meanings("test", 3, seed=16)]
    assert own_sentences("de-ta") == own
    assert own_sentences("cs-ta") == own_sentences("en-ta") != own
    assert len(set(own)) == 3


def test_no_bit_of_it_can_change(tiny_run: Path) -> None:
    folder = tiny_run / "adapters" / "en-de"
    generator, bits = random.Random(1), 8 * (folder / PASSPORT).stat().st_size
    for _ in range(200):
        with flipped(folder / PASSPORT, generator.randrange(bits)), pytest.raises(ValueError):
            Passport.read(folder)
    Passport.read(folder)


def _put(*keys: Any, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(passport: dict[str, Any]) -> None:
        inner: Any = passport
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_put("more", value=1), "is no passport: its fields must be kind, made"),
        (lambda p: p.pop("golden"), "is no passport"),
        (_put("kind", value="program"), "kind must be one of run, adapter"),
        (_put("files", "../../outside", value={"sha256": "0" * 64, "tensors": {}}), "files must"),
        (_put("files", "/etc/passwd", value={"sha256": "0" * 64, "tensors": {}}), "files must be"),
        (_put("files", "a/../b", value={"sha256": "0" * 64, "tensors": {}}), "files must be"),
        (_put("files", "a", value={"sha256": "0" * 63 + "G", "tensors": {}}), "files must be"),
        (_put("base", "files", "../x", value="0" * 64), "base must be an object with name"),
        (_put("base", "dtype", value=["float32"]), "base must be"),
        (_put("base", "dtype", value="load"), "base must be"),
        (_put("golden", 0, "prompt", value=[True]), "golden must be a list of translations"),
        (_put("golden", 0, "prompt", value=[-1]), "golden must be"),
        (_put("golden", 0, "prompt", value=[]), "golden must be"),
        (_put("golden", 0, "prompt", value=[1] * 20_000), "golden must be"),
        (_put("golden", 0, "text", value="a" * 30_000), "golden must be"),
        (_put("golden", 0, "more", value=""), "golden must be"),
        (_put("generation", "beams", value=10**6), "generation must be"),
        (_put("generation", "limit", value=10**6), "generation must be"),
        (_put("generation", "ratio", value=float("nan")), "generation must be"),
        (_put("generation", "_target_", value="os.system"), "generation must be"),
        (_put("scores", value={"en-de": {"bleu": {"value": 1}}}), "scores must be"),
        (_put("template", value="a\nb"), "template must be a name"),
    ],
)
def test_nothing_but_a_passport_is_taken(
    change: Callable[[dict[str, Any]], object], sentence: str, tiny_run: Path, tmp_path: Path
) -> None:
    reseal(tmp_path, tiny_run / "adapters" / "en-de" / PASSPORT, change)
    with pytest.raises(ValueError, match=sentence) as error:
        Passport.read(tmp_path)
    assert str(tmp_path / PASSPORT) in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{}", "is no passport"),
        ("nothing", "is not valid JSON"),
        ("", "is empty"),
    ],
)
def test_other_files_are_refused(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / PASSPORT).write_text(text)
    with pytest.raises(ValueError, match=sentence):
        Passport.read(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / PASSPORT).open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ValueError, match="larger than a passport can be"):
        Passport.read(tmp_path)


def test_none_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no passport\.json, which training"):
        Passport.read(tmp_path)
