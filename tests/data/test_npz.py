"""Arrays of users' own: what is made of them, and what is refused before anything is allocated or run."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_files import arrays, pictures, put_npz

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import own, sources
from ssl_dgm.data.source import Source
from ssl_dgm.data.validation import held_out


def load(path: Path, **settings: Any) -> Source:
    return sources.load(DataConfig("npz", file=str(path), **settings))


def test_rows_are_the_training_rows_then_the_unlabelled_then_the_validation_rows(tmp_path: Path) -> None:
    more = pictures(10, seed=5)[0]
    given = arrays(x_unlabelled=more)
    source = load(put_npz(tmp_path, x_unlabelled=more))
    y = np.concatenate([given["y_train"], np.full(10, -1)])
    held = held_out(y, None, "")
    order = np.concatenate([np.delete(np.arange(130), held), held])
    x = np.concatenate([given["x_train"], more]).reshape(130, 64)
    np.testing.assert_array_equal(source.train_x[:], x[order])
    np.testing.assert_array_equal(source.train_y, y[order])
    np.testing.assert_array_equal(source.test_x, given["x_test"].reshape(30, 64))
    assert (source.shape, source.num_classes, source.num_validation) == ((8, 8), 3, 6)
    assert "labels: 54 of 60 can be learned from (0 18, 1 18, 2 18), 6 are held out" in source.describe()


def test_validation_rows_that_are_given_are_taken_and_others_can_be_asked_for(tmp_path: Path) -> None:
    x, y = pictures(12, seed=7)
    source = load(put_npz(tmp_path / "given", x_val=x, y_val=y))
    np.testing.assert_array_equal(source.train_x[-12:], x.reshape(12, 64))
    np.testing.assert_array_equal(source.train_y[-12:], y)
    assert source.num_validation == 12 and source.num_train == 120
    with pytest.raises(UserError, match=r"data.validation=5 has no use beside x_val of my.npz; leave one out"):
        load(tmp_path / "given" / "my.npz", validation=5)
    assert load(put_npz(tmp_path / "asked"), validation=9).num_validation == 9


def test_colours_grey_levels_and_rows_become_what_they_look_like(tmp_path: Path) -> None:
    (x, y), (x_test, y_test) = pictures(60, colour=True), pictures(9, colour=True)
    colour = load(put_npz(tmp_path / "c", x_train=x, y_train=y, x_test=x_test, y_test=y_test))
    assert colour.shape == (8, 8, 3) and colour.train_x.dtype == np.uint8
    np.testing.assert_array_equal(colour.to_images(colour.test_x), x_test)
    grey = arrays()
    floats = load(put_npz(tmp_path / "f", x_train=grey["x_train"] / 255, x_test=(grey["x_test"] / 255).astype("f4")))
    assert floats.sha256 == load(put_npz(tmp_path / "u")).sha256
    assert "floats from 0 to 1: taken for pixels of 256 levels" in floats.describe()
    one = load(put_npz(tmp_path / "1", x_train=grey["x_train"][..., None], x_test=grey["x_test"][..., None]))
    assert one.sha256 == floats.sha256 and one.shape == (8, 8)
    flat = {name: grey[name].reshape(-1, 64) for name in ("x_train", "x_test")}
    assert load(put_npz(tmp_path / "flat", **flat)).shape == (8, 8), "64 pixels are drawn as a square"
    odd = {name: flat[name][:, :60] for name in flat}
    assert load(put_npz(tmp_path / "odd", **odd)).shape == (60,)


def test_rows_of_floats_are_standardised_by_the_training_rows_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, x_test = rng.normal(1e6, 50, (120, 3)), rng.normal(1e6, 50, (30, 3))
    x[:, 2] = 7
    source = load(put_npz(tmp_path, x_train=x, x_test=x_test))
    assert source.real and source.shape == (3,)
    train = np.asarray(source.train_x[: source.num_train], np.float64)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(train[:, :2].std(0), 1, rtol=1e-5)
    assert np.abs(source.train_x[source.num_train :, 0].mean()) > 1e-3, "the validation rows are not centred themselves"
    back = source.to_images(source.test_x.astype(np.float64))
    np.testing.assert_allclose(back[:, :2], x_test[:, :2], rtol=1e-6)
    assert "1 columns do not vary" in source.describe()


def test_a_title_is_what_the_data_are_called_but_not_that_of_published_data(tmp_path: Path) -> None:
    path = put_npz(tmp_path)
    titled = load(path, title="CIFAR-10 (JPEG copy)")
    assert titled.name == "CIFAR-10 (JPEG copy)" and titled.describe().startswith("CIFAR-10 (JPEG copy): ")
    assert titled.sha256 == load(path).sha256
    with pytest.raises(UserError, match=r"data\.title=Fashion MNIST is what data=fashion_mnist is called"):
        load(path, title="Fashion MNIST")


def test_a_remembered_digest_is_that_of_the_file_as_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    data = DataConfig("npz", file=str(put_npz(tmp_path)))
    for changed in (0, 1):
        given = arrays()
        put_npz(tmp_path, x_train=given["x_train"] + np.uint8(changed))
        assert sources.digest_of(data) == sources.digest_of(data) == sources.load(data).sha256


def test_a_relative_file_is_looked_for_here_and_then_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_npz(tmp_path / "data")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path / "data"))
    assert own.find(DataConfig("npz", file="my.npz"), "file") == tmp_path / "data" / "my.npz"
    put_npz(tmp_path / "here")
    assert own.find(DataConfig("npz", file="my.npz"), "file") == tmp_path / "here" / "my.npz"
    with pytest.raises(UserError, match=r"data.file=your.npz is not there \(looked in .*/here and .*/data\)"):
        sources.check_available(DataConfig("npz", file="your.npz"))
    with pytest.raises(UserError, match=r"data.file=\. is a folder; name a file"):
        sources.check_available(DataConfig("npz", file="."))
    with pytest.raises(UserError, match=r"name it with data.file=\.\.\."):
        sources.check_available(DataConfig("npz"))


# --- What is refused


class Executed(Exception):
    """What unpickling would do."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os._exit, (3,))


X, Y = pictures(120)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "objects": ({"x_train": np.array([Executed()] * 120)}, "holds Python objects, which may run code"),
    "object labels": ({"y_train": np.array([Executed()] * 120)}, "holds Python objects, which may run code"),
    "records": ({"x_train": np.zeros(120, [("a", "u1")])}, "save arrays of plain numbers"),
    "no test rows": ({"x_test": None}, "has no x_test: it has x_train, y_test, y_train; it needs x_train, y_train"),
    "empty test rows": ({"x_test": X[:0], "y_test": Y[:0]}, "x_test of my.npz has no rows"),
    "empty images": ({"x_train": X[:, :0]}, "x_train of my.npz is 120 x 0 x 8; save images"),
    "half a validation": ({"x_val": X}, "has only one of x_val and y_val"),
    "lengths": ({"y_train": Y[:-1]}, "x_train of my.npz has 120 rows but 119 labels"),
    "shapes": ({"x_test": X[:30, :7]}, "x_test of my.npz has rows of 7 x 8 but x_train of my.npz of 8 x 8"),
    "types": ({"x_test": X[:30].reshape(30, 64) / 9, "x_train": X.reshape(120, 64)}, "has rows of 64 but"),
    "kinds": (
        {"x_test": X[:30].reshape(30, 64)[:, :60] / 9, "x_train": X.reshape(120, 64)[:, :60]},
        "x_test of my.npz holds float64 but x_train of my.npz uint8",
    ),
    "unlabelled shapes": ({"x_unlabelled": X[:, :7]}, "x_unlabelled of my.npz has rows of 7 x 8"),
    "integers": ({"x_train": X.astype(int)}, "x_train of my.npz holds int64; save pixels as uint8"),
    "one number a row": ({"x_train": X[:, 0, 0]}, "x_train of my.npz is 120; save images [N, H, W]"),
    "colours first": (
        {"x_train": np.zeros((120, 3, 8, 8), np.uint8)},
        "120 x 3 x 8 x 8, and images are [N, H, W] or [N, H, W, 3]; x.transpose(0, 2, 3, 1) puts",
    ),
    "no pixels": ({"x_train": X * 1.0}, "values from 0 to 255, which are no pixels"),
    "nan pixels": ({"x_train": X * np.nan}, "x_train of my.npz has nan at [0, 0, 0]; fill it in"),
    "nan": ({"x_train": np.full((120, 2), np.nan)}, "has nan in row 0, column 0"),
    "inf": ({"x_train": np.zeros((120, 2)), "x_test": np.full((30, 2), np.inf)}, "x_test of my.npz has inf in row 0"),
    "float labels": ({"y_train": Y * 1.0}, "y_train of my.npz is 120 of float64; save a whole number for every row"),
    "one-hot labels": ({"y_train": np.eye(3, dtype=int)[Y]}, "y_train of my.npz is 120 x 3 of int64"),
    "a label of -2": ({"y_train": Y - 2}, "have a -2; use 0, 1, 2, ..., or -1"),
    "a huge label": ({"y_train": Y.astype(np.uint64) + 2**63}, "has a label 9223372036854775810; number the"),
    "a gap": ({"y_train": np.where(Y == 2, 3, Y)}, "has labels up to 3 but none of class 2"),
    "one class": ({"y_train": Y * 0}, "has labels of class 0 alone"),
    "no labels": ({"y_train": Y * 0 - 1}, "has no row with a label"),
    "a lonely row": ({"y_train": np.where(np.arange(120) > 2, 0, np.arange(120))}, "has 1 row of class 1 with a label"),
    "a class of the test rows alone": ({"y_test": np.full(30, 3)}, "x_test of my.npz has a label 3 that no row"),
    "an unlabelled test row": ({"y_test": np.full(30, -1)}, "row 0 (counted from 0) of x_test of my.npz has no label"),
    "names": ({"classes": np.array(["a", "b"])}, "has labels of 3 classes but 2 names"),
    "numbers for names": ({"classes": np.arange(3)}, "classes of my.npz holds int64; save an array of texts"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arrays_are_refused_with_one_sentence(tmp_path: Path, what: str) -> None:
    change, sentence = WRONG[what]
    path = put_npz(tmp_path, **change)
    with pytest.raises(UserError) as refused:
        load(path)
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def zipped(path: Path, header: bytes, content: bytes) -> Path:
    """An .npz file whose x_train is these bytes."""
    put_npz(path.parent, x_train=None)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_train.npy", header + content)
    return path


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def npy(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    return header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "more promised": (lambda p: zipped(p, npy((10**15, 8, 8)), b"1"), "has 1 bytes where its header promises 64,000"),
    "less promised": (lambda p: zipped(p, npy((1,)), b"123"), "has 3 bytes where its header promises 1"),
    "a negative shape": (lambda p: zipped(p, npy((-1, -3)), b"123"), "has 3 bytes where its header promises 3"),
    "nothing each": (lambda p: zipped(p, npy((10**15,), "<U0"), b""), "elements of type <U0"),
    "code": (lambda p: zipped(p, header("__import__('os')._exit(3)"), b""), "is no .npz file of arrays"),
    "a long header": (lambda p: zipped(p, header("{" + " " * 60_000 + "}"), b""), "is no .npz file of arrays"),
    "no header": (lambda p: zipped(p, b"", b"x"), "is no .npz file of arrays"),
    "an empty file": (lambda p: p.write_bytes(b""), "is no .npz file of arrays"),
    "cut short": (lambda p: p.write_bytes(put_npz(p.parent).read_bytes()[:-40]), "is no .npz file of arrays"),
    "another byte": (lambda p: flip(put_npz(p.parent)), "is damaged"),
}  # fmt: skip


def flip(path: Path) -> None:
    """Changes a byte of a picture."""
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_files_are_refused_with_one_sentence(tmp_path: Path, what: str) -> None:
    damage, sentence = DAMAGES[what]
    damage(tmp_path / "my.npz")
    with pytest.raises(UserError) as refused:
        load(tmp_path / "my.npz")
    assert sentence in str(refused.value) and "\n" not in str(refused.value)


def test_what_memory_has_no_room_for_is_refused_by_the_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put_npz(tmp_path)
    monkeypatch.setattr(own, "COPIES", 10**12)  # as if the arrays were so much larger
    with pytest.raises(
        UserError, match=r"my.npz holds 0.0 GB of rows, more than there is memory for .* or data=memmap"
    ):
        sources.check_available(DataConfig("npz", file=str(path)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    path = put_npz(tmp_path)
    path.chmod(0)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        load(path)
