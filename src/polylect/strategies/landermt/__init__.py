"""LANDeRMT: only the neurons that matter to a direction learn."""

from polylect.strategies.landermt.strategy import LANDeRMT

__all__ = ["LANDeRMT"]
