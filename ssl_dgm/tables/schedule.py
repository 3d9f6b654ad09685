"""The cells of a table that are not finished, each carried out by a process of its own."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.config import UserError
from ssl_dgm.files import is_locked
from ssl_dgm.tables.cells import DONE_HERE, Cell, Say, State, duration

LEAST = 15.0  # seconds: with less time left, no process is started
POLL = 0.2  # seconds between looks at the processes
SHOW = 5.0  # seconds between looks at their progress, which reads their files


@dataclass
class Schedule:
    """Runs processes for cells, so many at once, until all were tried, the time is up or a signal came."""

    look: Callable[[Cell], State]  # how far a cell is now
    finished: Callable[[Cell, State], None]  # called when a cell's process has ended
    say: Say
    jobs: int = 1
    deadline: float | None = None  # of time.monotonic()
    words: Sequence[str] = ()  # added to every command
    stopping: str = ""  # why no process is started any more
    _active: dict[Cell, subprocess.Popen[bytes]] = field(default_factory=dict)
    _signal: str = ""

    def carry_out(self, cells: Sequence[Cell]) -> dict[Cell, State]:
        """Tries every cell once, those first that no other process is working on; returns how far they are then.

        Raises:
            UserError: when a run's folder cannot be written to; the processes are then asked to end.
        """
        states = {cell: self.look(cell) for cell in cells}
        pending = [cell for cell in cells if states[cell].name not in DONE_HERE]
        # Standard error, as all progress bars; nothing where that is a file.
        with self._signals(), tqdm(total=len(pending), unit="cell", disable=None, leave=False) as bar:
            try:
                self._loop(pending, states, bar)
            except BaseException:
                # They are in sessions of their own, where no Ctrl-C would find them any more.
                for process in self._active.values():
                    process.terminate()
                raise
        return states

    def _loop(self, pending: list[Cell], states: dict[Cell, State], bar: tqdm) -> None:
        shown = 0.0
        while pending or self._active:
            if not self.stopping and self._signal:
                self._stop(self._signal)
            elif self._signal:
                self.stopping = self._signal
            elif not self.stopping and self._seconds_left() < (0 if self._active else LEAST):
                self._stop("the time is up")
            if self.stopping:
                pending.clear()
            while len(self._active) < self.jobs and (cell := self._next(pending)) is not None:
                pending.remove(cell)
                states[cell] = self.look(cell)
                if states[cell].name == "done":  # by another command, meanwhile
                    bar.update()
                else:
                    self._start(cell, states[cell])
            time.sleep(POLL)
            for cell in [cell for cell, process in self._active.items() if process.poll() is not None]:
                states[cell] = self._end(cell)
                bar.update()
            if time.monotonic() - shown > SHOW:
                bar.set_postfix_str("; ".join(self._progress(cell) for cell in self._active))
                shown = time.monotonic()

    def _next(self, pending: Sequence[Cell]) -> Cell | None:
        """The next cell to start; one that would only wait for an M1 in training stays behind."""
        training = {cell.first_key for cell in self._active if not _has_first_stage(cell)}
        free = [cell for cell in pending if cell.first_key is None or cell.first_key not in training]
        # Another table may be at work on the same folder: the cells that it is not training first.
        return next((cell for cell in free if not is_locked(cell.folder / ".lock")), free[0] if free else None)

    def _start(self, cell: Cell, state: State) -> None:
        words = [*cell.command(state.missing), "trainer.progress=false", *self.words]
        if self.deadline is not None:
            words.append(f"time_limit={max(1, int(self._seconds_left()))}s")
        environment = dict(os.environ)
        if self.jobs > 1:
            # Processes that each take all cores are slower than processes that share them.
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.jobs)))
        try:
            cell.folder.mkdir(parents=True, exist_ok=True)
            records.clear_failure(cell.folder)
            (cell.folder / "log.txt").touch()
        except OSError as error:
            remedy = "choose another folder with --runs"
            raise UserError(f"{cell.folder} could not be written to ({error.strerror}); {remedy}") from error
        with open(cell.folder / "log.txt", "ab") as log:
            log.write(f"\n$ {shlex.join(['python', '-m', 'ssl_dgm.train', *words])}\n".encode())
            log.flush()
            # A session of its own: Ctrl-C comes to this process alone, which passes it on once.
            self._active[cell] = subprocess.Popen(
                [sys.executable, "-m", "ssl_dgm.train", *words], stdin=subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, env=environment, start_new_session=True,
            )  # fmt: skip
        self.say(f"{cell.name}: started, seeds {', '.join(map(str, state.missing))} ({cell.folder}/log.txt)")

    def _end(self, cell: Cell) -> State:
        code = self._active.pop(cell).returncode
        state = self.look(cell)
        if code and not self.stopping and state.name not in ("done", "failed"):
            records.fail(cell.folder, _reason(cell, code))
            state = self.look(cell)
        took = f", {duration(state.seconds)} of training" if state.name == "done" else ""
        self.say(f"{cell.name}: {state.name}{took}{f' ({state.note})' if state.note else ''}")
        self.finished(cell, state)
        return state

    def _progress(self, cell: Cell) -> str:
        state = self.look(cell)
        left = f", {duration(state.seconds_left)} left" if state.seconds_left else ""
        return f"{cell.name} {state.note}{left}"

    def _seconds_left(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def _stop(self, reason: str) -> None:
        """Asks every process to end with a checkpoint."""
        self.stopping = reason
        if self._active:
            self.say(f"{reason}: waiting for {', '.join(c.name for c in self._active)} to end the epoch and save it")
            if whole := [cell.name for cell in self._active if schema.is_estimator(cell.config)]:
                self.say(f"{', '.join(whole)}: fitted whole, so that a seed that is not done begins anew next time")
        for process in self._active.values():
            process.terminate()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop cleanly; a second one ends the processes at once."""

        def note(number: int, frame: Any) -> None:
            if self._signal:
                for process in self._active.values():
                    process.kill()
            # Acted upon in the loop: a handler may have come in the middle of a print.
            self._signal = signal.Signals(number).name

        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def _reason(cell: Cell, code: int) -> str:
    """Why a process ended that kept no reason itself: its last words, or how it was ended."""
    lines = (cell.folder / "log.txt").read_text(errors="replace").strip().splitlines()
    if code == 2 and lines[-1].startswith("ssl_dgm: "):
        return lines[-1].removeprefix("ssl_dgm: ")
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"its process ended with {how}, as log.txt in its folder tells"


def _has_first_stage(cell: Cell) -> bool:
    first = schema.first_stage(cell.config)
    if first is None or cell.first_folder is None:
        return True
    return all((cell.first_folder / f"seed-{seed}" / "result.json").exists() for seed in first.seeds)
