"""What a configuration's data hold and what becomes of them, told before and without training."""
