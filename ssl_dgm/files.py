"""Writes that a crash cannot tear, files that know when they are damaged, and locks between processes."""

import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ssl_dgm.config import UserError


class DamagedFile(Exception):
    """A file whose content is not what was written."""


def forget_stdout() -> None:
    """For a standard output that nobody reads any more, as by `| head`: what is still to be written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def speak_plainly() -> None:
    """For an output that is not in UTF-8: a character that it lacks is written as its code, and ends no command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_atomic(path: Path, content: bytes | str | Callable[[Path], None]) -> None:
    """Puts a file in place whole or not at all: temporary name, fsync, rename.

    Args:
        path: where the file ends up; its folder is made if needed.
        content: what to write, or a function that writes it to the path it is given.

    Raises:
        UserError: when the disk is full or the folder is not writable; nothing is left behind.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(content, bytes | str):
                file.write(content.encode() if isinstance(content, str) else content)
        if callable(content):
            content(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"{path} could not be written ({reason}); free or choose another disk with runs=") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_torn(folder: Path) -> None:
    """Deletes the temporary files of `write_atomic` whose process was killed; nobody may be writing in the folder."""
    for path in folder.glob(".*.????????"):
        path.unlink()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """JSON with a checksum over its content, written atomically."""
    body = json.dumps(content, indent=1, sort_keys=True)
    write_atomic(path, json.dumps({**content, "checksum": _digest(body)}, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        DamagedFile: when it is not JSON, or not what the checksum says.
    """
    try:
        content = json.loads(path.read_bytes())
        checksum = content.pop("checksum")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DamagedFile(f"{path} is damaged: {error}") from error
    if checksum != _digest(json.dumps(content, indent=1, sort_keys=True)):
        raise DamagedFile(f"{path} is damaged: its checksum does not match its content")
    return content


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def locked(path: Path, what: str, say: Callable[[str], None]) -> Iterator[None]:
    """Holds a lock file; says once what is waited for when another process holds it.

    The operating system frees the lock of a process that dies, so that none is ever left behind.

    Raises:
        UserError: when the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(f"waiting for another process that is working on {what}")
            lock.acquire()
    except OSError as error:
        remedy = "choose another folder with runs= (rows: csv=, tables: --results)"
        raise UserError(f"{path.parent} could not be written ({error.strerror}); {remedy}") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds this lock file now."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a folder that may only be read: whether it is held cannot be told
        return False
    lock.release()
    return False
