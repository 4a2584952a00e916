"""All weights train on all directions: the fine-tuning baseline."""

from pathlib import Path

from polylect.strategies.base import TranslationModule


class Full(TranslationModule):
    """Full fine-tuning: nothing is put into the backbone, nothing is frozen."""

    def attach(self) -> None:
        self.backbone.requires_grad_(True)

    def export(self, folder: Path) -> None:
        """Write a Hugging Face model under `folder/model`: a base for others, for this one too."""
        self.backbone.save_pretrained(folder / "model")
        self.tokenizer.save_pretrained(folder / "model")
