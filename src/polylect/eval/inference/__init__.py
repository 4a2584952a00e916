"""What differences of scores prove: errors over seeds and lines, verdicts, human marks."""
