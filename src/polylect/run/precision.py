"""`precision=auto` and `model.dtype=auto`: what this machine is fast in."""

from omegaconf import DictConfig

from polylect.models.precision import bfloat16_units


def settle_precision(node: DictConfig, key: str = "trainer.precision") -> str | None:
    """Put a precision in place of `precision: auto`, so that a run keeps it when resumed.

    bf16-mixed where hardware computes products in bfloat16, else 32-true.
    Returns what was chosen and why, for the user; None where nothing was left to choose.

    Args:
        node: with the precision, and an `accelerator` or `device`.
        key: of the precision, for the user.
    """
    if node.get("precision") != "auto":
        return None
    device = node.get("accelerator") or node.get("device") or "auto"
    fast, why = bfloat16_units(str(device).split(":")[0])
    node.precision = "bf16-mixed" if fast else "32-true"
    return f"{key}=auto is {node.precision}: {why}."


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
