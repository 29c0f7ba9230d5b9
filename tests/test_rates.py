"""How many calls are admitted, by one process and by several."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from signal_dispatch import rates as rates_module
from signal_dispatch import shared_rates
from signal_dispatch.exceptions import InvalidSettings
from signal_dispatch.rates import Rates
from tests.once import ONCE
from tests.redis_server import redis_url

pytestmark = ONCE


@pytest.fixture(autouse=True)
def endpoints(settings):
    """Let ``crm`` have a rate of ten a second, others other ones."""
    rates = {"crm": "10/s", "free": None, "slow": "3/m", "mass": "50/m", "both": "30/m"}
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        alias: {"URL": "https://api.example.com", "RATE": rate} for alias, rate in rates.items()
    }


@pytest.fixture
def clock(monkeypatch):
    """Let the test say what time it is: ``clock[0]``."""
    now = [100.0]
    monkeypatch.setattr(rates_module, "monotonic", lambda: now[0])
    return now


def admitted(rates, alias="crm", calls=1):
    return [rates.seconds_to_wait(alias) for _ in range(calls)].count(0.0)


def test_an_endpoint_without_a_rate_is_never_held_up():
    assert admitted(Rates(), "free", 1000) == 1000


def test_in_no_window_more_are_admitted_than_the_rate(clock):
    rates = Rates()
    assert admitted(rates, calls=6) == 6
    clock[0] += 0.5
    assert admitted(rates, calls=6) == 4
    assert rates.seconds_to_wait("crm") == pytest.approx(0.5)
    clock[0] += 0.5
    assert admitted(rates, calls=20) == 6, "those of half a second ago still count"
    clock[0] += 0.5
    assert admitted(rates, calls=20) == 4


def test_endpoints_do_not_share_their_rates():
    rates = Rates()
    assert admitted(rates, calls=20) == 10

    assert admitted(rates, "slow", 20) == 3


def test_threads_share_a_rate():
    rates, together, counts = Rates(), threading.Barrier(4), []

    def ask():
        together.wait(10)
        counts.append(admitted(rates, "mass", 40))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert sum(counts) == 50


def test_a_child_process_begins_anew(monkeypatch):
    rates = Rates()
    admitted(rates, calls=10)
    rates._lock.acquire()  # as a thread held it that the fork left behind
    monkeypatch.setattr(os, "getpid", lambda: 1)

    assert admitted(rates, calls=20) == 10


def test_what_settings_say_anew_counts_anew(settings):
    rates = rates_module.rates
    admitted(rates, calls=10)
    settings.SIGNAL_DISPATCH_RATE_STORAGE = ""
    assert admitted(rates, calls=20) == 10
    settings.DEBUG = True

    assert admitted(rates, calls=20) == 0


# Shared by a storage.


@pytest.fixture
def storage(settings):
    """Share rates in Redis; what earlier runs left there is this run's no more."""
    with redis_url() as url:
        settings.SIGNAL_DISPATCH_RATE_STORAGE = url
        settings.SIGNAL_DISPATCH_ENVIRONMENT = f"test-{os.getpid()}-{time.time()}"
        yield url


def test_processes_share_a_rate_through_the_storage(storage, settings):
    code = (
        "import sys; from django.conf import settings as s;"
        "from signal_dispatch.rates import Rates;"
        "s.configure(SIGNAL_DISPATCH_RATE_STORAGE=sys.argv[1],"
        " SIGNAL_DISPATCH_ENVIRONMENT=sys.argv[2],"
        " SIGNAL_DISPATCH_ENDPOINTS={'both': {'URL': 'https://a.example', 'RATE': '30/m'}});"
        "r = Rates(); print([r.seconds_to_wait('both') for _ in range(25)].count(0.0))"
    )
    arguments = [storage, settings.SIGNAL_DISPATCH_ENVIRONMENT]
    running = [
        subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    counts = [int(process.communicate(timeout=60)[0]) for process in running]

    assert sum(counts) == 30
    assert 50 < Rates().seconds_to_wait("both") <= 60


def test_environments_do_not_share_a_rate(storage, settings):
    assert admitted(Rates(), calls=20) == 10
    settings.SIGNAL_DISPATCH_ENVIRONMENT += "-staging"

    assert admitted(Rates(), calls=20) == 10


def test_while_the_storage_is_away_nothing_is_admitted_and_that_is_told_once(
    settings, caplog, monkeypatch
):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        settings.SIGNAL_DISPATCH_RATE_STORAGE = f"redis://:s3cret@127.0.0.1:{port}/0"
        rates = Rates()
        waits = [rates.seconds_to_wait("crm") for _ in range(3)]

    assert waits == [shared_rates.OUTAGE_SECONDS] * 3
    assert [record.action for record in caplog.records] == ["rates_unavailable"]
    assert "s3cret" not in caplog.text


def test_once_the_storage_is_back_calls_go_on(storage, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    rates = Rates()
    with monkeypatch.context() as patch:
        patch.setattr(shared_rates, "limiter_for", refuse)
        assert rates.seconds_to_wait("crm") == shared_rates.OUTAGE_SECONDS

    assert rates.seconds_to_wait("crm") == 0
    assert [r.action for r in caplog.records] == ["rates_unavailable", "rates_available"]


def refuse(uri):
    raise InvalidSettings("no such storage")


@pytest.mark.parametrize("uri", ["nonsense", "carrier-pigeon://:s3cret@roof", "memcached://a:1"])
def test_a_storage_that_can_not_do_it_is_refused_without_its_address(uri):
    with pytest.raises(InvalidSettings, match="SIGNAL_DISPATCH_RATE_STORAGE") as refused:
        shared_rates.limiter_for(uri)

    assert "s3cret" not in str(refused.value)
