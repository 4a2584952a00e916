"""The base model of the quick start, which ships inside the package.

A small Llama that has read the five embedded fragments, one language at a time. It is stored in
float16 to stay small; `polylect pretrain` with its defaults makes such a model again.
"""

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from polylect.models.backbone import load_backbone

FOLDER = Path(__file__).parent / "embedded_base"


def embedded_base(
    *, gradient_checkpointing: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the embedded base in float32, and its tokenizer."""
    return load_backbone(str(FOLDER), gradient_checkpointing=gradient_checkpointing)
