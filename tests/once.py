"""Mark tests that no database has a part in: they run on SQLite, and once is enough."""

import os

import pytest

ONCE = pytest.mark.skipif(
    os.environ.get("DATABASE", "sqlite") != "sqlite",
    reason="no database has a part in it: run on SQLite",
)
