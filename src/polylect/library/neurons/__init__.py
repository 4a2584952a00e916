"""The result of detection: scores of neurons, and their owners."""
