import io
import socket
from http.client import RemoteDisconnected

import pytest

from signal_dispatch import wire
from tests.once import ONCE

# The receiver is a real server.
pytestmark = [ONCE, pytest.mark.signal_dispatch_network]


def test_reset_within_an_answer_is_not_taken_for_silence():
    class Broken(io.RawIOBase):
        parts = [b"HTTP/1."]

        def readinto(self, buffer):
            if not self.parts:
                raise ConnectionResetError(104, "Connection reset by peer")
            part = self.parts.pop()
            buffer[: len(part)] = part
            return len(part)

    with socket.socket() as unused, wire._TimedReader(unused, Broken()) as reader:
        assert reader.read(100) == b"HTTP/1."
        with pytest.raises(ConnectionResetError) as caught:
            reader.read(100)

    assert not isinstance(caught.value, RemoteDisconnected)
