"""Tables of users' own: what is made of them, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_files import put_csv

from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import own, sources
from ssl_dgm.data.scaling import Scaling
from ssl_dgm.data.source import Source


def load(path: Path, target: str | None = "label", **settings: Any) -> Source:
    return sources.load(DataConfig("csv", file=str(path), target=target, **settings))


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_fifth_of_every_class_is_held_out_and_columns_are_standardised(tmp_path: Path) -> None:
    source = load(put_csv(tmp_path / "my.csv"))
    assert (source.classes, source.columns, source.shape) == (("no", "yes"), ("a", "b"), (2,))
    assert len(source.test_y) == 15 and len(source.train_y) == 135 and source.num_validation == 6
    known = source.train_y[source.train_y >= 0]
    assert len(known) == 60
    of_all = np.bincount(np.concatenate([known, source.test_y]))
    np.testing.assert_allclose(np.bincount(source.test_y), of_all / 5, atol=1)
    train = np.asarray(source.train_x[: source.num_train], np.float64)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), 1, rtol=1e-6)
    table = {tuple(map(float, line.split(",")[:2])) for line in (tmp_path / "my.csv").read_text().splitlines()[1:]}
    back = source.to_images(np.concatenate([np.asarray(source.train_x[:]), source.test_x]).astype(np.float64))
    assert {(round(a, 4), round(b, 2)) for a, b in back.tolist()} == table, "every row is in one part"
    assert "test rows: 15 of the 75 rows with a label, a fifth of every class" in source.describe()
    assert load(tmp_path / "my.csv").sha256 == source.sha256


def test_test_rows_of_a_file_are_found_by_their_columns_names(tmp_path: Path) -> None:
    train = put_csv(tmp_path / "train.csv")
    test = written(tmp_path / "test.csv", "label;b;a\nyes;500;3\nno;1000;0\n")
    source = load(train, test_file=str(test))
    np.testing.assert_array_equal(source.test_y, [1, 0])
    np.testing.assert_allclose(
        source.to_images(source.test_x.astype(np.float64)), [[3, 500], [0, 1000]], rtol=1e-4, atol=1e-4
    )
    assert len(source.train_y) == 150 and source.num_validation == 7


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("a,b,label\n{}", ("a", "b")),
        ("\ufeffa,b,label\n{}", ("a", "b")),
        ('"a, in m","b ""x""",label\n{}', ("a, in m", 'b "x"')),
        ("a ; b ; label\n{}", ("a", "b")),
        ("a\tb\tlabel\n{}", ("a", "b")),
        ("a,b,label\r\n{}", ("a", "b")),
        ("Größe,b,label\n{}", ("Größe", "b")),
    ],
    ids=["plain", "bom", "quoted", "semicolons", "tabs", "windows", "umlaut"],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str, columns: tuple[str, ...]) -> None:
    separator = next(c for c in ";\t," if c in text)
    end = "\r\n" if "\r" in text else "\n"
    rows = [separator.join([str(i), f"{i % 7}e-1", ("x", '"y"', "")[i % 3]]) for i in range(90)]
    source = load(written(tmp_path / "t.csv", text.format(end.join(rows) + end)))
    assert (source.columns, source.classes) == (columns, ("x", "y"))
    assert int((source.train_y < 0).sum()) == 30


def test_classes_that_are_numbers_are_sorted_as_numbers_however_they_are_written(tmp_path: Path) -> None:
    rows = [f"{i},{label}" for i in range(12) for label in ("10", "9.0", "2", "")]
    train = written(tmp_path / "train.csv", "a,label\n" + "\n".join(rows))
    test = written(tmp_path / "test.csv", "a,label\n1,10.0\n2,9\n3,02\n")
    source = load(train, test_file=str(test))
    assert source.classes == ("2", "9", "10")
    np.testing.assert_array_equal(source.test_y, [2, 1, 0])


@pytest.mark.parametrize(
    "classes", [("1_1", "1_2", "2_1"), ("12345678901234567890", "12345678901234567891"), ("11", "1_1", "2")]
)
def test_classes_that_only_look_like_numbers_keep_their_names(tmp_path: Path, classes: tuple[str, ...]) -> None:
    rows = "".join(f"{i},{-i},{classes[i % len(classes)]}\n" for i in range(40))
    assert load(written(tmp_path / "t.csv", f"a,b,label\n{rows}")).classes == classes


def test_minus_one_is_a_class_where_there_are_two(tmp_path: Path) -> None:
    assert load(written(tmp_path / "t.csv", "a,label\n" + "1,-1\n2,1\n3,\n" * 9)).classes == ("-1", "1")


GOOD = "a,b,label\n" + "".join(f"{i},{i},{'xy'[i % 2]}\n" for i in range(40))
WRONG: dict[str, tuple[str | bytes, str]] = {
    "an empty file": ("", "t.csv is empty; its first row names the columns"),
    "a header alone": ("a,b,label\n", "t.csv has no rows below its header"),
    "two columns of one name": ("a,a,label\n1,2,x\n", "has two columns called a; rename one"),
    "a column without a name": (",a,label\n0,1,x\n", "column 1 of {path} has no name; name it, or leave it out ("),
    "the target alone": ("label\nx\n", "has no column but label"),
    "no target": ("a,b,labels\n1,2,x\n", "data.target=label is no column of {path}; the nearest is labels"),
    "words": (GOOD + "1,red,x\n", "column b of {path} has 'red' in row 41 below the header, which is no number; write"),
    "a decimal comma": (GOOD.replace(",", ";") + "1;1,5;x\n", "(decimals are written with a point)"),
    "truths": ("a,b,label\n" + "1,True,x\n2,False,y\n" * 9, "column b of {path} has 'True' in row 1 below the header"),
    "a missing value": (GOOD + "1,,x\n", "column b of {path} is empty in row 41 below the header; fill it in"),
    "nan": (GOOD + "1,nan,x\n", "column b of {path} "),
    "inf": (GOOD + "1,inf,x\n", "column b of {path} has 'inf' in row 41 below the header"),
    "a short row": (GOOD + "1\n", "column b of {path} is empty in row 41 below the header"),
    "a program's mark": (GOOD + "1,2,NaN\n", "label of {path} has 'NaN' in row 41 below the header; leave the cell"),
    "Python's mark": (GOOD + "1,2,None\n", "label of {path} has 'None' in row 41 below the header; leave the cell"),
    "a packed table": (b"\x1f\x8b\x08\x00" + bytes(40), "{path} is no text but compressed; unpack it"),
    "an array's mark": (GOOD + "1,2,-1\n", "label of {path} has -1 beside 2 other classes; leave the cell empty"),
    "a long row": (GOOD + "1,2,x,4\n", "is no table of 3 columns"),
    "long rows": ("a,b,label\n" + "1,2,x,4\n" * 9, "is no table of 3 columns"),
    "latin-1": ("a,b,label\n1,2,Größe\n".encode("latin-1"), "is no text in UTF-8"),
    "a latin-1 header": ("a,Größe,label\n1,2,x\n".encode("latin-1"), "is no text in UTF-8"),
    "bytes": (bytes(range(256)) * 9, "t.csv"),
    "an open quote": ('a,b,label\n1,2,"x\n' + "1,2,y\n" * 9, "t.csv"),
    "no label": ("a,b,label\n" + "1,2,\n" * 9, "has no row with a label"),
    "one class": ("a,b,label\n" + "1,2,x\n" * 9, "has labels of class 0 (x) alone"),
    "a lonely class": (GOOD + "1,2,z\n", "has 1 rows of class z, too few to hold out"),
    "too large": (GOOD + "1e308,-1e308,x\n-1e308,1e308,x\n", "column a has values too large or too close"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_wrong_tables_are_refused_with_one_sentence(tmp_path: Path, what: str) -> None:
    text, sentence = WRONG[what]
    path = written(tmp_path / "t.csv", text)
    with pytest.raises(UserError) as refused:
        load(path)
    assert sentence.format(path=path) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,label\n1,x\n", "b is a column of .*train.csv or .*test.csv alone"),
        ("a,b,c,label\n1,2,3,x\n", "c is a column of .*train.csv or .*test.csv alone"),
        ("a,b\n1,2\n", "data.target=label is no column of .*test.csv"),
        ("a,b,label\n1,2,\n", "row 0 .* of .*test.csv has no label"),
        ("a,b,label\n1,2,w\n", "test.csv has a class w that no row of .*train.csv has"),
    ],
)
def test_wrong_test_files_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    train, test = written(tmp_path / "train.csv", GOOD), written(tmp_path / "test.csv", text)
    with pytest.raises(UserError, match=sentence):
        load(train, test_file=str(test))


def test_files_and_columns_are_looked_for_before_anything_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", GOOD)
    for settings, sentence in (
        ({"file": str(path)}, r"needs the column of classes of .*; name it with data.target=label, say"),
        ({"file": str(path), "target": "label", "test_file": "absent.csv"}, "data.test_file=absent.csv is not there"),
        ({"file": str(tmp_path), "target": "label"}, "is a folder; name a file"),
    ):
        with pytest.raises(UserError, match=sentence):
            sources.check_available(DataConfig("csv", **settings))


def test_a_table_that_memory_has_no_room_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "COPIES", 10**12)
    with pytest.raises(UserError, match="more than there is memory for"):
        load(written(tmp_path / "t.csv", GOOD))


def test_a_column_that_does_not_vary_is_0_and_not_its_rounding_error() -> None:
    x = np.stack([np.full(10, 0.3), np.arange(10)], axis=1)
    assert x[:, 0].std() > 0, "a case in which its s.d. is not exactly 0"
    scaling = Scaling.of(x)
    assert scaling.sd[0] == 1 and np.abs(scaling.apply(x)[:, 0]).max() < 1e-6
