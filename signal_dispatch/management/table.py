"""Print rows as a table."""

from collections.abc import Iterable, Iterator


def table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Yield a line for each row, the columns aligned; the first row is the head."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
