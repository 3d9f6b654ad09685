"""Scores of trained models, and pictures of them."""
