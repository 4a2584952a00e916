"""A training ends before it applies, keeps or reports what is not finite.

A NaN or an infinite value in the loss is one in every weight after the next step, and the optimizer
remembers it. So the loss and the gradients are looked at before each step, all of them at once: on
a GPU the loop waits for one number. What a checkpoint holds is looked at before it is written.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor, nn

from polylect.finite import find_nonfinite


def clip_units(
    groups: Iterable[Mapping[str, Any]], value: int | float | None, algorithm: str | None
) -> dict[int, Tensor]:
    """Clips each unit on its own: one adapter's large gradient must not shrink another's.

    Args:
        groups: the optimizer's; a group's `unit` is the set of parameters that it belongs to.
        value: to which gradients are clipped; None or 0 for no clipping.
        algorithm: "value" for entries, else norms are clipped.

    Returns:
        The norm of each unit's gradient before that, by unit.
    """
    units: dict[int, list[nn.Parameter]] = {}
    for group in groups:
        units.setdefault(group.get("unit", 0), []).extend(group["params"])
    norms = {}
    for unit, parameters in units.items():
        if value and algorithm != "value":
            norms[unit] = nn.utils.clip_grad_norm_(parameters, value)
            continue
        gradients = [p.grad for p in parameters if p.grad is not None]
        norms[unit] = nn.utils.get_total_norm(gradients)
        if value and gradients:  # none where the step has no rows of this unit
            nn.utils.clip_grad_value_(parameters, value)
    return norms


class StepGuard:
    """Looks at the loss and the gradients of each optimizer step before they are applied.

    Attributes:
        loss: of the step, over all processes.
    """

    def __init__(self) -> None:
        self.loss: Tensor | None = None
        self._micro_batches: list[tuple[Sequence[str], Tensor, Tensor]] = []

    def observe(
        self,
        directions: Sequence[str],
        losses: Float[Tensor, " targets"],
        rows: Int[Tensor, " targets"],
    ) -> None:
        """Notes what a micro-batch consists of, to tell whose loss was not finite."""
        self._micro_batches.append((directions, losses.detach(), rows))

    def check(self, trainer: Any, norms: Mapping[int, Tensor], units: Mapping[str, int]) -> None:
        """Ends the step. With several processes all of them come to the same conclusion.

        Gradients in half precision may overflow because the loss was scaled up. Such a step is
        skipped and the scale halved, until it is 1 and no longer to blame.

        Args:
            norms: of the gradients, by unit.
            units: of the directions.

        Raises:
            RuntimeError: the loss or a gradient is not finite.
        """
        micro_batches, self._micro_batches = self._micro_batches, []
        values = [n for n in (self.loss, *norms.values()) if n is not None]
        device = values[0].device
        finite = torch.stack([v.to(device, torch.float32) for v in values]).isfinite()
        if bool(finite.all()):
            return
        if self.loss is not None and not self.loss.isfinite():
            raise divergence_error(
                trainer, "the loss", _nonfinite_directions(micro_batches), trainer.global_step + 1
            )
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        if scaler is not None and scaler.get_scale() > 1:
            return
        wrong = {unit for unit, norm in norms.items() if not norm.isfinite()}
        present = {
            d for directions, *_ in micro_batches for d in directions if units.get(d) in wrong
        }
        raise divergence_error(trainer, "the gradient", present, trainer.global_step + 1)


def _nonfinite_directions(
    micro_batches: Sequence[tuple[Sequence[str], Tensor, Tensor]],
) -> set[str]:
    """Return the directions whose losses are not finite."""
    return {
        directions[row]
        for directions, losses, rows in micro_batches
        for row in rows[~losses.isfinite()].unique().tolist()
    }


class Diverged(RuntimeError):
    """A training has ended since it computes nothing finite any more; it would again."""


def divergence_error(trainer: Any, what: str, directions: Iterable[str], step: int) -> Diverged:
    """Return the end of a training in a sentence: what is not finite,
    when, for whom, and the way on.

    Called in all processes at once.
    """
    where = [f"step {step}"]
    if names := ", ".join(_of_all_processes(directions)):
        where.append(f"direction {names}")
    if trainer.optimizers:
        where.append(f"learning rate {trainer.optimizers[0].param_groups[0]['lr']:.3g}")
    good = last_good(trainer)
    way = f"begin from the last good checkpoint, init_from={good}," if good else "begin again"
    half = getattr(trainer.precision_plugin, "scaler", None) is not None
    other = " or with trainer.precision=bf16-mixed" if half else ""
    return Diverged(
        f"{what} is not finite ({', '.join(where)}), so the training has ended: "
        f"{way} with a lower optim.optimizer.lr{other}."
    )


def _of_all_processes(directions: Iterable[str]) -> list[str]:
    gathered = [sorted(directions)]
    if dist.is_initialized() and dist.get_world_size() > 1:
        gathered *= dist.get_world_size()
        dist.all_gather_object(gathered, gathered[0])
    return sorted({direction for own in gathered for direction in own})


def last_good(trainer: Any) -> Path | None:
    """Return the checkpoint that was written last, by this run or the one that it goes on with."""
    named = [
        getattr(callback, name, None)
        for callback in trainer.checkpoint_callbacks
        for name in ("path", "best_model_path")
    ]
    files = [Path(path) for path in named if path and Path(path).is_file()]
    if files:
        return max(files, key=lambda path: path.stat().st_mtime_ns)
    return Path(trainer.ckpt_path) if trainer.ckpt_path else None


def broken_state(checkpoint: Mapping[str, Any]) -> str | None:
    """Return in one clause what a checkpoint holds that is not finite; None if nothing."""
    tensors = dict(checkpoint["state_dict"])
    for optimizer in checkpoint.get("optimizer_states", ()):
        for number, state in optimizer.get("state", {}).items():
            tensors |= {f"{name} of parameter {number}": t for name, t in state.items()}
    accumulated = checkpoint["polylect"].get("accumulated") or {"gradients": {}}
    tensors |= {f"the gradient of {name}": t for name, t in accumulated["gradients"].items()}
    return find_nonfinite({name: t for name, t in tensors.items() if isinstance(t, Tensor)})


def check_sound(wrong: str | None) -> None:
    """Raises ValueError where something in a checkpoint that is read is not finite."""
    if wrong:
        raise ValueError(
            f"the checkpoint is of a training that has diverged, {wrong}: take an earlier one, or "
            "train again with a lower optim.optimizer.lr."
        )
