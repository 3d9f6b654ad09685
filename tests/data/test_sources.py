import gzip
import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import idx as idx_files
from ssl_dgm.data import sources
from ssl_dgm.data.idx import FILES, locate, read_idx
from ssl_dgm.data.source import Source, digest
from ssl_dgm.data.sources import check_available, load

REAL = os.environ.get("SSL_DGM_DATA")


def idx(array: np.ndarray, magic: int = 0x0800) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", magic + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def small_files() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    x = {n: rng.integers(256, size=(n, 4, 3), dtype=np.uint8) for n in (60, 20)}
    y = {n: np.arange(n, dtype=np.uint8) % 10 for n in (60, 20)}
    return dict(zip(FILES, (x[60], y[60], x[20], y[20]), strict=True))


def put_small_files(folder: Path) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    arrays = small_files()
    for file, array in arrays.items():
        (folder / file).write_bytes(idx(array))
    return arrays


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSL_DGM_DATA", raising=False)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small files are the published ones."""
    hashes = tuple(hashlib.sha256(idx(a)).hexdigest() for a in small_files().values())
    monkeypatch.setattr(idx_files, "SHA256", {"mnist": hashes, "fashion_mnist": hashes[::-1]})


def fake_torchvision(monkeypatch: pytest.MonkeyPatch, mnist: object) -> None:
    module = ModuleType("torchvision")
    module.datasets = SimpleNamespace(MNIST=mnist, FashionMNIST=mnist)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", module)


# --- idx files


@pytest.mark.parametrize("shape", [(7,), (5, 4, 3), (2, 300)])
def test_idx_round_trip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(256, size=shape, dtype=np.uint8)
    (tmp_path / "a").write_bytes(idx(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    for name in ("a", "a.gz"):
        read = read_idx(tmp_path / name)
        np.testing.assert_array_equal(read, array)
        assert read.dtype == np.uint8 and read.flags.writeable


def test_checksum_is_of_the_uncompressed_content(tmp_path: Path) -> None:
    array = np.arange(9, dtype=np.uint8)
    sha256 = hashlib.sha256(idx(array)).hexdigest()
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz", sha256), array)
    (tmp_path / "b").write_bytes(idx(array + 1))
    with pytest.raises(UserError, match=r"/b differs .* delete it and fetch it again"):
        read_idx(tmp_path / "b", sha256)


@pytest.mark.parametrize("length", [0, 3, 4, 10, 15, 16, -1])
def test_truncated_file(tmp_path: Path, length: int) -> None:
    (tmp_path / "short").write_bytes(idx(np.ones((2, 2, 2)))[:length])
    with pytest.raises(UserError, match=r"/short .*; delete it and fetch it again"):
        read_idx(tmp_path / "short")


@pytest.mark.parametrize(
    "content",
    [idx(np.ones(3)) + b"\0", idx(np.ones(3), 0x0D00), idx(np.ones(3), 0x10800), b"\0\0\x08\0\1", b"<html>404</html>"],
    ids=["too_long", "float", "magic", "no_dimension", "html"],
)
def test_wrong_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "wrong").write_bytes(content)
    with pytest.raises(UserError, match=r"/wrong .*; delete it and fetch it again"):
        read_idx(tmp_path / "wrong")


def test_broken_gz(tmp_path: Path) -> None:
    whole = gzip.compress(idx(np.arange(200)))
    for broken in (whole[:-5], whole[:10] + b"\xff" + whole[11:], whole[:-1] + b"x", idx(np.ones(3)), b""):
        (tmp_path / "a.gz").write_bytes(broken)
        with pytest.raises(UserError, match=r"/a\.gz .*; delete it and fetch it again"):
            read_idx(tmp_path / "a.gz")


# --- where the files are


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("packed", [False, True])
def test_load_from_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    arrays = put_small_files(locate("mnist", tmp_path))
    if packed:
        plain = locate("mnist", tmp_path) / FILES[0]
        Path(f"{plain}.gz").write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    source = load(DataConfig("mnist", str(tmp_path)))
    np.testing.assert_array_equal(source.train_x, arrays[FILES[0]].reshape(60, 12))
    np.testing.assert_array_equal(source.test_y, arrays[FILES[3]])
    assert (source.shape, source.num_classes, source.train_y.dtype) == ((4, 3), 10, np.int64)
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path))
    assert load("mnist").sha256 == source.sha256


@pytest.mark.usefixtures("known")
def test_corrupted_pixel_is_told(tmp_path: Path) -> None:
    put_small_files(locate("mnist", tmp_path))
    file = locate("mnist", tmp_path) / FILES[2]
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=f"{FILES[2]} differs"):
        load(DataConfig("mnist", str(tmp_path)))


def test_missing_file_is_told_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_small_files(locate("mnist", tmp_path))
    check_available(DataConfig("mnist", str(tmp_path)))
    (locate("mnist", tmp_path) / FILES[1]).unlink()
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path))
    for function in (check_available, load):
        with pytest.raises(UserError) as error:
            function("mnist")
        for part in (FILES[1], str(tmp_path / "MNIST" / "raw"), "put it there", "SSL_DGM_DATA"):
            assert part in str(error.value)
        with pytest.raises(UserError, match=f"{FILES[0]} of fashion_mnist is missing"):
            function(DataConfig("fashion_mnist", str(tmp_path)))


def test_nothing_is_downloaded_into_a_chosen_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_torchvision(monkeypatch, lambda *_, **__: pytest.fail("a download was tried"))
    with pytest.raises(UserError, match="is missing"):
        load(DataConfig("mnist", str(tmp_path)))
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path))
    with pytest.raises(UserError, match="is missing"):
        load("mnist")


@pytest.mark.usefixtures("known")
def test_download_into_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def mnist(root: str, download: bool) -> None:
        calls.append(download)
        put_small_files(Path(root) / "MNIST" / "raw")

    fake_torchvision(monkeypatch, mnist)
    check_available("mnist")
    assert load("mnist").sha256 == load("mnist").sha256
    assert calls == [True]
    folder = tmp_path / "home" / ".cache" / "ssl_dgm" / "MNIST" / "raw"
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("error", [RuntimeError("Error downloading x:\nTried y"), OSError(), ImportError("no nms")])
def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def mnist(root: str, download: bool) -> None:
        put_small_files(Path(root) / "MNIST" / "raw")
        raise error

    fake_torchvision(monkeypatch, mnist)
    with pytest.raises(UserError, match=r"could not be downloaded .*by hand, or set SSL_DGM_DATA") as told:
        load("mnist")
    assert "\n" not in str(told.value)
    assert not any(locate("mnist").iterdir()), "a failed download left files behind"


def test_unknown_name() -> None:
    for function in (load, check_available):
        with pytest.raises(UserError, match="data=mnits is unknown; the nearest is mnist"):
            function("mnits")


def test_imports_no_torch() -> None:
    code = (
        "import sys; from ssl_dgm.data import sources, splits; sources.check_available('mnist')\n"
        "sys.exit(bool({'torch', 'torchvision'} & set(sys.modules)))"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0


# --- what a source does


def synthetic(x: np.ndarray, num_validation: int = 2, shape: tuple[int, ...] = (2, 3)) -> Source:
    y = np.arange(len(x)) % 2
    return Source("synthetic", x, y, x[:3] // 2, y[:3], num_validation, 2, shape, digest(x, y))


def with_constant_pixels() -> Source:
    x = np.random.default_rng(2).integers(256, size=(8, 6), dtype=np.uint8)
    x[:, 1] = 9
    x[:6, 3] = 200  # varies, but in the validation rows only
    x[:, 4] = 100 + np.arange(8) % 2
    return synthetic(x)


def test_constant_pixels_are_dropped() -> None:
    source = with_constant_pixels()
    dropped = source.drop_constant_pixels(0)
    assert dropped.kept is not None and dropped.kept.tolist() == [True, False, True, False, True, True]
    assert (dropped.x_dim, dropped.num_train, dropped.sha256) == (4, 6, source.sha256)
    np.testing.assert_array_equal(dropped.test_x, source.test_x[:, [0, 2, 4, 5]])
    assert source.x_dim == 6 and source.kept is None


def test_threshold_is_a_strict_bound_on_the_sd_of_scaled_pixels() -> None:
    source = with_constant_pixels()
    sd = (source.train_x[:6] / 255).std(axis=0)[4]
    assert sd == pytest.approx(0.5 / 255)
    assert source.drop_constant_pixels(sd * (1 - 1e-9)).x_dim == 4
    assert source.drop_constant_pixels(sd * (1 + 1e-9)).x_dim == 3
    assert source.drop_constant_pixels(0.5 / 255).x_dim == 3


def test_dropping_twice_composes() -> None:
    once = with_constant_pixels().drop_constant_pixels(0.1)
    twice = with_constant_pixels().drop_constant_pixels(0).drop_constant_pixels(0.1)
    np.testing.assert_array_equal(once.train_x, twice.train_x)
    np.testing.assert_array_equal(once.kept, twice.kept)  # type: ignore[arg-type]
    assert once.drop_constant_pixels(0.1) is once


def test_every_pixel_dropped() -> None:
    with pytest.raises(UserError, match=r"data\.min_pixel_sd=2 drops every pixel of synthetic; use a number below 0"):
        with_constant_pixels().drop_constant_pixels(2)


def test_to_images_puts_pixels_back() -> None:
    source = with_constant_pixels()
    np.testing.assert_array_equal(source.to_images(source.train_x), source.train_x.reshape(-1, 2, 3))
    dropped = source.drop_constant_pixels(0)
    images = dropped.to_images(dropped.train_x[:6].reshape(2, 3, 4) / 255)
    expected = source.train_x[:6] * np.array([1, 0, 1, 0, 1, 1]) / 255
    assert images.shape == (2, 3, 2, 3) and images.dtype == np.float64
    np.testing.assert_array_equal(images.reshape(6, 6), expected)
    assert dropped.to_images(dropped.train_x[0]).shape == (2, 3)


def test_describe() -> None:
    line = with_constant_pixels().drop_constant_pixels(0).describe()
    assert line.startswith("synthetic: 6 training, 2 validation and 3 test images of 2 x 3, 2 classes, values ")
    assert line.endswith("2 pixels dropped") and "\n" not in line


def test_digest_sees_values_shapes_types_and_limits() -> None:
    a = np.arange(6, dtype=np.uint8)
    variants = [(a,), (a[::-1],), (a.reshape(2, 3),), (a.astype(np.int64),), (a[:3], a[3:]), (a[:2], a[2:])]
    assert len({digest(*v) for v in variants}) == len(variants)
    wide = np.arange(6, dtype=np.int64)
    assert digest(wide.astype(">i8")) == digest(wide) == digest(np.repeat(wide, 2)[::2])


# --- the data sets


def test_digits() -> None:
    source = load("digits")
    assert (len(source.train_x), source.num_train, len(source.test_x)) == (1297, 1097, 500)
    assert (source.shape, source.x_dim, source.num_classes, source.train_x.dtype) == ((8, 8), 64, 10, np.uint8)
    assert (source.train_x.min(), source.train_x.max()) == (0, 255)
    # The arrangement is part of every result on digits.
    assert source.sha256 == "27d7a1a3500289df39c36ea48701b7ea3e2fe3be545a9a48e5c3ae2b0a32d97c"
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    theirs = np.column_stack([x, y]).astype(int).tolist()
    grey = np.vstack([source.train_x, source.test_x]) / 255
    ours = np.column_stack([np.round(grey * 16), np.hstack([source.train_y, source.test_y])]).astype(int).tolist()
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize(
    ("name", "mean", "sd", "live", "last"),
    [("mnist", 0.1307, 0.3081, 717, "9"), ("fashion_mnist", 0.2860, 0.3530, 784, "ankle boot")],
)
@pytest.mark.realdata
@pytest.mark.skipif(not REAL, reason="SSL_DGM_DATA is unset")
def test_real_files(name: str, mean: float, sd: float, live: int, last: str) -> None:
    source = load(DataConfig(name, str(REAL)))
    assert (len(source.train_x), source.num_train, len(source.test_x)) == (60_000, 50_000, 10_000)
    assert (source.shape, source.x_dim, source.num_classes) == ((28, 28), 784, 10)
    assert len(source.class_names) == 10 and source.class_names[-1] == last
    pixels = np.bincount(source.train_x.reshape(-1), minlength=256) / source.train_x.size
    grey = np.arange(256) / 255
    assert pixels @ grey == pytest.approx(mean, abs=5e-5)
    assert np.sqrt(pixels @ (grey - mean) ** 2) == pytest.approx(sd, abs=5e-5)
    assert source.drop_constant_pixels(0).x_dim == live


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=[] if name == "digits" else [pytest.mark.realdata, pytest.mark.skipif(not REAL, reason="no files")],
        )
        for name in sources.DIGESTS
    ],
)
def test_the_digest_that_names_runs_is_that_of_the_data(name: str) -> None:
    # Named, since the tests of this file are without SSL_DGM_DATA.
    assert sources.digest_of(name) == load(DataConfig(name, REAL)).sha256
