"""Shared by programs: the run's folder, record, scoring, callbacks and sweeps."""
