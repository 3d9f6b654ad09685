"""Figures: what is drawn of a trained seed, of a run's epochs and of a table's rows, as a paper would print it."""
