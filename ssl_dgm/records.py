"""What a run leaves behind: a folder named by its key, and a checked record per seed.

runs/<key>/README.md                 what this folder is and the command that made it
runs/<key>/config.json               all settings, and those that identify the run
runs/<key>/seed-<n>/result.json      the record: metrics, versions, checksums
runs/<key>/seed-<n>/split.json       the manifest of the labelled rows
runs/<key>/seed-<n>/weights.safetensors
runs/<key>/group-<seeds>/            curves, and checkpoints while seeds are being trained together
runs/<key>/failed.json               why the last attempt failed, with its traceback; gone once one succeeds
"""

import contextlib
import dataclasses
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_dgm import config as schema
from ssl_dgm.config import Config, UserError
from ssl_dgm.files import DamagedFile, is_locked, read_json, sha256_of, write_atomic, write_json

VERSION = 2
ABOUT = """# {key}

{factorisation}

{data}

Made by

    {command}

`seed-<n>/result.json` holds the record of a seed (metrics are fractions: 0.0333 is 3.33 %), `seed-<n>/split.json` the
labelled rows it saw, `seed-<n>/weights.safetensors` its weights; `group-*/metrics.csv` is the curve of the seeds that
were trained together; `config.json` lists the settings, and under `identity` those whose hash names this folder.
`figures/` holds pictures of a seed and of the curves, each as PNG, as PDF and with its caption as text.
The same command continues what is unfinished and adds seeds that are missing.
"""


def open_folder(config: Config, key: str, data_sha256: str, factorisation: str, command: str, data: str) -> Path:
    """The run's folder, made if it is new.

    Args:
        factorisation, command, data: for its README: what the model is, what to type, and which rows there are.

    Raises:
        UserError: when the folder holds another configuration, or cannot be written to.
    """
    folder = Path(config.runs) / key
    identity = {"settings": schema.departures(config), "data_sha256": data_sha256}
    path = folder / "config.json"
    if path.exists():
        try:
            found = read_json(path)["identity"]
        except DamagedFile:
            found = identity  # the folder's name is the hash of the identity: rewriting restores what was there
        if found != identity:
            raise UserError(f"{folder} holds a run of another configuration; move it away or choose runs=")
    write_json(path, {"identity": identity, "settings": dataclasses.asdict(config)})
    words = {"key": key, "factorisation": factorisation, "command": command, "data": data}
    write_atomic(folder / "README.md", ABOUT.format(**words))
    return folder


def settings(folder: Path) -> Config:
    """The configuration that a run's folder keeps.

    Raises:
        UserError: when there is none, or it is damaged.
    """
    try:
        kept = read_json(folder / "config.json")["settings"]
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), kept))
    except (OSError, DamagedFile, KeyError, OmegaConfBaseException) as error:
        raise UserError(f"{folder} holds no readable config.json; run its command again to restore it") from error
    assert isinstance(config, Config)
    return config


def data_sha256(folder: Path) -> str:
    """Of the data that a run with readable `settings` is of, which need not be there any more."""
    return read_json(folder / "config.json")["identity"]["data_sha256"]


def folders(runs: Path) -> list[Path]:
    """The runs in a folder, those included that failed before they began."""
    return sorted({path.parent for kept in ("config.json", "failed.json") for path in runs.glob(f"*/{kept}")})


def find(name: Path) -> Path:
    """The folder of a run: `name` itself, or the only folder that begins with these words or with a part of its hash.

    A bare name is looked for in `runs` where there are no runs beside it.

    Raises:
        UserError: when there is none, or there are several.
    """
    if len(name.parts) == 1 and not folders(name.parent):
        name = Path("runs") / name
    every = folders(name.parent)
    if name in every:
        return name
    close = [folder for folder in every if folder.name.startswith(f"{name.name.rstrip('-')}-")]
    # 'm2-digits-100' must not be taken for m2-digits-1000: what is left out of a word is left out of the last.
    starting = [folder for folder in every if folder.name.startswith(name.name)]
    close = close or [folder for folder in starting if "-" not in folder.name.removeprefix(name.name)]
    if len(close) == 1:
        return close[0]
    if not close:
        raise UserError(f"{name} is no run; 'python -m ssl_dgm.runs ls --runs {name.parent}' lists them")
    raise UserError(f"{name} is the beginning of {len(close)} runs ({close[0].name}, ...); write more of it")


def pictures(folder: Path) -> list[Path]:
    """The PNGs, and the GIFs of animations, that were drawn of a run."""
    return sorted(path for path in folder.glob("figures/*") if path.suffix in (".png", ".gif"))


def seeds(folder: Path) -> list[int]:
    """The seeds of a run that have a record."""
    return sorted(int(path.parent.name.removeprefix("seed-")) for path in folder.glob("seed-*/result.json"))


def load(folder: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The record of a finished seed; None, with a word, when it is damaged, and it will be made again."""
    path = folder / f"seed-{seed}" / "result.json"
    if not path.exists():
        return None
    try:
        record = read_json(path)
    except DamagedFile as error:
        say(f"{error}; this seed is run again")
        return None
    return record if record["version"] == VERSION else None


def finished(folder: Path, seeds: Sequence[int], say: Callable[[str], None]) -> list[int]:
    """The seeds with a whole record, and whole weights where there are any.

    A seed whose weights are damaged loses its record, with a word: it is to be run again.
    """
    found = []
    for seed in seeds:
        if (record := load(folder, seed, say)) is None:
            continue
        path = folder / f"seed-{seed}" / "weights.safetensors"
        expected = record.get("weights_sha256")
        if expected is None or (path.exists() and sha256_of(path) == expected):
            found.append(seed)
        else:
            say(f"{path} is damaged or gone; this seed is run again")
            forget(folder, [seed])
    return found


def weights_sha256(folder: Path, seed: int) -> str:
    """Of the weights that a finished seed left."""
    return sha256_of(folder / f"seed-{seed}" / "weights.safetensors")


def save(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes a seed's record; from then on the seed counts as finished."""
    write_json(folder / f"seed-{record['seed']}" / "result.json", dict(record))


def forget(folder: Path, seeds: Iterable[int]) -> None:
    """Removes the records of seeds, which are then run again."""
    for seed in seeds:
        (folder / f"seed-{seed}" / "result.json").unlink(missing_ok=True)


def fail(folder: Path, reason: str, traceback: str = "") -> None:
    """Keeps why an attempt at this run failed, for `failure`."""
    when = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / "failed.json", {"reason": reason, "traceback": traceback.splitlines(), "when": when})


def clear_failure(folder: Path) -> None:
    """Forgets the last failure, since a new attempt begins."""
    (folder / "failed.json").unlink(missing_ok=True)


def failure(folder: Path) -> str | None:
    """Why the last attempt failed; None when it did not."""
    try:
        return read_json(folder / "failed.json")["reason"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except DamagedFile as error:
        return str(error)


@dataclass(frozen=True)
class Progress:
    """How far a run is: seeds with a record, and the epochs of the group that is not finished."""

    finished: tuple[int, ...]
    running: bool
    epoch: int  # of the unfinished group; 0 when there is none
    epochs: int
    seconds_per_epoch: float | None

    @property
    def seconds_left(self) -> float | None:
        """Of the group that is being trained; None when that cannot be told yet."""
        return None if self.seconds_per_epoch is None else self.seconds_per_epoch * (self.epochs - self.epoch)


def progress(folder: Path, seeds: Sequence[int], epochs: int, say: Callable[[str], None]) -> Progress:
    """How far these seeds of a run are, from what its folder holds."""
    finished = tuple(seed for seed in seeds if load(folder, seed, say))
    curves = []
    newest = sorted(folder.glob("group-*/metrics.csv"), key=lambda path: path.stat().st_mtime)
    for group in (path.parent for path in newest):
        members = [int(seed) for seed in group.name.split("-")[1:]]
        if members[0] in seeds and members[0] not in finished:
            curves = [row for row in read_curves(group / "metrics.csv") if row["seed"] == members[0]]
    seconds = sum(row["seconds"] for row in curves[-10:]) / len(curves[-10:]) if curves else None
    return Progress(finished, is_locked(folder / ".lock"), curves[-1]["epoch"] if curves else 0, epochs, seconds)


def read_curves(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.csv with numbers as numbers, '' where an epoch had no validation.

    Torn and damaged lines are left out: curves are drawn from them, and no result.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().decode(errors="replace").replace("\r", "").split("\n")
    names, found = lines[0].split(","), []
    for line in lines[1:]:
        cells = line.split(",")
        with contextlib.suppress(ValueError):
            row = {n: v if v == "" else int(v) if n in ("epoch", "seed") else float(v) for n, v in zip(names, cells)}
            if len(cells) == len(names) and {"epoch", "seed", "seconds"} <= row.keys():
                found.append(row)
    return found


def new(config: Config, key: str, seed: int, metrics: Mapping[str, float], **facts: Any) -> dict[str, Any]:
    """A record of one seed.

    Args:
        metrics: by name; errors are fractions, bounds nats per row.
        facts: what only the run knows: epochs, updates, train_seconds, device, torch, checksums, n_test.
    """
    return {
        "version": VERSION,
        "key": key,
        "model": model_name(config),
        "data": config.data.called,
        "labels": config.labels if schema.needs_labels(config) else 0,
        "seed": seed,
        "selection": "last" if schema.ends_in_estimator(config) else config.selection,
        "budget": "" if schema.is_estimator(config) else config.budget.name,
        "metrics": dict(metrics),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        **facts,
    }


def unit(metric: str) -> str:
    """What a metric is shown in: '%' for a share (0.0333 is 3.33 %), 'nats', or '' for a count."""
    if any(word in metric for word in ("error", "accuracy", "nmi")):
        return "%"
    return "" if metric in ("live_units", "test/slots_used") else "nats"


def model_name(config: Config) -> str:
    """The model as a table names it: m1+svm for M1 with a classifier."""
    has_classifier = config.model.name == "m1" and config.classifier != "none"
    return f"m1+{config.classifier}" if has_classifier else config.model.name


@cache
def git_commit() -> str:
    """The commit that the code was run from, with -dirty when tracked files differ; '' outside a checkout."""
    here = Path(__file__).parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        inside = subprocess.run(["git", "-C", str(here), "ls-files", "--error-unmatch", __file__], capture_output=True)
        found = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return found.stdout.strip() if inside.returncode == 0 else ""
