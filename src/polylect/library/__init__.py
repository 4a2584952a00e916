"""Adapters as plain PEFT folders on disk, and those in use held in memory."""

from polylect.library.adapter import Adapter, LowRank, incompatibility
from polylect.library.fingerprint import base_fingerprint, cut_from
from polylect.library.folder import AdapterLibrary
from polylect.library.resident_adapters import ResidentAdapters

__all__ = [
    "Adapter",
    "AdapterLibrary",
    "LowRank",
    "ResidentAdapters",
    "base_fingerprint",
    "cut_from",
    "incompatibility",
]
