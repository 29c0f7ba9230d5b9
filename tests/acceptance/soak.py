"""The two forms of the fault tests: a short one for ``make test``, a long one for ``make soak``."""

import os

SOAKING = os.environ.get("SOAK", "") not in ("", "0")

#: What the fault tests counted, one line each, for the end of the run.
lines: list[str] = []


def scaled(short: int, long: int) -> int:
    """Return how many a test is to do in the form that runs."""
    return long if SOAKING else short


def patience(seconds: float) -> float:
    """Return the deadline for work that is many times as much in the long form."""
    return seconds * scaled(1, 10)


def report(what: str, **counts: float) -> None:
    """Keep counts such as ``duplicates``, ``stuck`` and ``lost`` to be printed at the end."""
    lines.append(f"{what}: {', '.join(f'{name} {count:g}' for name, count in counts.items())}")
