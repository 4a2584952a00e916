"""Learning-rate schedules, made from the number of optimizer steps of the run."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_scheduler
from transformers.trainer_utils import SchedulerType

from polylect.did_you_mean import check_known


def warmup(
    optimizer: Optimizer, total_steps: int, *, shape: str = "cosine", share: float = 0.03
) -> LRScheduler:
    """Warm up linearly over `share` of the steps, then follow `shape` (a name of transformers)."""
    shapes = [s.value for s in SchedulerType]
    check_known("optim.schedule.shape", shape, shapes)
    if not 0 <= share <= 1:
        raise ValueError(f"optim.schedule.share must be between 0 and 1, got {share}.")
    return get_scheduler(shape, optimizer, round(share * total_steps), total_steps)
