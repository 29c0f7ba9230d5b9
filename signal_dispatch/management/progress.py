"""Show how far a command has come: a bar on a terminal, else a line now and then."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TextIO

#: Seconds between two lines.
LINE_SECONDS = 1.0

#: Called with how many more are done, and where that is, for whoever has to go on from there.
Advance = Callable[[int, Any], None]


@contextmanager
def progress(out: Any, what: str, total: int, *, quiet: bool = False) -> Iterator[Advance]:
    """Yield what is to be called as the work goes on.

    A bar is drawn on a terminal where the library ``tqdm`` is installed. Anywhere else a line is
    written every second, so that short work writes none.
    """
    if quiet:
        yield lambda done, place: None
    elif out.isatty() and importlib.util.find_spec("tqdm"):
        with _bar(out, what, total) as advance:
            yield advance
    else:
        yield _lines(out, what, total)


@contextmanager
def _bar(out: TextIO, what: str, total: int) -> Iterator[Advance]:
    from tqdm import tqdm

    with tqdm(total=total, desc=what, file=out, unit="", dynamic_ncols=True) as bar:

        def advance(done: int, place: Any) -> None:
            bar.set_postfix_str(f"at {place}", refresh=False)
            bar.update(done)

        yield advance


def _lines(out: TextIO, what: str, total: int) -> Advance:
    so_far, said = 0, monotonic()

    def advance(done: int, place: Any) -> None:
        nonlocal so_far, said
        so_far += done
        if monotonic() - said >= LINE_SECONDS:
            said = monotonic()
            out.write(f"{what}: {so_far} of {total}, at {place}\n")
            out.flush()

    return advance
