"""Aligned forms beside adapters: what is read, when it is made again, where it cannot be."""

import json

import pytest
import torch

from polylect.layers import align
from polylect.library import Adapter, AdapterLibrary, LowRank
from polylect.library.aligned import FILE, AlignedLibrary
from polylect.library.peft_format import CONFIG, WEIGHTS

Q, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"


def random(rank: int, width: int = 32, scaling: float = 0.5) -> LowRank:
    return LowRank(torch.randn(rank, width), torch.randn(24, rank), scaling)


@pytest.fixture
def library(tmp_path) -> AdapterLibrary:
    """Two adapters of different ranks and targets."""
    library = AdapterLibrary(tmp_path)
    library.save(
        "de", Adapter({Q: random(3), DOWN: random(2, 48, 1 / 3)}, {"directions": ["en-de"]})
    )
    library.save("fr", Adapter({DOWN: random(4, 48)}))
    return library


def prepared(library: AdapterLibrary, align=align) -> tuple[AlignedLibrary, list[bool]]:
    aligned = AlignedLibrary(library, align)
    return aligned, [aligned.prepare(name) for name in library.names]


def refuse(*_):
    raise AssertionError("aligned again")


def test_what_is_read_is_the_adapter(library):
    aligned, made = prepared(library)
    assert made == [True, True]
    assert aligned.paths("de") == sorted([Q, DOWN])
    assert aligned.paths("fr") == [DOWN]
    for name in library.names:
        for path, update in library.load(name).modules.items():
            a, b = (aligned.factor(name, path, factor) for factor in ("a_star", "b_star"))
            torch.testing.assert_close(b @ a, update.scaling * update.b @ update.a)
            torch.testing.assert_close(a @ a.T, torch.eye(len(a)), atol=1e-6, rtol=0)
            assert torch.equal(aligned.arrow(name, path), a[0])
            values = torch.linalg.svdvals(update.scaling * update.b @ update.a)[: len(a)]
            torch.testing.assert_close(aligned.strengths(name)[path], values)
            a, b = (aligned.trained(name, path, which) for which in ("a", "b"))
            assert torch.equal(a, update.a)
            torch.testing.assert_close(b, update.scaling * update.b)


def test_an_outline_has_the_shapes_and_no_numbers(library):
    outline = prepared(library)[0].outline("de")
    whole = library.load("de")
    assert outline.about == whole.about
    assert outline.config == whole.config
    for path, update in whole.modules.items():
        assert (outline.modules[path].a.shape, outline.modules[path].b.shape) == (
            update.a.shape,
            update.b.shape,
        )
        assert outline.modules[path].a.is_meta


def test_it_is_made_once_and_again_when_the_adapter_changes(library):
    aligned, _ = prepared(library)
    before = aligned.arrow("de", Q)
    assert prepared(library, refuse)[1] == [False, False]
    library.save("other", Adapter({Q: random(3), DOWN: random(2, 48)}))
    other = (library.path / "other" / WEIGHTS).read_bytes()
    library.remove("other")
    (library.path / "de" / WEIGHTS).write_bytes(other)  # same shapes, same length, same folder
    assert [aligned.state(name) for name in library.names] == ["stale", "current"]
    assert aligned.prepare("de")
    assert not torch.allclose(aligned.arrow("de", Q), before)

    config = library.path / "de" / CONFIG
    changed = json.loads(config.read_text()) | {"lora_alpha": 6, "alpha_pattern": {}}
    config.write_text(json.dumps(changed))
    again, made = prepared(library)
    assert made == [True, False]
    assert again.trained("de", Q, "b").equal(2 * library.load("de").modules[Q].b)


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None])
def test_a_damaged_file_is_made_again(library, damage):
    aligned, _ = prepared(library)
    file = library.path / "fr" / FILE
    file.write_bytes(file.read_bytes()[:-8] if damage is None else damage)
    again, made = prepared(library)
    assert made == [False, True]
    assert torch.equal(again.arrow("fr", DOWN), aligned.arrow("fr", DOWN))
    file.unlink()
    assert aligned.state("fr") == "missing"


def test_where_nothing_can_be_written_it_stays_in_memory(library, capsys):
    for name in library.names:
        (library.path / name / FILE).mkdir()  # a file cannot take its place, even for root
    aligned, made = prepared(library)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert "cannot be written" in said[0] and "memory" in said[0]
    assert made == [True, True]
    assert not aligned.prepare("de")
    update = library.load("de").modules[DOWN]
    a, b = (aligned.factor("de", DOWN, factor) for factor in ("a_star", "b_star"))
    torch.testing.assert_close(b @ a, update.scaling * update.b @ update.a)
    torch.testing.assert_close(aligned.trained("de", DOWN, "b"), update.scaling * update.b)
    assert aligned.outline("fr").modules[DOWN].a.shape == (4, 48)
    for name in library.names:
        assert {p.name for p in (library.path / name).glob(".*")} == set()
        (library.path / name / FILE).rmdir()
    aligned, _ = prepared(library)
    assert prepared(library, refuse)[1] == [False, False]


def test_it_is_still_a_library_of_peft_folders(library):
    before = {name: library.load(name) for name in library.names}
    prepared(library)
    for name, adapter in before.items():
        assert library.nbytes(name) == adapter.nbytes
        for path, update in library.load(name).modules.items():
            assert torch.equal(update.b, adapter.modules[path].b)
    library.save("fr", Adapter({DOWN: random(4, 48)}), overwrite=True)
    assert AlignedLibrary(library, align).state("fr") == "missing"
    library.remove("de")
    assert library.names == ["fr"]


def test_weak_arrows_are_reported(tmp_path):
    library = AdapterLibrary(tmp_path)
    ball = torch.linalg.qr(torch.randn(32, 2))[0].T
    equal = LowRank(ball, torch.linalg.qr(torch.randn(24, 2))[0], 3.0)
    zero = LowRank(torch.randn(2, 48), torch.zeros(24, 2), 1.0)
    library.save("equal", Adapter({Q: equal}))
    library.save("good", Adapter({Q: random(1), DOWN: random(2, 48)}))
    library.save("zero", Adapter({Q: equal, DOWN: zero}))
    aligned, _ = prepared(library)
    assert aligned.weakness("good") is None
    sentence = f"has no single strongest direction in 1 of 1 modules (such as {Q})"
    assert aligned.weakness("equal") == sentence
    assert f"does nothing in 1 of 2 modules (such as {DOWN}) and has no" in aligned.weakness("zero")


def test_an_adapter_that_is_not_finite_is_named(library):
    update = random(2)
    update.b[0, 0] = float("nan")
    library.save("bad", Adapter({Q: update}))
    with pytest.raises(ValueError, match=rf"'bad', {Q}: B of the adapter has NaN"):
        AlignedLibrary(library, align).prepare("bad")
    with pytest.raises(ValueError, match=r"no adapter 'dee' in .* did you mean de"):
        AlignedLibrary(library, align).prepare("dee")
