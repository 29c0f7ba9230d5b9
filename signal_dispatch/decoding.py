"""Decode the content of an answer in small pieces, so that a bomb bursts before it is big."""

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import requests

from signal_dispatch.exceptions import SendError

#: What is asked for in ``Accept-Encoding``: what can be inflated within bounds on every site.
ACCEPTED: Final = "gzip, deflate"

_CHUNK_BYTES = 8 * 1024
_PIECE_BYTES = 64 * 1024
_GZIP_START = b"\x1f\x8b"


def content_of(answer: requests.Response, limit: int) -> Iterator[bytes]:
    """Yield the decoded content of an answer, and stop beyond the limit."""
    # The mark of requests is underscored; tests/test_sessions.py notices when it is gone.
    if getattr(answer, "_content_consumed", False):  # a hook of the session has read it
        yield answer.content
        return
    got = 0
    # Not decoded by urllib3: some of its versions inflate a bomb before they hand anything out.
    stream = getattr(answer.raw, "stream", None)  # an adapter of the site's own may have none
    chunks = (
        stream(_CHUNK_BYTES, decode_content=False) if stream else answer.iter_content(_CHUNK_BYTES)
    )
    for piece in decoded(chunks, answer.headers.get("Content-Encoding", "")):
        yield piece
        got += len(piece)
        if got > limit:
            return


def decoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the content in pieces of bounded size; one that nobody asked for stays as it came.

    Raises ``SendError`` for content that is not what its encoding says.
    """
    coding = encoding.strip().lower()
    if coding in ("gzip", "x-gzip", "deflate"):
        return _inflated(chunks, coding)
    return iter(chunks)


def _inflated(chunks: Iterable[bytes], coding: str) -> Iterator[bytes]:
    decoder: Any = None
    waiting, ended = b"", False
    for chunk in chunks:
        waiting += chunk
        while waiting and (decoder or len(waiting) > 1):
            if decoder is None and ended and not _is_another_part(waiting, coding):
                return  # What stands behind the end is padding.
            decoder = decoder or _decoder_for(waiting, coding)
            try:
                piece = decoder.decompress(waiting, _PIECE_BYTES)
            except zlib.error:
                raise _not_as_told(coding) from None
            waiting = decoder.unconsumed_tail
            if decoder.eof:
                waiting, decoder, ended = decoder.unused_data, None, True
            yield piece
    if decoder is not None:
        yield decoder.flush()
    if (decoder is not None and not decoder.eof) or (waiting and not ended):
        raise _not_as_told(coding)


def _decoder_for(start: bytes, coding: str) -> Any:
    if coding != "deflate":
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    # RFC 9110, 8.4.1.2, means the format of zlib; some servers send the bare stream.
    wrapped = start[0] & 0x0F == zlib.DEFLATED and int.from_bytes(start[:2], "big") % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)


def _is_another_part(start: bytes, coding: str) -> bool:
    return coding != "deflate" and start.startswith(_GZIP_START)


def _not_as_told(coding: str) -> SendError:
    return SendError("protocol", f"The content of the answer is not valid {coding}, or not whole.")
