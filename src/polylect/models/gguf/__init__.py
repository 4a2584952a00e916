"""GGUF files, the format of llama.cpp, as base models."""
