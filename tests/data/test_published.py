"""Published files: fetched whole or not at all, and only into the folder that is nobody's."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ssl_dgm.config import UserError
from ssl_dgm.data import published, sources, svhn


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSL_DGM_DATA", raising=False)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Where the test's folder can be had from."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_is_downloaded_whole_or_not_at_all(tmp_path: Path, served: str) -> None:
    here = tmp_path / "new" / "here.bin"
    (tmp_path / "there.bin").write_bytes(b"content")
    with pytest.raises(UserError, match=r"there\.bin could not be downloaded \(.*; put here\.bin into .*/new by hand"):
        published.download(f"{served}/there.bin", here, hashlib.md5(b"other").hexdigest())
    assert not list(here.parent.iterdir())
    published.download(f"{served}/there.bin", here, hashlib.md5(b"content").hexdigest())
    assert [path.name for path in here.parent.iterdir()] == ["here.bin"] and here.read_bytes() == b"content"


def test_what_is_missing_is_fetched_into_the_default_folder_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(svhn, "PAGE", (tmp_path / "nowhere").as_uri())
    sources.check_available("svhn")
    with pytest.raises(UserError, match=r"nowhere/train_32x32\.mat could not be downloaded"):
        sources.load("svhn")
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path / "mine"))
    with pytest.raises(UserError, match=r"train_32x32\.mat of svhn is missing from .*/mine/SVHN"):
        sources.load("svhn")
    assert not (tmp_path / "mine").exists()


def test_a_digest_is_computed_once_for_what_it_is_about() -> None:
    found = []

    def compute() -> str:
        found.append("again")
        return f"digest {len(found)}"

    assert [published.remembered([1, "a"], compute) for _ in range(3)] == ["digest 1"] * 3
    assert published.remembered([2, "a"], compute) == "digest 2"
    assert published.remembered([1, "a"], compute) == "digest 1"
