"""One language model, many translation directions, no interference."""

__version__ = "0.1.0"
