"""Print rows as a table."""

from collections.abc import Iterable, Iterator

from signal_dispatch.management.printing import printable


def table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield a line for each row, the columns aligned; the first row is the head."""
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
