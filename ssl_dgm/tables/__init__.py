"""Records to tidy rows, rows to text. Nothing here needs torch."""
