"""Sweeps and tables that are interrupted at random moments, run twice at once, stopped, or lose a process."""

import csv
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import start_process

from ssl_dgm.files import read_json

pytestmark = pytest.mark.slow
TIMES = 2  # interruptions of each kind
EPOCHS = 20
TINY = ("data=digits", "baseline=null", "trainer.checkpoint_every=2", "network.hidden=[24]", f"budget.epochs={EPOCHS}")
SWEEP = ("-m", *TINY, "budget=smoke", "trainer.progress=false", "seeds=[0,1]", "budget.updates_per_epoch=5")
SWEEP += ("model=m2", "labels=50,100,200")
# m1m2 and m1 build on the same M1.
TABLE = f"""\
title: Mini
source: nobody
seeds: {{smoke: [0, 1]}}
base: [{", ".join(f'"{word}"' for word in TINY)}, budget.updates_per_epoch=5]
columns:
  100: {{overrides: [labels=100]}}
rows:
  m2: {{overrides: [model=m2]}}
  m1m2: {{overrides: [model=m1m2, "m1.network.hidden=[24]"]}}
  m1: {{overrides: [model=m1, classifier=logistic, budget.epochs=2, budget.updates_per_epoch=20, model.min_unit_sd=0]}}
"""
# The checkout may move on while the tests run, and its commit with it.
NOT_COMPUTED = ("train_seconds", "finished", "git_commit", "checksum")
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}")  # a name of tempfile.mkstemp, as files.write_atomic gives it
Run = subprocess.Popen[str]
Rows = list[tuple[str, ...]]


class Undisturbed(NamedTuple):
    folder: Path
    rows: Rows
    seconds: float


class Kind(NamedTuple):
    """A way to run the three cells: by a sweep or by a table."""

    start: Callable[[Path], Run]
    csv: str


def hear_ctrl_c() -> None:
    # What a shell runs in the background is deaf to it, and so are its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def sweep(folder: Path, *words: str) -> Run:
    return start_process(folder, *SWEEP, *words, start_new_session=True, preexec_fn=hear_ctrl_c)


def table(folder: Path, *words: str) -> Run:
    if not (folder / "mini.yaml").exists():
        (folder / "mini.yaml").write_text(TABLE)
    return subprocess.Popen(
        [sys.executable, "-m", "ssl_dgm.table", "mini.yaml", "--budget", "smoke", "--jobs", "2", *words],
        cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=hear_ctrl_c,
    )  # fmt: skip


KINDS = {"sweep": Kind(sweep, "runs/rows.csv"), "table": Kind(table, "runs/smoke/mini.csv")}


def ended(run: Run) -> tuple[int, str]:
    """Its exit code and what it said."""
    said = [text for text in run.communicate(timeout=300) if text]
    return run.returncode, "".join(said)


def computed(path: Path) -> Rows:
    """The rows of a CSV, in an order of their own, without what differs from one run to the next."""
    with open(path, newline="") as file:
        return sorted(tuple(v for n, v in row.items() if n not in NOT_COMPUTED) for row in csv.DictReader(file))


def files_of(folder: Path) -> set[str]:
    """The names of all files, but for those that kill -9 leaves where several processes may be writing."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    torn = [p for p in paths if TEMPORARY.fullmatch(p.name) and not p.parent.name.startswith(("seed-", "group-"))]
    return {str(path.relative_to(folder)) for path in paths if path not in torn}


def processes_in(folder: Path) -> list[int]:
    """Every process that works in a folder, orphans too."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            found += [int(path.name)] * (os.readlink(path / "cwd") == str(folder))
        except OSError:  # it ended, or is not ours
            continue
    return found


def wait_until(condition: Callable[[], object], what: str, seconds: float = 120) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"it did not come that {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    found = {}
    for name, kind in KINDS.items():
        folder, began = tmp_path_factory.mktemp(name), time.monotonic()
        code, said = ended(kind.start(folder))
        assert code == 0, said
        found[name] = Undisturbed(folder, computed(folder / kind.csv), time.monotonic() - began)
    return found


def ctrl_c(run: Run, folder: Path) -> None:
    os.killpg(run.pid, signal.SIGINT)


def terminate(run: Run, folder: Path) -> None:
    run.terminate()


def kill_everything(run: Run, folder: Path) -> None:
    run.kill()
    for pid in processes_in(folder):
        os.kill(pid, signal.SIGKILL)


def kill_the_parent(run: Run, folder: Path) -> None:
    run.kill()


def interruptions(name: str, seconds: float) -> list[tuple[Callable[[Run, Path], None], float]]:
    """So many of each kind in random order, at moments spread over the time that the undisturbed run took."""
    ways = [ctrl_c, terminate, kill_everything] + [kill_the_parent] * (name == "table")
    ways *= TIMES
    order = random.Random(f"{name} {TIMES}")
    order.shuffle(ways)
    moments = [seconds * (i + order.random()) / len(ways) for i in range(len(ways))]
    order.shuffle(moments)
    return list(zip(ways, moments))


@pytest.mark.parametrize("name", KINDS)
def test_however_often_it_is_interrupted_the_same_command_leaves_the_rows_of_the_undisturbed_run(
    name: str, tmp_path: Path, undisturbed: dict[str, Undisturbed]
) -> None:
    kind, whole = KINDS[name], undisturbed[name]
    history: list[str] = []
    folders = [tmp_path / "0"]
    folders[0].mkdir()

    def finish(run: Run) -> None:
        code, said = ended(run)
        assert code == 0, f"{history}\n{said}"
        wait_until(lambda: not processes_in(folders[-1]), "every orphan ended")
        assert computed(folders[-1] / kind.csv) == whole.rows, history
        assert files_of(folders[-1]) == files_of(whole.folder), history
        history.append("done")
        folders.append(tmp_path / str(len(folders)))
        folders[-1].mkdir()

    for interrupt, moment in interruptions(name, whole.seconds):
        run = kind.start(folders[-1])
        limit = time.monotonic() + moment
        while time.monotonic() < limit:
            if run.poll() is not None:
                # It is done before this moment, which goes to the next folder, earlier if the machine is faster now.
                finish(run)
                run, moment = kind.start(folders[-1]), 0.8 * moment
                limit = time.monotonic() + moment
            time.sleep(0.02)
        interrupt(run, folders[-1])
        history.append(f"{interrupt.__name__} after {moment:.2f} s: {ended(run)[0]}")
    finish(kind.start(folders[-1]))
    print(history)


@pytest.mark.parametrize("name", KINDS)
def test_two_at_once_on_one_folder_leave_the_rows_of_one(
    name: str, tmp_path: Path, undisturbed: dict[str, Undisturbed]
) -> None:
    both = [KINDS[name].start(tmp_path) for _ in range(2)]
    for code, said in map(ended, both):
        assert code == 0, said
    assert computed(tmp_path / KINDS[name].csv) == undisturbed[name].rows
    assert files_of(tmp_path) == files_of(undisturbed[name].folder)


ENDLESS = "m2: {overrides: [model=m2, budget.epochs=100000, trainer.compile=never, trainer.checkpoint_every=1000]}"


def states(folder: Path, *words: str) -> dict[str, str]:
    """The state of every cell, as --status prints it."""
    code, said = ended(table(folder, "--status", *words))
    assert code == 0, said
    return {line.split()[0]: line.split()[1] for line in said.splitlines() if "@" in line}


def test_minutes_stop_a_table_cleanly_and_the_same_command_finishes(
    tmp_path: Path, undisturbed: dict[str, Undisturbed]
) -> None:
    said = []
    # One cell at a time: 18 seconds are too few for three, and with less than 15 left none is begun.
    while not said or "the time is up" in said[-1]:
        assert len(said) < 10, said
        code, text = ended(table(tmp_path, "--jobs", "1", "--minutes", "0.3"))
        assert code == 0, text
        said.append(text)
    assert re.search(r"the time is up: [23] cells are not done; the same command continues", said[0])
    assert set(states(tmp_path).values()) == {"done"}
    assert computed(tmp_path / "runs/smoke/mini.csv") == undisturbed["table"].rows


def test_ctrl_c_and_minutes_end_a_training_with_a_checkpoint_that_is_continued(tmp_path: Path) -> None:
    (tmp_path / "mini.yaml").write_text(re.sub("m2: .*", ENDLESS, TABLE, count=1))
    run = table(tmp_path, "--only", "m2")
    wait_until(lambda: list(tmp_path.glob("runs/*/group-0-1/metrics.csv")), "an epoch ended")
    assert states(tmp_path) == {"m2@100": "running", "m1m2@100": "missing", "m1@100": "missing"}
    ctrl_c(run, tmp_path)
    code, said = ended(run)
    assert code == 130, said
    assert "SIGINT: waiting for m2@100 to end the epoch and save it" in said
    assert not processes_in(tmp_path)
    (checkpoint,) = tmp_path.glob("runs/*/group-0-1/*.ckpt")
    before = int(checkpoint.name[6:].partition(".")[0])
    code, said = ended(table(tmp_path, "--only", "m2", "--minutes", "0.3"))
    assert code == 0, said
    assert "the time is up: 1 cells are not done; the same command continues" in said
    assert not processes_in(tmp_path)
    (log,) = tmp_path.glob("runs/*/log.txt")
    assert f"after epoch {before} of 100000" in log.read_text()
    assert max(int(p.name[6:].partition(".")[0]) for p in tmp_path.glob("runs/*/group-0-1/*.ckpt")) > before
    assert not list(tmp_path.glob("runs/*/failed.json")), "to be stopped is no failure"


def test_a_cell_whose_process_is_killed_fails_alone_and_is_repaired(
    tmp_path: Path, undisturbed: dict[str, Undisturbed]
) -> None:
    def of_m2() -> list[int]:
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in processes_in(tmp_path)}
        return [pid for pid, command in commands.items() if b"model=m2\0" in command]

    run = table(tmp_path)
    wait_until(of_m2, "its process started")
    os.kill(of_m2()[0], signal.SIGKILL)
    code, said = ended(run)
    assert code == 1, said
    reason = "its process ended with SIGKILL, as log.txt in its folder tells"
    assert f"failed    m2@100: {reason} (runs/m2-digits-100-smoke-" in said
    (failed,) = tmp_path.glob("runs/*/failed.json")
    assert read_json(failed)["reason"] == reason
    assert states(tmp_path) == {"m2@100": "failed", "m1m2@100": "done", "m1@100": "done"}
    code, said = ended(table(tmp_path))
    assert code == 0, said
    assert said.count("started, seeds") == 1
    assert not failed.exists()
    assert computed(tmp_path / "runs/smoke/mini.csv") == undisturbed["table"].rows


def test_the_printed_commands_make_the_cells_done(tmp_path: Path, undisturbed: dict[str, Undisturbed]) -> None:
    elsewhere = ("--runs", "other runs", "--device", "cpu")
    assert states(tmp_path, *elsewhere) == {"m2@100": "missing", "m1m2@100": "missing", "m1@100": "missing"}
    code, script = ended(table(tmp_path, "--dry-run", *elsewhere))
    assert code == 0, script
    assert script.count("python -m ssl_dgm.train ") == script.count("device=cpu") == 3
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": path}
    subprocess.run(["sh", "-e"], input=script, text=True, cwd=tmp_path, env=environment, check=True)
    assert set(states(tmp_path, *elsewhere).values()) == {"done"}
    assert ended(table(tmp_path, "--dry-run", *elsewhere)) == (0, "nothing to do: every cell is done\n")
    code, said = ended(table(tmp_path, *elsewhere))
    assert (code, "started" in said) == (0, False), said
    assert computed(tmp_path / "other runs/smoke/mini.csv") == undisturbed["table"].rows


def test_an_edited_row_makes_only_its_own_cells_stale(tmp_path: Path, undisturbed: dict[str, Undisturbed]) -> None:
    shutil.copytree(undisturbed["table"].folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "mini.yaml").write_text(TABLE.replace("[model=m2]", "[model=m2, budget.epochs=2]"))
    assert states(tmp_path) == {"m2@100": "stale", "m1m2@100": "done", "m1@100": "done"}
    code, said = ended(table(tmp_path))
    assert code == 0, said
    assert said.count("started, seeds") == 1
    edited, before = computed(tmp_path / "runs/smoke/mini.csv"), undisturbed["table"].rows
    assert set(edited) & set(before) == {row for row in before if "m2" not in row}
    assert len(edited) == len(before), "rows of the edited cell took the place of the old ones"


def test_a_cell_with_a_published_split_is_found_again(tmp_path: Path, undisturbed: dict[str, Undisturbed]) -> None:
    shutil.copy(next(undisturbed["table"].folder.glob("runs/m2-*/seed-1/split.json")), tmp_path / "published.json")
    (tmp_path / "mini.yaml").write_text(TABLE.replace("[model=m2]", "[model=nn, split.file=published.json]"))
    code, said = ended(table(tmp_path, "--only", "m2"))
    assert code == 0, said
    assert states(tmp_path) == {"m2@100": "done", "m1m2@100": "missing", "m1@100": "missing"}


def test_rendering_needs_no_torch_and_little_time(tmp_path: Path, undisturbed: dict[str, Undisturbed]) -> None:
    shutil.copytree(undisturbed["table"].folder, tmp_path, dirs_exist_ok=True)
    written = tmp_path / "runs/smoke/mini.md"
    expected = written.read_text()
    written.unlink()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = ["-X", "importtime", "-m", "ssl_dgm.table", "mini.yaml", "--budget", "smoke", "--render-only"]
    shown = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    imported = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "ssl_dgm.tables.render" in imported
    assert not {"torch", "pytorch_lightning", "sklearn", "matplotlib"} & imported
    # Of the processor, since other tests may run beside this one.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    assert expected in shown.stdout
    assert written.read_text() == expected
