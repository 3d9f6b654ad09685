"""Loops that race each other: every loop in a process of its own, taking turns in blocks of updates.

Since the blocks of all loops alternate, a machine that is noisy, hot or shared slows all alike, and ratios are taken
within a round. A loop's memory is its own too.
"""

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np


class Over(Exception):
    """Ends a loop whose race is over."""


class RacerFailed(Exception):
    """A loop ended in an error, told with its traceback."""


class Turns:
    """What a loop calls after each of its updates: tells how long a block of them took, then waits for the next.

    The first update is a block of its own, in which memory is first touched.

    Raises:
        Over: where the race ends.
    """

    def __init__(self, connection: Connection, synchronize: Callable[[], None]) -> None:
        self.connection, self.synchronize = connection, synchronize
        self.facts: dict[str, Callable[[], float]] = {}  # asked for at the end of a race
        self.libraries = peak_megabytes()
        self.left, self.started = 1, time.perf_counter()

    def forget_peak(self) -> None:
        """Lets the peak of memory begin anew: what was needed to make the rows is not the training's."""
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")

    def __call__(self) -> None:
        self.left -= 1
        if self.left:
            return
        self.synchronize()
        self.connection.send(time.perf_counter() - self.started)
        while (asked := self.connection.recv()) == "facts":
            # Memory first: the other facts take some themselves.
            memory = {"MB beside libraries": peak_megabytes() - self.libraries}
            self.connection.send(memory | {name: fact() for name, fact in self.facts.items()})
        if asked == 0:
            raise Over
        self.left, self.started = asked, time.perf_counter()


Loop = Callable[[Any, Turns], None]


class Racer:
    """A loop in a process of its own.

    Args:
        loop: runs until `Turns` ends it.
        case: what it trains, with `device` and `threads`.
        updates: of one block.
    """

    def __init__(self, loop: Loop, case: Any, updates: int) -> None:
        self.loop, self.case, self.updates = loop, case, updates
        self.facts: dict[str, float] = {}

    def start(self) -> None:
        """Starts the process, which makes its first update at once; `receive` says when that is done."""
        context = _context(self.case.device)
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.loop, self.case))
        self.process.start()
        theirs.close()

    def run(self, updates: int) -> float:
        """Seconds per update of a block of so many."""
        self.connection.send(updates)
        return self.receive() / updates

    def finish(self) -> None:
        """Asks for the facts."""
        self.connection.send("facts")
        self.facts = self.receive()

    def receive(self) -> Any:
        """The next answer of the process.

        Raises:
            RacerFailed: when it has ended instead.
        """
        try:
            answer = self.connection.recv()
        except EOFError:
            answer = "its process died, perhaps for lack of memory"
        if isinstance(answer, str):
            raise RacerFailed(f"{self.case}: {answer}")
        return answer

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):
            self.connection.send(0)
        self.process.join(30)
        if self.process.is_alive():
            self.process.kill()


def race(racers: Sequence[Racer], rounds: int) -> np.ndarray:
    """Seconds per update of every racer in every round, [racers, rounds]; the racers know their facts then."""
    with _started(racers):
        for racer in racers:
            racer.run(racer.updates)
        times = np.empty((len(racers), rounds))
        for i in range(rounds):
            # Another begins every time, since the first of a round follows the same one otherwise.
            for j in (*range(i % len(racers), len(racers)), *range(i % len(racers))):
                times[j, i] = racers[j].run(racers[j].updates)
        for racer in racers:
            racer.finish()
    return times


@contextmanager
def _started(racers: Sequence[Racer]) -> Iterator[None]:
    started: list[Racer] = []
    try:
        for racer in racers:
            racer.start()
            started.append(racer)
        for racer in racers:
            racer.receive()
        yield
    finally:
        for racer in started:
            racer.close()


def _context(device: str) -> Any:
    """Processes are forked from one that has imported the libraries, seconds sooner; CUDA would not survive that."""
    if device != "cpu":
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload(["ssl_dgm.compose", "ssl_dgm.training.fit"])
    return multiprocessing.get_context("forkserver")


def peak_megabytes(process: int | str = "self") -> float:
    """The most memory that a process has had so far (VmHWM), in MB; NaN where there is no /proc or no such process."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def _serve(connection: Connection, loop: Loop, case: Any) -> None:
    import torch

    torch.set_num_threads(case.threads)
    on_gpu = case.device.startswith("cuda")
    turns = Turns(connection, torch.cuda.synchronize if on_gpu else lambda: None)
    if on_gpu:
        turns.facts["peak GPU MB"] = lambda: torch.cuda.max_memory_allocated(case.device) / 1e6
    # The other end is gone when the benchmark was interrupted.
    with suppress(Over, EOFError, BrokenPipeError):
        try:
            loop(case, turns)
        except (Over, EOFError, BrokenPipeError):
            raise
        except BaseException:
            connection.send(traceback.format_exc())
