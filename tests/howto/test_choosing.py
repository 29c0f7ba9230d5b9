"""The page on choosing says of what release and day it speaks."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.howto.pages import DOCS
from tests.once import ONCE

pytestmark = ONCE

TEXT = (DOCS / "explanation/choosing.md").read_text()
RIVALS = [
    "django-webhook",
    "django-webhook2",
    "django-signal-webhooks",
    "drf-hooks",
    "django-outbound-webhooks",
    "django-reliable-outbox",
    "Celery",
    "Svix",
]


def rows(heading):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in TEXT.partition(heading)[2].partition("\n## ")[0].splitlines()
        if line.startswith("|")
    ]


@pytest.mark.parametrize("rival", RIVALS)
def test_each_is_told_with_its_release_and_day_and_where_it_is_better(rival):
    (row,) = [row for row in rows("# Choose") if row[0].startswith(f"[{rival}]")]

    assert re.search(r"\d+\.\d+", row[1])
    assert re.search(r"20\d\d-\d\d-\d\d", row[2])
    assert f"**{rival}**" in TEXT.partition("## Where each is the better choice")[2]


def test_every_row_tells_of_all():
    table = rows("## What they do")

    assert table[0][1:] == ["signal_dispatch", *RIVALS[:6]]
    assert {len(row) for row in table} == {8}
    assert all(all(row[1:]) for row in table)


def test_our_own_release_is_the_one_that_is_here():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (own,) = [row for row in rows("# Choose") if row[0] == "signal_dispatch"]

    assert own[1] == project["version"]
    assert project["requires-python"] == f">={own[4].rstrip('+')}"
