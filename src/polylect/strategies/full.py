"""All weights train on all directions: the fine-tuning baseline."""

from polylect.strategies.base import TranslationModule


class Full(TranslationModule):
    """Full fine-tuning: nothing is put into the backbone, nothing is frozen."""

    def attach(self) -> None:
        self.backbone.requires_grad_(True)
