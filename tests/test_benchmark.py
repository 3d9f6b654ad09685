"""scripts/benchmark.py runs, and what it writes can be read; no test looks at a time."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "benchmark.py"


def test_a_part_runs_and_writes_its_numbers(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    words = ["--quick", "--only", "m1m2", "--rounds", "2", "--block", "1", "--warm", "1", "--threads", "1", "--json"]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent.parent)}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words, str(file)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (table,) = json.loads(file.read_text())["parts"]["m1m2"]["tables"]
    rows = {row["loop"]: row for row in table["rows"]}
    assert {"ssl_dgm, float32", "ssl_dgm, bf16", "hand-written, float32"} < set(rows)
    assert any(name.startswith("Pyro") for name in rows)
    assert all(row["ms/update"] > 0 and row["x ours float32"] > 0 for row in rows.values())
    assert rows["ssl_dgm, float32"]["x ours float32"] == 1
    assert all(name in done.stdout for name in rows)


def test_an_unknown_part_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--only", "m2,tabel"])
    with pytest.raises(SystemExit) as exit:
        importlib.import_module("benchmark").main()
    assert exit.value.code == 2
    assert "--only tabel is no part; there are m2, m1m2, models" in capsys.readouterr().err
