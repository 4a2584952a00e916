"""All weights train on all directions: the fine-tuning baseline."""

import copy
from pathlib import Path

from jaxtyping import Int
from torch import Tensor, nn

from polylect.finite import check_written
from polylect.strategies.base import TranslationModule


class Full(TranslationModule):
    """Full fine-tuning: nothing is put into the backbone, nothing is frozen."""

    def attach(self) -> None:
        self.backbone.requires_grad_(True)

    def export(self, folder: Path) -> None:
        """Write a Hugging Face model under `folder/model`: a base for others, for this one too."""
        check_written(str(folder / "model"), self.backbone.state_dict())
        self.backbone.save_pretrained(folder / "model")
        self.tokenizer.save_pretrained(folder / "model")

    def merge_names(self) -> list[str]:
        return ["model"]

    def merged_model(self, name: str, probe: Int[Tensor, "rows length"]) -> tuple[nn.Module, float]:
        """Return a copy of the model, which has all that was trained in its weights."""
        return copy.deepcopy(self.backbone), 0.0
