"""A table of users' own: a .csv file with a header row, columns of numbers and one of classes.

Nothing here imports torch.
"""

import csv
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_dgm.checks import nearest
from ssl_dgm.config import DataConfig, UserError
from ssl_dgm.data import own
from ssl_dgm.data.own import Part
from ssl_dgm.data.source import Source
from ssl_dgm.data.validation import stratified

SEPARATORS = ",;\t|"
TEST_SHARE = 5  # one of so many labelled rows is a test row where there is no file of them
COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zX", b"(\xb5/\xfd")  # gzip, zip and .xlsx, bzip2, xz, zstd
MOST_COLUMNS = 10  # named on the screen
MISSING = ("nan", "na", "n/a", "#n/a", "<na>", "null", "none", "?")  # what programs write for no value, in any case


class Table(NamedTuple):
    """What a file holds."""

    where: str
    columns: list[str]  # of numbers
    x: np.ndarray  # float64 [N, D]
    labels: list[str]  # [N], '' where none is known


def check(data: DataConfig) -> None:
    """Nothing, once it is known that the files are there and that their headers have the column of classes.

    Raises:
        UserError: for missing files and columns.
    """
    for setting in _settings(data):
        header(own.find(data, setting), data.target)


def read(data: DataConfig) -> Source:
    """The rows of a table, and of data.test_file; without one a fifth of the labelled rows is held out for the test.

    All columns but data.target are numbers, and are standardised. Classes are the texts in data.target, sorted, as
    numbers if all are numbers; rows where it is empty have no label, and what programs write for no value is refused.

    Raises:
        UserError: for files that are no such tables.
    """
    tables = [_read(own.find(data, setting), data.target or "") for setting in _settings(data)]
    train, columns = tables[0], tables[0].columns
    classes = _classes(train.labels)
    if "-1" in classes and len(classes) > 2:
        raise UserError(
            f"column {data.target} of {train.where} has -1 beside {len(classes) - 1} other classes; leave the cell "
            "empty where no label is known, or give the class another name"
        )
    if not classes:
        raise UserError(
            f"{train.where} has no row with a label, {data.target} is empty in all; label some of every class"
        )
    parts = []
    for table in tables:
        if missing := [name for name in columns if name not in table.columns] or [
            name for name in table.columns if name not in columns
        ]:
            raise UserError(
                f"{missing[0]} is a column of {train.where} or {table.where} alone; give both the same ones"
            )
        # A class of the test rows alone is no number of a class, and is told by its own name.
        number = {name: i for i, name in enumerate(classes)} | {"": -1}
        names = [_canonical(label, classes) for label in table.labels]
        if unknown := [name for name in names if name not in number]:
            raise UserError(
                f"{table.where} has a class {unknown[0]} that no row of {train.where} has; label some, or leave its "
                "rows out"
            )
        order = [table.columns.index(name) for name in columns]
        parts.append(Part(table.where, table.x[:, order], np.array([number[name] for name in names], np.int64)))
    shown = ", ".join(columns[:MOST_COLUMNS]) + (", ..." if len(columns) > MOST_COLUMNS else "")
    notes = [f"columns, standardised: {shown}"]
    if len(parts) == 1:
        parts = _held_out(parts[0], classes, notes)
    return own.source_of(data, *parts, classes=classes, columns=columns, notes=notes)


def files(data: DataConfig) -> list[Path]:
    """What the data set's digest depends on."""
    return own.files(*(own.find(data, setting) for setting in _settings(data)))


def header(path: Path, target: str | None) -> tuple[list[str], str]:
    """The names of the columns, and what separates them.

    Raises:
        UserError: for an empty file, one that is no text, names that are repeated or empty, and a target that is not
            there.
    """
    try:
        with open(path, "rb") as packed:
            if packed.read(4).startswith(COMPRESSED):
                raise UserError(f"{path} is no text but compressed; unpack it, or save it as .csv")
        with open(path, encoding="utf-8-sig", newline="") as file:
            line = file.readline()
            while line and not line.strip():
                line = file.readline()
            if line.count('"') % 2:  # a name with a line break in it
                line += file.readline()
        rows = {separator: next(csv.reader([line], delimiter=separator), []) for separator in SEPARATORS}
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except csv.Error as error:
        raise UserError(f"{path} has no header that could be read ({error}); write the names of the columns") from error
    separator = max(SEPARATORS, key=lambda s: len(rows[s]))
    names = [name.strip() for name in rows[separator]]
    if not names:
        raise UserError(f"{path} is empty; its first row names the columns")
    if "" in names:
        raise UserError(
            f"column {names.index('') + 1} of {path} has no name; name it, or leave it out (pandas: index=False)"
        )
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise UserError(f"{path} has two columns called {repeated[0]}; rename one")
    if target is None:
        raise UserError(f"data=csv needs the column of classes of {path}; name it with data.target={names[-1]}, say")
    if target not in names:
        raise UserError(f"data.target={target} is no column of {path}; {nearest(target, names)}")
    if len(names) == 1:
        raise UserError(f"{path} has no column but {target}; add columns of numbers, separated by commas")
    return names, separator


def _settings(data: DataConfig) -> list[str]:
    return ["file"] if data.test_file is None else ["file", "test_file"]


def _read(path: Path, target: str) -> Table:
    names, separator = header(path, target)
    # Here, since it takes half a second, which commands without a table need not wait for.
    import pandas as pd
    from pandas.errors import ParserError, ParserWarning

    own.check_memory(8 * path.stat().st_size // 2, str(path))  # a number of one digit and a comma becomes 8 bytes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)
            table = pd.read_csv(
                path, sep=separator, names=names, header=0, index_col=False, dtype={target: str}, encoding="utf-8-sig",
                keep_default_na=False, na_values={name: [""] for name in names if name != target}, low_memory=False,
            )  # fmt: skip
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error.reason}); save it as UTF-8") from error
    except (ParserError, ParserWarning, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[-1].removeprefix("Error tokenizing data. C error: ")
        raise UserError(f"{path} is no table of {len(names)} columns ({reason}); mend that row") from error
    if not len(table):
        raise UserError(f"{path} has no rows below its header; put some there")
    columns = [name for name in names if name != target]
    x = np.empty((len(table), len(columns)))
    for i, name in enumerate(columns):
        x[:, i] = _numbers(table[name], name, path)
    labels = table[target].fillna("").str.strip().tolist()
    if marked := [row for row, label in enumerate(labels, 1) if label.casefold() in MISSING]:
        raise UserError(
            f"column {target} of {path} has '{labels[marked[0] - 1]}' in row {marked[0]} below the header; leave the "
            "cell empty where no label is known, or give the class another name"
        )
    return Table(str(path), columns, x, labels)


def _numbers(column: Any, name: str, path: Path) -> np.ndarray:
    import pandas as pd

    numbers: Any = column if column.dtype.kind in "iuf" else pd.to_numeric(column.astype(str), errors="coerce")
    values: np.ndarray = numbers.to_numpy("float64")
    if len(bad := np.flatnonzero(~np.isfinite(values))):
        value, row = column.iloc[bad[0]], f"row {bad[0] + 1} below the header"
        if pd.isna(value):
            raise UserError(
                f"column {name} of {path} is empty in {row}; fill it in, or leave the row or the column out"
            )
        comma = " (decimals are written with a point)" if "," in str(value) else ""
        raise UserError(
            f"column {name} of {path} has '{value}' in {row}, which is no number{comma}; write numbers, or leave the "
            "column out"
        )
    return values


def _classes(labels: list[str]) -> list[str]:
    """The classes among the labels, in order."""
    found = {label for label in labels if label}
    numbers = {label: _number(label) for label in found}
    if any(number is None for number in numbers.values()):
        return sorted(found)
    return [_shown(number) for number in sorted({n for n in numbers.values() if n is not None})]


def _canonical(label: str, classes: list[str]) -> str:
    """The class that a label means: 1, 1.0 and 01 are one where classes are numbers."""
    number = _number(label)
    if label in classes or number is None or any(_number(name) is None for name in classes):
        return label
    return _shown(number)


def _number(text: str) -> float | None:
    """A label as a number, unless it is none, or one that a float would change or Python alone would read (1_1)."""
    try:
        number = float(text)
        exact = not text.lstrip("+-").isdigit() or int(number) == int(text)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and exact and "_" not in text else None


def _shown(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def _held_out(part: Part, classes: list[str], notes: list[str]) -> list[Part]:
    """Training and test rows of the rows of a table, the latter a fifth of those with a label, of every class."""
    known = part.y[part.y >= 0]
    counts = np.bincount(known)
    if counts.min() < 3:
        raise UserError(
            f"{part.where} has {counts.min()} rows of class {classes[int(counts.argmin())]}, too few to hold out some "
            "for validation and for the test; label 3 at least, mend the name if it is misspelt, or name test rows "
            "with data.test_file=..."
        )
    wanted = max(len(counts), len(known) // TEST_SHARE)
    test = stratified(part.y, wanted, purpose=1)
    left = np.delete(np.arange(len(part.y)), test)
    notes.append(
        f"test rows: {wanted:,} of the {len(known):,} rows with a label, a fifth of every class, drawn once "
        "(data.test_file=... takes those of a file)"
    )
    return [
        Part(part.where, part.x[left], part.y[left]),
        Part(f"test rows of {part.where}", part.x[test], part.y[test]),
    ]
