"""Supervised estimators with fit and predict: what the generative models are compared with, or feed."""
