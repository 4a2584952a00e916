"""The whole model again, when a training that shared it out has ended."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy

from polylect.run.build import load
from polylect.run.processes.fsdp import FullySharded


def whole_module(module: Any, trainer: Any, folder: Path, packages: Sequence[str] = ()) -> Any:
    """Return the module of a run with all of its weights, for scores, exports and pictures.

    Where weights were shared out, this process has a share and the others have ended: base and
    checkpoint of the run `folder` are loaded again. Else it is the module itself.

    Args:
        packages: the user's own, whose objects the run may name.
    """
    if not isinstance(trainer.strategy, FullySharded | DeepSpeedStrategy):
        return module
    for path in (folder / "checkpoints").iterdir():
        if path.is_dir():
            _join_deepspeed(path)
    whole, _ = load(folder, packages=packages)
    whole.trainer = trainer
    return whole


def _join_deepspeed(path: Path) -> None:
    """Put a file with whole weights in the place of the folder that DeepSpeed has written."""
    from lightning.pytorch.utilities.deepspeed import convert_zero_checkpoint_to_fp32_state_dict

    joined = path.with_suffix(".joined")
    convert_zero_checkpoint_to_fp32_state_dict(path, joined)
    shutil.rmtree(path)
    joined.rename(path)
