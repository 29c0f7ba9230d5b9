"""The pages of the documentation, and the code that stands in them."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import tests.shop
import tests.shop.models
from signal_dispatch.registry import registry

DOCS = Path(__file__).parents[2] / "docs"

_FENCED = re.compile(r"^```([\w-]*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Page:
    """A page whose blocks of one language are taken by what they contain.

    ``left`` are those that nobody took: a page is tested when none is.
    """

    def __init__(self, name: str, language: str = "python") -> None:
        text = (DOCS / f"{name}.md").read_text()
        self.blocks = [code for kind, code in _FENCED.findall(text) if kind == language]
        self.left = list(self.blocks)

    def block(self, containing: str) -> str:
        """Return the one block that contains the text."""
        (found,) = [block for block in self.blocks if containing in block]
        if found in self.left:
            self.left.remove(found)
        return found

    def run(self, containing: str, **names: Any) -> dict[str, Any]:
        """Run the block that contains the text, and return the names that it left."""
        space: dict[str, Any] = {"__name__": "page", **names}
        exec(compile(self.block(containing), containing, "exec"), space)  # noqa: S102
        return space


@contextmanager
def shop_of_the_tests() -> Iterator[None]:
    """Let pages say ``shop``, as their readers would; forget what they registered meanwhile."""
    before = set(registry)
    try:
        # Not patch.dict: that would forget, too, whatever is imported meanwhile for the first time.
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "shop", tests.shop)
            patch.setitem(sys.modules, "shop.models", tests.shop.models)
            yield
    finally:
        for dispatch in set(registry) - before:
            registry.remove(type(dispatch))
