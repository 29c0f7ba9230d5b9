import io
import socket
from http.client import RemoteDisconnected

import pytest

from signal_dispatch import reading
from signal_dispatch.entries import Endpoint
from signal_dispatch.reading import MAX_HEAD_BYTES
from tests.calling import call, failure
from tests.once import ONCE
from tests.receiver import Raw

# The receiver is a real server.
pytestmark = [ONCE, pytest.mark.signal_dispatch_network]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def raw(*parts):
    return lambda request: Raw(parts)


# The head.


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nLink: </b.css>\r\n\r\n",
        b"HTTP/1.1 199 Miscellaneous\n\n",
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_interim_answer_is_not_taken_for_the_answer(receiver, sessions, interim):
    """Fails if http.client no longer asks ``_read_status`` for the first line."""
    receiver.script = raw(interim * 3, OK)

    response = call(Endpoint("crm", receiver.url), sessions)

    assert (response.status_code, response.content) == (200, b"{}")


def test_protocol_that_nobody_asked_to_switch_to_is_an_answer(receiver, sessions):
    receiver.script = raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")

    assert call(Endpoint("crm", receiver.url), sessions).status_code == 101


@pytest.mark.parametrize("interim", [b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n"])
def test_kept_connection_that_breaks_after_an_interim_answer_is_not_tried_again(
    receiver, sessions, interim
):
    receiver.play((200, {}, b"{}"), Raw([interim]))
    endpoint = Endpoint("crm", receiver.url)
    call(endpoint, sessions)

    assert failure(endpoint, sessions).error_class == "protocol"
    assert len(receiver.requests) == 2


def test_endless_interim_answers_are_given_up(receiver, sessions):
    receiver.script = lambda request: Raw(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" for _ in iter(int, 1)
    )

    assert "bytes of lines" in str(failure(Endpoint("crm", receiver.url), sessions))


@pytest.mark.parametrize(
    "line",
    [
        b"X-Long: " + b"x" * (MAX_HEAD_BYTES + 10),
        b"x" * (2 * MAX_HEAD_BYTES),
        b"\r\n".join(b"X-%d: %s" % (n, b"x" * 1000) for n in range(80)),
    ],
)
def test_head_beyond_all_measure_is_given_up(receiver, sessions, line):
    receiver.script = raw(b"HTTP/1.1 200 OK\r\n", line, b"\r\n\r\n")

    error = failure(Endpoint("crm", receiver.url), sessions)

    assert error.error_class == "protocol"
    assert str(error) == "The answer has more than 65536 bytes of lines that are no content."


def test_more_headers_than_the_library_takes_are_told(receiver, sessions):
    receiver.script = raw(b"HTTP/1.1 200 OK\r\n", b"X: 1\r\n" * 200, b"\r\n")

    error = failure(Endpoint("crm", receiver.url), sessions)

    assert error.error_class == "protocol"


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX: 1\r\n", b"HTTP/1.1 200 OK\r\nX-Le"]
)
def test_head_without_its_end_is_no_answer(receiver, sessions, head):
    receiver.script = raw(head)

    error = failure(Endpoint("crm", receiver.url), sessions)

    assert error.error_class == "protocol"
    assert "the answer ends too early" in str(error)


def test_long_head_within_measure_is_read(receiver, sessions):
    receiver.reply(headers={f"X-{n}": "x" * 1000 for n in range(50)})

    assert len(call(Endpoint("crm", receiver.url), sessions).headers["X-49"]) == 1000


@pytest.mark.parametrize(
    "line", [b"no header at all", b"X Y: 1", b": 1", b"\xc3\x9c: 1", b"X\x00Y: 1", b" folded: 1"]
)
def test_line_that_is_no_header_is_told(receiver, sessions, line):
    receiver.script = raw(b"HTTP/1.1 200 OK\r\n", line, b"\r\nContent-Length: 2\r\n\r\n{}")

    error = failure(Endpoint("crm", receiver.url), sessions)

    assert error.error_class == "protocol"
    assert str(error) == "The answer has a line that is no header."


@pytest.mark.parametrize(
    "value", ["Zürich €".encode(), "Å".encode(), b"\xff\xfe", b"a\x0bb", b"a\x1cb", b"a\x00b"]
)
def test_value_beyond_latin_1_is_read_byte_for_byte(receiver, sessions, value):
    receiver.script = raw(b"HTTP/1.1 200 OK\r\nX-City: ", value, b"\r\nContent-Length: 2\r\n\r\n{}")

    response = call(Endpoint("crm", receiver.url), sessions)

    assert response.headers["X-City"].encode("latin-1") == value
    assert response.content == b"{}"


# The content.


def test_line_between_chunks_may_not_be_long(receiver, sessions):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    receiver.script = raw(head, b"2;" + b"x" * 200_000)

    assert "bytes of lines" in str(failure(Endpoint("crm", receiver.url), sessions))


def test_line_behind_the_chunks_may_not_be_long(receiver, sessions):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    receiver.script = raw(head, b"X-Trailer: " + b"x" * 200_000)

    assert "bytes of lines" in str(failure(Endpoint("crm", receiver.url), sessions))


def test_many_small_chunks_are_content_and_no_head(receiver, sessions):
    receiver.script = lambda request: (200, {}, [b"x"] * 20_000)

    assert len(call(Endpoint("crm", receiver.url), sessions).content) == 20_000


def test_reset_within_an_answer_is_not_taken_for_silence():
    class Broken(io.RawIOBase):
        parts = [b"HTTP/1."]

        def readinto(self, buffer):
            if not self.parts:
                raise ConnectionResetError(104, "Connection reset by peer")
            part = self.parts.pop()
            buffer[: len(part)] = part
            return len(part)

    with socket.socket() as unused, reading._TimedReader(unused, Broken()) as reader:
        assert reader.read(100) == b"HTTP/1."
        with pytest.raises(ConnectionResetError) as caught:
            reader.read(100)

    assert not isinstance(caught.value, RemoteDisconnected)
