"""The rooms: who imports whom, what stands where, and what the wheel holds."""

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "ssl_dgm"
# Nothing imports what stands after it.
ORDER = (
    "config",
    "checks",
    "data_rules",
    "rules",
    "compose",
    "files",
    "bars",
    "records",
    "probability",
    "data",
    "tables",
    "models",
    "baselines",
    "evaluation",
    "drawing",
    "training",
    "train",
    "api",
    "table",
    "gallery",
    "figures",
    "runs",
)
# Where a heavy library may be imported at all.
ALLOWED = {
    "pytorch_lightning": ("data/datamodule.py", "models/base.py", "training/"),
    "hydra": ("compose.py", "train.py"),
    "sklearn": ("baselines/", "data/toy.py", "drawing/features.py"),
    "matplotlib": ("drawing/", "training/loggers.py"),
}
TORCH_FREE = (
    "config",
    "checks",
    "data_rules",
    "rules",
    "compose",
    "files",
    "bars",
    "records",
    "tables",
    "table",
    "gallery",
    "figures",
    "runs",
    "data/source",
    "data/idx.py",
    "data/toy.py",
    "data/scaling.py",
    "data/validation.py",
    "data/own.py",
    "data/npz.py",
    "data/tabular.py",
    "data/image_folder.py",
    "data/memmap.py",
    "data/svhn.py",
    "data/cifar.py",
    "data/norb.py",
    "data/faces.py",
    "data/published.py",
    "data/whitening.py",
    "data/shards.py",
    "data/slots.py",
    "data/splits.py",
)
FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(path: Path) -> list[str]:
    """Every module that a file imports, wherever in it."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_import_only_what_stands_before_them(path: Path) -> None:
    here = name_of(path).removesuffix(".py").split("/")[0]
    if here == "__init__":
        return
    for module in imports(path):
        if module.startswith("ssl_dgm."):
            assert room(module) in ORDER, f"{room(module)} has no place in the order"
            assert ORDER.index(room(module)) <= ORDER.index(here), f"{name_of(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    name = name_of(path)
    for module in imports(path):
        for library, places in ALLOWED.items():
            if module.split(".")[0] == library:
                assert any(name.startswith(place) for place in places), f"{name} imports {module}"
        if any(name.startswith(place) for place in TORCH_FREE):
            assert not module.startswith("torch."), f"{name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short_and_say_what_they_are(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 350, f"{name_of(path)} holds more than one room"
    assert path.stem not in ("utils", "util", "helpers", "common", "misc")
    assert ast.get_docstring(ast.parse(text)), f"{name_of(path)} has no first line"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_things_have_docstrings(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        assert ast.get_docstring(node), f"{name_of(path)}: {node.name}"
        # A method of a subclass may override a documented one, here or in Lightning.
        inherited = isinstance(node, ast.ClassDef) and node.bases
        for inner in node.body if isinstance(node, ast.ClassDef) and not inherited else []:
            if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                documented = ast.get_docstring(inner) or node.name in ("Pixels", "Posteriors", "Reals")  # see Inputs
                assert documented, f"{name_of(path)}: {node.name}.{inner.name}"


@pytest.mark.slow
def test_the_wheel_runs_from_anywhere_with_its_configuration(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    shown = subprocess.run(
        [sys.executable, "-c", "import ssl_dgm, ssl_dgm.train as t; print(ssl_dgm.__file__); t.main()", "--cfg", "job"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path / "site")}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert shown.stdout.startswith(str(tmp_path / "site")), shown.stderr
    assert "name: m1m2" in shown.stdout
    assert (tmp_path / "site" / "ssl_dgm" / "drawing" / "paper.mplstyle").is_file()
    committed = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    packed = tmp_path / "site" / "ssl_dgm" / "conf"
    assert {path.relative_to(packed) for path in packed.rglob("*.yaml")} == committed
