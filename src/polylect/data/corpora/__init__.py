"""Corpora: what a configuration names, and the readers that make rows of it."""
