"""Adapters as plain PEFT folders on disk, and those in use held in memory."""

from polylect.library.adapter import Adapter, LowRank, misfit
from polylect.library.fingerprint import base_fingerprint
from polylect.library.folder import AdapterLibrary
from polylect.library.store import AdapterStore

__all__ = [
    "Adapter",
    "AdapterLibrary",
    "AdapterStore",
    "LowRank",
    "base_fingerprint",
    "misfit",
]
