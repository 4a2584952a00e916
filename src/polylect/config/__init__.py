"""What a configuration may say: typed roots, overrides, validation."""
