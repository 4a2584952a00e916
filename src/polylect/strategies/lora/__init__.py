"""Parts of the strategies that train LoRA adapters."""
