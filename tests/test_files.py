"""Writes that cannot be torn, and files that know when they are damaged."""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_dgm.config import UserError
from ssl_dgm.files import DamagedFile, locked, read_json, write_atomic, write_json

CONTENT = {"seed": 3, "metrics": {"test/error": 0.0333}, "device": "cpu"}


@given(position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_byte_never_goes_unnoticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "record.json"
    write_json(path, CONTENT)
    raw = bytearray(path.read_bytes())
    raw[position % len(raw)] ^= flip
    path.write_bytes(raw)
    with contextlib.suppress(DamagedFile):
        # Only white space can change without changing the content.
        assert read_json(path) == CONTENT


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"checksum": 1}', b"\xff\xfe"])
def test_what_is_not_a_record_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(DamagedFile):
        read_json(tmp_path / "record.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space left on device"):
        write_atomic(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _hold(path: Path, seconds: float) -> None:
    with locked(path, "a run", print):
        time.sleep(seconds)


def test_a_lock_is_waited_for_and_dies_with_its_process(tmp_path: Path) -> None:
    path, said = tmp_path / ".lock", []
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(path, 60))
    holder.start()
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.2)
    holder.kill()
    with locked(path, "a run", said.append):
        holder.join()
    second = multiprocessing.get_context("spawn").Process(target=_hold, args=(path, 1.0))
    with locked(path, "a run", said.append):
        second.start()
        time.sleep(0.2)
    second.join()
    assert second.exitcode == 0


def test_an_output_that_lacks_a_letter_shows_its_code() -> None:
    code = "from ssl_dgm.files import speak_plainly; speak_plainly(); print('3.33 ± 0.14')"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout
    assert shown.strip() == rb"3.33 \xb1 0.14"
