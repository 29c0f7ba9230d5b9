"""Print at the end of a run what the fault tests counted."""

from typing import Any

from tests.acceptance import soak


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the counts, in the order in which they came."""
    if soak.lines:
        terminalreporter.section("counted under fire")
        for line in soak.lines:
            terminalreporter.write_line(line)
