"""What directions do to each other and to the model: gradients, transfer, responsibility."""
