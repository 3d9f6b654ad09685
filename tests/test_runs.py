"""python -m ssl_dgm.runs, as a process: listing, showing, comparing and deleting real runs."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMOKE, Outcome

import ssl_dgm
from ssl_dgm.files import locked

TINY = (*SMOKE, "network.hidden=[24]", "seeds=[0,1]")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an M2, the same one with another learning rate, and a stack."""
    folder = tmp_path_factory.mktemp("finished")
    for words in (TINY, (*TINY, "optimizer.lr=0.002"), (*TINY, "model=m1m2")):
        ssl_dgm.fit(*words, f"runs={folder}/runs", verbose=False)
    return folder


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Runs the command in a copy of `finished`."""
    shutil.copytree(finished / "runs", tmp_path / "runs")

    def run(*words: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "ssl_dgm.runs", *words],
            cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


def names(folder: Path, start: str) -> list[str]:
    return sorted(path.name for path in (folder / "runs").glob(f"{start}*"))


def test_ls_tells_state_seeds_headline_and_disk_use(runs: Callable[..., Outcome], tmp_path: Path) -> None:
    failed = tmp_path / "runs" / names(tmp_path, "m2-")[0]
    (failed / "failed.json").write_text("{}")
    with locked(tmp_path / "runs" / names(tmp_path, "m2-")[1] / ".lock", "it", print):
        out = runs("ls").out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()[2:6]}
    assert lines[failed.name][:2] == ["m2", "failed"]
    assert lines[names(tmp_path, "m2-")[1]][:3] == ["m2", "running", "2"]
    assert lines[names(tmp_path, "m1m2-")[0]][:5] == ["m1m2", "done", "2", "test", "error"]
    assert lines[names(tmp_path, "m1-")[0]][:5] == ["m1", "done", "1", "test", "bound"]
    assert "4 runs, " in out


def test_show_has_settings_and_metrics(runs: Callable[..., Outcome], tmp_path: Path) -> None:
    out = runs("show", "m1m2").out
    for words in ("state     done", "model     m1m2", "m1.budget.epochs", "test error (%)", "(n = 2)", "samples.png"):
        assert words in out


def test_diff_shows_only_what_differs(runs: Callable[..., Outcome], tmp_path: Path) -> None:
    out = runs("diff", *names(tmp_path, "m2-")).out
    (line,) = [line for line in out.splitlines() if "." in line.split(" ")[0]]
    assert line.split()[0] == "optimizer.lr" and {"0.001", "0.002"} == set(line.split()[1:])
    assert "test error" in out


def test_rm_asks_first_and_names_the_runs_above(runs: Callable[..., Outcome], tmp_path: Path) -> None:
    (m1,), (stack,) = names(tmp_path, "m1-"), names(tmp_path, "m1m2-")
    refused = runs("rm", m1)
    assert refused.code == 2 and "add --yes" in refused.err
    assert f"1 runs build on it, which could then not be loaded: {stack}" in refused.out
    assert names(tmp_path, "m1-") == [m1]
    assert runs("rm", m1, stack, "--yes").code == 0
    assert not names(tmp_path, "m1")


def test_rm_refuses_a_run_in_training_and_unclear_names(runs: Callable[..., Outcome], tmp_path: Path) -> None:
    first, second = names(tmp_path, "m2-")
    with locked(tmp_path / "runs" / first / ".lock", "it", print):
        busy = runs("rm", second, first, "--yes")
    assert busy.code == 2 and "is being trained" in busy.err
    (tmp_path / "runs" / "m2-digits-1000-smoke-0123456789").mkdir()
    (tmp_path / "runs" / "m2-digits-1000-smoke-0123456789" / "failed.json").write_text("{}")
    assert "is no run" in runs("rm", "m2-digits-10", "--yes").err, "1000 labels are not 10 of another kind"
    shutil.rmtree(tmp_path / "runs" / "m2-digits-1000-smoke-0123456789")
    unclear = runs("rm", "m2-", "--yes")
    assert unclear.code == 2 and "is the beginning of 2 runs" in unclear.err
    assert runs("show", "m7").err.startswith("ssl_dgm: runs/m7 is no run")
    assert names(tmp_path, "m2-") == [first, second]


def test_a_damaged_run_hides_no_other(runs: Callable[..., Outcome], tmp_path: Path) -> None:
    first, second = names(tmp_path, "m2-")
    (tmp_path / "runs" / first / "config.json").write_text("{")
    listed = runs("ls")
    assert listed.code == 0 and second in listed.out and first in listed.out
    assert "holds no readable config.json" in runs("show", first).err
    assert runs("rm", first, "--yes").code == 0


def test_it_needs_no_torch() -> None:
    code = "import sys, ssl_dgm.runs, ssl_dgm.table, ssl_dgm.drawing.tables; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
