"""Classes of your own; conf/project/default.yaml names this module once for all programs."""

from polylect.strategies.lora_switch import LoRASwitch


class MyStrategy(LoRASwitch):
    """Polylect's switched adapters, which also log how large their weights have become.

    Of `polylect.strategies.base.TranslationModule` a strategy overrides the hooks that it changes,
    as `attach` (what is put into the base), `routing`, `auxiliary_loss` or `telemetry`.
    """

    def telemetry(self) -> dict[str, float]:
        norm = sum(float(p.detach().norm()) for p in self.parameters() if p.requires_grad)
        return super().telemetry() | {"train/aux/weights": norm}
