"""Training pairs and their token ids on disk, written once and mapped into memory."""
