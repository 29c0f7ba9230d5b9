"""When people are told: once an incident, whoever notices it, and however often."""

import itertools
from collections import Counter
from datetime import timedelta
from math import inf

import pytest
from django.db import OperationalError
from django.db.models import F

from signal_dispatch import bars, bounds, counting, gates, incidents
from signal_dispatch.alarms import AlarmKind
from signal_dispatch.backends import backends
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.gates import Gatekeeper
from signal_dispatch.hand import Hand
from signal_dispatch.health import CALM_SECONDS
from signal_dispatch.models import Delivery, EndpointMinute, EndpointState
from signal_dispatch.signals import alarm_raised
from tests import catalogues
from tests.deliveries import delivery
from tests.shop.models import Order
from tests.waiting import eventually

BEGINS, OPENED = AlarmKind.ENDPOINT_FAILING, AlarmKind.BREAKER_OPENED
RECOVERED, FAILED = AlarmKind.ENDPOINT_RECOVERED, AlarmKind.DELIVERY_FAILED


@pytest.fixture
def heard():
    """Return the alarms, as they come."""
    found = []

    def note(alarm, **kwargs):
        found.append(alarm)

    alarm_raised.connect(note)
    yield found
    alarm_raised.disconnect(note)


def kinds(heard):
    return [alarm.kind for alarm in heard]


@pytest.fixture
def crm(settings):
    """Set the breaker of ``crm``."""

    def crm(breaker=None):
        settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://crm/", "BREAKER": breaker}}

    crm()
    return crm


def count(attempts, failed):
    counts = {"breaker_attempts": attempts, "breaker_failed": failed}
    counting.add("default", "crm", counts)


def judge(*, known=False):
    return incidents.judge("default", "crm", known=known, apart=False)


def end():
    return incidents.end_if_well("default", "crm", apart=False)


def let_minutes_pass(minutes=3):
    EndpointMinute.objects.update(minute=F("minute") - timedelta(minutes=minutes))


# An endpoint.


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("attempts", "failed", "begins"), [(2, 2, False), (7, 3, False), (6, 3, True)]
)
def test_an_incident_begins_at_three_failures_that_are_half_of_all(
    crm, heard, attempts, failed, begins
):
    count(attempts, failed)

    assert judge().fails == begins
    assert kinds(heard) == [BEGINS] * begins


@pytest.mark.django_db
def test_it_is_told_once_however_many_processes_notice_it(crm, heard):
    count(4, 4)
    assert judge().fails
    count(40, 40)
    assert judge().fails
    assert judge(known=True).fails

    (alarm,) = heard
    assert (alarm.endpoint, alarm.environment, alarm.using) == ("crm", "", "default")
    assert alarm.text == "The endpoint 'crm' fails: 4 of its last 4 attempts did."
    assert bars.standing("default").failing == {"crm"}
    assert bars.standing("default").barred == {}


@pytest.mark.django_db
def test_what_failed_a_while_ago_begins_none(crm, heard):
    count(3, 3)
    let_minutes_pass()
    count(1, 1)

    assert not judge().fails
    assert heard == []


@pytest.mark.django_db
def test_known_and_without_a_breaker_it_costs_no_statement(crm, django_assert_num_queries):
    with django_assert_num_queries(0):
        judge(known=True)


@pytest.mark.django_db
def test_a_breaker_that_opens_is_the_only_alarm_and_is_told_once_an_incident(crm, heard):
    crm({"attempts": 4})
    count(4, 4)
    assert judge().opens
    assert kinds(heard) == [OPENED]
    assert "4 of the last 4 attempts failed. After 30 s one call" in heard[0].text
    bars.close_breaker("default", "crm")
    count(4, 4)

    assert judge(known=True).opens
    assert kinds(heard) == [OPENED]


@pytest.mark.django_db
def test_a_breaker_that_opens_later_is_told_too(crm, heard):
    crm({"attempts": 10})
    count(4, 4)
    judge()
    began = EndpointState.objects.get().failing_since
    count(6, 6)
    judge(known=True)

    assert kinds(heard) == [BEGINS, OPENED]
    assert EndpointState.objects.get().failing_since == began


@pytest.mark.django_db
def test_it_ends_once_when_all_has_been_well_for_a_while(crm, heard):
    count(4, 4)
    judge()
    assert not end()
    let_minutes_pass()
    count(20, 2)
    assert end()
    assert end(), "another process noticed it"
    assert kinds(heard) == [BEGINS, RECOVERED]
    count(20, 20)
    judge()

    assert kinds(heard) == [BEGINS, RECOVERED, BEGINS]


@pytest.mark.django_db
def test_one_that_stands_in_between_neither_ends_nor_begins_again(crm, heard):
    count(4, 4)
    judge()
    let_minutes_pass()
    count(100, 30)

    assert not end()
    judge()
    assert kinds(heard) == [BEGINS]


@pytest.mark.django_db
def test_an_incident_belongs_to_its_environment(crm, heard, settings):
    count(4, 4)
    judge()
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"

    assert bars.standing("default").failing == frozenset()
    assert end()
    assert kinds(heard) == [BEGINS]


# A failed delivery.


def failed(endpoint="crm", **values):
    return delivery(endpoint=endpoint, state="failed", available_at=None, **values)


def tell(*deliveries):
    incidents.tell_failed(deliveries, "default", apart=False)


@pytest.mark.django_db
def test_of_failed_deliveries_each_endpoint_s_first_is_told_and_the_next_after_an_hour(
    heard, caplog
):
    first = failed(reason="The remote answered 400.")
    tell(first, failed(), failed("slack"), delivery())
    assert caplog.messages[-1] == (
        f"Alarm: Delivery {first} is failed for good. The remote answered 400. When its cause is "
        "cured, 'manage.py dispatch_retry' lets it go out again."
    )
    tell(failed())
    assert [(alarm.kind, alarm.endpoint) for alarm in heard] == [(FAILED, "slack"), (FAILED, "crm")]
    assert heard[1].delivery == first
    assert heard[1].text == f"Delivery {first} is failed for good. The remote answered 400."
    EndpointState.objects.update(failure_told_at=DatabaseNow(-3601))
    tell(failed())

    assert len(heard) == 3


@pytest.mark.django_db
def test_what_can_t_be_asked_is_told(heard, monkeypatch):
    def gone(*arguments):
        raise OperationalError("gone")

    monkeypatch.setattr(bars, "write", gone)
    tell(failed())

    assert kinds(heard) == [FAILED]


@pytest.mark.django_db
def test_a_process_asks_once_a_minute(django_assert_num_queries):
    incidents.forget()
    incidents.tell_failed([failed()], "default", apart=True)
    some = [failed() for _ in range(3)]
    with django_assert_num_queries(0):
        for each in some:
            incidents.tell_failed([each], "default", apart=True)
    incidents.forget()


@pytest.mark.django_db
def test_a_test_hears_of_its_failed_delivery(declare, deliveries, mock_endpoint, heard):
    declare(Order)
    mock_endpoint("crm").reply(400)
    Order.objects.create(number="A-1")
    deliveries.send()

    assert kinds(heard) == [FAILED]


# Over the whole way.


def test_while_calls_are_made_the_outbox_is_asked_once_a_minute(monkeypatch):
    now, asked = [1000.0], []
    monkeypatch.setattr(gates, "monotonic", lambda: now[0])
    gatekeeper = Gatekeeper(Hand(10, 1000, watching=True))
    monkeypatch.setattr(gatekeeper, "ask", asked.append)
    for seconds in (0, 59, 1):
        now[0] += seconds
        gatekeeper.look_again("default")

    assert asked == ["default"]


@pytest.fixture
def site(settings, receiver, declare, as_in_production, transactional_db):
    """Send in threads, or in the thread that commits."""
    declare(Order, ordered=False)

    def site(backend="threads.ThreadsBackend", **keys):
        crm = {"URL": receiver.url, "BREAKER": None, "RETRY": {"delays": [0, 600]}} | keys
        settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": crm}
        settings.SIGNAL_DISPATCH_BACKENDS = {
            "default": {"BACKEND": f"signal_dispatch.backends.{backend}"}
        }

    return site


NUMBERS = itertools.count()
IMMEDIATE = "immediate.ImmediateBackend"


def save(number):
    for _ in range(number):
        Order.objects.create(number=f"A-{next(NUMBERS)}")


def looks_at_once(monkeypatch):
    """Let it be looked whether an incident is over as soon as a call succeeds; list the answers."""
    look, looks = incidents.end_if_well, []

    def noted(*place, **options):
        looks.append(look(*place, **options))
        return looks[-1]

    monkeypatch.setattr("signal_dispatch.health.CALM_SECONDS", 0.0)
    monkeypatch.setattr(incidents, "end_if_well", noted)
    return looks


def test_threads_tell_of_the_beginning_and_the_end(site, receiver, heard, monkeypatch):
    assert CALM_SECONDS > 60, "else the failures before it count"
    site()
    receiver.reply(503)
    save(10)
    eventually(lambda: kinds(heard) == [BEGINS])
    eventually(lambda: Delivery.objects.filter(attempts=1, held_by="").count() == 10)
    receiver.reply(200)
    looks = looks_at_once(monkeypatch)
    save(1)
    eventually(lambda: looks)
    backends["default"].drain(10)
    assert not any(looks), "too many failed just now"
    let_minutes_pass()
    save(1)
    eventually(lambda: kinds(heard) == [BEGINS, RECOVERED])
    save(1)
    backends["default"].drain(10)

    assert looks[-1]
    assert kinds(heard) == [BEGINS, RECOVERED]
    assert not EndpointState.objects.filter(failing_since__isnull=False).exists()
    receiver.reply(503)
    save(40)
    # Some of the ten that came forward may be given up meanwhile, which is told apart.
    eventually(lambda: [k for k in kinds(heard) if k != FAILED] == [BEGINS, RECOVERED, BEGINS])


def test_an_incident_that_another_process_told_is_ended_by_this_one(site, heard, monkeypatch):
    site()
    looks_at_once(monkeypatch)
    monkeypatch.setattr("signal_dispatch.gates.LOOK_SECONDS", 0.0)
    # No call waits so long that the outbox is asked whether it may be made.
    monkeypatch.setattr(Gatekeeper, "next_at", lambda gatekeeper: inf)
    monkeypatch.setattr(Gatekeeper, "refresh", lambda gatekeeper: None)
    EndpointState.objects.create(endpoint="crm", failing_since=DatabaseNow(-300))
    # The first success comes before the outbox was asked how endpoints stand.
    eventually(lambda: save(1) or kinds(heard) == [RECOVERED])
    backends["default"].drain(10)

    assert kinds(heard) == [RECOVERED]


def test_threads_tell_of_a_breaker_and_a_failed_delivery(site, receiver, heard):
    site(BREAKER={"attempts": 2})
    receiver.reply(503)
    save(2)
    eventually(lambda: kinds(heard) == [OPENED])
    EndpointState.objects.update(open_until=None)
    backends.forget()
    site(RETRY={"delays": [0]})
    receiver.reply(400)
    save(5)
    eventually(lambda: Delivery.objects.filter(state="failed").count() == 5)

    eventually(lambda: kinds(heard) == [OPENED, FAILED])


def test_the_thread_that_commits_tells_too(site, receiver, heard):
    site(IMMEDIATE)
    bounds._ailing.clear()
    receiver.reply(503)
    save(5)
    assert kinds(heard) == [BEGINS]
    receiver.reply(200)
    save(1)
    assert kinds(heard) == [BEGINS], "not calm yet"
    let_minutes_pass()
    save(2)

    assert kinds(heard) == [BEGINS, RECOVERED]


def test_what_can_t_be_built_is_told_after_the_commit(site, heard, declare):
    site(IMMEDIATE)

    class Broken:
        def get_payload(self, instance, change):
            raise ZeroDivisionError

    declare(Order, name="shop.Broken", get_payload=Broken.get_payload)
    save(2)

    eventually(lambda: kinds(heard) == [FAILED])
    assert "ZeroDivisionError" in heard[0].text


@pytest.mark.parametrize("backend", ["threads.ThreadsBackend", IMMEDIATE])
def test_a_receiver_that_raises_hurts_nothing(site, receiver, backend):
    def broken(alarm, **kwargs):
        raise ZeroDivisionError

    alarm_raised.connect(broken)
    try:
        site(backend)
        receiver.reply(400)
        save(3)
        eventually(lambda: Delivery.objects.filter(state="failed").count() == 3)
    finally:
        alarm_raised.disconnect(broken)
    assert Counter(Delivery.objects.values_list("attempts", "held_by")) == {(1, ""): 3}
    assert not Delivery.objects.filter(epoch__gt=F("attempts")).exists()


GERMAN = {
    "an endpoint begins to fail": "ein Endpunkt versagt",
    "The endpoint %(endpoint)r fails: %(failed)d of its last %(attempts)d attempts did.": (
        "Endpunkt %(endpoint)r: %(failed)d von %(attempts)d misslangen."
    ),
    "The endpoint %(endpoint)r is paused by its breaker: %(failed)d of the last "
    "%(attempts)d attempts failed. After %(pause)s s one call at a time tries whether it "
    "is well again.": "Endpunkt %(endpoint)r ruht %(pause)s s.",
    "The endpoint %r is well again.": "Endpunkt %r ist gesund.",
    "Delivery %(delivery)s is failed for good. %(reason)s": "Gescheitert: %(reason)s",
}


@pytest.mark.django_db
def test_alarms_are_told_in_the_language_of_the_site(crm, heard, settings, tmp_path):
    settings.LANGUAGE_CODE = "de"
    settings.LOCALE_PATHS = [catalogues.write(tmp_path, "de", GERMAN)]
    crm({"attempts": 10})
    count(4, 4)
    judge()
    count(6, 6)
    judge(known=True)
    let_minutes_pass()
    end()
    tell(failed(reason="It answered 400."))

    assert [alarm.text for alarm in heard] == [
        "Endpunkt 'crm': 4 von 4 misslangen.",
        "Endpunkt 'crm' ruht 30 s.",
        "Endpunkt 'crm' ist gesund.",
        # What a delivery keeps is data, and stays as it was written.
        "Gescheitert: It answered 400.",
    ]
    assert heard[0].kind.label == "ein Endpunkt versagt"
