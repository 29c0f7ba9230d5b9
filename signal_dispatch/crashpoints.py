"""Places on the way of a call where the package's own tests kill or stop a process.

``SIGNAL_DISPATCH_CRASH``, read once at import, names one: ``after_claim`` kills the process the
first time that point is reached, ``after_claim:3`` the third time; ``pause:after_claim`` stops it
until SIGCONT comes. Unset, as in every other run, nothing happens. Not part of the public API.
"""

import os
import signal
import threading
from collections.abc import Callable
from itertools import count
from typing import Final, Literal, get_args

Point = Literal[
    "before_commit",  # the delivery is written, its transaction still open
    "after_commit",  # committed, and nobody told of it yet
    "after_claim",  # taken from the table
    "mid_request",  # the request is written, no byte of the answer read
    "after_answer",  # the answer is read, and not judged yet
    "before_settling",  # judged and handled, the mark not written yet
    "after_mark",  # the mark is committed, the lane not released yet
    "after_answer_stored",  # a hook failed, and the answer is kept
]
POINTS: Final = get_args(Point)


def armed(text: str) -> Callable[[Point], None]:
    """Return what is to be called at each point, for ``[pause:]<point>[:<time>]``.

    Raises ``ValueError`` for a point that does not exist.
    """
    if not text:
        return _pass
    sent = signal.SIGSTOP if text.startswith("pause:") else signal.SIGKILL
    wanted, _colon, nth = text.removeprefix("pause:").partition(":")
    if wanted not in POINTS:
        raise ValueError(f"SIGNAL_DISPATCH_CRASH names {wanted!r}. Known: {', '.join(POINTS)}.")
    last, passed = int(nth or 1), count(1)

    def reached(point: Point) -> None:
        if point == wanted and next(passed) == last:
            # To this thread: sent to the process, it might find another one, and this one run on.
            signal.pthread_kill(threading.get_ident(), sent)

    return reached


def _pass(point: Point) -> None:
    """Go on: no point is armed."""


reached: Final = armed(os.environ.get("SIGNAL_DISPATCH_CRASH", ""))
