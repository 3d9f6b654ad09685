"""What the unlabelled pool holds, and in which order it comes: what a run's records say of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import SMOKE, Outcome

from ssl_dgm.compose import compose
from ssl_dgm.data import sources, splits
from ssl_dgm.tables import collect
from ssl_dgm.training.run import run

Command = Callable[..., Outcome]


@pytest.mark.parametrize(("pool", "rows"), [("train", 1097), ("train+validation", 1297)])
def test_the_pool_of_every_kind_of_model(command: Command, tmp_path: Path, pool: str, rows: int) -> None:
    for words in (("model=m2",), ("model=m1", "classifier=knn", "model.min_unit_sd=0"), ("model=nn",)):
        outcome = command(*SMOKE, *words, f"data.pool={pool}")
        assert outcome.code == 0, outcome.err
    m2 = next(tmp_path.glob("runs/m2-*/seed-0/split.json"))
    split = splits.load_manifest(m2, sources.load("digits"))
    np.testing.assert_array_equal(np.union1d(split.labelled, split.unlabelled), np.arange(rows))
    table = {(row["model"], row["pool"], row["order"]) for row in collect.read(tmp_path / "runs" / "rows.csv", print)}
    expected = {("m2", str(rows - 100), "shuffled"), ("nn", "", "")}
    assert table == expected | {(name, str(rows), "shuffled") for name in ("m1", "m1+knn")}


def test_a_published_split_has_the_pool_that_is_asked_for(command: Command, tmp_path: Path) -> None:
    source = sources.load("digits")
    for name, in_pool in (("with", True), ("without", False)):
        splits.save(splits.draw(source, 100, 0, validation_in_pool=in_pool), tmp_path / name)
    refused = command(*SMOKE, "split.file=with").err
    assert "with has validation rows in its pool but data.pool=train; use data.pool=train+validation" in refused
    assert "use data.pool=train\n" in command(*SMOKE, "split.file=without", "data.pool=train+validation").err
    assert command(*SMOKE, "split.file=with", "data.pool=train+validation").code == 0


def test_a_run_whose_unlabelled_rows_come_class_by_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = compose([*SMOKE, "labels=50"])
    config.data.order = "by_class"  # no word of a command line may ask for it
    result = run(config, lambda line: None)
    assert result.records[0]["order"] == "by_class"
    assert result.records[0]["metrics"] != run(compose([*SMOKE, "labels=50"]), lambda line: None).records[0]["metrics"]
