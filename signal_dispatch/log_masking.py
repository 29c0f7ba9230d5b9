"""Keep path and query of our calls, which may be the secret, out of the log of urllib3."""

import logging
import re
from collections.abc import Mapping
from typing import Final

from signal_dispatch.deadlines import has_deadline
from signal_dispatch.redacting import MASK

#: Each logger by its own name: a filter is not asked about the records of loggers below.
LOGGERS: Final = (
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
)
# A scheme, host, port, method, version of HTTP: what is no URL, no path and no header.
_HARMLESS = re.compile(r"(HTTP/)?[\w.:\[\]-]*")


def install() -> None:
    """Let the loggers of urllib3 mask what they tell of our calls; twice is as good as once."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(mask)


def mask(record: logging.LogRecord) -> bool:
    """Mask a record if it is about a call of ours: a filter, which lets everything pass."""
    if has_deadline():
        if isinstance(record.args, Mapping):
            record.args = {name: _masked(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(_masked(value) for value in record.args)
        # It tells of headers that could not be read, and shows them.
        record.exc_info = record.exc_text = None
    return True


def _masked(value: object) -> object:
    is_text = isinstance(value, str) and _HARMLESS.fullmatch(value) is not None
    return value if is_text or value is None or isinstance(value, int) else MASK
