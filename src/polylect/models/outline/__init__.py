"""Base models without their weights: on torch's meta device, where tensors have shapes alone."""
