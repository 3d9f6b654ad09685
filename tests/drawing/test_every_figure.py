"""Every quick figure of every model on every kind of rows: drawn where there is one, left out where there is none.

A run's end only tells of a figure that fails, so that nothing else would notice.
"""

from pathlib import Path

import numpy as np
import pytest
from drawing_runs import fit

import ssl_dgm

CLASSES, EPOCHS = {"samples", "reconstructions", "traversal", "confusion"}, {"curves", "units"}
CASES = {
    "model=m2 model.z_dim=2 data.min_pixel_sd=0.1": CLASSES | EPOCHS | {"styles", "analogies"},
    "model=adgm": CLASSES | EPOCHS | {"analogies"},
    "model=sdgm data=memmap data.folder=shards labels=9 data.min_pixel_sd=0": CLASSES | EPOCHS | {"analogies"},
    "model=gmdgm labels=96 classes.hidden=[3,4] classes.extra=3": CLASSES | EPOCHS,
    "model=gmvae network=figueroa data=npz data.file=colour.npz labels=30": CLASSES | EPOCHS,
    "model=m1m2 data.pca=10": CLASSES | EPOCHS | {"analogies"},
    "model=m1m2 m1.network.hidden=[8] data=csv data.file=my.csv data.target=label labels=20": EPOCHS | {"confusion"},
    "model=m1 classifier=none model.z_dim=2 data=frey": CLASSES - {"confusion"} | EPOCHS | {"manifold"},
    "model=avae": CLASSES - {"confusion"} | EPOCHS,
    "model=cvae data.min_pixel_sd=0.1": EPOCHS | {"completions"},
    "model=m1 classifier=svm": {"confusion"},
    "model=tsvm labels=90 classes.hidden=[3]": {"confusion"},
}


@pytest.fixture(autouse=True)
def _rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour images, faces without classes, a table of real numbers and shards, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SSL_DGM_DATA", str(tmp_path))
    rng = np.random.default_rng(0)

    def images(rows: int, *shape: int) -> np.ndarray:
        return rng.integers(256, size=(rows, *shape), dtype=np.uint8)

    y = np.arange(90) % 3
    np.savez("colour.npz", x_train=images(90, 32, 32, 3), y_train=y, x_test=images(9, 32, 32, 3), y_test=y[:9])
    np.savez("frey.npz", x=images(450, 560))
    lines = (f"{a:.3f},{b:.3f},{'yes' if a > 0 else 'no'}" for a, b in rng.normal(size=(90, 2)))
    Path("my.csv").write_text("\n".join(["a,b,label", *lines]))
    Path("shards").mkdir()
    for name, array in {
        "train-x-0": images(90, 8, 8),
        "train-y-0": y,
        "test-x": images(9, 8, 8),
        "test-y": y[:9],
    }.items():
        np.save(f"shards/{name}.npy", array)


@pytest.mark.parametrize(("words", "expected"), CASES.items(), ids=CASES)
def test_every_figure_that_a_run_has_is_drawn(words: str, expected: set[str], tmp_path: Path) -> None:
    fitted = fit(tmp_path / "runs", *words.split())
    assert not (fitted.folder / "figures").exists()
    made = ssl_dgm.load(fitted.folder).draw("quick")
    names = {"samples", "reconstructions", "completions", "manifold", "styles", "analogies"} | CLASSES | EPOCHS
    assert {path.stem for path in made} & names == expected
    for path in made:
        assert path.stat().st_size > 1000
        assert fitted.folder.name in path.with_suffix(".txt").read_text()
