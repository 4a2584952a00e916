"""Gradient checkpointing: layers are run again in the backward pass instead of being remembered."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn
from torch.utils.checkpoint import noop_context_fn

Contexts = tuple[AbstractContextManager, AbstractContextManager]


def checkpoint_layers(model: Any, context_fn: Callable[[], Contexts] = noop_context_fn) -> None:
    """Let each layer of the model keep its input alone in training.

    Saves most of the memory that activations take, and costs a second forward pass.

    Args:
        model: a Hugging Face model.
        context_fn: see `torch.utils.checkpoint`; called when a layer runs, for a context within
            which it runs first and another within which it runs again.

    Raises:
        ValueError: models of this kind cannot do that.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise ValueError(
            f"model.gradient_checkpointing=true does not work for {type(model).__name__}: leave it "
            "false, and take smaller batches or a quantised model."
        )
    # transformers 5.2x has renamed it.
    enable = getattr(model, "activation_checkpointing_enable", None)
    enable = enable or model.gradient_checkpointing_enable
    enable({"use_reentrant": False, "context_fn": context_fn})


def is_checkpointed(model: nn.Module) -> bool:
    """Return whether layers of the model run again in the backward pass."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
