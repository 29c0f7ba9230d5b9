"""The front door in words: what README and docs show must run, exist, and lead somewhere."""

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from django.test.utils import isolate_apps

import tests.shop
import tests.shop.models
from signal_dispatch.conf import PREFIX, Settings
from signal_dispatch.registry import registry
from tests.once import ONCE

pytestmark = ONCE

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def python_blocks(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def without_blocks(page):
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """Return the headings as GitHub links to them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(page, heading):
    """Return the text below a heading, up to the next one of its rank."""
    return without_blocks(page).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.fixture
def shop_of_the_readme(monkeypatch):
    """Let the README's ``shop`` be the one of these tests."""
    monkeypatch.setitem(sys.modules, "shop", tests.shop)
    monkeypatch.setitem(sys.modules, "shop.models", tests.shop.models)
    monkeypatch.setenv("CRM_TOKEN", "t0ken")
    before = list(registry)
    yield {"__name__": "tests.shop.dispatches"}
    for dispatch in set(registry) - set(before):
        registry.remove(type(dispatch))


def test_readme_is_short():
    assert len(README.read_text().splitlines()) < 150


def test_usage_of_the_readme_runs(shop_of_the_readme, settings, db, deliveries, mock_endpoint):
    names = shop_of_the_readme
    _model, endpoints, dispatches, test = (
        compile(block, "README.md", "exec") for block in python_blocks(README)
    )
    exec(endpoints, names)  # noqa: S102 - what the README tells people to write
    settings.SIGNAL_DISPATCH_ENDPOINTS = names["SIGNAL_DISPATCH_ENDPOINTS"]
    exec(dispatches, names)  # noqa: S102
    tested = {"__name__": "test_shop"}  # a file of its own: it brings what it uses
    exec(test, tested)  # noqa: S102
    tested["test_paid_order_reaches_the_crm"](db, deliveries, mock_endpoint)

    (delivery,) = deliveries
    assert (delivery.dispatch, delivery.state) == ("shop.OrderToCRM", "delivered")


@isolate_apps("tests.shop")
def test_the_model_of_the_readme_has_what_its_dispatch_tells():
    model, _endpoints, dispatches, test = python_blocks(README)
    names = {"__name__": "tests.shop.models"}
    exec(compile(model, "README.md", "exec"), names)  # noqa: S102
    mine = {field.name: field for field in names["Order"]._meta.fields}
    told = re.search(r"fields = \[(.+)\]", dispatches)[1]
    wanted = {name.partition("__")[0] for name in re.findall(r'"(\w+)"', told)}

    assert wanted | {"crm_id"} <= mine.keys()
    filled = set(re.findall(r"(\w+)=", re.search(r"create\((.+)\)", test)[1]))
    left = (mine[name] for name in mine.keys() - filled - {"id", "crm_id"})
    assert [field.name for field in left if not (field.has_default() or field.null)] == []


@every_page
def test_python_of_the_pages_compiles(page):
    for block in python_blocks(page):
        compile(block, page.name, "exec")


@every_page
def test_links_within_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_promises_name_tests_that_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", section(README, "What you can rely on"))
    assert len(named) >= 10
    for path, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE), name


def test_every_setting_is_told():
    page = README.read_text()
    for name, value in vars(Settings).items():
        if hasattr(value, "func"):  # a cached property
            assert PREFIX + name.upper() in page


def test_the_diagram_is_a_picture_with_words_for_those_who_cannot_see_it():
    drawing = ElementTree.parse(ROOT / "docs/img/way.svg").getroot()  # noqa: S314 - our own
    space = "{http://www.w3.org/2000/svg}"
    assert drawing.findtext(f"{space}title")
    assert drawing.findtext(f"{space}desc")
