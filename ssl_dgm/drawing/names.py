"""What tells several runs apart, in few words for each."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_dgm import config as schema
from ssl_dgm import records

MOST = 3  # settings that a legend names


def differences(folders: Sequence[Path]) -> list[str]:
    """The settings in which runs differ, in few words for each; the folders' names where that does not tell them apart.

    Names of models, data and the like come first, then labels, and of more than `MOST` settings those are left out that
    tell no further runs apart.
    """
    configs = [records.settings(folder) for folder in folders]
    departing = [schema.departures(config) for config in configs]
    every = [dict(schema.flatten(dataclasses.asdict(config))) for config in configs]
    # Not those of a first stage, which not every run has: the model says so.
    shared = {key for one in departing for key in one if all(key in of for of in every)}
    settings = {key for key in shared if len({_word(of[key]) for of in every}) > 1}
    chosen: list[str] = []
    said: list[tuple[str, ...]] = [() for _ in folders]
    for key in sorted(settings, key=lambda key: (not key.endswith(".name"), key != "labels", key.count("."), key)):
        longer = [
            (*words, "" if key == "labels" and not reads_labels else f"{key.removesuffix('.name')}={_word(of[key])}")
            for words, of, reads_labels in zip(said, every, map(schema.needs_labels, configs))
        ]
        if len(chosen) < MOST or len(set(longer)) > len(set(said)):
            chosen, said = [*chosen, key], longer
    if len(set(said)) < len(said):
        names = [folder.name for folder in folders]
        return names if len(set(names)) == len(names) else [str(folder) for folder in folders]
    more = ", ..." if len(chosen) < len(settings) else ""
    return [", ".join(filter(None, words)) + more for words in said]


def _word(value: Any) -> str:
    """A value as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
