"""Steps that are not finite end a training before they are applied; runs are in test_train."""

from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist
from helpers.small import base, batch_of, build, train_a_little
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from polylect.data.batch import TranslationBatch
from polylect.strategies.base import TranslationModule
from polylect.strategies.loop.divergence import StepGuard, broken_state, clip_units

NAN = float("nan")


class Trainer:
    """What the guard asks of a trainer."""

    def __init__(self, scaler: Any = None) -> None:
        self.global_step = 6
        self.optimizers = [torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.25)]
        self.precision_plugin = type("Precision", (), {"scaler": scaler})()
        self.checkpoint_callbacks: list[Any] = []
        self.ckpt_path = None


def guard(losses: list[float], rows: list[int]) -> StepGuard:
    """That has seen two micro-batches, the second one with these losses."""
    step_guard = StepGuard()
    step_guard.observe(("en-hi",), torch.ones(1), torch.zeros(1, dtype=torch.long))
    step_guard.observe(("en-de", "en-fr"), torch.tensor(losses), torch.tensor(rows))
    step_guard.loss = torch.cat([torch.ones(1), torch.tensor(losses)]).mean()
    return step_guard


UNITS = {"en-de": 0, "en-fr": 1, "en-hi": 2}
GOOD = {unit: torch.tensor(1.0) for unit in range(3)}


# A step


@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training(value: float) -> None:
    with pytest.raises(RuntimeError) as error:
        guard([1.0, value, 2.0], [0, 1, 0]).check(Trainer(), GOOD, UNITS)
    assert str(error.value) == (
        "the loss is not finite (step 7, direction en-fr, learning rate 0.25), so the training has "
        "ended: begin again with a lower optim.optimizer.lr."
    )


def test_a_gradient_that_is_not_finite_ends_it_too() -> None:
    norms = GOOD | {1: torch.tensor(NAN)}
    with pytest.raises(RuntimeError, match=r"the gradient is not finite \(step 7, direction en-fr"):
        guard([1.0], [0]).check(Trainer(), norms, UNITS)
    shared = dict.fromkeys(UNITS, 0)
    with pytest.raises(RuntimeError, match="direction en-de, en-fr, en-hi, learning rate"):
        guard([1.0], [0]).check(Trainer(), {0: torch.tensor(float("inf"))}, shared)


def test_what_is_finite_passes_and_the_next_step_begins_anew() -> None:
    message = guard([NAN], [0])
    with pytest.raises(RuntimeError, match="direction en-de,"):
        message.check(Trainer(), GOOD, UNITS)
    message.loss = torch.tensor(1.0)
    message.check(Trainer(), GOOD, UNITS)
    message.loss = torch.tensor(NAN)  # of another process
    with pytest.raises(RuntimeError, match=r"\(step 7, learning rate"):
        message.check(Trainer(), GOOD, UNITS)


def test_processes_tell_each_other_whose_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)

    def gather(result: list[Any], own: Any) -> None:
        result[:] = [own, ["en-hi"]]

    monkeypatch.setattr(dist, "all_gather_object", gather)
    with pytest.raises(RuntimeError, match="direction en-de, en-hi"):
        guard([NAN], [0]).check(Trainer(), GOOD, UNITS)


def test_gradients_that_were_scaled_up_may_overflow() -> None:
    """The scaler skips such a step; when its scale is 1 the gradient itself is to blame."""
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.ones(1))
    norms = GOOD | {0: torch.tensor(float("inf"))}
    guard([1.0], [0]).check(Trainer(scaler), norms, UNITS)
    with pytest.raises(RuntimeError, match=r"lower optim.optimizer.lr or with .*bf16-mixed"):
        guard([NAN], [0]).check(Trainer(scaler), norms, UNITS)  # the loss is not scaled yet
    scaler.update(1.0)
    with pytest.raises(RuntimeError, match="the gradient is not finite"):
        guard([1.0], [0]).check(Trainer(scaler), norms, UNITS)


def test_a_good_step_waits_for_one_number() -> None:
    """On a GPU each number that is looked at stops the queue of what is to be done."""
    waits = []

    class Count(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._local_scalar_dense.default:
                waits.append(func)
            return func(*args, **(kwargs or {}))

    module = build("lora_switch")
    groups = module.parameter_groups()
    for group in groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    message = guard([1.0, 2.0], [0, 1])
    for clip in (None, 1.0):
        waits.clear()
        with Count():
            message.check(Trainer(), clip_units(groups, clip, "norm"), module.units())
        assert len(waits) == 1


@pytest.mark.parametrize("algorithm", ["norm", "value", None])
@pytest.mark.parametrize("value", [None, 0.5, 1000])
def test_norms_are_those_before_clipping(value: float | None, algorithm: str | None) -> None:
    groups = [
        {"params": [nn.Parameter(torch.ones(n)) for n in sizes], "unit": unit}
        for unit, sizes in ((0, (3, 2)), (1, (4,)), (0, (5,)), (2, (1,)))
    ]
    for group in groups[:3]:
        for parameter in group["params"]:
            parameter.grad = torch.randn_like(parameter)
    own = {unit: [p for g in groups if g["unit"] == unit for p in g["params"]] for unit in range(3)}
    before = {unit: [p.grad.clone() for p in ps if p.grad is not None] for unit, ps in own.items()}
    clipped = clip_units(groups, value, algorithm)
    for unit, gradients in before.items():
        norm = torch.cat([torch.zeros(1), *gradients]).norm()
        torch.testing.assert_close(clipped[unit], norm)
        for parameter, gradient in zip(own[unit], gradients, strict=False):
            expected = gradient
            if value and algorithm == "value":
                expected = gradient.clamp(-value, value)
            elif value:
                expected = gradient * (value / norm).clamp(max=1)
            torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-5)


# A state


def test_what_is_not_finite_in_a_state_is_named() -> None:
    good = torch.ones(2)
    bad = torch.tensor([1.0, NAN])
    state = {
        "state_dict": {"a": good, "b": good, "n": torch.tensor([1, 2])},
        "optimizer_states": [{"state": {3: {"step": torch.tensor(1.0), "exp_avg": good, "k": 1}}}],
        "polylect": {"accumulated": {"gradients": {"a": good}}},
    }
    assert broken_state(state) is None
    assert broken_state(state | {"polylect": {"accumulated": None}}) is None
    assert "b has NaN" in broken_state(state | {"state_dict": {"a": good, "b": bad}})
    optimizer = [{"state": {3: {"exp_avg": bad}}}]
    assert "exp_avg of parameter 3 has" in broken_state(state | {"optimizer_states": optimizer})
    accumulated = {"accumulated": {"gradients": {"a": bad}}}
    assert "the gradient of a has" in broken_state(state | {"polylect": accumulated})


def test_a_checkpoint_that_is_not_finite_is_not_read() -> None:
    module = train_a_little(build("lora_switch"))
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    name = max(n for n in checkpoint["state_dict"] if n.endswith("en-fr"))
    state = checkpoint["state_dict"]
    broken = checkpoint | {"state_dict": state | {name: state[name] * NAN}}
    before = {n: t.clone() for n, t in module.state_dict().items()}
    for load in (module.load_owned, module.load_stage, module.on_load_checkpoint):
        with pytest.raises(ValueError, match=f"has diverged, {name} has NaN .*: take an"):
            load(broken)
    assert all(torch.equal(tensor, before[n]) for n, tensor in module.state_dict().items())
    optimizer = {"optimizer_states": [{"state": {0: {"exp_avg_sq": torch.tensor([NAN])}}}]}
    module.load_owned(checkpoint | optimizer)  # the weights are good
    with pytest.raises(ValueError, match="exp_avg_sq of parameter 0"):
        module.on_load_checkpoint(checkpoint | optimizer)


@pytest.mark.parametrize("strategy", ["lora_switch", "full", "mix_moe"])
def test_weights_that_are_not_finite_are_not_exported(strategy: str, tmp_path: Any) -> None:
    module = build(strategy)
    next(p for p in module.parameters() if p.requires_grad).data.view(-1)[0] = NAN
    with pytest.raises(ValueError, match=r"is not written, its training has diverged: .* has NaN"):
        module.export(tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_base_that_is_not_finite_is_refused() -> None:
    module, (model, tokenizer) = build("frozen"), base()
    model.model.layers[1].mlp.up_proj.weight.data[2, 3] = float("inf")
    with pytest.raises(ValueError, match=r"is damaged, model.layers.1.mlp.up_proj.weight has NaN"):
        module.set_backbone(model, tokenizer)


# Mixed precision


class Batches:
    def __init__(self, *batches: TranslationBatch) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Any:
        return iter(self.batches)


def fit(module: TranslationModule, scale: float) -> L.Trainer:
    """Eight steps in half precision with a gradient scaler."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, backoff_factor=2.0**-20)
    trainer = L.Trainer(
        accelerator="cpu",
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
        max_steps=8,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    batches = [batch_of(module)] * 8
    trainer.fit(module, train_dataloaders=Batches(*batches), val_dataloaders=Batches())
    return trainer


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_steps_that_the_scaler_skips_are_no_divergence() -> None:
    module = train_a_little(build("lora_switch"))
    before = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}
    trainer = fit(module, 2.0**120)
    assert trainer.precision_plugin.scaler.get_scale() < 2.0**70  # it has skipped some
    after = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert all(p.isfinite().all() for p in after.values())
    assert any(not torch.equal(p, before[n]) for n, p in after.items())


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_a_gradient_that_stays_infinite_ends_what_the_scaler_would_skip_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spoil(module: TranslationModule) -> None:
        next(p for p in module.parameters() if p.grad is not None).grad[0] = float("inf")

    monkeypatch.setattr(TranslationModule, "on_after_backward", spoil)
    with pytest.raises(RuntimeError, match=r"the gradient is not finite .*bf16-mixed"):
        fit(train_a_little(build("lora_switch")), 2.0**30)
