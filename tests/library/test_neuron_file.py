"""The neuron file: what is written is read, and nothing else is taken for one."""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from polylect.library.neurons.file import NeuronFile


def neurons(**changes: object) -> NeuronFile:
    """Two directions, three layers of four neurons, layers 0 and 2 chosen."""
    specific = torch.zeros(2, 2, 4, dtype=torch.bool)
    specific[0, :, 2] = True  # layer 0: neuron 2 is of both, 3 of the second alone
    specific[0, 1, 3] = True
    specific[1, 0, 1] = True  # layer 2: neuron 1 is of the first
    general = torch.tensor([[True, True, False, False], [True, False, False, False]])
    neuron_file = NeuronFile(
        directions=("en-de", "en-hi"),
        layers=(0, 2),
        selected=torch.tensor([[True, True], [True, False]]),
        general=general,
        specific=specific,
        awareness={"source": torch.rand(2, 3, 4), "target": torch.rand(2, 3, 4)},
        relevance=torch.rand(2, 3),
        activation=torch.rand(2, 3, 4),
        base_fingerprint="ab" * 32,
        about={"tokens": {"source": [30, 10], "target": [10, 30]}, "note": "हिन्दी"},
    )
    return dataclasses.replace(neuron_file, **changes)


def same(one: NeuronFile, other: NeuronFile) -> bool:
    for field in dataclasses.fields(NeuronFile):
        a, b = getattr(one, field.name), getattr(other, field.name)
        pairs = [(a[k], b[k]) for k in a | b] if field.name == "awareness" else [(a, b)]
        if not all(torch.equal(x, y) if torch.is_tensor(x) else x == y for x, y in pairs):
            return False
    return True


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path, file = tmp_path / "new" / "neurons.safetensors", neurons()
    file.write(path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    neuron_file, written = NeuronFile.read(path), path.read_bytes()
    assert same(neuron_file, file)
    neuron_file.write(path)
    assert path.read_bytes() == written


def test_scores_that_are_not_finite_are_neither_written_nor_read(tmp_path: Path) -> None:
    path, good = tmp_path / "neurons.safetensors", neurons()
    good.relevance[0, 1] = float("nan")
    with pytest.raises(ValueError, match="is not written: relevance has NaN or infinite values"):
        good.write(path)
    assert not path.exists()
    neurons().write(path)
    about = safe_open(path, "pt").metadata()
    tensors = load_file(path)
    tensors["awareness.target"][1, 2, 3] = float("inf")
    save_file(tensors, path, about)
    with pytest.raises(ValueError, match=f"{path}: awareness.target has NaN .* detect` writes"):
        NeuronFile.read(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "neurons.safetensors"
    neurons().write(path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        neurons(about={"not JSON": object()}).write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_scores_of_both_sides_are_weighted_by_tokens() -> None:
    file = neurons()
    source, target = file.awareness["source"], file.awareness["target"]
    torch.testing.assert_close(file.scores().float()[0], 0.75 * source[0] + 0.25 * target[0])
    torch.testing.assert_close(file.scores().float()[1], 0.25 * source[1] + 0.75 * target[1])
    assert torch.equal(file.scores("source"), source)


def test_counts_are_over_the_layers_that_a_direction_uses() -> None:
    assert neurons().counts() == {
        "en-de": {"general": 3, "specific": 2, "alone": 1, "of": 8},
        "en-hi": {"general": 2, "specific": 2, "alone": 1, "of": 4},
    }


def test_the_file_of_another_base_is_refused() -> None:
    neurons().check_base("ab" * 32)
    with pytest.raises(ValueError, match="another base model: fingerprint abababababab, this base"):
        neurons().check_base("cd" * 32)


def test_what_is_no_neuron_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "neurons.safetensors"
    with pytest.raises(FileNotFoundError, match="`polylect detect` writes such a file"):
        NeuronFile.read(path)
    neurons().write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        NeuronFile.read(path)
    path.write_text("no tensors")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        NeuronFile.read(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not a neuron file"):
        NeuronFile.read(path)


def test_a_file_without_a_tensor_is_refused(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "neurons.safetensors"
    neurons().write(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    del tensors["general"]
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="not a neuron file, or a damaged one"):
        NeuronFile.read(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"layers": (2, 0)}, "layers must ascend"),
        ({"layers": (0, 3)}, "layers must ascend from 0 to 2"),
        ({"general": torch.ones(2, 4, dtype=torch.bool)}, "no neuron can be general and specific"),
    ],
)
def test_owners_that_contradict_each_other_are_refused(
    change: dict, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "neurons.safetensors"
    neurons(**change).write(path)
    with pytest.raises(ValueError, match=sentence):
        NeuronFile.read(path)


def test_sizes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    from safetensors import safe_open

    path = tmp_path / "neurons.safetensors"
    neurons().write(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(path) | {"relevance": torch.ones(3, 3)}, path, metadata)
    with pytest.raises(ValueError, match=r"relevance has the shape \[3, 3\], which does not fit 2"):
        NeuronFile.read(path)
