"""What detection has found: scores of neurons, and who owns which of them."""
