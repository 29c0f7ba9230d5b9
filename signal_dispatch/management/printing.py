"""Print for whoever reads: what others wrote acts on no terminal, and a closed pipe is no error."""

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Of control, format (which turn the direction of writing), and surrogates; ends of lines.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """Return the text with every character escaped that shows nothing but does something.

    A stored reason or name could else move the cursor, or feign a line of ours.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _ACTING else char
        for char in text
    )


@contextmanager
def while_somebody_reads(stream: Any) -> Iterator[None]:
    """Let the rest go nowhere once the reader has left, as ``head`` does.

    Python writes again what is left when it ends; that must not fail either.
    """
    try:
        yield
        stream.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
