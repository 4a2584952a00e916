"""A base model with only the vocabulary that given text needs."""
