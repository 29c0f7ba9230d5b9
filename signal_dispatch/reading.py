"""Read an answer before the deadline, and no more of its head than an honest one has."""

import io
import math
from http.client import HTTPResponse, IncompleteRead, RemoteDisconnected
from typing import Any, Final

from urllib3.exceptions import HeaderParsingError
from urllib3.util.response import assert_header_parsing

from signal_dispatch.deadlines import has_deadline, seconds_left
from signal_dispatch.exceptions import SendError

#: How long all headers of an answer may be together, and any line that belongs to no content.
MAX_HEAD_BYTES: Final = 64 * 1024

_TOO_LONG = f"The answer has more than {MAX_HEAD_BYTES} bytes of lines that are no content."


class BoundedResponse(HTTPResponse):
    """An answer as ``http.client`` reads it, with limits of time and size."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # A timeout of the socket is for one read: a byte now and then would keep it content.
        self.fp = self._lines = _Lines(_TimedReader(sock, self.fp.detach()))

    def begin(self) -> None:
        """Read the head; raises ``SendError`` where a line of it can't be read."""
        super().begin()
        self._lines.in_head = False
        try:
            # What stands behind a broken line is lost, perhaps the length of the content. urllib3
            # asks the same, and writes a warning with the URL instead.
            assert_header_parsing(self.msg)
        except HeaderParsingError:
            raise SendError("protocol", "The answer has a line that is no header.") from None

    def _read_status(self) -> tuple[str, int, str]:
        # http.client's, and underscored: it takes 102 and 103 for the answer, which is still to
        # come (RFC 9110, 15.2). tests/test_reading.py notices when it is called no more.
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
        while 101 < found[1] < 200:
            while self._lines.readline() not in (b"\r\n", b"\n"):
                pass
            found = super()._read_status()  # type: ignore[misc]
        return found


class _Lines(io.BufferedReader):
    """Lines of bounded length; those of the head are bounded together, and none is missing."""

    in_head = True
    _got = 0

    def readline(self, size: int | None = -1) -> bytes:
        most = MAX_HEAD_BYTES + 1
        line = super().readline(most if size is None or size < 0 else min(size, most))
        begun = self.in_head and self._got > 0
        self._got = len(line) + (self._got if self.in_head else 0)
        if self._got > MAX_HEAD_BYTES:
            raise SendError("protocol", _TOO_LONG)
        # http.client would take the end of the connection for that of the head.
        if begun and not line.endswith(b"\n"):
            raise IncompleteRead(b"")
        return line


class _TimedReader(io.RawIOBase):
    """Read from a socket, each time for no longer than the call has left."""

    def __init__(self, connection: Any, raw: io.RawIOBase) -> None:
        self._connection, self._raw = connection, raw
        self._longest = connection.gettimeout() or math.inf
        self._silent = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if has_deadline():
            self._connection.settimeout(seconds_left(self._longest))
        try:
            got = self._raw.readinto(buffer)
        except ConnectionResetError as error:
            if self._silent:
                raise RemoteDisconnected(str(error)) from error
            raise
        self._silent = False
        return got

    def close(self) -> None:
        self._raw.close()
        super().close()
