"""The seeds of a run over the devices of a machine: groups, and a process per group that is trained beside others.

Groups exchange nothing. What a group computes is the same in a process of its own as in the run's; the run's process
keeps its lock, says what its workers say, passes signals on, and ends them with itself.
"""

import contextlib
import dataclasses
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ssl_dgm.config import Config, Stopped, UserError
from ssl_dgm.training import generative, loggers
from ssl_dgm.training.checkpoints import checkpoints
from ssl_dgm.training.estimates import memory_errors
from ssl_dgm.training.fit import find_device
from ssl_dgm.training.jobs import Job, Result


def find_devices(config: Config) -> list[torch.device]:
    """The devices that share the seeds of a run, the first of which does all that is not shared.

    On a CPU the same device several times: processes that share its cores. One seed is not shared.

    Raises:
        UserError: when this machine has not so many.
    """
    first, number = find_device(config.device), config.trainer.devices
    if number == 1:
        return [first]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    there = {"cuda": torch.cuda.device_count(), "cpu": cores}.get(first.type, 1)
    if ":" in config.device:
        remedy = f"use device={first.type} for the first {number}, or leave trainer.devices out"
        raise UserError(f"device={config.device} is one device but trainer.devices={number}; {remedy}")
    if number > there:
        kind = {"cuda": "GPUs", "cpu": "CPU cores"}.get(first.type, first.type)
        raise UserError(
            f"trainer.devices={number} is more than the {there} {kind} of this machine; use at most {there}"
        )
    # Rows that are read from disk are shared out by the rows of an update, not by seeds: see `fit`.
    if config.data.name == "memmap":
        return [first]
    number = min(number, len(config.seeds))
    return [first] * number if first.type == "cpu" else [torch.device(first.type, i) for i in range(number)]


def begun(folder: Path, missing: Sequence[int], at_most: int) -> list[list[int]]:
    """Groups that have a checkpoint, in the order of their progress: it can be continued by the same seeds alone."""
    found: list[list[int]] = []
    reached = {path: newest[0] for path in folder.glob("group-*") if (newest := checkpoints(path))}
    for path in sorted(reached, key=lambda path: int(reached[path].name[6:].split(".")[0]), reverse=True):
        group = [int(seed) for seed in path.name.split("-")[1:]]
        left = set(missing).difference(*found)
        if set(group) <= left and len(group) <= at_most:
            found.append(group)
    return found


def train(job: Job, groups: Sequence[list[int]], devices: Sequence[torch.device]) -> dict[int, str]:
    """Trains groups of seeds, one after the other here or each in a process on one of several devices.

    Returns:
        Why seeds were lost, by seed.

    Raises:
        Stopped: at the deadline or after a signal, when every group under way has a checkpoint.
        UserError: what a group was refused for, once the others are finished.
    """
    if len(devices) > 1:
        return _Crew(job, devices).carry_out(groups)
    lost: dict[int, str] = {}
    for group in groups:
        lost |= _train_here(job, group)
    return lost


def _train_here(job: Job, group: list[int]) -> dict[int, str]:
    with loggers.opened(job.config, job.key, job.folder, group) as job.log, memory_errors(job, group):
        lost = generative.train(job, group)
        for picture in Result(job.config, job.folder).pictures:
            job.log.picture(picture)
    return lost


@dataclass
class _Ending:
    """How a worker ended; one that was killed tells nothing."""

    lost: dict[int, str] = field(default_factory=dict)
    stopped: str = ""
    by_signal: bool = False
    refused: str = ""  # the sentence of a UserError
    broken: str = ""  # the traceback of anything else


@dataclass
class _Crew:
    """A process per group, at most one on each device."""

    job: Job
    devices: Sequence[torch.device]
    said: "queue.SimpleQueue[tuple[int, str | _Ending | None]]" = field(default_factory=queue.SimpleQueue)
    workers: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)  # by the place of their device
    groups: dict[int, list[int]] = field(default_factory=dict)
    endings: list[_Ending] = field(default_factory=list)
    signal: str = ""

    def carry_out(self, groups: Sequence[list[int]]) -> dict[int, str]:
        if self.devices[0].type == "cuda":
            torch.cuda.empty_cache()  # what the first stage took of the first device
        waiting, ended = list(groups), dict[int, _Ending]()
        with self._signals():
            try:
                while waiting or self.workers:
                    stopping = self.signal or any(ending.stopped for ending in self.endings)
                    for place in set(range(len(self.devices))) - self.workers.keys():
                        if waiting and not stopping:
                            self._start(place, waiting.pop(0))
                    if not self.workers:
                        break
                    place, what = self.said.get()
                    if isinstance(what, str):
                        self._say(place, what)
                    elif isinstance(what, _Ending):
                        ended[place] = what
                    else:
                        self.endings.append(self._end(place, ended.pop(place, None)))
            except BaseException:
                for worker in self.workers.values():
                    worker.kill()
                raise
        return self._outcome()

    def _start(self, place: int, group: list[int]) -> None:
        threads = max(1, torch.get_num_threads() // len(self.devices))
        # A session of its own: Ctrl-C comes to this process alone, which passes it on once.
        worker = subprocess.Popen(
            [sys.executable, "-c", "from ssl_dgm.training.devices import work; work()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        self.workers[place], self.groups[place] = worker, group
        if self.signal:  # it came while the process was made
            worker.terminate()
        config = self.job.config
        # One bar: several would write over each other.
        trainer = dataclasses.replace(config.trainer, progress=config.trainer.progress and place == 0)
        job = dataclasses.replace(
            self.job, config=dataclasses.replace(config, trainer=trainer), device=self.devices[place], first=None,
            say=None, log=loggers.Log(),
        )  # fmt: skip
        task = pickle.dumps((job, group, self.job.first and self.job.first.result))
        threading.Thread(target=self._attend, args=(place, worker, task), daemon=True).start()

    def _attend(self, place: int, worker: subprocess.Popen[bytes], task: bytes) -> None:
        """Hands the worker its task, which waits until torch is imported there, and passes on what it tells."""
        assert worker.stdin is not None and worker.stdout is not None
        with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):  # it was killed
            worker.stdin.write(task)
            worker.stdin.flush()
            while True:
                self.said.put((place, pickle.load(worker.stdout)))
        worker.wait()
        self.said.put((place, None))

    def _say(self, place: int, line: str) -> None:
        self.job.say(f"{_named(self.groups[place])}: {line}")

    def _end(self, place: int, ending: _Ending | None) -> _Ending:
        worker, group = self.workers.pop(place), self.groups[place]
        assert worker.stdin is not None and worker.stdout is not None
        with contextlib.suppress(OSError):
            worker.stdin.close()
        worker.stdout.close()
        if ending is None and self.signal:
            ending = _Ending(stopped="stopped before its first epoch or after its last", by_signal=True)
        if ending is None:
            code = worker.returncode
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            reason = f"its process ended with {how}; the same command continues it"
            ending = _Ending(lost=dict.fromkeys(group, reason))
            self._say(place, reason)
        if told := ending.stopped or ending.refused or ending.broken:
            self._say(place, told)
        return ending

    def _outcome(self) -> dict[int, str]:
        """Why seeds were lost; what stopped or broke a group is raised here as it would be in one process."""
        name, endings = self.job.config.model.name, self.endings
        if self.signal or any(ending.stopped for ending in endings):
            by_signal = bool(self.signal) or any(ending.by_signal for ending in endings)
            reason = self.signal or ("a signal" if by_signal else "time_limit")
            sentence = f"stopped {name} on {len(self.devices)} devices ({reason}); the same command continues it"
            raise Stopped(sentence, by_signal)
        for ending in endings:
            if ending.refused:
                raise UserError(ending.refused)
            if ending.broken:
                raise RuntimeError(ending.broken.strip().splitlines()[-1]) from _Elsewhere(ending.broken)
        return {seed: reason for ending in endings for seed, reason in ending.lost.items()}

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM end every group at the end of its epoch; a second one ends them at once."""

        def note(number: int, frame: Any) -> None:
            for worker in self.workers.values():
                worker.kill() if self.signal else worker.terminate()
            self.signal = signal.Signals(number).name

        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class _Elsewhere(Exception):
    """The traceback of another process, shown as the cause of an error here."""


def _named(group: Sequence[int]) -> str:
    return f"{'seed' if len(group) == 1 else 'seeds'} {', '.join(map(str, group))}"


def work() -> None:
    """A worker's process: one group, whose job comes in through standard input; what it says goes out pickled."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print
    # Of our own parent through a pipe, as all that is pickled here: no file of a user's is read so.
    job, group, first = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(what: str | _Ending) -> None:
        pickle.dump(what, out)
        out.flush()

    try:
        if first is not None:
            job.say = lambda line: None  # the run's process has said it
            job.first = generative.open_first_stage(job, first)
        job.say = tell
        ending = _Ending(_train_here(job, group))
    except Stopped as stopped:
        ending = _Ending(stopped=str(stopped), by_signal=stopped.by_signal)
    except UserError as error:
        ending = _Ending(refused=str(error))
    except Exception:
        ending = _Ending(broken=traceback.format_exc())
    tell(ending)


def _end_with_parent() -> None:
    """Ends this process as soon as the run's is gone, whose lock is free then for another."""
    # Not through sys.stdin, which an interpreter that ends would wait for.
    while os.read(0, 1):
        pass
    os._exit(1)
