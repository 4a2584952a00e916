"""Several processes of one run: how they find each other, and how weights are shared out."""
