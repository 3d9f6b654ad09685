"""Splits that are written down: what is read back is what was written, or it is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_splits import same, seeds, some_sources, synthetic

from ssl_dgm import files
from ssl_dgm.config import UserError
from ssl_dgm.data import splits
from ssl_dgm.data.source import Source
from ssl_dgm.data.splits import Split, draw, load_manifest, save


@st.composite
def some_draws(draw_: st.DrawFn) -> tuple[Source, Split, bool]:
    source, seed, in_pool = draw_(some_sources), draw_(seeds), draw_(st.booleans())
    choices = [source.num_classes * n for n in (1, 2)] + ([source.num_train] if in_pool else [])
    return source, draw(source, draw_(st.sampled_from(choices)), seed, in_pool), in_pool


@given(some_draws())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, drawn: tuple[Source, Split, bool]) -> None:
    source, split, _ = drawn
    path = tmp_path_factory.mktemp("manifests") / "new" / "split.json"
    save(split, path)
    loaded = load_manifest(path, source)
    assert same(loaded, split)
    assert loaded.labelled.dtype == loaded.unlabelled.dtype == np.int64
    assert [p.name for p in path.parent.iterdir()] == ["split.json"]


def test_an_arbitrary_pool_round_trips(tmp_path: Path) -> None:
    source = synthetic([9, 9])
    split = dataclasses.replace(draw(source, 4, 0), unlabelled=np.array([], np.int64))
    free = np.setdiff1d(np.arange(18), split.labelled)
    for pool in (free[::2], free[::-1], np.append(split.labelled, free[3]), np.arange(split.labelled.max() + 1)):
        save(dataclasses.replace(split, unlabelled=pool), tmp_path / "m.json")
        np.testing.assert_array_equal(load_manifest(tmp_path / "m.json", source).unlabelled, pool)


def test_loading_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = synthetic([9, 9])
    split = draw(source, 4, 0)
    save(split, tmp_path / "m.json")
    monkeypatch.setattr(splits, "draw", None)
    monkeypatch.setattr(np.random, "Generator", None)
    assert same(load_manifest(tmp_path / "m.json", source), split)


def test_pixels_dropped_or_not_is_the_same_data(tmp_path: Path) -> None:
    source = synthetic([9, 9])
    source.train_x[:, 0] = 1
    save(draw(source, 4, 0), tmp_path / "m.json")
    assert same(load_manifest(tmp_path / "m.json", source.drop_constant_pixels(0)), draw(source, 4, 0))


def test_manifest_is_small_and_readable(tmp_path: Path) -> None:
    save(draw(synthetic([500] * 10), 100, 0), tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert len(text) < 1500 and json.loads(text)["version"] == splits.VERSION
    assert json.loads(text)["unlabelled"] == {"rows_below": 5000, "with_labelled": False}


def test_any_changed_byte_is_detected(tmp_path: Path) -> None:
    source, path = synthetic([5, 5]), tmp_path / "m.json"
    save(draw(source, 4, 0), path)
    whole = path.read_bytes()
    flipped = [byte ^ (0x01, 0x20, 0x80)[i % 3] for i, byte in enumerate(whole)]
    damaged = [whole[:i] + bytes([byte]) + whole[i + 1 :] for i, byte in enumerate(flipped)]
    damaged += [whole[:i] for i in range(len(whole))]
    damaged += [whole + b"\n", whole.replace(b"\n", b"\r\n"), whole.replace(b": ", b":"), whole.replace(b"\n", b"\r")]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError):
            load_manifest(path, source)
    path.write_bytes(whole)
    load_manifest(path, source)


@given(st.data())
def test_any_other_byte_is_detected(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    source, split, _ = data.draw(some_draws())
    path = tmp_path_factory.mktemp("manifests") / "split.json"
    save(split, path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(UserError):
        load_manifest(path, source)


def test_other_data(tmp_path: Path) -> None:
    source, path = synthetic([5, 5]), tmp_path / "m.json"
    save(draw(source, 4, 0), path)
    other = synthetic([5, 5], seed=1)
    with pytest.raises(UserError, match=r"is for toy .* not for this toy .*; fetch the data again or use another"):
        load_manifest(path, other)
    with pytest.raises(UserError, match=r"is for toy .* not for this tay .*; set data=toy or use another"):
        load_manifest(path, dataclasses.replace(other, name="tay"))


def test_missing_or_foreign_file(tmp_path: Path) -> None:
    source, path = synthetic([5, 5]), tmp_path / "m.json"
    with pytest.raises(UserError, match=r"split\.file=.*m\.json cannot be read \(No such file"):
        load_manifest(path, source)
    for content in (b"", b"[]", b"3", b"{}", b"null", b'{"version": 1}', b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"m\.json is corrupted"):
            load_manifest(path, source)


def test_other_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "VERSION", 2)
    save(draw(synthetic([5, 5]), 4, 0), tmp_path / "m.json")
    monkeypatch.undo()
    with pytest.raises(UserError, match="of version 2, not 1"):
        load_manifest(tmp_path / "m.json", synthetic([5, 5]))


def rewritten(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_bytes())
    del content["checksum"]
    path.write_bytes(splits._render(content | changes))


@pytest.mark.parametrize(
    "change",
    [{"labelled": [0, 1]}, {"labelled": "x"}, {"labelled": [[1], [2]]}, {"labelled": [2**70]}, {"unlabelled": {}}],
    ids=str,
)
def test_a_right_checksum_over_wrong_rows(tmp_path: Path, change: dict[str, Any]) -> None:
    save(draw(synthetic([5, 5]), 4, 0), tmp_path / "m.json")
    rewritten(tmp_path / "m.json", **change)
    with pytest.raises(UserError, match="is corrupted"):
        load_manifest(tmp_path / "m.json", synthetic([5, 5]))


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "counts", "sentence"),
    [
        ([0, 0], [1, 2], None, "repeats labelled rows"),
        ([0, 1], [2, 2], None, "repeats unlabelled rows"),
        ([0, 10], [1, 2], None, "names labelled rows outside the 10 training rows of toy"),
        ([0, -1], [1, 2], None, "names labelled rows outside"),
        ([0, 1], [2, 17], None, "names unlabelled rows outside the 17 training rows of toy"),
        ([0, 1], [1, 2], None, "has 1 of its 2 labelled rows in the unlabelled pool"),
        ([0, 1], [], None, "has no unlabelled rows"),
        ([0, 1], [2, 3], (3, 9), r"tells class counts \[3, 9\]"),
    ],
)
def test_rows_that_break_the_rules(
    tmp_path: Path, labelled: list[int], unlabelled: list[int], counts: tuple[int, int] | None, sentence: str
) -> None:
    source, path = synthetic([5, 5]), tmp_path / "m.json"
    right = tuple(np.bincount(source.train_y[labelled], minlength=2).tolist()) if labelled else (0, 0)
    rows = {"labelled": np.array(labelled, np.int64), "unlabelled": np.array(unlabelled, np.int64)}
    save(dataclasses.replace(draw(source, 2, 0), **rows, class_counts=counts or right), path)
    with pytest.raises(UserError, match=sentence):
        load_manifest(path, source)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    source, path = synthetic([5, 5]), tmp_path / "m.json"
    save(draw(source, 4, 0), path)

    def full_disk(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(files.os, step, full_disk)
    with pytest.raises(UserError, match="no space left"):
        save(draw(source, 6, 1), path)
    monkeypatch.undo()
    assert same(load_manifest(path, source), draw(source, 4, 0))
    assert [p.name for p in tmp_path.iterdir()] == ["m.json"]
