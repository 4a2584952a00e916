"""What a run, an adapter or a model says of itself, so that `polylect verify` can hold it to it."""
