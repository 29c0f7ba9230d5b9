"""The how-to on health: the limits, and the URL."""

import pytest
from django.test import override_settings
from django.urls import resolve

from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.limits import Limits
from signal_dispatch.status import COUNTED
from tests.deliveries import delivery
from tests.howto.pages import DOCS, Page
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE
from tests.shop.models import Order
from tests.test_heartbeats import worker_process

pytestmark = [ONCE, pytest.mark.django_db(databases=["default", "other"])]

NAME = "how-to/watch-with-a-monitor"
PAGE = Page(NAME)
INCLUDED = PAGE.block("include(")
LIMITED = PAGE.block("Limits(")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []
    assert [(name, o.json) for name, o in commands(NAME)] == [
        ("dispatch_status", False),
        ("dispatch_status", True),
    ]


class Urls:
    """A URLconf made of a block."""

    def __init__(self, block):
        self.urlpatterns = run(block)["urlpatterns"]


def test_the_url_tells_how_it_stands(client):
    with override_settings(ROOT_URLCONF=Urls(INCLUDED)):
        answer = client.get("/dispatch/health/")

    assert answer.status_code == 200
    text = (DOCS / f"{NAME}.md").read_text()
    told = {"healthy", *answer.json()["databases"]["default"]}
    assert [name for name in told if f"`{name}`" not in text] == []


def test_other_limits_are_the_views_argument(client):
    alive = worker_process()
    alive.save(using="other", force_insert=True)
    with override_settings(ROOT_URLCONF=Urls(LIMITED)):
        assert resolve("/health/calls/").kwargs["limits"] == Limits(max_age=60, need_worker=True)
        assert client.get("/health/calls/").status_code == 200


def test_what_is_due_for_too_long_is_unhealthy(client, declare):
    declare(Order)
    delivery(available_at=DatabaseNow(-Limits().max_age - 60))
    with override_settings(ROOT_URLCONF=Urls(INCLUDED)):
        assert client.get("/dispatch/health/").status_code == 503


def test_limits_are_those_of_the_page():
    assert Limits() == Limits(max_age=300, max_failed=0, need_worker=False, max_pause=86400)
    assert COUNTED == 10_000
