"""A folder of adapters: names, directions, atomic writing, and what does not fit."""

import json
import shutil

import pytest
import torch
from helpers.peft_bases import attach_random_adapters

from polylect.library import Adapter, AdapterLibrary, LowRank, base_fingerprint
from polylect.library import folder as folder_module
from polylect.library.folder import ABOUT
from polylect.library.peft_format import CONFIG, WEIGHTS


def small(rank=2, about=None) -> Adapter:
    update = LowRank(torch.randn(rank, 32), torch.randn(32, rank), 0.5)
    return Adapter({"model.layers.0.self_attn.q_proj": update}, about or {})


def test_what_is_saved_is_loaded(tmp_path):
    library = AdapterLibrary(tmp_path / "library")
    assert library.names == []
    about = {"directions": ["en-hi"], "template": "plain", "scores": {"chrF++": 41.5}, "note": "ह"}
    adapter = small(3, about)
    folder = library.save("en-hi", adapter)
    assert sorted(entry.name for entry in folder.iterdir()) == sorted([CONFIG, WEIGHTS, ABOUT])
    again = library.load("en-hi")
    assert library.names == ["en-hi"]
    assert again.about == about
    assert again.nbytes == adapter.nbytes == library.nbytes("en-hi") == 4 * 3 * 64
    for path, update in adapter.modules.items():
        assert torch.equal(again.modules[path].a, update.a)
        assert torch.equal(again.modules[path].b, update.b)
        assert again.modules[path].scaling == update.scaling


def test_nothing_is_overwritten_silently(tmp_path):
    library = AdapterLibrary(tmp_path)
    library.save("de", small(2))
    with pytest.raises(FileExistsError, match="de exists: choose another name"):
        library.save("de", small(3))
    assert library.nbytes("de") == 4 * 2 * 64
    library.save("de", small(3), overwrite=True)
    assert library.nbytes("de") == 4 * 3 * 64
    assert [entry.name for entry in tmp_path.iterdir()] == ["de"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    library = AdapterLibrary(tmp_path)
    library.save("de", small(2))
    with pytest.raises(TypeError):
        library.save("de", small(3, {"directions": object()}), overwrite=True)
    assert library.nbytes("de") == 4 * 2 * 64
    assert [entry.name for entry in tmp_path.iterdir()] == ["de"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "a.b", "é"])
def test_names_stay_inside_the_folder(name, tmp_path):
    library = AdapterLibrary(tmp_path)
    with pytest.raises(ValueError, match="use letters, digits"):
        library.save(name, small())
    with pytest.raises(ValueError, match="it holds none"):
        library.load(name)


def test_unknown_names_are_answered_with_the_nearest(tmp_path):
    library = AdapterLibrary(tmp_path)
    library.save("en-de", small())
    for act in (library.load, library.nbytes, library.about, library.remove):
        with pytest.raises(ValueError, match=r"no adapter 'en-dd' in .*: did you mean en-de"):
            act("en-dd")
    library.remove("en-de")
    assert library.names == []


def test_directions_share_adapters_and_folders_without_about_serve_their_name(tmp_path):
    library = AdapterLibrary(tmp_path)
    library.save("indic", small(about={"directions": ["en-hi", "en-ta"]}))
    library.save("en-de", small())
    (tmp_path / "en-de" / ABOUT).unlink()
    assert library.directions == {"en-de": "en-de", "en-hi": "indic", "en-ta": "indic"}
    library.save("again", small(about={"directions": ["en-hi"]}))
    with pytest.raises(ValueError, match=r"'again' and 'indic' .* both serve en-hi"):
        _ = library.directions


@pytest.mark.parametrize("text, words", [("{", "not valid JSON"), ("[]", "one JSON object")])
def test_a_damaged_about_is_named(text, words, tmp_path):
    library = AdapterLibrary(tmp_path)
    library.save("de", small())
    (tmp_path / "de" / ABOUT).write_text(text)
    with pytest.raises(ValueError, match=f"{ABOUT} .*{words}|{words}"):
        library.load("de")


def test_check_lists_each_that_does_not_fit_with_the_reason(plain, tmp_path):
    library = AdapterLibrary(tmp_path)
    fingerprint = base_fingerprint(plain)
    layers, _ = attach_random_adapters(plain, ["q_proj"], de=2)
    good = Adapter.of_layers(layers, "de", {"base_fingerprint": fingerprint})
    library.save("good", good)
    library.save("elsewhere", Adapter(good.modules, {"base_fingerprint": "0" * 64}))
    wide = LowRank(torch.zeros(2, 64), torch.zeros(32, 2), 1.0)
    library.save("wide", Adapter({"model.layers.0.self_attn.q_proj": wide}))
    library.save("dora", good)
    config = json.loads((tmp_path / "dora" / CONFIG).read_text())
    (tmp_path / "dora" / CONFIG).write_text(json.dumps(config | {"use_dora": True}))
    library.save("empty", good)
    (tmp_path / "empty" / WEIGHTS).unlink()
    reasons = dict(library.check(plain))
    assert sorted(reasons) == ["dora", "elsewhere", "empty", "wide"]
    assert "DoRA" in reasons["dora"]
    assert "another base" in reasons["elsewhere"]
    assert "has no adapter_model.safetensors" in reasons["empty"]
    assert "is 32 x 32 here, the adapter is for 32 x 64" in reasons["wide"]
    shutil.rmtree(tmp_path)
    assert library.check(plain) == []


def test_an_adapter_the_model_does_not_have(plain):
    layers, _ = attach_random_adapters(plain, ["q_proj"], de=2)
    with pytest.raises(ValueError, match="no adapter 'dee' in the model: did you mean de"):
        Adapter.of_layers(layers, "dee")


# Files of the wrong kind, and files that change


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("directions", "en-hi", r'a list of names such as \["en-ta"\], got "en-hi"'),
        ("directions", None, "a list of names"),
        ("directions", {"en-hi": 1}, "a list of names"),
        ("directions", ["en-hi", 3], "a list of names"),
        ("directions", [""], "a list of names"),
        ("base_model", ["llama"], "text, or null"),
        ("base_fingerprint", 12, "text, or null"),
        ("tokenizer_hash", True, "text, or null"),
        ("template", {}, "text, or null"),
        ("scores", "good", "an object, or null"),
    ],
)
def test_each_field_of_about_is_of_its_kind(field, value, words, tmp_path):
    library = AdapterLibrary(tmp_path)
    library.save("de", small(about={"directions": ["en-de"]}))
    about = {**library.about("de"), field: value}
    (tmp_path / "de" / ABOUT).write_text(json.dumps(about))
    for act in (library.load, library.about, lambda _: library.directions):
        with pytest.raises(ValueError, match=rf"de/{ABOUT}: {field} must be {words}"):
            act("de")


def test_an_adapter_may_serve_nothing(tmp_path):
    library = AdapterLibrary(tmp_path)
    library.save("de", small(about={"directions": [], "base_model": None}))
    assert library.directions == {}


def test_the_version_is_another_when_any_file_is(tmp_path):
    library = AdapterLibrary(tmp_path)
    assert library.version("de") is None
    library.save("de", small())
    before = library.version("de")
    assert before == library.version("de")
    assert library.load("de").nbytes == library.nbytes("de")  # after which times tell files apart
    for part in (CONFIG, WEIGHTS, ABOUT):
        content = (tmp_path / "de" / part).read_bytes()
        (tmp_path / "de" / part).write_bytes(content)
        assert library.version("de") != before
        before = library.version("de")
    (tmp_path / "de" / ABOUT).unlink()
    assert library.version("de") not in (None, before)
    (tmp_path / "de" / WEIGHTS).unlink()
    assert library.version("de") is None


def test_what_is_loaded_is_of_one_version(tmp_path, monkeypatch):
    """The adapter is replaced after its first file has been read."""
    library = AdapterLibrary(tmp_path)
    new = small(2)
    library.save("de", small(2))
    read, times = folder_module.read_peft, iter([True, False])

    def replaced_meanwhile(folder):
        config = json.loads((folder / CONFIG).read_text())
        if next(times):
            library.save("de", new, overwrite=True)
        return read(folder)[0], config

    monkeypatch.setattr(folder_module, "read_peft", replaced_meanwhile)
    adapter = library.load("de")
    path = "model.layers.0.self_attn.q_proj"
    assert torch.equal(adapter.modules[path].a, new.modules[path].a)
    assert next(times, None) is None  # it was read twice
    times = iter([True] * 3)
    with pytest.raises(ValueError, match="de changes while it is read: try again"):
        library.load("de")
