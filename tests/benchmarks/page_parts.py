"""Fill the parts of a page that a program writes: each between two comments that name it."""

import re
from collections.abc import Mapping

_PART = re.compile(r"(<!-- measured: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def names_in(page: str) -> list[str]:
    """Return the names of the parts, as they follow each other."""
    return [name for _begin, name, _end in _PART.findall(page)]


def part(page: str, name: str) -> str:
    """Return the text of one part."""
    (found,) = [one for one in _PART.finditer(page) if one[2] == name]
    return found[0].removeprefix(found[1]).removesuffix(found[3]).strip()


def filled(page: str, texts: Mapping[str, str]) -> str:
    """Return the page with these texts in its parts; raise ``KeyError`` where one is not given."""
    return _PART.sub(lambda found: f"{found[1]}\n{texts[found[2]]}\n\n{found[3]}", page)
