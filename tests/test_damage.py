"""One byte of a finished run's files changed: said in a sentence, and restored by the same command."""

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from conftest import Outcome

from ssl_dgm import records, train
from ssl_dgm.config import UserError
from ssl_dgm.data import sources, splits
from ssl_dgm.files import read_json
from ssl_dgm.tables import collect

Command = Callable[..., Outcome]
NN = ("model=nn", "data=digits", "baseline=null", "seeds=[0,1]", "network.hidden=[24]")
STACKED = ("model=m1m2", "data=digits", "budget=smoke", "baseline=null", "trainer.progress=false")
TELLING = b'\n\r\0 ,":{}'  # bytes that mean something to a parser
TIMES = 60


def damages(raw: bytes, times: int = TIMES) -> Iterator[tuple[str, bytes]]:
    """`raw` with one byte replaced at a random place, and what was done."""
    chance = random.Random(0)
    for time in range(times):
        at = chance.randrange(len(raw))
        new = chance.choice([byte for byte in (TELLING if time % 2 else range(256)) if byte != raw[at]])
        yield f"byte {at}: {raw[at : at + 1]!r} became {bytes([new])!r}", raw[:at] + bytes([new]) + raw[at + 1 :]


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undamaged")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["ssl_dgm.train", *NN])
        with pytest.raises(SystemExit, match="0"):
            train.main()
    return folder / "runs"


@pytest.fixture
def finished(undamaged: Path, tmp_path: Path) -> Path:
    """The folder of a run with two finished seeds."""
    shutil.copytree(undamaged, tmp_path / "runs")
    (folder,) = tmp_path.glob("runs/nn-*")
    return folder


def test_a_damaged_record_is_named_and_made_again(command: Command, finished: Path, tmp_path: Path) -> None:
    path = finished / "seed-0" / "result.json"
    raw, whole = path.read_bytes(), read_json(path)
    detected = []
    for what, damaged in damages(raw):
        path.write_bytes(damaged)
        said: list[str] = []
        if (record := records.load(finished, 0, said.append)) is None:
            assert said[0].startswith(f"{path} is damaged: "), what
            detected.append(damaged)
        else:
            assert record == whole, what
    assert len(detected) > TIMES / 2
    other = (finished / "seed-1" / "result.json").stat().st_mtime_ns
    for damaged in detected[:2]:
        path.write_bytes(damaged)
        outcome = command(*NN)
        assert outcome.code == 0, outcome.err
        assert f"{path.relative_to(tmp_path)} is damaged: " in outcome.out
        assert "this seed is run again" in outcome.out
        assert read_json(path)["metrics"] == whole["metrics"]
    assert (finished / "seed-1" / "result.json").stat().st_mtime_ns == other, "the whole one was left alone"


def test_a_damaged_manifest_is_named_and_written_again(command: Command, finished: Path, tmp_path: Path) -> None:
    path, source = finished / "seed-0" / "split.json", sources.load("digits")
    raw, record = path.read_bytes(), (finished / "seed-0" / "result.json").read_bytes()
    for what, damaged in damages(raw):
        path.write_bytes(damaged)
        with pytest.raises(UserError) as refused:
            splits.load_manifest(path, source)
        assert str(refused.value).startswith(f"{path} is "), what
    for what, damaged in damages(raw, 3):
        path.write_bytes(damaged)
        outcome = command(*NN)
        assert outcome.code == 0, outcome.err
        assert f"{path.relative_to(tmp_path)} is damaged" in outcome.out, what
        assert path.read_bytes() == raw, what
    path.unlink()
    assert f"{path.relative_to(tmp_path)} is damaged" in command(*NN).out
    assert path.read_bytes() == raw
    assert (finished / "seed-0" / "result.json").read_bytes() == record, "nothing was trained again"


def test_damaged_settings_are_refused_and_restored(command: Command, finished: Path) -> None:
    path = finished / "config.json"
    raw, settings = path.read_bytes(), records.settings(finished)
    for what, damaged in damages(raw):
        path.write_bytes(damaged)
        said = ""
        try:
            assert records.settings(finished) == settings, what
        except UserError as error:
            said = str(error)
        assert said == "" or said.startswith(f"{finished} holds no readable config.json"), what
    for what, damaged in damages(raw, 3):
        path.write_bytes(damaged)
        outcome = command(*NN)
        assert outcome.code == 0, outcome.err
        assert "finished before: seeds 0, 1" in outcome.out, what
        assert path.read_bytes() == raw, what


def lines(path: Path) -> tuple[bytes, list[bytes]]:
    """The header of a CSV, and its rows in no order."""
    header, *rows = path.read_bytes().splitlines()
    return header, sorted(rows)


def kept_aside(path: Path) -> list[bytes]:
    """The damaged files that stand beside a CSV; they are taken away."""
    beside = list(path.parent.glob(f"{path.name}.damaged-*"))
    return [(aside.read_bytes(), aside.unlink())[0] for aside in beside]


def repair(path: Path, damaged: bytes, rows: list[collect.Row], what: str) -> list[str]:
    """Reads and appends to a CSV after damage, which never costs another row; returns what was said on reading."""
    path.write_bytes(damaged)
    on_reading: list[str] = []
    found = collect.read(path, on_reading.append)
    assert found == [row for row in rows if row in found], f"{what}: a row that never was"
    on_appending: list[str] = []
    collect.append(path, rows, on_appending.append)
    assert len(on_reading) == len(on_appending), what
    assert kept_aside(path) == ([damaged] if on_appending else []), what
    return on_reading


def test_a_damaged_row_is_named_kept_aside_and_restored(finished: Path) -> None:
    path = finished.parent / "rows.csv"
    raw, rows, before = path.read_bytes(), collect.read(path, print), lines(path)
    assert len(rows) == 4
    for what, damaged in damages(raw, 2 * TIMES):
        at = next(i for i, (old, new) in enumerate(zip(raw, damaged)) if old != new)
        number = raw[:at].count(b"\n") + 1
        (said,) = repair(path, damaged, rows, what)
        # A line that is split in two may be named by either half.
        named = [said.startswith(f"{path} has a damaged line ({n})") for n in (number, number + 1)]
        assert any(named) or said.startswith(f"{path} has damaged lines ({number}, {number + 1})"), f"{what}: {said}"
        assert lines(path) == before, what


def test_rows_that_ran_together_are_named_and_restored(finished: Path) -> None:
    path = finished.parent / "rows.csv"
    raw, rows, before = path.read_bytes(), collect.read(path, print), lines(path)
    ends = [at for at in range(len(raw) - 1) if raw[at : at + 1] == b"\n"]
    for number, at in enumerate(ends, start=1):
        for between in (b"", b" ", b",", b"\r", b"x"):
            (said,) = repair(path, raw[:at] + between + raw[at + 1 :], rows, f"line {number} + {between!r}")
            assert f"a damaged line ({number})" in said
            assert lines(path) == before


def test_a_torn_rows_csv_keeps_its_whole_rows_and_is_restored(finished: Path) -> None:
    path = finished.parent / "rows.csv"
    raw, rows, before = path.read_bytes(), collect.read(path, print), lines(path)
    chance = random.Random(0)
    for length in [0, len(raw) - 1, *(chance.randrange(len(raw)) for _ in range(TIMES))]:
        torn = raw[:length]
        said = repair(path, torn, rows, f"{length} bytes left")
        # What ends with a whole line is a shorter file, in which nothing is wrong.
        assert bool(said) == (raw[length : length + 1] != b"\n" and not torn.endswith(b"\n") and length > 0)
        assert lines(path) == before


def test_the_same_command_restores_rows_csv(command: Command, finished: Path) -> None:
    path = finished.parent / "rows.csv"
    raw, before = path.read_bytes(), lines(path)
    for what, damaged in damages(raw, 3):
        path.write_bytes(damaged)
        outcome = command(*NN)
        assert outcome.code == 0, outcome.err
        assert "runs/rows.csv has " in outcome.out and "kept as rows.csv.damaged-" in outcome.out, what
        assert kept_aside(path) == [damaged]
        assert lines(path) == before, what


def test_damaged_weights_of_an_m1_are_named_and_trained_again(command: Command, tmp_path: Path) -> None:
    assert command(*STACKED, "seeds=[0]").code == 0
    (path,) = tmp_path.glob("runs/m1-digits-*/seed-0/weights.safetensors")
    folder, record = path.parent.parent, path.with_name("result.json")
    raw, whole = path.read_bytes(), record.read_bytes()
    for what, damaged in damages(raw):
        path.write_bytes(damaged)
        said: list[str] = []
        assert records.finished(folder, [0], said.append) == [], what
        assert said == [f"{path} is damaged or gone; this seed is run again"]
        record.write_bytes(whole)  # was given up together with the weights
    for seed, (what, damaged) in enumerate(islice(damages(raw), 2), start=1):
        path.write_bytes(damaged)
        outcome = command(*STACKED, f"seeds=[0,{seed}]")
        assert outcome.code == 0, outcome.err
        assert f"{path.relative_to(tmp_path)} is damaged" in outcome.out, what
        assert path.read_bytes() == raw, "the same training gives the same weights"
        (new,) = tmp_path.glob(f"runs/m1m2-*/seed-{seed}/result.json")
        assert read_json(new)["m1_sha256"] == read_json(record)["weights_sha256"]
