"""Aligned forms beside adapters: what is read, when it is made again, where it cannot be."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from polylect.layers.adapters import align
from polylect.library import Adapter, AdapterLibrary, LowRank
from polylect.library.aligned_library import FILE, AlignedLibrary
from polylect.library.folder import ABOUT
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
            a, b = (aligned.trained_factor(name, path, which) for which in ("a", "b"))
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
    assert again.trained_factor("de", Q, "b").equal(2 * library.load("de").modules[Q].b)


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


def test_what_an_older_version_made_is_made_again(library):
    """In version 1 rows that the update did not determine were arbitrary, and counted."""
    aligned, _ = prepared(library)
    file = library.path / "fr" / FILE
    about = safe_open(file, framework="pt").metadata()
    save_file(load_file(file), file, metadata=about | {"version": "1"})
    assert aligned.state("fr") == "stale"
    assert prepared(library)[1] == [False, True]


def test_where_nothing_can_be_written_it_stays_in_memory(library, capsys):
    for name in library.names:
        (library.path / name / FILE).mkdir()  # a file cannot take its place, even for root
    aligned, made = prepared(library)
    stdout = capsys.readouterr().out.splitlines()
    assert len(stdout) == 1
    assert "cannot be written" in stdout[0] and "memory" in stdout[0]
    assert made == [True, True]
    assert not aligned.prepare("de")
    update = library.load("de").modules[DOWN]
    a, b = (aligned.factor("de", DOWN, factor) for factor in ("a_star", "b_star"))
    torch.testing.assert_close(b @ a, update.scaling * update.b @ update.a)
    torch.testing.assert_close(aligned.trained_factor("de", DOWN, "b"), update.scaling * update.b)
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


def test_an_adapter_that_cannot_be_aligned_is_named(library):
    file = library.path / "fr" / WEIGHTS
    tensors = load_file(file)
    first = min(tensors)
    tensors[first][0, 0] = float("nan")
    save_file(tensors, file)
    with pytest.raises(ValueError, match=rf"{file}: {first} has NaN or infinite values"):
        AlignedLibrary(library, align).prepare("fr")
    save_file({name: tensor.nan_to_num() * 1e18 for name, tensor in tensors.items()}, file)
    with pytest.raises(ValueError, match=rf"'fr', {DOWN}: the update of the adapter is so large"):
        AlignedLibrary(library, align).prepare("fr")
    with pytest.raises(ValueError, match=r"no adapter 'dee' in .* did you mean de"):
        AlignedLibrary(library, align).prepare("dee")


# Adapters that are replaced


def is_of(aligned: AlignedLibrary, name: str, adapter: Adapter) -> bool:
    update = adapter.modules[DOWN]
    a, b = (aligned.factor(name, DOWN, factor) for factor in ("a_star", "b_star"))
    close = torch.allclose(b @ a, update.scaling * update.b @ update.a, atol=1e-5)
    first = torch.equal(aligned.arrow(name, DOWN), a[0])
    sizes = torch.allclose(aligned.strengths(name)[DOWN], b.norm(dim=0))
    return close and first and sizes


def test_an_adapter_that_is_replaced_while_it_is_aligned_is_aligned_again(library):
    new = Adapter({DOWN: random(4, 48)})
    waiting = [new]

    def slow(a, b, scaling):
        if waiting:
            library.save("fr", waiting.pop(), overwrite=True)
        return align(a, b, scaling)

    aligned = AlignedLibrary(library, slow)
    assert aligned.prepare("fr")
    assert is_of(aligned, "fr", new)
    fresh = AlignedLibrary(library, refuse)
    assert not fresh.prepare("fr")
    assert is_of(fresh, "fr", new)
    assert fresh.prepared == {"fr": fresh.digest("fr")} == aligned.prepared


def test_one_that_is_replaced_again_and_again_is_refused(library):
    def never_done(a, b, scaling):
        library.save("fr", Adapter({DOWN: random(4, 48)}), overwrite=True)
        return align(a, b, scaling)

    with pytest.raises(ValueError, match="fr changes while it is aligned: try again"):
        AlignedLibrary(library, never_done).prepare("fr")
    assert AlignedLibrary(library, align).state("fr") != "current"


def test_what_another_process_has_aligned_anew_is_read_anew(library):
    aligned, _ = prepared(library)
    assert is_of(aligned, "fr", library.load("fr"))
    new = Adapter({DOWN: random(4, 48)})
    library.save("fr", new, overwrite=True)
    assert AlignedLibrary(library, align).prepare("fr")
    assert not aligned.prepare("fr")
    assert is_of(aligned, "fr", new)


@pytest.mark.parametrize("realigned", [True, False])
def test_after_a_replacement_nothing_of_the_new_adapter_is_mixed_in(library, realigned):
    first, second = (AlignedLibrary(library, align) for _ in range(2))
    for aligned in (first, second):
        aligned.prepare("fr")
    assert is_of(first, "fr", library.load("fr"))  # whose file it has open from now on
    old = library.load("fr")
    library.save("fr", Adapter({DOWN: random(4, 48)}), overwrite=True)
    if realigned:
        AlignedLibrary(library, align).prepare("fr")
    assert is_of(first, "fr", old)
    reads = [lambda: second.trained_factor("fr", DOWN, "b"), lambda: second.outline("fr")]
    for read in [*reads, lambda: second.factor("fr", DOWN, "a_star")]:
        with pytest.raises(ValueError, match="fr has been replaced since it was read: start again"):
            read()


def test_what_is_said_about_an_adapter_may_change(library):
    aligned, _ = prepared(library)
    (library.path / "fr" / ABOUT).write_text('{"directions": ["en-fr"]}')
    assert aligned.outline("fr").about == {"directions": ["en-fr"]}
    assert torch.equal(aligned.trained_factor("fr", DOWN, "a"), library.load("fr").modules[DOWN].a)
