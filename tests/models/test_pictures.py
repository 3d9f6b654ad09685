"""The pictures of docs/models show the models that there are: read back as names of arrows, never as pixels."""

import importlib
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import pytest
from zoo import NAMES, every_model

from ssl_dgm import models

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("draw_models")


def drawn(path: Path) -> set[str]:
    """'p.y.x' for an arrow of p, 'p.y.partly' for a variable, as the picture names them."""
    names = [element.get("id", "") for element in ET.parse(path).iter()]
    found = [name for name in names if re.fullmatch(r"[pq]\.\w+\.\w+", name)]
    assert len(set(found)) == len(found)
    return set(found)


@every_model
def test_every_model_has_the_picture_of_its_factors(name: str, script: ModuleType, tmp_path: Path) -> None:
    graph = script.graph(script.small(name))
    script.draw(graph, tmp_path / "again.svg")
    committed = drawn(script.FOLDER / f"{name}.svg")
    assert committed == drawn(tmp_path / "again.svg")
    arrows = {f"{side}.{parent}.{child}" for side in "pq" for parent, child in graph.arrows[side]}
    assert arrows == {mark for mark in committed if mark.rpartition(".")[2] in graph.kinds}
    assert f"models/{name}.svg" in (ROOT / "docs" / "models.md").read_text()


def test_pictures_are_of_models_that_there_are(script: ModuleType) -> None:
    assert models.names() == NAMES == sorted(path.stem for path in script.FOLDER.glob("*.svg"))


def test_what_is_read_back_is_what_the_lists_say(script: ModuleType) -> None:
    m2 = {"p.x.observed", "p.y.partly", "p.z.latent", "q.x.observed", "q.y.partly", "q.z.latent"}
    assert drawn(script.FOLDER / "m2.svg") == m2 | {"p.y.x", "p.z.x", "q.x.y", "q.x.z", "q.y.z"}
    stack = script.graph(script.small("m1m2"))
    assert stack.kinds == {"x": "observed", "z1": "latent", "y": "partly", "z2": "latent"}
    assert set(stack.arrows["p"]) == {("y", "z1"), ("z2", "z1"), ("z1", "x")}
    assert set(stack.arrows["q"]) == {("x", "z1"), ("z1", "y"), ("z1", "z2"), ("y", "z2")}
