"""One batch of prompts through transformers' `generate`, greedy or with beams."""
