"""Answers without measure: memory stays, and what is kept is cut at the limit."""

import gzip
import itertools
import re
import zlib
from pathlib import Path

import pytest
from requests.auth import HTTPDigestAuth

from signal_dispatch.entries import Endpoint
from signal_dispatch.models import Attempt, Delivery
from tests.acceptance.soak import report
from tests.calling import call, failure
from tests.once import ONCE
from tests.receiver import Raw
from tests.sending import attempt
from tests.shop.models import Order

# The receiver is a real server; it runs in this process, and its memory counts as well.
pytestmark = [ONCE, pytest.mark.signal_dispatch_network]

MIB = 1024 * 1024
LIMIT = 10
BLOCK = bytes(64 * 1024)


class Memory:
    """How much this process grew at most, in MiB, since the block was entered."""

    def __enter__(self):
        self.before = self.read("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
        return self

    def __exit__(self, *args):
        self.grown = (self.read("VmHWM") - self.before) / 1024

    @staticmethod
    def read(name):
        status = Path("/proc/self/status").read_text()
        return int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE).group(1))


def packed(packer):
    """200 MiB in a few hundred kB, made without holding them."""
    return b"".join([packer.compress(MIB * b"\0") for _ in range(200)]) + packer.flush()


@pytest.fixture(scope="module")
def bombs():
    made = {
        "gzip": packed(zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)),
        "deflate": packed(zlib.compressobj(9)),
    }
    return made | {"gzip, gzip": gzip.compress(made["gzip"])}


def body_of_200_mib(receiver):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * MIB)
    receiver.script = lambda request: Raw(itertools.chain([head], [BLOCK] * 3200))


def endless_chunks(receiver):
    receiver.script = lambda request: (200, {}, itertools.repeat(BLOCK))


def endless_redirect(receiver):
    receiver.script = lambda request: (302, {"Location": "/"}, itertools.repeat(BLOCK))


@pytest.mark.parametrize("script", [body_of_200_mib, endless_chunks, endless_redirect])
@pytest.mark.parametrize("cap", [64 * 1024, MIB])
def test_body_without_measure(receiver, sessions, script, cap):
    script(receiver)
    endpoint = Endpoint("crm", receiver.url, max_response_bytes=cap)
    with Memory() as memory:
        response = call(endpoint, sessions)
    report(f"{script.__name__}, cap {cap}", grown_mib=memory.grown, kept=len(response.content))

    assert (len(response.content), response.truncated) == (cap, True)
    assert memory.grown < LIMIT


@pytest.mark.parametrize("bomb", [False, True])
def test_challenge_without_measure(receiver, sessions, bombs, bomb):
    """An auth object reads the whole answer before it tries again."""
    challenge = {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'}
    first = (401, challenge, itertools.repeat(BLOCK))
    if bomb:
        first = (401, challenge | {"Content-Encoding": "gzip"}, bombs["gzip"])
    receiver.play(first, (200, {}, b"{}"))
    auth = HTTPDigestAuth("user", "word")
    with Memory() as memory:
        response = call(Endpoint("crm", receiver.url, auth=auth, deadline=5), sessions)
    report("challenge without measure", grown_mib=memory.grown)

    assert (response.status_code, response.content) == (200, b"{}")
    assert memory.grown < LIMIT


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
def test_bomb(receiver, sessions, bombs, encoding):
    bomb = bombs[encoding]
    receiver.reply(body=bomb, headers={"Content-Encoding": encoding})
    endpoint = Endpoint("crm", receiver.url)
    with Memory() as memory:
        response = call(endpoint, sessions)
    report(
        f"200 MiB of zeros as {encoding}",
        sent=len(bomb),
        grown_mib=memory.grown,
        kept=len(response.content),
    )

    assert len(response.content) <= endpoint.max_response_bytes
    assert response.truncated == (encoding != "gzip, gzip"), "what nobody asked for is not decoded"
    assert memory.grown < LIMIT


@pytest.mark.parametrize(
    ("what", "parts"),
    [
        ("headers", itertools.chain([b"HTTP/1.1 200 OK\r\n"], itertools.repeat(b"X: y\r\n" * 99))),
        ("a header", itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(BLOCK))),
        ("a first line", itertools.repeat(b"x" * 65536)),
        (
            "the length of a chunk",
            itertools.chain(
                [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;"],
                itertools.repeat(BLOCK),
            ),
        ),
    ],
)
def test_lines_without_an_end(receiver, sessions, what, parts):
    receiver.script = lambda request: Raw(parts)
    with Memory() as memory:
        error = failure(Endpoint("crm", receiver.url), sessions)
    report(f"{what} without an end", grown_mib=memory.grown)

    assert error.error_class == "protocol"
    assert memory.grown < LIMIT


@pytest.mark.django_db
def test_what_is_stored_is_cut_and_says_so(declare, receiver, bombs):
    declare(Order)
    Order.objects.create(number="A-1")
    receiver.reply(body=bombs["gzip"], headers={"Content-Encoding": "gzip"})
    with Memory() as memory:
        attempt()
    kept = Attempt.objects.get()
    report("a bomb, to the table", grown_mib=memory.grown, kept=len(kept.response_body))

    assert Delivery.objects.get().state == "delivered"
    assert (len(kept.response_body), kept.truncated) == (64 * 1024, True)
    assert memory.grown < LIMIT
