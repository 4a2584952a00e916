"""Earlier runs: the configurations that they stored, and how a run goes on from them."""
