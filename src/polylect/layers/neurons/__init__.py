"""LANDeRMT: feed-forward neurons that are detected, tuned and gated."""
