"""Low-rank adapters, a different one for every row of a batch."""
