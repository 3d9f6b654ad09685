"""The command in a fresh process, watched from outside: `python -m ssl_dgm.train`."""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .race import RacerFailed, peak_megabytes


@dataclass
class Watched:
    """What was seen of a process: seconds since its start, and the most memory it had."""

    first_update: float
    end: float
    peak: float  # MB


def watch(words: list[str], threads: int) -> Watched:
    """Runs the command with these words in a folder of its own.

    Its curves are a file that gets a row at the end of each epoch: where an epoch is one update, the file's first byte
    says that the first update is done, and nothing of the run is touched.

    Raises:
        RacerFailed: where the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ssl_dgm.train", *words, f"runs={folder}", "trainer.progress=false"]
        seen = peak = float("nan")
        started = time.perf_counter()
        with open(Path(folder) / "output.txt", "w+") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env=environment(threads))
            while process.poll() is None:
                if seen != seen and any(path.stat().st_size for path in Path(folder).glob("*/group-*/metrics.csv")):
                    seen = time.perf_counter() - started
                peak = np.fmax(peak, peak_megabytes(process.pid))  # NaN once it is ending
                time.sleep(0.005)
            end = time.perf_counter() - started
            if process.returncode:
                output.seek(0)
                raise RacerFailed(f"{' '.join(command)}: {output.read()}")
    return Watched(seen, end, float(peak))


def seconds_to_import(modules: str, threads: int) -> float:
    """Of a process that imports these and ends."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True, env=environment(threads))
    return time.perf_counter() - started


def environment(threads: int) -> dict[str, str]:
    """Ours, with the number of threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads)}
