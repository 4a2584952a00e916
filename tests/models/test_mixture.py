"""Mixtures of every family: where they start, and what comes back from a folder."""

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

import polylect
from polylect.layers.context import RoutingContext
from polylect.layers.experts.ffn import expert_layers
from polylect.layers.tokens import watch_tokens
from polylect.models.backbone import tiny_backbone
from polylect.models.dense import dense_copy
from polylect.models.families import FAMILIES
from polylect.models.mixture import Mixture, load_mixture, put_experts, save_mixture

IDS = torch.tensor([[9, 8, 7, 6, 5, 4], [5, 6, 7, 8, 9, 10]])
LEFT = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])


def mixed(family: str = "llama", **settings: Any) -> tuple[Any, Any, RoutingContext, Mixture]:
    """A model with experts, which each forward pass tells of its tokens, and its tokenizer."""
    model, tokenizer = tiny_backbone(family, hidden=32)
    context, mixture = RoutingContext(), Mixture(**settings)
    activations = torch.randn(2, 4 * 32 if family == "bloom" else 64, 3)
    put_experts(model, mixture, context, activations)

    def put(tokens: Any) -> None:
        context.tokens = tokens

    watch_tokens(model.base_model, context.prompt_lengths, put)
    return model.requires_grad_(False), tokenizer, context, mixture


def moved(model: Any) -> None:
    """As after training."""
    generator = torch.Generator().manual_seed(1)
    for layer in expert_layers(model).values():
        for parameter in layer.parameters():
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


def logits(model: Any, context: RoutingContext, mask: Tensor = LEFT) -> Tensor:
    with context.route([""] * len(IDS), mask, mask.sum(1)):
        return model(input_ids=IDS, attention_mask=mask).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_starts_as_its_base(family: str) -> None:
    model, _, context, mixture = mixed(family)
    base, _ = tiny_backbone(family, hidden=32)
    expected = base(input_ids=IDS, attention_mask=LEFT).logits
    assert mixture.starts_as_base
    torch.testing.assert_close(logits(model, context), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt_neox"])
@pytest.mark.parametrize(
    "settings",
    [
        {"slicing": "interleaved", "layers": 2},
        {"slicing": "random", "lm_experts": 4},
        {"slicing": "clustered", "features": "none"},
        {"slicing": "copies"},
        {"gating": "joint", "lm_experts": 4, "mt_experts": 1, "layers": [0]},
        {"features": "uniform", "mt_width": 5},
        {"lm_experts": 1, "mt_experts": 0},
    ],
    ids=str,
)
def test_every_mixture_of_it_does(family: str, settings: dict[str, Any]) -> None:
    model, _, context, mixture = mixed(family, **settings)
    base, _ = tiny_backbone(family, hidden=32)
    expected = base(input_ids=IDS, attention_mask=LEFT).logits
    assert mixture.starts_as_base
    torch.testing.assert_close(logits(model, context), expected, atol=1e-5, rtol=1e-5)


def test_copies_with_a_joint_choice_of_two_are_the_base_in_stage_one() -> None:
    model, _, context, _ = mixed(slicing="copies", gating="joint", top=2, mt_experts=0)
    base, _ = tiny_backbone(hidden=32)
    expected = base(input_ids=IDS, attention_mask=LEFT).logits
    torch.testing.assert_close(logits(model, context), expected, atol=1e-5, rtol=1e-5)


def test_some_do_not_and_say_so() -> None:
    for settings in (
        {"top": 1},
        {"mt_start": "random"},
        {"mt_start": "copies"},
        {"gating": "joint", "slicing": "copies"},
    ):
        assert not Mixture(**settings).starts_as_base


def test_layers_are_all_every_nth_or_a_list() -> None:
    assert Mixture().layer_numbers(3) == [0, 1, 2]
    assert Mixture(layers=8).layer_numbers(24) == [7, 15, 23]
    assert Mixture(layers=[4, 1]).layer_numbers(5) == [1, 4]
    for layers in (4, [], [3], [-1]):
        with pytest.raises(ValueError, match=r"layers=.* does not fit a model of 3 layers"):
            Mixture(layers=layers).layer_numbers(3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slicing": "copy"}, "slicing=copy does not exist; did you mean copies"),
        ({"mt_start": "zeros"}, "mt_start=zeros does not exist; did you mean zero"),
        ({"features": "ftt"}, "features=ftt does not exist; did you mean"),
        ({"gating": "groups"}, "gating=groups does not exist"),
        ({"lm_experts": 0}, "at least 1 LM expert"),
        ({"top": 3}, "top 3 of 2 LM and 2 MT experts"),
        ({"mt_width": 0}, "mt_width must be at least 1"),
        ({"layers": 0}, "layers must be at least 1"),
    ],
)
def test_bad_settings_die_early(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(**settings)


# Folders.


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"slicing": "clustered", "features": "fft_short_time", "window": 4}),
        ("bloom", {"slicing": "copies", "features": "fft_prompt", "top": 1}),
        ("gpt_neox", {"gating": "joint", "top": 2, "features": "random", "seed": 3}),
    ],
)
def test_a_saved_mixture_is_the_mixture(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    model, tokenizer, context, mixture = mixed(family, **settings)
    moved(model)
    save_mixture(model, mixture, tokenizer, tmp_path)
    loaded, its_tokenizer = load_mixture(tmp_path)
    actual = loaded(input_ids=IDS, attention_mask=LEFT).logits
    assert torch.equal(actual, logits(model, context))
    assert its_tokenizer("The cat.").input_ids == tokenizer("The cat.").input_ids
    assert not loaded.training
    options = {"attention_mask": LEFT, "max_new_tokens": 6, "num_beams": 2, "do_sample": False}
    with context.route([""] * 2, LEFT, LEFT.sum(1)):
        expected = model.generate(IDS, **options)
    assert torch.equal(loaded.generate(IDS, **options), expected)


def test_another_precision_is_that_of_the_base_alone(tmp_path: Path) -> None:
    model, tokenizer, _, mixture = mixed()
    save_mixture(model, mixture, tokenizer, tmp_path)
    loaded, _ = load_mixture(tmp_path, dtype=torch.bfloat16)
    assert loaded.lm_head.weight.dtype == torch.bfloat16
    (layer, *_) = expert_layers(loaded).values()
    assert layer.expert_mt.up.weight.dtype == torch.float32
    assert loaded(input_ids=IDS).logits.isfinite().all()


def test_it_cannot_be_taken_for_a_plain_model(tmp_path: Path) -> None:
    model, tokenizer, _, mixture = mixed()
    save_mixture(model, mixture, tokenizer, tmp_path)
    with pytest.raises(ValueError, match="polylect_mixture"):
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no config\.json: it is no saved mixture"):
        load_mixture(tmp_path)
    tiny_backbone(hidden=32)[0].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a plain model: load it with transformers"):
        load_mixture(tmp_path)


def test_weights_that_are_damaged_or_not_finite_are_refused(tmp_path: Path) -> None:
    model, tokenizer, _, mixture = mixed()
    save_mixture(model, mixture, tokenizer, tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    tensors = load_file(file)
    name = next(name for name in tensors if "expert_mt.up" in name)
    tensors[name][3, 1] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"{name} has NaN or infinite values .* take another"):
        load_mixture(tmp_path)
    del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"safetensors is damaged or of another mixture"):
        load_mixture(tmp_path)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"safetensors is damaged .* copy it again"):
        load_mixture(tmp_path)


def test_loading_needs_nothing_that_trains() -> None:
    source = Path(polylect.__file__).parents[1]
    seen: set[str] = set()
    waiting = ["polylect.models.mixture"]
    while waiting:
        name = waiting.pop()
        folder = source / Path(*name.split("."))
        path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        if name in seen or not path.is_file():  # seen, or something in a module
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                assert node.module.split(".")[0] not in ("lightning", "hydra", "omegaconf")
                waiting += [name for name in names if name.startswith("polylect.")]
    needed = {"models", "layers", "kernels", "did_you_mean", "files", "finite"}
    assert {name.split(".")[1] for name in seen} == needed


# Plain models.


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"features": "uniform", "slicing": "random", "mt_width": 5}),
        ("gpt_neox", {"features": "uniform", "slicing": "copies", "layers": 2}),
        ("bloom", {"lm_experts": 1, "mt_experts": 0}),
        ("bloom", {"features": "uniform", "mt_experts": 0}),
        ("gemma2", {"gating": "joint", "features": "uniform"}),
    ],
)
def test_a_mixture_that_is_no_choice_is_a_plain_model(
    family: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    model, _, context, _ = mixed(family, **settings)
    moved(model)
    expected = logits(model, context)
    dense_copy(model).save_pretrained(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    actual = plain(input_ids=IDS, attention_mask=LEFT).logits
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    assert AutoConfig.from_pretrained(tmp_path).model_type == plain.config.model_type
    assert torch.equal(logits(model, context), expected)


def test_trained_routers_and_networks_of_fixed_width_are_refused() -> None:
    model, *_ = mixed()
    moved(model)
    with pytest.raises(ValueError, match=r"the router of layer_0 decides token by token"):
        dense_copy(model)
    model, *_ = mixed("bloom", features="uniform")
    with pytest.raises(ValueError, match=r"the experts have 256 neurons, and a bloom model has"):
        dense_copy(model)
