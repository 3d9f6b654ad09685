"""How tests run the command line: in this process, where importing torch is paid once, or as a real process."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import settings

from ssl_dgm import train

SMOKE = (
    "model=m2", "data=digits", "budget=smoke", "trainer.progress=false", "trainer.compile=never", "baseline=null",
)  # fmt: skip

# A machine that is busy is no failure.
settings.register_profile("ssl_dgm", deadline=None)
settings.load_profile("ssl_dgm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums of floats depend on the number of threads; two small tests at once are also faster so."""
    torch.set_num_threads(1)


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Outcome]:
    """Runs `python -m ssl_dgm.train` with these words, in `tmp_path`."""

    def run(*words: str) -> Outcome:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["ssl_dgm.train", *words])
        code = 0
        try:
            train.main()
        except SystemExit as exit:
            code = int(exit.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def start_process(folder: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    """Starts `python -m ssl_dgm.train` with these words as a process of its own, in `folder`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "ssl_dgm.train", *words], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """`start_process` in `tmp_path`."""
    return partial(start_process, tmp_path)
