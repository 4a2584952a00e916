"""Layers that a strategy puts into a base model, a folder for each method."""
