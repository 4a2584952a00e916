"""What runs give: scores, comparisons, texts and exports."""
