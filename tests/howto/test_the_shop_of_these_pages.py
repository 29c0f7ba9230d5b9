"""The shop that the pages share: what they use of it is there, and what they show can be copied."""

import ast
import builtins
import re

import pytest
from django.test.utils import isolate_apps

from tests.howto.pages import DOCS, Page
from tests.once import ONCE
from tests.shop import models

pytestmark = ONCE

NAME = "the-shop-of-these-pages"
SHOP = Page(f"how-to/{NAME}").block("class Order")
TUTORIAL = Page("tutorial").block("models.Model")
HOW_TO = sorted(path.stem for path in (DOCS / "how-to").glob("*.md") if path.stem != NAME)
#: What the tutorial's shop lacks, and pages use.
MORE = re.compile(r"\b(Customer|Tag|Shipment|Place|customer|notes|tags|shipment_set|place)\b")


def fields_of(block, label):
    with isolate_apps(label):
        names = {"__name__": f"{label}.models"}
        exec(compile(block, "models.py", "exec"), names)  # noqa: S102 - our own pages
        made = (each for each in names.values() if hasattr(each, "_meta"))
        return {
            each.__name__: {
                field.name: (field.get_internal_type(), field.has_default(), field.null)
                for field in each._meta.get_fields()
                if not field.auto_created
            }
            for each in made
        }


def names_of(block):
    """Return what a block brings itself, and what it uses."""
    tree = ast.parse(block)
    brought, used = set(dir(builtins)), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else brought).add(node.id)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            brought.add(node.name)
        elif isinstance(node, ast.arg):
            brought.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            brought.add(node.name)
        elif isinstance(node, ast.alias):
            brought.add((node.asname or node.name).partition(".")[0])
    return brought, used


def is_test(block):
    return re.search(r"^( {4})?def test_", block, re.MULTILINE) is not None


def test_it_is_the_shop_that_the_pages_are_tested_with():
    shown = fields_of(SHOP, "tests.shop")
    assert shown.keys() == {"Customer", "Tag", "Order", "Shipment", "Place"}
    for name, fields in shown.items():
        real = {field.name: field for field in getattr(models, name)._meta.get_fields()}
        for field, (kind, has_default, null) in fields.items():
            mine = real[field]
            told = (mine.get_internal_type(), mine.has_default(), mine.null)
            assert (kind, has_default, null) == told, f"{name}.{field}"


def test_it_goes_on_with_the_tutorials():
    (before,) = fields_of(TUTORIAL, "tests.shop").values()

    assert before.items() <= fields_of(SHOP, "tests.shop")["Order"].items()


@pytest.mark.parametrize("name", HOW_TO)
def test_a_page_that_uses_more_than_the_tutorials_shop_says_so(name):
    code = "\n".join(Page(f"how-to/{name}").blocks)
    text = (DOCS / f"how-to/{name}.md").read_text()

    assert not MORE.search(code) or f"({NAME}.md)" in text


@pytest.mark.parametrize("name", HOW_TO)
def test_test_files_of_a_page_bring_what_they_use(name):
    brought = set()
    for block in filter(is_test, Page(f"how-to/{name}").blocks):
        mine, used = names_of(block)
        brought |= mine
        assert used <= brought, f"{sorted(used - brought)} in\n{block}"


@pytest.mark.parametrize("name", HOW_TO)
def test_declarations_of_a_page_bring_what_they_use(name):
    brought = set()
    for block in Page(f"how-to/{name}").blocks:
        mine, used = names_of(block)
        brought |= mine
        if "@register(" in block:
            assert used <= brought, f"{sorted(used - brought)} in\n{block}"
