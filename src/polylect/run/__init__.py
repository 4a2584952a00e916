"""What programs share: the run's folder, record, scoring, callbacks and sweeps."""
