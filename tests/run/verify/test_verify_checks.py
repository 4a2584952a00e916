"""Each check on a strategy that breaks its promise: a fault, with the name of the tensor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.neurons import write_neurons
from helpers.small import DIRECTIONS, base, build, train_a_little

from polylect.data.batch import Example
from polylect.layers.lora.attach import lora_layers
from polylect.run.passport.file import GoldenOutput
from polylect.run.verify.base import check_switching
from polylect.run.verify.frozen import check_copies, check_frozen
from polylect.run.verify.isolation import check_others, check_untrained
from polylect.run.verify.outputs import compare_outputs

WEIGHT = "model.layers.1.mlp.up_proj.weight"
SOURCE = "The cat sees the house."


@pytest.fixture(params=["lora_switch", "landermt", "mix_moe", "full", "lora_library", "lag"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def module(name: str, tmp_path: Path) -> Any:
    settings = []
    if name == "landermt":
        settings = [f"strategy.neurons={write_neurons(tmp_path, base()[0], DIRECTIONS)}"]
    if name in ("lora_library", "lag"):
        train_a_little(build("lora_switch")).export(tmp_path)
        settings = [f"strategy.library={tmp_path / 'adapters'}"]
    return train_a_little(build(name, *settings))


def rows(module: Any) -> list[Example]:
    return [module.prompt(SOURCE, direction) for direction in DIRECTIONS]


def flip(tensor: torch.Tensor) -> None:
    """The lowest bit of the first value."""
    with torch.no_grad():
        tensor.detach().flatten()[:1].view(torch.int32).bitwise_xor_(1)


def plain() -> Any:
    return base()[0].eval()


def test_use_that_changes_a_bit_of_the_base_is_found(module: Any) -> None:
    assert check_switching(module, rows(module), 5, 1).verdict == "good"
    weight = module.backbone.get_parameter(WEIGHT)
    forward, batches = module.forward, []

    def careless(batch: Any) -> None:
        forward(batch)
        batches.append(batch)
        if len(batches) == 3:
            flip(weight)

    module.forward = careless
    check = check_switching(module, rows(module), 5, 1)
    assert check.faults == (f"tensor {WEIGHT} changed while the model was used.",)


def test_so_is_a_frozen_weight_that_moved(module: Any, name: str) -> None:
    check = check_frozen(module, plain(), None, has_stage=False)
    assert check.verdict == ("not checked" if name == "full" else "good")
    moved = "model.layers.0.self_attn.q_proj.weight"
    flip(module.backbone.get_parameter(moved))
    check = check_frozen(module, plain(), None, has_stage=False)
    if name == "full":
        assert not check.faults
    else:
        assert check.faults == (f"tensor {moved} is frozen, and is not that of the base's file.",)


def test_untrained_directions_that_were_touched(module: Any, name: str) -> None:
    check = check_untrained(module, plain(), rows(module))
    promised = name in ("lora_switch", "landermt", "lora_library")
    assert check.verdict == ("good" if promised else "not checked")
    if not promised:
        return
    with torch.no_grad():
        module.backbone.get_parameter("model.norm.weight").mul_(1.001)
    (alone, mixed) = check_untrained(module, plain(), rows(module)).faults
    assert "which was not trained, has other logits alone than the base" in alone
    assert "in a mixed batch" in mixed


def test_directions_that_share_what_they_should_not(module: Any, name: str) -> None:
    if name in ("lora_library",):
        module.store.acquire(DIRECTIONS)
    before = {n: t.clone() for n, t in module.state_dict().items()}
    check = check_others(module, rows(module))
    separate = name in ("lora_switch", "landermt", "lora_library")
    assert check.verdict == ("good" if separate else "not checked")
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    if not name.startswith("lora_"):
        return
    layer = next(iter(lora_layers(module.backbone).values()))
    layer.lora_b["en-de"] = layer.lora_b["en-fr"]  # one tensor for both
    check = check_others(module, rows(module))
    assert "direction en-de changes with what other directions have learnt." in check.faults


def test_copies_are_compared_bit_by_bit() -> None:
    kept = {"a": torch.zeros(3), "b": torch.ones(2), "lora_c": torch.ones(1)}
    assert check_copies("x", kept, {n: t.clone() for n, t in kept.items()}).verdict == "good"
    assert check_copies("x", kept, {"a": -kept["a"], "lora_c": kept["lora_c"]}).faults == (
        "x: tensor a is not the checkpoint's.",
    )
    assert check_copies("x", kept, {"a": kept["a"].half(), "b": kept["b"]}).faults == (
        "x: tensor a is not the checkpoint's.",
        "x: it has no tensor lora_c.",
    )


GOLDEN = GoldenOutput("en-de", SOURCE, [1, 2], SOURCE, "Die Katze.", 4, False)


@pytest.mark.parametrize(
    ("made", "is_good"),
    [
        (("Die Katze.", 4, False), True),
        (("Die Katze.\n", None, None), True),
        (("Die Katze", 4, False), False),
        (("Die Katze.", 5, False), False),
        (("Die Katze.", 4, True), False),
    ],
)
def test_texts_lengths_and_caps_are_compared(made: tuple[Any, Any, Any], is_good: bool) -> None:
    check = compare_outputs([GOLDEN], lambda _: made, "it", "; elsewhere")
    assert bool(check.faults) != is_good
    if check.faults:
        assert "it: en-de 'The cat sees the house.' gives" in check.faults[0]
        assert "the passport has 'Die Katze.' (4); elsewhere." in check.faults[0]
    assert "1 sentences in 1 directions, 4 tokens" in check.compared


def test_nothing_to_compare_is_not_good() -> None:
    assert compare_outputs([], lambda _: ("", 0, False), "it").verdict == "not checked"
