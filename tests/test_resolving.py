import os
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from signal_dispatch import resolving
from tests.once import ONCE
from tests.waiting import eventually

pytestmark = ONCE

REAL = socket.getaddrinfo


class Names:
    """A resolver that answers when it is told to, and counts what it is asked."""

    def __init__(self):
        self.asked = []
        self.answer = threading.Event()
        self.result = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 443))]

    def __call__(self, host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002 - socket's own
        if flags & socket.AI_NUMERICHOST:
            return REAL(host, port, family, type, proto, flags)
        self.asked.append(host)
        self.answer.wait(10)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def names(monkeypatch):
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.answer.set()
    eventually(lambda: not resolvers())


def resolvers():
    return [t for t in threading.enumerate() if t.name == "signal_dispatch-resolver"]


@contextmanager
def took_less_than(seconds):
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.0.0.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1"),
    ],
)
def test_addresses_in_any_spelling_are_read_without_a_thread(names, host, address):
    found = resolving.resolve(host, 80, 0.001)

    assert [sockaddr[:2] for _, sockaddr in found] == [(address, 80)]
    assert resolving.literal(host, 80) == found
    assert names.asked == []


def test_names_are_no_literals():
    for host in (
        "crm.example.com",
        "localhost",
        "127.0.0.1.example",
        "a" * 64,
        "a..b",
        "1.2.3.4.5",
    ):
        assert resolving.literal(host, 80) == []


def test_names_are_resolved_in_the_order_of_the_system(names):
    second = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::7", 443, 0, 0))
    names.result.append(second)
    names.answer.set()

    assert resolving.resolve("crm.example.com", 443, 5) == [
        (socket.AF_INET, ("192.0.2.7", 443)),
        (socket.AF_INET6, ("2001:db8::7", 443, 0, 0)),
    ]


def test_look_up_that_hangs_is_waited_for_no_longer_than_there_is_time(names):
    with took_less_than(1), pytest.raises(socket.gaierror, match=r"no answer within 0\.1 s"):
        resolving.resolve("crm.example.com", 443, 0.1)


def test_there_may_be_all_the_time_in_the_world(names):
    names.answer.set()

    assert len(resolving.resolve("crm.example.com", 443, float("inf"))) == 1


def test_one_look_up_of_a_name_serves_all_who_wait(names, monkeypatch):
    found, waiting, wait = [], [], resolving._LookUp.wait

    def counted(look_up, seconds):
        waiting.append(look_up)
        return wait(look_up, seconds)

    monkeypatch.setattr(resolving._LookUp, "wait", counted)

    def ask():
        found.append(resolving.resolve("crm.example.com", 443, 10))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(waiting) == 5)
    names.answer.set()
    for thread in threads:
        thread.join(10)

    assert found == [[(socket.AF_INET, ("192.0.2.7", 443))]] * 5
    assert names.asked == ["crm.example.com"]


def test_two_who_ask_at_the_same_moment_share_a_look_up_too(names, monkeypatch):
    class Unseen(dict):
        """Shows nobody what is in it, as if it had come in between."""

        def get(self, key):
            return None

    monkeypatch.setattr(resolving, "_under_way", Unseen())
    first = resolving._look_up("crm.example.com", 443)

    assert resolving._look_up("crm.example.com", 443) is first
    names.answer.set()
    assert first.wait(10)
    assert names.asked == ["crm.example.com"]


def test_what_was_looked_up_is_not_kept(names):
    names.answer.set()
    resolving.resolve("crm.example.com", 443, 10)
    resolving.resolve("crm.example.com", 443, 10)

    assert len(names.asked) == 2


def test_failure_is_told_in_the_resolvers_own_words(names):
    names.result = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    names.answer.set()

    with pytest.raises(socket.gaierror, match="Name or service not known"):
        resolving.resolve("crm.example.com", 443, 10)


def test_whatever_else_the_resolver_raises_is_a_failure_too(names):
    names.result = SystemError("broken")
    names.answer.set()

    with pytest.raises(socket.gaierror, match="SystemError"):
        resolving.resolve("crm.example.com", 443, 10)


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "crm..example"])
def test_name_that_can_be_none_is_told_at_once(names, host):
    with pytest.raises(socket.gaierror, match="no such name can exist"):
        resolving.resolve(host, 443, 10)
    assert names.asked == []


def test_look_ups_that_hang_are_bounded_in_number(names, monkeypatch):
    monkeypatch.setattr(resolving, "MOST_UNDER_WAY", 3)
    for number in range(3):
        with pytest.raises(socket.gaierror):
            resolving.resolve(f"crm{number}.example.com", 443, 0.01)

    with took_less_than(1), pytest.raises(socket.gaierror, match="3 other look-ups"):
        resolving.resolve("erp.example.com", 443, 10)
    assert len(resolvers()) == 3
    with pytest.raises(socket.gaierror, match="no answer"):  # one of those, and still shared
        resolving.resolve("crm1.example.com", 443, 0.01)

    names.answer.set()
    eventually(lambda: not resolvers())
    assert resolving.resolve("erp.example.com", 443, 10)


def test_look_ups_of_a_parent_process_are_not_waited_for(names, monkeypatch):
    monkeypatch.setattr(resolving, "MOST_UNDER_WAY", 1)
    with pytest.raises(socket.gaierror):
        resolving.resolve("crm.example.com", 443, 0.01)

    monkeypatch.setattr(os, "getpid", lambda: -1)
    names.answer.set()

    assert resolving.resolve("crm.example.com", 443, 10)
    assert len(names.asked) == 2


def test_without_a_thread_the_name_is_looked_up_in_this_one(names, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    names.answer.set()

    assert resolving.resolve("crm.example.com", 443, 10)
