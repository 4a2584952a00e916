"""The results of runs: scores, comparisons, texts and exports."""
