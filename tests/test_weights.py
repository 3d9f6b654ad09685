"""The trained models of results/weights: whole, what their names say, and taken up where a run needs them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome

from ssl_dgm import config as schema
from ssl_dgm import records
from ssl_dgm.files import sha256_of

ROOT = Path(__file__).parent.parent / "results" / "weights"
RUNS = [path.parent for path in sorted(ROOT.glob("*/config.json"))]
of_each = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)


@of_each
def test_weights_are_whole_and_of_the_run_that_their_folder_names(run: Path) -> None:
    said: list[str] = []
    config = records.settings(run)
    assert records.finished(run, config.seeds, said.append) == list(config.seeds) and not said
    assert schema.key(config, records.data_sha256(run)) == run.name
    card = (ROOT / "README.md").read_text()
    for seed in config.seeds:
        record = records.load(run, seed, said.append)
        assert record and record["key"] == run.name and not record["git_commit"].endswith("-dirty")
        digest = sha256_of(run / f"seed-{seed}" / "weights.safetensors")
        assert f"{run.name}/" in card and digest in card and record["git_commit"] in card


@of_each
@pytest.mark.realdata
@pytest.mark.skipif("SSL_DGM_DATA" not in os.environ, reason="SSL_DGM_DATA is not set")
def test_a_copy_among_the_runs_is_found_and_not_trained_again(
    run: Path, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "runs" / run.name)
    words = (tmp_path / "runs" / run.name / "README.md").read_text().split("python -m ssl_dgm.train ")[1].split("\n")[0]
    before = sorted(tmp_path.rglob("*.safetensors"))
    outcome = command(*words.replace("'", "").split())
    assert outcome.code == 0, outcome.err
    assert sorted(tmp_path.rglob("*.safetensors")) == before and "finished" in outcome.out
