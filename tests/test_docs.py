"""What the documents name exists: files, headings, settings and the values of groups."""

import re
from pathlib import Path

import pytest

from ssl_dgm.checks import valid_keys

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")])
GROUPS = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
KEYS = set(valid_keys())


def anchor(heading: str) -> str:
    """GitHub's name of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
        file, _, heading = target.partition("#")
        path = (page.parent / file) if file else page
        assert path.exists(), f"{page.name} links to {target}"
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
            assert heading in map(anchor, headings), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_settings_and_files_of_settings_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"conf/[\w/]+\.yaml", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"
    for group, value in re.findall(r"`(\w+)=(\w+)`", text):
        if group in GROUPS:
            assert (ROOT / "conf" / group / f"{value}.yaml").exists(), f"{page.name} names {group}={value}"
    for key in re.findall(r"`((?:model|network|objective|optimizer|budget|data|classes|trainer)\.\w+)", text):
        assert key in KEYS, f"{page.name} names {key}"
