"""The base model as it is: the zero-shot baseline."""

from typing import ClassVar

from polylect.strategies.base import TranslationModule


class Frozen(TranslationModule):
    """No change and no training; `evaluate` scores it."""

    trains: ClassVar[bool] = False
    frozen_base: ClassVar[bool] = True

    def attach(self) -> None:
        self.backbone.requires_grad_(False)
