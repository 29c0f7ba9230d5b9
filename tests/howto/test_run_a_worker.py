"""The how-to on workers."""

import signal
from configparser import ConfigParser
from io import StringIO

import pytest
import yaml
from django.core.management import call_command

from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.heartbeats import BEAT_SECONDS, DEAD_SECONDS, FORGET_SECONDS
from signal_dispatch.management.commands.dispatch_worker import DRAIN_SECONDS
from signal_dispatch.management.stopping import until_told
from signal_dispatch.models import Delivery
from tests.howto.pages import Page
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE
from tests.shop.models import Order
from tests.test_heartbeats import worker_process

pytestmark = ONCE

NAME = "how-to/run-a-worker"
PAGE = Page(NAME)
DEFERRED = PAGE.block("DeferredBackend")


def unit(containing):
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str
    parser.read_string(Page(NAME, "ini").block(containing))
    return parser["Service"]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


def test_commands_of_the_page_take_their_options():
    shown = commands(NAME)

    assert [name for name, _options in shown] == [
        "dispatch_worker",  # in the first sentence
        "dispatch_worker",
        "dispatch_worker",
        "dispatch_worker",
        "dispatch_worker",
        "dispatch_worker",
        "dispatch_worker",
        "dispatch_prune",
        "dispatch_status",
    ]
    (per_endpoint,) = [o for _name, o in shown if getattr(o, "concurrency", 16) != 16]
    assert (per_endpoint.endpoint, per_endpoint.concurrency) == (["crm"], 4)
    assert [o.verbosity for _name, o in shown if getattr(o, "once", False)] == [0]


def test_whoever_stops_the_worker_waits_for_its_calls():
    compose = yaml.safe_load(Page(NAME, "yaml").block("dispatch_worker"))
    grace = compose["services"]["dispatch"]["stop_grace_period"]

    assert int(unit("Restart")["TimeoutStopSec"]) > DRAIN_SECONDS
    assert int(grace.removesuffix("s")) > DRAIN_SECONDS


def test_the_image_runs_the_worker_without_a_shell():
    lines = Page(NAME, "dockerfile").block("FROM").splitlines()

    assert lines[-1] == 'CMD ["python", "manage.py", "dispatch_worker"]'


def test_the_numbers_of_the_page_are_those_of_the_code():
    assert (BEAT_SECONDS, DEAD_SECONDS, FORGET_SECONDS, DRAIN_SECONDS) == (10, 60, 3600, 20)


def test_the_second_signal_is_left_to_python():
    with until_told() as told:
        signal.raise_signal(signal.SIGTERM)
        assert told == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.django_db(transaction=True)
def test_with_the_backend_of_the_page_workers_alone_send(
    declare, receiver, settings, as_in_production
):
    declare(Order)
    settings.SIGNAL_DISPATCH_BACKENDS = run(DEFERRED)["SIGNAL_DISPATCH_BACKENDS"]
    Order.objects.create(number="A-1")
    made = Delivery.objects.get()
    assert (made.state, made.held_by) == ("pending", "")
    assert not receiver.requests

    out = StringIO()
    call_command("dispatch_worker", once=True, stdout=out)

    assert out.getvalue().splitlines() == [
        "Sending for crm.",
        "Delivered 1, failed 0. Nothing is left.",
        "Stopped.",
    ]
    made.refresh_from_db()
    assert made.state == "delivered"
    assert len(receiver.requests) == 1


@pytest.mark.django_db(transaction=True)
def test_once_ends_well_where_calls_fail(declare, receiver, settings, as_in_production):
    declare(Order)
    settings.SIGNAL_DISPATCH_BACKENDS = run(DEFERRED)["SIGNAL_DISPATCH_BACKENDS"]
    receiver.reply(400)
    Order.objects.create(number="A-1")

    out = StringIO()
    call_command("dispatch_worker", once=True, stdout=out)

    assert "Delivered 0, failed 1." in out.getvalue()


@pytest.mark.django_db
def test_status_misses_a_worker_that_is_dead():
    def status():
        out = StringIO()
        try:
            call_command("dispatch_status", need_worker=True, database=["default"], stdout=out)
        except SystemExit as ended:
            return ended.code, out.getvalue()
        return 0, out.getvalue()

    worker_process(name="web:7:dead", seen_at=DatabaseNow(-DEAD_SECONDS - 10))
    code, text = status()
    assert code == 1
    assert "dead" in text

    worker_process()
    code, text = status()
    assert code == 0, "one of two is enough"
    assert "dead" in text
