"""What the tests of the pages on running a site share."""

import re
import shlex
from argparse import Namespace
from typing import Any

from django.core.management import get_commands, load_command_class

from tests.howto.pages import DOCS

# In a shell's line, or as the list in which containers take it.
_COMMAND = re.compile(r"manage\.py(?: |\", \")(dispatch_\w+)\"?\]?([^\n|>`]*)")


def run(code: str, **given: Any) -> dict[str, Any]:
    """Run a block as a module of the shop's, and return the names that it left."""
    names: dict[str, Any] = {"__name__": "tests.shop.dispatches", **given}
    exec(compile(code, "page", "exec"), names)  # noqa: S102 - our own pages
    return names


def commands(page: str) -> list[tuple[str, Namespace]]:
    """Return the package's commands that a page shows; raises where an option is not known."""
    found = []
    for name, rest in _COMMAND.findall((DOCS / f"{page}.md").read_text()):
        arguments = shlex.split(rest.replace("%i", "crm"))
        command = load_command_class(get_commands()[name], name)
        parser = command.create_parser("manage.py", name)
        found.append((name, parser.parse_args(arguments)))
    return found
