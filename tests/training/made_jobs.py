"""Jobs as `run` makes them, for nothing that is written."""

from pathlib import Path

import torch

from ssl_dgm import config as schema
from ssl_dgm.compose import compose
from ssl_dgm.data import sources, splits
from ssl_dgm.data.slots import Slots
from ssl_dgm.training.jobs import Job


def job_of(*words: str) -> Job:
    """The job of these words on scikit-learn's digits, with its splits."""
    config = compose([*words, "data=digits"])
    source = sources.load("digits")
    drawn = {}
    if schema.needs_labels(config):
        labelled, in_pool = Slots.of(config, source).labelled, config.data.labelled_in_pool
        drawn = {seed: splits.draw(source, config.labels, seed, in_pool, labelled) for seed in config.seeds}
    return Job(config, source, drawn, torch.device("cpu"), None, print, "", Path())
