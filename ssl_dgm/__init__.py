"""Semi-supervised learning with deep generative models, reproduced."""

__version__ = "0.1.0"
