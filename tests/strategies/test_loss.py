"""The training loss against transformers' own, and a step against plain PyTorch."""

from collections.abc import Iterator
from typing import Any

import lightning as L
import pytest
import torch
from helpers.small import ROWS, batch_of, build, train_a_little
from transformers import CohereConfig, CohereForCausalLM

from polylect.data.batch import IGNORED, TranslationBatch
from polylect.models.backbone import tiny_backbone
from polylect.models.families import FAMILIES
from polylect.strategies.base import TranslationModule
from polylect.strategies.loss import StepLoss, target_losses

# Llama's norms and positions are computed in float32 whatever the weights are.
CLOSE = {"atol": 1e-6, "rtol": 1e-5}
MORE = (
    ("en-fr", "It.", "Il le voit aujourd'hui dans le jardin."),
    ("en-de", "Today the old house sees the new book.", "Heute."),
    ("en-hi", "The cat.", "बिल्ली।"),
    ("en-hi", "We read a book in the garden.", "हम आज बगीचे में किताब पढ़ते हैं।"),
)


def their_loss(model: Any, batch: TranslationBatch) -> torch.Tensor:
    return model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
    ).loss


# Per token


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_transformers(family: str) -> None:
    module = build("frozen", f"model.family={family}")
    module.backbone, _ = tiny_backbone(family, hidden=32)
    if hasattr(module.backbone.config, "final_logit_softcapping"):
        module.backbone.config.final_logit_softcapping = 0.1  # far below the logits: it must act
    batch = batch_of(module)
    losses, rows = target_losses(module.backbone, batch)
    torch.testing.assert_close(losses.mean(), their_loss(module.backbone, batch))
    assert len(losses) == batch.target_tokens
    for row in range(batch.rows):
        alone = batch_of(module, [ROWS[row]])
        expected = their_loss(module.backbone, alone)
        torch.testing.assert_close(losses[rows == row].mean(), expected, atol=1e-5, rtol=1e-5)


def test_the_loss_of_a_family_we_do_not_know_is_that_of_transformers() -> None:
    module = build("frozen")
    config = CohereConfig(
        vocab_size=module.backbone.config.vocab_size,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        logit_scale=0.25,
    )
    model = CohereForCausalLM(config).eval()
    batch = batch_of(module)
    losses, _ = target_losses(model, batch)
    torch.testing.assert_close(losses.mean(), their_loss(model, batch))


def plain_losses(module: TranslationModule, row: tuple[str, str, str]) -> torch.Tensor:
    """Of one row: the head's weight with the adapter added, on all positions, without a route."""
    batch, head = batch_of(module, [row]), module.backbone.get_output_embeddings()
    with module.routing(batch):
        hidden = module.backbone.base_model(input_ids=batch.input_ids).last_hidden_state[0]
    a, b = head.lora_a[row[0]], head.lora_b[row[0]]
    logits = hidden @ (head.weight + head.scaling[row[0]] * b @ a).T
    cap = getattr(module.backbone.config, "final_logit_softcapping", None)
    logits = cap * torch.tanh(logits / cap) if cap else logits
    losses = -logits.log_softmax(1)[:-1].gather(1, batch.input_ids[0, 1:, None])[:, 0]
    return losses[batch.labels[0, 1:] != IGNORED]


@pytest.mark.parametrize("family", ["llama", "gemma2", "bloom", "gpt_neox"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("numbers", [(0, 1, 2, 3), (0, 4), (0, 1, 7), (0, 1, 2, 5)])
def test_an_adapted_head_knows_whose_row_a_target_is_of(
    family: str, tied: bool, numbers: tuple[int, ...]
) -> None:
    """In all but the first the targets are a multiple of the rows: they could be shared out."""
    rows = [(*ROWS, *MORE)[i] for i in numbers]
    module = build("lora_switch")
    module.backbone, _ = tiny_backbone(family, hidden=32)
    head = module.backbone.get_output_embeddings()
    if not tied:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    module.targets = [next(n for n, m in module.backbone.named_modules() if m is head)]
    module.attach()
    train_a_little(module).double()
    batch = batch_of(module, rows)
    assert (batch.target_tokens % len(rows) == 0) == (numbers != (0, 1, 2, 3))
    with module.routing(batch):
        losses, of_rows = target_losses(module.backbone, batch)
    losses.sum().backward()
    grads = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    for i, row in enumerate(rows):
        plain = plain_losses(module, row)
        torch.testing.assert_close(losses[of_rows == i], plain, **CLOSE)
        plain.sum().backward()
    assert len(losses) == batch.target_tokens
    for name, gradient in grads.items():
        torch.testing.assert_close(gradient, module.get_parameter(name).grad, **CLOSE)


# Per step


class Steps:
    """The part of a trainer that a training step asks for."""

    def __init__(self, accumulate: int) -> None:
        self.accumulate_grad_batches = accumulate
        self.world_size = 1


def gradients(module: TranslationModule, batches: list[TranslationBatch]) -> dict[str, Any]:
    """Gradients of one optimizer step over these micro-batches, as Lightning would form them."""
    trainer = Steps(len(batches))
    module.trainer = trainer
    for index, batch in enumerate(batches):
        (module.training_step(batch, index) / len(batches)).backward()
    module._losses.correct(module.parameter_groups())
    return {n: p.grad for n, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("strategy", ["full", "lora", "lora_switch"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_accumulation_leaves_the_gradients(strategy: str, order: tuple[int, ...]) -> None:
    whole, parts = (train_a_little(build(strategy)).double() for _ in range(2))
    expected = gradients(whole, [batch_of(whole)])
    actual = gradients(parts, [batch_of(parts, [ROWS[i]]) for i in order])
    assert actual.keys() == expected.keys()
    assert len(actual) >= 20
    for name, gradient in expected.items():
        torch.testing.assert_close(actual[name], gradient, **CLOSE)
    torch.testing.assert_close(parts._losses.mean(), whole._losses.mean())


def test_each_unit_learns_from_the_mean_over_its_own_tokens() -> None:
    module = train_a_little(build("lora_switch")).double()
    grads = gradients(module, [batch_of(module, [r]) for r in ROWS])
    for direction in module.directions:
        alone = train_a_little(build("lora_switch")).double()
        batch = batch_of(alone, [row for row in ROWS if row[0] == direction])
        with alone.routing(batch):
            target_losses(alone.backbone, batch)[0].mean().backward()
        for name, parameter in alone.named_parameters():
            if name.endswith(direction):
                torch.testing.assert_close(grads[name], parameter.grad, **CLOSE)


def test_auxiliary_losses_weigh_by_tokens() -> None:
    parameter = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    parts = [(5, 2.0), (1, 7.0), (10, -3.0)]  # target tokens and auxiliary loss
    steps = StepLoss(1)
    for tokens, auxiliary in parts:
        losses = torch.zeros(tokens, dtype=torch.float64)
        units = torch.zeros(tokens, dtype=torch.long)
        steps.add(losses, units, parameter * auxiliary).backward()
    steps.correct([{"params": [parameter]}])
    expected = sum(tokens * auxiliary for tokens, auxiliary in parts) / 16
    torch.testing.assert_close(parameter.grad, torch.tensor(expected, dtype=torch.float64))


# For each micro-batch the target tokens of three units and their auxiliary losses.
FIRST_HAS_ALL = [((5, 2, 1), (2.0, -1.0, 4.0)), ((1, 0, 6), (7.0, 3.0, 0.5))]
SOME_COME_LATER = [
    ((5, 0, 0), (2.0, 9.0, 9.0)),
    ((1, 3, 0), (7.0, -1.0, 9.0)),
    ((10, 4, 0), (-3.0, 5.0, 9.0)),
]


@pytest.mark.parametrize("parts", [FIRST_HAS_ALL, SOME_COME_LATER])
def test_each_units_auxiliary_loss_weighs_by_its_own_tokens(parts: list[Any]) -> None:
    def step(batches: list[Any]) -> torch.Tensor:
        """Gradients of one parameter per unit, which its tokens and auxiliary loss both reach."""
        parameters = [torch.nn.Parameter(torch.ones((), dtype=torch.float64)) for _ in range(3)]
        steps = StepLoss(3)
        for tokens, auxiliary in batches:
            units = torch.arange(3).repeat_interleave(torch.as_tensor(tokens))
            main = torch.stack(parameters).sin()[units]
            steps.add(
                main, units, torch.stack(parameters).square() * torch.tensor(auxiliary)
            ).backward()
        steps.correct([{"params": [p], "unit": unit} for unit, p in enumerate(parameters)])
        return torch.stack([p.grad for p in parameters])

    tokens, auxiliary = (torch.tensor(x, dtype=torch.float64) for x in zip(*parts, strict=True))
    mean = (tokens * auxiliary).sum(0) / tokens.sum(0).clamp(min=1)
    whole = step([(tokens.sum(0).long().tolist(), mean.tolist())])
    torch.testing.assert_close(step(parts), whole)
    at_one = (torch.ones(3, dtype=torch.float64).cos() + 2 * mean) * (tokens.sum(0) > 0)
    torch.testing.assert_close(whole, at_one)


def test_auxiliary_losses_of_two_processes_weigh_by_their_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda counts: counts.fill_(4))
    parameter = torch.nn.Parameter(torch.ones(()))
    for tokens, auxiliary in ((3, 2.0), (1, 6.0)):  # of each process
        units = torch.zeros(tokens, dtype=torch.long)
        value = StepLoss(1).add(torch.zeros(tokens), units, parameter * auxiliary)
        (value / 2).backward()  # DDP's mean over the processes
    assert parameter.grad == (3 * 2 + 1 * 6) / 4


def test_one_auxiliary_loss_for_several_units_is_refused() -> None:
    auxiliary = torch.nn.Parameter(torch.ones(()))
    with pytest.raises(ValueError, match="one value for 2 units: give one for each"):
        StepLoss(2).add(torch.ones(1), torch.zeros(1, dtype=torch.long), auxiliary)


def test_the_logged_loss_is_the_mean_over_the_step() -> None:
    steps = StepLoss(2)
    with pytest.raises(RuntimeError, match="at least one call of add"):
        steps.mean()
    zero = torch.zeros(())
    steps.add(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]), zero)
    steps.add(torch.tensor([10.0]), torch.tensor([1]), zero)
    assert steps.mean() == 4
    steps.reset()
    steps.add(torch.tensor([5.0]), torch.tensor([0]), zero)
    assert steps.mean() == 5


def test_clipping_is_per_unit() -> None:
    module = build("lora_switch")
    optimizer = torch.optim.SGD(module.parameter_groups(), lr=1.0)
    norms = dict(zip(module.adapters, (100.0, 0.5, 3.0), strict=True))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn_like(parameter)
        _scale(group["params"], norms[group["name"]])
    module.configure_gradient_clipping(optimizer, 1.0, "norm")
    result = [_norm(group["params"]) for group in optimizer.param_groups]
    torch.testing.assert_close(torch.tensor(result), torch.tensor([1.0, 0.5, 1.0]))


def _norm(parameters: list[torch.nn.Parameter]) -> float:
    return float(torch.cat([p.grad.flatten() for p in parameters]).norm())


def _scale(parameters: list[torch.nn.Parameter], norm: float) -> None:
    factor = norm / _norm(parameters)
    for parameter in parameters:
        parameter.grad *= factor


# Lightning's loop against one written by hand


class Loader:
    def __init__(self, batches: list[TranslationBatch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[TranslationBatch]:
        return iter(self.batches)


def by_lightning(
    module: TranslationModule, batches: list[TranslationBatch], size: int, clip: float
) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=len(batches) // size,
        accumulate_grad_batches=size,
        gradient_clip_val=clip,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, train_dataloaders=Loader(batches), val_dataloaders=Loader([]))


def by_hand(
    module: TranslationModule, batches: list[TranslationBatch], size: int, clip: float
) -> None:
    """Each unit by itself, on the mean over its target tokens of `size` micro-batches."""
    optimizer = module.optimizer(module.parameter_groups())
    schedule = module.schedule(optimizer, len(batches) // size)
    for start in range(0, len(batches), size):
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            mine = [own_losses(module, b, group["unit"]) for b in batches[start : start + size]]
            if len(losses := torch.cat(mine)):
                losses.mean().backward(inputs=group["params"])
                torch.nn.utils.clip_grad_norm_(group["params"], clip)
        optimizer.step()
        schedule.step()


def own_losses(module: TranslationModule, batch: TranslationBatch, unit: int) -> torch.Tensor:
    with module.routing(batch):
        losses, rows = target_losses(module.backbone, batch)
    units = torch.tensor([module.units()[direction] for direction in batch.directions])
    return losses[units[rows] == unit]


ADAMW = ["optim.optimizer.weight_decay=0.1"]
# Adam forgives a gradient of the wrong length, this one does not.
SGD = ["optim.optimizer._target_=torch.optim.SGD", "~optim.optimizer.betas"]
SGD += ["optim.optimizer.lr=0.5", "+optim.optimizer.momentum=0.9"]


@pytest.mark.parametrize(
    ("strategy", "optimizer", "size", "clip"),
    [
        ("full", SGD, 3, 100.0),
        ("lora_switch", SGD, 3, 100.0),
        ("lora_switch", ADAMW, 1, 0.5),
        ("lora", ADAMW, 3, 0.5),
    ],
)
def test_training_is_what_one_would_write_by_hand(
    strategy: str, optimizer: list[str], size: int, clip: float
) -> None:
    settings = [*optimizer, "optim.schedule.share=0.3"]
    ours, plain = (train_a_little(build(strategy, *settings)).double() for _ in range(2))
    rows = (*ROWS, *MORE)
    order = (0, 1, 2, 4, 5, 6, 7, 3, 0)
    batches = [batch_of(ours, [rows[i], rows[(3 * i + 1) % 8]]) for i in order]
    by_lightning(ours, batches, size, clip)
    by_hand(plain, batches, size, clip)
    expected = plain.state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], **CLOSE)
