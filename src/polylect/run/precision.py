"""`trainer.precision=auto` and `model.dtype=auto`: what this machine is fast in."""

from omegaconf import DictConfig

from polylect.models.precision import bfloat16_units


def settle_precision(cfg: DictConfig) -> str | None:
    """Put the precision in place of `trainer.precision=auto`, so that a run keeps it when resumed.

    bf16-mixed where hardware computes products in bfloat16, else 32-true.
    Returns what was chosen and why, for the user; None where nothing was left to choose.
    """
    if cfg.trainer.get("precision") != "auto":
        return None
    fast, why = bfloat16_units(cfg.trainer.get("accelerator", "auto"))
    cfg.trainer.precision = "bf16-mixed" if fast else "32-true"
    return f"trainer.precision=auto is {cfg.trainer.precision}: {why}."


def settle_dtype(cfg: DictConfig, *, frozen_base: bool) -> str | None:
    """Put the dtype of the base's weights in place of `model.dtype=auto`.

    bfloat16 where hardware computes in it and the weights stay as they are; float32 else: small
    updates of a weight in bfloat16 are rounded away.
    Returns what was chosen and why, for the user; None where nothing was left to choose.
    """
    if cfg.model.get("dtype") != "auto":
        return None
    fast, why = bfloat16_units((cfg.get("trainer") or {}).get("accelerator", "auto"))
    if not frozen_base:
        fast, why = False, "the strategy may train the base's weights"
    cfg.model.dtype = "bfloat16" if fast else "float32"
    return f"model.dtype=auto is {cfg.model.dtype}: {why}."
