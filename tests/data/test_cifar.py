"""CIFAR from small files of the published formats: all read alike, and pickles that would run code do not."""

import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import cifar, sources

Batch = tuple[np.ndarray, np.ndarray]  # uint8 [n, 3, 32, 32] and classes [n]


def batch(seed: int, n: int, num_classes: int) -> Batch:
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(n, 3, 32, 32), dtype=np.uint8), (np.arange(n) + seed) % num_classes


def text(word: bytes) -> bytes:
    """A string as Python 2 pickled it."""
    return b"U" + bytes([len(word)]) + word


def python2(x: np.ndarray, labels: dict[bytes, np.ndarray], first: bytes = b"") -> bytes:
    """The pickle that Python 2 and its NumPy made of {'data': x, 'labels': [...]}, opcode by opcode."""
    shape = b"M" + struct.pack("<H", len(x)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    dtype = (
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\0K\1\x87R(K\3"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    )
    pixels = b"T" + struct.pack("<i", x.size) + x.tobytes()
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85" + text(b"b") + b"tR"
    out = b"\x80\x02}(" + first + text(b"batch_label") + text(b"training batch 1 of 5")
    for name, y in labels.items():
        out += text(name) + b"](" + b"".join(b"K" + bytes([c]) for c in y) + b"e"
    return out + text(b"data") + empty + b"(K\1" + shape + dtype + b"\x89" + pixels + b"tb" + b"u."


def packed(name: str, x: np.ndarray, y: np.ndarray, binary: bool) -> bytes:
    """One published file."""
    if binary:
        before = y[:, None] if name == "cifar10" else np.stack([y // 5, y], 1)
        return np.hstack([before.astype(np.uint8), x.reshape(len(x), -1)]).tobytes()
    keys = {b"labels": y} if name == "cifar10" else {b"coarse_labels": y // 5, b"fine_labels": y}
    return python2(x, keys)


Put = Callable[..., list[Batch]]


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Put:
    """Writes small files of a layout, which count as the published ones, and returns what is in them."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()

    def write(name: str, binary: bool, archived: bool, changed: dict[str, bytes] | None = None) -> list[Batch]:
        number = 0 if binary else 1
        layout = cifar.LAYOUTS[name][number]
        batches = [batch(i, 30, cifar.CLASSES[name]) for i in range(len(layout.md5s))]
        contents = {file: packed(name, *one, binary) for file, one in zip(layout.md5s, batches)} | (changed or {})
        md5s = {file: hashlib.md5(content).hexdigest() for file, content in contents.items()}
        md5 = layout.md5
        if archived:
            with tarfile.open(tmp_path / "data" / layout.archive, "w:gz") as archive:
                for file, content in contents.items():
                    member = tarfile.TarInfo(f"{layout.folder}/{file}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
            md5 = hashlib.md5((tmp_path / "data" / layout.archive).read_bytes()).hexdigest()
        else:
            (tmp_path / "data" / layout.folder).mkdir(exist_ok=True)
            for file, content in contents.items():
                (tmp_path / "data" / layout.folder / file).write_bytes(content)
        layouts = list(cifar.LAYOUTS[name])
        layouts[number] = replace(layout, md5=md5, md5s=dict.fromkeys(md5s, "") if binary else md5s)
        monkeypatch.setitem(cifar.LAYOUTS, name, layouts)
        return batches

    return write


@pytest.mark.parametrize("archived", [True, False], ids=["archive", "folder"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "python"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_every_layout_gives_the_same_images_and_classes(put: Put, name: str, binary: bool, archived: bool) -> None:
    *train, test = put(name, binary, archived)
    source = sources.load(name)
    assert (source.shape, source.num_classes, source.num_validation) == (
        (32, 32, 3),
        cifar.CLASSES[name],
        6 * len(train),
    )
    images = np.concatenate([x for x, _ in train]).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(source.to_images(source.train_x), images)
    assert source.train_y.tolist() == np.concatenate([y for _, y in train]).tolist()
    np.testing.assert_array_equal(source.to_images(source.test_x), test[0].transpose(0, 2, 3, 1))
    assert source.test_y.tolist() == test[1].tolist()


def test_the_pickle_is_what_numpy_reads_as_the_batch(put: Put) -> None:
    """The tests' own files are of the true format."""
    x, y = batch(0, 30, 10)
    found = pickle.loads(packed("cifar10", x, y, binary=False), encoding="latin1")
    np.testing.assert_array_equal(found["data"], x.reshape(30, -1))
    assert found["labels"] == y.tolist()


class Marks:
    """Would write a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return open, (str(self.path), "w")


def test_code_in_a_pickle_is_refused_and_does_not_run(put: Put, tmp_path: Path) -> None:
    marked = tmp_path / "marked"
    content = pickle.dumps({"data": Marks(marked), "labels": []}, 2)
    put("cifar10", False, False, {"data_batch_2": content})
    with pytest.raises(UserError, match=r"data_batch_2 is no batch of CIFAR \(it asks for \w+\.open\)"):
        sources.load("cifar10")
    assert not marked.exists()
    pickle.loads(content)["data"].close()
    assert marked.exists()  # so it was a danger


def test_damaged_files_are_refused(put: Put) -> None:
    x, y = batch(0, 30, 10)
    whole, objects = packed("cifar10", x, y, False), {"data": np.array([x, None], object), "labels": [1, 2]}
    bytes_of_images = struct.pack("<i", x.size)
    assert whole.count(bytes_of_images) == 1
    for content, words in (
        (whole[:-9], "is no batch of CIFAR"),
        (whole.replace(bytes_of_images, struct.pack("<i", 2**31 - 1)), "is no batch of CIFAR"),
        (whole.replace(text(b"u1"), text(b"O1")), "holds no uint8 array"),
        (python2(x[:29], {b"labels": y}), "holds no uint8 array"),
        (python2(x, {b"labels": y + 9}), "has a class 18 where there are 10"),
        (python2(x, {b"fine_labels": y}), r"is no batch of CIFAR \('labels'\)"),
        (pickle.dumps(objects, 2), "is no batch of CIFAR"),
        (pickle.dumps([1]), "is no batch of CIFAR"),
        (b"", "is no batch of CIFAR"),
    ):
        put("cifar10", False, False, {"data_batch_1": content})
        with pytest.raises(UserError, match=rf"data_batch_1 {words}"):
            sources.load("cifar10")
    put("cifar10", True, False, {"data_batch_1.bin": packed("cifar10", x, y, True)[:-1]})
    with pytest.raises(UserError, match=r"data_batch_1\.bin has 92,189 bytes, no multiple of the 3,073 of an image"):
        sources.load("cifar10")


def test_other_files_than_the_published_ones_are_refused(put: Put, tmp_path: Path) -> None:
    put("cifar10", False, False)
    path = tmp_path / "data" / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="test_batch differs from the published file"):
        sources.load("cifar10")
    put("cifar100", True, True)
    archive = tmp_path / "data" / "cifar-100-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"cifar-100-binary\.tar\.gz differs from the published file"):
        sources.load("cifar100")


def test_a_missing_archive_is_told_early(put: Put) -> None:
    for function in (sources.check_available, sources.load, sources.digest_of):
        with pytest.raises(UserError, match=r"cifar-100-python\.tar\.gz of cifar100 is missing from .*; put it there"):
            function(DataConfig("cifar100"))
