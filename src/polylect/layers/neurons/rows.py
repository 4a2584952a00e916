"""The tuned neurons of one direction as a small file, to be written into a base model."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from polylect.files import load_tensors, whole_file
from polylect.finite import check_written, find_nonfinite
from polylect.layers.neurons.ffn import neuron_banks
from polylect.layers.neurons.layer import NeuronLayer

_AXES = ("rows", "columns")
"""What a file calls the values, by the axis of the layer's weight."""


@dataclass(frozen=True)
class NeuronRows:
    """Rows (or columns) of linear layers and what they are to be.

    Attributes:
        axis: by the layer's path, 0 for rows of its weight and 1 for columns.
        index: by the layer's path, which of them.
        values: by the layer's path, (n, in) for rows or (out, n) for columns.
        biases: by the layer's path, (n,), where rows have biases.
        about: direction, fingerprint of the base, gate.
    """

    axis: Mapping[str, int]
    index: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    biases: Mapping[str, Tensor]
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_model(cls, model: nn.Module, direction: str, fingerprint: str) -> "NeuronRows":
        """Collect the neurons that a direction uses in a model with slices.

        Raises ValueError if it uses none.
        """
        axis, index, values, biases = {}, {}, {}, {}
        for path, layer in model.named_modules():
            if not isinstance(layer, NeuronLayer):
                continue
            names = layer.bank.used(direction)
            if not names:
                continue
            axis[path] = layer.axis
            index[path] = torch.cat([layer.bank.index(n) for n in names])
            values[path] = torch.cat([layer.neuron_values[n].detach() for n in names], layer.axis)
            if len(layer.neuron_bias):
                biases[path] = torch.cat([layer.neuron_bias[n].detach() for n in names])
        if not index:
            raise ValueError(f"direction {direction} has no tuned neurons.")
        gated = any(bank.gates for bank in neuron_banks(model).values())
        about = {"direction": direction, "base_fingerprint": fingerprint, "gated": gated}
        return cls(axis, index, values, biases, about)

    def write(self, path: Path) -> None:
        """Write a safetensors file; nothing half-written stays under its name.

        Raises ValueError where a value is NaN or infinite.
        """
        tensors = {f"{p}.index": t.contiguous() for p, t in self.index.items()}
        tensors |= {f"{p}.{_AXES[self.axis[p]]}": t.contiguous() for p, t in self.values.items()}
        tensors |= {f"{p}.bias": t.contiguous() for p, t in self.biases.items()}
        check_written(str(path), tensors)
        with whole_file(path) as partial:
            save_file(tensors, partial, {"about": json.dumps(self.about)})

    @classmethod
    def read(cls, path: Path | str) -> "NeuronRows":
        """Read what `write` wrote; raises ValueError where the file is something else."""
        tensors, metadata = load_tensors(Path(path), "a file of tuned neurons")
        by_kind: dict[str, dict[str, Tensor]] = {name: {} for name in ("index", "bias", *_AXES)}
        for name, tensor in tensors.items():
            layer, _, what = name.rpartition(".")
            if what not in by_kind or "about" not in metadata:
                raise ValueError(f"{path} is no file of tuned neurons: it holds {name}.")
            by_kind[what][layer] = tensor
        if wrong := find_nonfinite(tensors):
            raise ValueError(f"{path}: {wrong}; its training has diverged, take another.")
        axis = {layer: a for a, what in enumerate(_AXES) for layer in by_kind[what]}
        values = by_kind["rows"] | by_kind["columns"]
        return cls(axis, by_kind["index"], values, by_kind["bias"], json.loads(metadata["about"]))

    def check_plain(self) -> None:
        """Raises ValueError where a gate weighs the neurons, which no plain model does."""
        if self.about.get("gated"):
            raise ValueError(
                f"the neurons of {self.about.get('direction')} were tuned behind a gate, which "
                "weighs them against the base's own: a plain model with all of them at full weight "
                "would say something else; only a run with strategy.gate=none can be written into "
                "one, and the rows themselves are had with polylect export form=rows"
            )

    @torch.no_grad()
    def put_on(self, model: nn.Module) -> "NeuronRows":
        """Write the rows into a plain model's weights.

        Returns what was there: putting that on restores the weights bit for bit.
        Raises ValueError where a layer is missing or has another shape, and as `check_plain`.
        """
        self.check_plain()
        values, biases = {}, {}
        for path, index in self.index.items():
            layer, new, axis = _layer(model, path), self.values[path], self.axis[path]
            _check_fit(path, layer, new, index, axis)
            values[path] = layer.weight.index_select(axis, index)
            layer.weight.index_copy_(axis, index, new.to(layer.weight.dtype))
            if path in self.biases:
                biases[path] = layer.bias[index].clone()
                layer.bias.index_copy_(0, index, self.biases[path].to(layer.bias.dtype))
        return NeuronRows(self.axis, self.index, values, biases, self.about)


def _layer(model: nn.Module, path: str) -> nn.Module:
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        raise ValueError(f"{type(model).__name__} has no layer {path} for tuned neurons.") from None
    norm = isinstance(getattr(layer, "weight", None), Tensor) and layer.weight.dim() == 1
    if isinstance(layer, NeuronLayer) or not (norm or type(layer) is nn.Linear):
        raise ValueError(f"{path} is a {type(layer).__name__}: put rows on a plain base model.")
    return layer


def _check_fit(path: str, layer: nn.Module, new: Tensor, index: Tensor, axis: int) -> None:
    expected = list(layer.weight.shape)
    inside = int(index.max()) < expected[axis]
    expected[axis] = len(index)
    if list(new.shape) != expected or not inside:
        shape = " x ".join(map(str, layer.weight.shape))
        raise ValueError(
            f"{path} is {shape}; tuned neurons of shape {tuple(new.shape)} do not fit."
        )


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a copy of a model with slices, without them: the base as it was."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, NeuronLayer):
            module.__class__ = module.plain_class
            for name in ("neuron_values", "neuron_bias", "plain_class", "bank", "patched"):
                delattr(module, name)
            vars(module).pop("first", None)
        if "neuron_bank" in module._modules:
            del module.neuron_bank
    return copied
