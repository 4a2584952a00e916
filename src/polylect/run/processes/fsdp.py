"""FSDP2: each process holds a share of every weight, gradient and optimizer state.

A layer's weights are gathered when it is run and let go of after that. Nothing but the loop knows:
a strategy's layers see whole weights, and checkpoints hold whole tensors, the same as those of one
process, so that a run may go on with another number of processes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from polylect.models.families import family_of

_WHOLE_MODEL = ("on_fit_start", "training_step", "validation_step", "on_validation_epoch_end")
"""What the loop does with the weights that are in no layer: embeddings, the last norm, the head."""


class FullySharded(ModelParallelStrategy):
    """Lightning's strategy of FSDP2, for any `TranslationModule`.

    Parameters that a process does not use in a step, such as an adapter of which it has no rows,
    count there with a gradient of zero; those that no process uses have none, as in one process,
    so that no optimizer moves them.
    """

    def __init__(self) -> None:
        if not hasattr(FSDPModule, "set_reduce_scatter_unused_params"):
            raise ImportError(
                f"trainer=fsdp needs torch 2.13 or newer, this is {torch.__version__}."
            )
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)
        self._used: set[str] = set()  # parameters with a gradient in this step, in this process
        self._hooked: set[str] = set()

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, module: Any) -> None:
        """Leave of each parameter of the module this process's share, in place."""
        layers = module.backbone.get_submodule(family_of(module.backbone.config).layers)
        mesh = self.device_mesh["data_parallel"]
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh)
        for part in (*layers, module):
            part.set_reduce_scatter_unused_params(True, recurse=False)
        for method in _WHOLE_MODEL:
            register_fsdp_forward_method(module, method)
        names = {part: name for name, part in module.named_modules()}
        for layer in layers:
            layer.register_forward_pre_hook(lambda part, _: self._watch(part, names[part]))
        module.backbone.base_model.register_forward_pre_hook(lambda *_: self._watch(module))

    def _watch(self, part: nn.Module, prefix: str = "") -> None:
        """Note from now on when parameters that are whole at the moment get a gradient."""
        for name, parameter in part.named_parameters(prefix):
            if name in self._hooked or isinstance(parameter, DTensor):
                continue
            self._hooked.add(name)
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(
                    lambda _, name=name: self._used.add(name)
                )

    def before_optimizer_step(self) -> None:
        """Take the gradients of zero from parameters that no process has used in this step."""
        module = self.lightning_module
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        used = torch.tensor([name in self._used for name in trained], dtype=torch.int32)
        used = used.to(self.root_device)
        distributed.all_reduce(used, op=distributed.ReduceOp.MAX)
        for parameter, is_used in zip(trained.values(), used.tolist(), strict=True):
            if not is_used:
                parameter.grad = None
        self._used.clear()

    # Checkpoints: whole tensors, gathered one after the other and kept by the first process.

    def lightning_module_state_dict(self) -> dict[str, Any]:
        module = self.lightning_module
        state, owned = module.state_dict(), module.owned_names()
        return self._whole({name: state[name] for name in state if name in owned})

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return self._whole(getattr(optimizer, "_optimizer", optimizer).state_dict())

    def _whole(self, state: dict[str, Any]) -> dict[str, Any]:
        """Return a state with whole tensors on the CPU; nothing in other processes than the first.

        All processes have to call it, since they gather the tensors together.
        """
        whole = _map_tensors(state, self._gathered)
        return whole if self.is_global_zero else {}

    def _gathered(self, tensor: Tensor) -> Tensor | None:
        whole = tensor.detach()
        whole = whole.full_tensor() if isinstance(whole, DTensor) else whole
        return whole.cpu() if self.is_global_zero else None

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> Any:
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        load_whole(self.lightning_module, checkpoint["state_dict"])

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            shares = {
                number: {key: _share(value, parameters[number]) for key, value in own.items()}
                for number, own in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shares})


def _map_tensors(state: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(state, Mapping):
        return {key: _map_tensors(value, change) for key, value in state.items()}
    return change(state) if isinstance(state, Tensor) else state


@torch.no_grad()
def load_whole(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put whole tensors into the shares of a sharded module, by name."""
    state = module.state_dict()
    for name, tensor in tensors.items():
        state[name].copy_(_share(tensor, state[name]))


def _share(value: Any, like: Tensor) -> Any:
    """Return this process's share of a tensor that belongs to a parameter; other values as is."""
    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
