"""Reports on the data of a configuration, before and without training."""
