"""`polylect verify`: what a strategy promises and a passport says, shown to be so."""

from pathlib import Path

from omegaconf import DictConfig

from polylect.config.roots import ConfigError
from polylect.config.validation import validate
from polylect.did_you_mean import check_known


def main(cfg: DictConfig) -> int:
    """Print a table of checks, and a sentence for each fault; returns 0, or 1 if there is one."""
    settle(cfg)
    validate(cfg)
    check_known("prompts", cfg.prompts, ("ids", "text"))
    if cfg.turns < 1:
        raise ConfigError(f"turns must be at least 1, got {cfg.turns}.")
    if cfg.out is not None and Path(cfg.out).exists():
        raise ConfigError(f"out={cfg.out} exists already and is not overwritten.")
    print(f"polylect verify: {cfg.target}, loading …", flush=True)
    from polylect.eval.table import show
    from polylect.files import write_json
    from polylect.run.terminal import quiet
    from polylect.run.verify.check import as_json, checks_table, has_failed
    from polylect.run.verify.targets import verify

    quiet()
    checks = verify(cfg)
    show(checks_table(checks))
    for fault in (fault for check in checks for fault in check.faults):
        print(f"FAILED: {fault}")
    if cfg.out is not None:
        write_json(Path(cfg.out), as_json(cfg.target, checks))
    failed = has_failed(checks)
    print(f"{cfg.target} is {'NOT ' * failed}what it says.")
    return int(failed)


def settle(cfg: DictConfig) -> None:
    """Put the target into a strategy that was chosen; raises ConfigError if it takes no library."""
    if cfg.strategy is None:
        return
    if "library" not in list(cfg.strategy.keys()):
        raise ConfigError(
            "strategy=… is for a folder of adapters: take lag, arrow, spectr or lora_library."
        )
    cfg.strategy.library = cfg.target
