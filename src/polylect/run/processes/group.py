"""The processes that torchrun or srun has started together, and the share of each in the work.

Lightning starts the processes of a training by itself where nobody else did; those of the other
programs are started by torchrun or srun. Either says in the environment which process this is.
"""

import atexit
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

_WAIT = timedelta(hours=6)
"""For the slowest process: the first one scores while the others have nothing to do."""


def _of_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _of_srun() -> bool:
    """Whether srun has started this process: a batch script's own process has no step."""
    return "SLURM_STEP_ID" in os.environ and "SLURM_NTASKS" in os.environ


def rank() -> int:
    """Return the number of this process among all of them."""
    if _of_torchrun():
        return int(os.environ["RANK"])
    return int(os.environ["SLURM_PROCID"]) if _of_srun() else local_rank()


def local_rank() -> int:
    """Return which of the processes on this machine this is."""
    of_srun = os.environ.get("SLURM_LOCALID", "0") if _of_srun() else "0"
    return int(os.environ.get("LOCAL_RANK", of_srun))


def started_together() -> int:
    """Return how many processes torchrun or srun has started; 1 without them."""
    if _of_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ["SLURM_NTASKS"]) if _of_srun() else 1


def join() -> None:
    """Meet the processes that torchrun or srun has started, if there are any."""
    if started_together() == 1:
        return
    import torch
    from torch import distributed as dist

    if dist.is_initialized():
        return
    if not _of_torchrun():
        from lightning.fabric.plugins.environments import SLURMEnvironment

        slurm = SLURMEnvironment()
        os.environ["MASTER_ADDR"] = slurm.main_address
        os.environ["MASTER_PORT"] = str(slurm.main_port)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rank=rank(), world_size=started_together(), timeout=_WAIT)
    atexit.register(_leave)


def _leave() -> None:
    from torch import distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def first_speaks() -> Iterator[None]:
    """Within it nothing but the first of processes that were started together prints."""
    if started_together() == 1 or rank() == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def from_first(value: T) -> T:
    """Return what the first process gives; the others' values have no part in it."""
    if started_together() == 1:
        return value
    from torch import distributed as dist

    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def share(items: Iterable[T]) -> list[T]:
    """Return what is this process's to do: every n-th, so that long and short are mixed."""
    return list(
        islice(items, rank(), None, started_together()) if started_together() > 1 else items
    )


def of_all(own: Sequence[T]) -> list[T]:
    """Return what all processes made of their `share`, in the order of the items before."""
    if started_together() == 1:
        return list(own)
    parts = gather(own)
    whole: list[Any] = [None] * sum(map(len, parts))
    for number, part in enumerate(parts):
        whole[number :: len(parts)] = part
    return whole


def of_all_summed(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Return CPU tensors summed over all processes, by name; those given stay as they are."""
    if started_together() == 1:
        return dict(tensors)
    from torch import distributed as dist

    sums = {name: tensor.clone() for name, tensor in tensors.items()}
    for total in sums.values():
        dist.all_reduce(total)
    return sums


def gather(own: T) -> list[T]:
    """Return the value of each process, in the order of their numbers, in all of them."""
    if started_together() == 1:
        return [own]
    from torch import distributed as dist

    parts: list[Any] = [None] * started_together()
    dist.all_gather_object(parts, own)
    return parts
