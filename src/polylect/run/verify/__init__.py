"""The checks of `polylect verify`: what a strategy promises, and what a passport says."""
