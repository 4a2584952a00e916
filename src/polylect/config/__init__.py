"""The configuration: typed roots, overrides, validation."""
