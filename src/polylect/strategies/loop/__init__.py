"""The loop that trains every strategy: steps, validation, checkpoints."""
