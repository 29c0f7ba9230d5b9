"""The drawings of the documents: text as text, and nothing that runs or comes from elsewhere."""

import re
from xml.etree import ElementTree

import pytest

from signal_dispatch.models import State
from tests.howto.pages import DOCS
from tests.once import ONCE

pytestmark = ONCE

DRAWINGS = sorted((DOCS / "img").glob("*.svg"))
SPACE = "{http://www.w3.org/2000/svg}"

each = pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.name)


def drawing(path):
    return ElementTree.parse(path).getroot()  # noqa: S314 - our own


def test_both_are_there():
    assert [path.name for path in DRAWINGS] == ["states.svg", "way.svg"]


@each
def test_drawing_has_words_for_those_who_cannot_see_it(path):
    root = drawing(path)

    assert root.tag == f"{SPACE}svg"
    assert root.findtext(f"{SPACE}title")
    assert root.findtext(f"{SPACE}desc")
    assert root.get("role") == "img"


@each
def test_drawing_runs_nothing_and_fetches_nothing(path):
    for element in drawing(path).iter():
        assert element.tag.removeprefix(SPACE) not in {"script", "foreignObject", "image", "use"}
        for name, value in element.attrib.items():
            assert not name.lower().startswith("on")
            assert not name.endswith("href")
            assert re.sub(r"url\(#\w+\)", "", value).find("url(") == -1
    assert "@import" not in path.read_text()
    assert path.read_text().count("http") == 1, "the name space"


@each
def test_drawing_can_be_read_on_dark_pages(path):
    """Each class that has a colour has one for the dark, too."""
    light, _media, dark = path.read_text().partition("@media (prefers-color-scheme: dark)")
    coloured = r"^\s+(\S.*?) {[^}]*(?:fill|stroke): #"
    before, after = (set(re.findall(coloured, text, re.MULTILINE)) for text in (light, dark))

    assert before - {".number text"} == after - {".number text"}


def test_all_states_are_drawn():
    texts = {element.text for element in drawing(DOCS / "img/states.svg").iter(f"{SPACE}text")}

    assert set(State.values) <= texts
