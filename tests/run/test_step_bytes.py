"""What a dry run says of memory, against what training then takes."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.neurons import write_neurons
from helpers.tiny import TRAIN, attempt, config, record, train
from transformers import AutoConfig, AutoModelForCausalLM

from polylect.models.backbone import tiny_backbone
from polylect.programs.train import _build
from polylect.run.monitor.memory import StepBytes, step_bytes
from polylect.run.session import register_resolvers
from polylect.strategies.loss import target_losses

SHAPES = {
    "deep": {"vocab_size": 512, "hidden_size": 256, "num_hidden_layers": 8},
    "wide": {"vocab_size": 32_000, "hidden_size": 128, "num_hidden_layers": 1},
}
RUN = """
import resource, sys
from polylect.cli import run
code = run(sys.argv[1:])
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
sys.exit(code)
"""


def make_base(folder: Path, name: str) -> Path:
    tokenizer = tiny_backbone()[1]
    shape = SHAPES[name]
    config = AutoConfig.for_model(
        "llama",
        **shape,
        intermediate_size=2 * shape["hidden_size"],
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    for part in (AutoModelForCausalLM.from_config(config), tokenizer):
        part.save_pretrained(folder / name)
    return folder / name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the allocator is that of glibc")
@pytest.mark.parametrize(
    ("shape", "strategy"),
    [
        ("deep", "full"),
        ("deep", "lora_switch"),
        ("wide", "full"),
        ("deep", "landermt"),
        ("deep", "landermt strategy.gate=none"),
    ],
)
def test_the_estimate_is_near_what_is_measured(shape: str, strategy: str, tmp_path: Path) -> None:
    base = make_base(tmp_path, shape)
    command = ["train", "model=local", f"model.path={base}", "data.directions=[en-de,en-fr]"]
    command += [*f"strategy={strategy}".split(), "data.template=plain", "data.train.size=4000"]
    if strategy.startswith("landermt"):
        model = AutoModelForCausalLM.from_pretrained(base)
        neurons = write_neurons(tmp_path, model, ["en-de", "en-fr"])
        command.append(f"strategy.neurons={neurons}")
    command += ["trainer.max_steps=8", "evaluate=false", "evaluate_base=false", "trainer=cpu"]
    (number,) = re.findall(r"memory +about ([\d.]+) GiB", printed(command, "dry_run=true"))
    (peak,) = re.findall(r"^peak (\d+)", printed(command, f"runs={tmp_path}"), re.MULTILINE)
    shutil.rmtree(tmp_path / "tongues")
    assert float(number) * 2**30 == pytest.approx(float(peak), rel=0.2)


def printed(command: list[str], *more: str) -> str:
    arguments = [sys.executable, "-c", RUN, *command, *more]
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout


def estimated(*overrides: str, precision: str = "32-true") -> StepBytes:
    register_resolvers(Path("run"))
    module, data = _build(config("train", *TRAIN, *overrides))
    data.setup("fit")
    return step_bytes(module, next(iter(data.training_stream(1))), precision)


def test_parts_are_those_of_the_configuration() -> None:
    full = estimated("strategy=full", "optim=full")
    assert full.weights == full.gradients
    assert full.state == 2 * full.gradients  # two moments
    lora = estimated("strategy=lora", "strategy.rank=4")
    assert lora.gradients < full.gradients / 2
    half = estimated("strategy=full", "optim=full", precision="bf16-true")
    assert half.weights == full.weights / 2
    mixed = estimated("strategy=full", precision="bf16-mixed")
    assert mixed.total < full.total and mixed.weights == full.weights


@pytest.mark.parametrize("gate", [None, "token", "none"])
def test_what_is_remembered_is_what_autograd_keeps(gate: str | None, tmp_path: Path) -> None:
    """The oracle: bytes of the tensors that a real step saves for its backward pass."""
    register_resolvers(Path("run"))
    strategy = ["strategy=full"]
    if gate is not None:
        base = tiny_backbone(hidden=32, layers=6)[0]
        neurons = write_neurons(tmp_path, base, ["en-de", "en-fr"])
        strategy = ["strategy=landermt", f"strategy.neurons={neurons}", f"strategy.gate={gate}"]
    module, data = _build(config("train", *TRAIN, *strategy, "model.layers=6"))
    data.setup("fit")
    batch = next(iter(data.training_stream(1)))
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    module.train()
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, module.routing(batch):
        losses, _ = target_losses(module.backbone, batch)
    activations = step_bytes(module, batch, "32-true").activations
    assert activations is not None
    assert sum(saved.values()) < activations < 1.6 * sum(saved.values())
    del losses


def test_shapes_that_depend_on_values_are_said_to_be_unknown() -> None:
    """As those of a strategy of one's own may be."""
    register_resolvers(Path("run"))
    module, data = _build(config("train", *TRAIN, "strategy=full"))
    data.setup("fit")
    module.auxiliary_loss = lambda: torch.ones(3).nonzero().float().sum()
    step = step_bytes(module, next(iter(data.training_stream(1))), "32-true")
    assert step.activations is None
    assert step.total == step.weights + step.gradients + step.state


def test_layers_that_run_again_are_not_remembered() -> None:
    plain, again = (
        estimated("strategy=full", "model.layers=8", f"model.gradient_checkpointing={on}")
        for on in ("false", "true")
    )
    assert again.activations and plain.activations
    assert again.activations < plain.activations / 2


def test_a_dry_run_of_chosen_neurons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny_backbone(hidden=32)[0]
    neurons = write_neurons(tmp_path, base, ["en-de", "en-fr"])
    attempt(tmp_path / "runs", "strategy=landermt", f"strategy.neurons={neurons}", "dry_run=true")
    shown = capsys.readouterr().out
    names = "weights|gradients|optimizer|activations"
    parts = re.findall(rf"^  ({names}): ([\d.]+) MiB", shown, re.M)
    assert len(parts) == 4 and all(float(size) > 0 for _, size in parts), shown
    assert "trained (" in shown and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "steps"),
    [(["+trainer.max_epochs=2"], 0), (["+trainer.max_epochs=2", "trainer.max_steps=-1"], 0),
     (["+trainer.max_epochs=2", "trainer.max_steps=3"], 3)],
)  # fmt: skip
def test_epochs_are_passes_over_the_data(
    settings: list[str], steps: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With little data a pool is a pass: 114 examples that are short enough, in batches."""
    register_resolvers(Path("run"))
    _, data = _build(config("train", *TRAIN))
    data.setup("fit")
    stream, drawn, batches = iter(data.training_stream(1000)), 0, 0
    while drawn < 2 * 114:
        drawn, batches = drawn + next(stream).rows, batches + 1
    many = ["trainer.max_steps=1000", "dry_run=true"]
    attempt(tmp_path, *many, *settings)
    shown = capsys.readouterr().out
    (number,) = re.findall(r"^steps +([\d,]+), .*trainer\.max_epochs=2", shown, re.M)
    assert int(number.replace(",", "")) == (steps or batches)


def test_a_run_ends_after_its_epochs(tmp_path: Path) -> None:
    settings = ["+trainer.max_epochs=1", "trainer.max_steps=-1", "data.tokens_per_batch=4096"]
    folder = train(tmp_path, *settings)
    steps = record(folder)["metrics"]["steps"]
    assert 1 <= steps <= 4
    assert sum(record(folder)["data"]["drawn"]["examples"].values()) == 114
