"""The how-to on limits of an endpoint: they are what the page says, and can be set as it shows."""

import re

import pytest

from signal_dispatch.breakers import Breaker
from signal_dispatch.conf import settings as ours
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import Endpoint
from signal_dispatch.models import EndpointState
from signal_dispatch.recovering import SPREAD_SECONDS
from signal_dispatch.retries import DEFAULT_DELAYS, RetryPolicy
from tests.howto.pages import DOCS, Page
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE

pytestmark = [ONCE, pytest.mark.django_db]

NAME = "how-to/be-polite-to-the-remote"
PAGE = Page(NAME)
LIMITS = PAGE.block("MAX_CONCURRENCY")
STORAGE = PAGE.block("RATE_STORAGE")
PAUSE = PAGE.block("pausing")
POLICIES = PAGE.block("RetryPolicy")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []
    assert [(name, o.resume) for name, o in commands(NAME)] == [
        ("dispatch_pause", False),
        ("dispatch_pause", True),
    ]


def test_limits_are_read_as_the_page_writes_them(settings, faults):
    settings.SIGNAL_DISPATCH_ENDPOINTS = run(LIMITS)["SIGNAL_DISPATCH_ENDPOINTS"]
    crm = endpoints.find("crm")

    assert (crm.max_concurrency, crm.rate) == (2, (10, 1.0))
    assert crm.breaker == Breaker(attempts=20, share=0.5, window=600, pause=60)
    assert faults() == set()


def test_defaults_are_those_of_the_page():
    breaker = Breaker()

    assert Endpoint("crm").max_concurrency == 8
    assert (breaker.attempts, breaker.share) == (10, 0.7)
    assert (breaker.window, breaker.pause) == (5 * 60, 30)
    assert SPREAD_SECONDS == 30


def test_a_rate_is_shared_where_a_storage_is_named(settings, faults):
    settings.SIGNAL_DISPATCH_RATE_STORAGE = run(STORAGE)["SIGNAL_DISPATCH_RATE_STORAGE"]

    assert ours.rate_storage.startswith("redis://")
    assert faults() == set()


def test_an_endpoint_is_paused_and_resumed_in_code():
    paused, resumed = PAUSE.partition("\nresume(")[::2]
    run(paused)
    state = EndpointState.objects.barred().get()
    assert (state.endpoint, state.paused_by) == ("crm", "ann")

    run(f"from signal_dispatch.pausing import resume\nresume({resumed}")
    assert not EndpointState.objects.barred().exists()


def test_policies_are_what_the_page_says():
    names = run(POLICIES)

    assert names["short"].attempts == 4
    assert names["steady"].delays == (0, 5, 15, 45, 135, 405, 1215, 3600)


def test_the_table_shows_the_schedule():
    (row,) = re.findall(
        r"^\| waits before \| (.+) \|$", (DOCS / f"{NAME}.md").read_text(), re.MULTILINE
    )
    units = {"s": 1, "min": 60, "h": 3600}
    first, *waits = row.split(" | ")
    told = [float(wait.split()[0]) * units[wait.split()[1]] for wait in waits]

    assert (0, *told) == DEFAULT_DELAYS
    assert first == "–"  # noqa: RUF001 - the page writes a dash
    assert RetryPolicy().jitter == 0.1
