"""What a run shows of itself while it goes on: a preview, progress, loggers."""
