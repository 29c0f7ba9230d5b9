"""Who may not be called, by what the outbox says: breakers, probes and pauses."""

import logging
import threading
from contextlib import contextmanager
from math import inf

import pytest
from django.db import connections, transaction

from signal_dispatch import bars, counting, pausing, probing, signals
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.endpoint_states import EndpointStateQuerySet
from signal_dispatch.exceptions import UnknownEndpoint
from signal_dispatch.models import Delivery, EndpointMinute, EndpointState
from signal_dispatch.scopes import Kind, Scope
from tests.deliveries import MINE, delivery, seconds_until

BREAKER = Breaker()
SCOPE = Scope("", frozenset({"crm", "hubspot"}), frozenset({("shop.Told", "shop.order")}))
KINDS = [Kind("crm", retried=True), Kind("crm", retried=False)]


def open_breaker(endpoint="crm", pause=30.0):
    breaker = Breaker(pause=pause)
    bars.open_breaker("default", endpoint, breaker, attempts=10, failed=9)


def state(endpoint="crm"):
    return EndpointState.objects.get(endpoint=endpoint)


def let_the_pause_pass(endpoint="crm"):
    EndpointState.objects.filter(endpoint=endpoint).update(open_until=DatabaseNow(-0.01))


@contextmanager
def told(signal):
    heard = []

    def note(**kwargs):
        heard.append({k: v for k, v in kwargs.items() if k not in ("signal", "sender")})

    signal.connect(note)
    try:
        yield heard
    finally:
        signal.disconnect(note)


# The breaker.


@pytest.mark.django_db
def test_nobody_is_barred_at_first():
    assert bars.standing("default").barred == {}


@pytest.mark.django_db
def test_an_open_breaker_bars_its_endpoint_for_the_pause(settings):
    open_breaker()
    assert bars.standing("default").barred == {"crm": pytest.approx(30, abs=2)}
    let_the_pause_pass()
    assert bars.standing("default").barred["crm"] < 0
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"

    assert bars.standing("default").barred == {}


@pytest.mark.django_db
def test_opening_is_told_once_however_many_processes_find_it_due(caplog):
    with told(signals.breaker_opened) as heard:
        open_breaker()
        open_breaker()

    assert heard == [{"endpoint": "crm", "using": "default", "attempts": 10, "failed": 9}]
    (record,) = caplog.records
    assert (record.levelno, record.action, record.endpoint) == (
        logging.WARNING,
        "breaker_opened",
        "crm",
    )
    assert "9 of the last 10 attempts at the endpoint 'crm' failed" in record.getMessage()


@pytest.mark.django_db
def test_a_second_opening_leaves_the_time_of_the_first():
    open_breaker(pause=30)
    open_breaker(pause=900)

    assert seconds_until(state().open_until) < 31


@pytest.mark.django_db
def test_whoever_is_second_to_write_the_first_state_finds_it_open(monkeypatch):
    exists, open_breaker_too = EndpointStateQuerySet.exists, []

    def nothing_there_yet(rows):
        if not open_breaker_too:
            open_breaker_too.append(True)
            open_breaker()
            return False
        return exists(rows)

    monkeypatch.setattr(EndpointStateQuerySet, "exists", nothing_there_yet)
    with told(signals.breaker_opened) as heard:
        open_breaker()

    assert len(heard) == 1
    assert EndpointState.objects.count() == 1


@pytest.mark.django_db
def test_closing_begins_to_count_anew_and_is_told_once(caplog):
    caplog.set_level(logging.INFO)
    open_breaker()
    counting.add("default", "crm", {"attempts": 9, "breaker_attempts": 9, "breaker_failed": 9})
    counting.add("default", "hubspot", {"breaker_attempts": 1})
    caplog.clear()
    with told(signals.breaker_closed) as heard:
        bars.close_breaker("default", "crm")
        bars.close_breaker("default", "crm")

    assert bars.standing("default").barred == {}
    assert heard == [{"endpoint": "crm", "using": "default"}]
    assert [record.action for record in caplog.records] == ["breaker_closed"]
    assert counting.judged("default", "crm", 300) == (0, 0)
    assert counting.judged("default", "hubspot", 300) == (1, 0)
    assert sum(EndpointMinute.objects.values_list("attempts", flat=True)) == 9, "people still see"


@pytest.mark.django_db
def test_environments_open_close_and_count_each_for_itself(settings):
    open_breaker()
    counting.add("default", "crm", {"breaker_attempts": 9, "breaker_failed": 9})
    let_the_pause_pass()
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    assert not bars.begin_probe("default", "crm", 30)
    assert not bars.resume("default", "crm")
    open_breaker()
    bars.close_breaker("default", "crm")
    assert bars.standing("default").barred == {}
    settings.SIGNAL_DISPATCH_ENVIRONMENT = ""

    assert bars.standing("default").barred["crm"] < 0
    assert counting.judged("default", "crm", 300) == (9, 9)


# Probes.


@pytest.mark.django_db
def test_a_probe_may_begin_after_the_pause_and_no_other_for_another_one():
    assert not bars.begin_probe("default", "crm", 30)
    open_breaker()
    assert not bars.begin_probe("default", "crm", 30)
    let_the_pause_pass()

    assert bars.begin_probe("default", "crm", 30)
    assert not bars.begin_probe("default", "crm", 30)
    assert 25 < bars.standing("default").barred["crm"] < 31


@pytest.mark.django_db(transaction=True)
def test_of_many_that_want_to_probe_at_once_one_may():
    open_breaker()
    let_the_pause_pass()
    together, won = threading.Barrier(6), []

    def probe():
        together.wait(10)
        won.append(bars.begin_probe("default", "crm", 30))
        connections.close_all()

    threads = [threading.Thread(target=probe) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(won) == [False] * 5 + [True]


@pytest.mark.django_db
def test_a_probe_is_the_one_delivery_that_is_longest_due():
    open_breaker()
    let_the_pause_pass()
    first, retry = delivery(available_at=DatabaseNow(-5)), delivery(retried=True)
    assert probing.claim_probe("default", MINE, SCOPE, "crm", KINDS) == retry
    assert probing.claim_probe("default", MINE, SCOPE, "crm", KINDS) is None
    let_the_pause_pass()

    assert probing.claim_probe("default", MINE, SCOPE, "crm", KINDS) == first


@pytest.mark.django_db
def test_a_probe_is_one_of_its_own_endpoint_and_the_next_comes_after_the_pause():
    open_breaker()
    let_the_pause_pass()
    delivery(endpoint="hubspot", available_at=DatabaseNow(-9))
    for _ in range(3):
        delivery()
    kinds = [Kind("hubspot", retried=False), *KINDS]
    probe = probing.claim_probe("default", MINE, SCOPE, "crm", kinds)

    assert probe.endpoint == "crm"
    assert [row.pk for row in Delivery.objects.exclude(held_by="")] == [probe.pk]
    assert 25 < bars.standing("default").barred["crm"] < 31, "longer than its deadline of 15 s"


@pytest.mark.django_db
def test_whoever_finds_nothing_to_probe_with_leaves_it_to_the_next():
    open_breaker()
    let_the_pause_pass()
    assert probing.claim_probe("default", MINE, SCOPE, "crm", KINDS) is None
    made = delivery()

    assert probing.claim_probe("default", MINE, SCOPE, "crm", KINDS) == made


@pytest.mark.django_db
def test_a_probe_that_learned_nothing_opens_no_breaker_that_was_closed_meanwhile():
    open_breaker()
    bars.close_breaker("default", "crm")
    bars.give_up_probe("default", "crm")

    assert bars.standing("default").barred == {}


@pytest.mark.django_db
def test_while_a_probe_may_hang_there_is_no_other(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": "https://crm.example.com", "DEADLINE": 20, "BREAKER": {"pause": 1}}
    }
    open_breaker(pause=1)
    let_the_pause_pass()
    delivery()
    probing.claim_probe("default", MINE, SCOPE, "crm", KINDS)

    assert 15 < bars.standing("default").barred["crm"] < 21


@pytest.mark.django_db
def test_an_endpoint_that_is_not_known_here_is_not_probed():
    open_breaker("gone")
    let_the_pause_pass("gone")

    assert probing.claim_probe("default", MINE, SCOPE, "gone", KINDS) is None
    assert seconds_until(state("gone").open_until) < 0, "no probe was begun"


@pytest.mark.django_db
def test_without_a_breaker_an_open_one_bars_nobody_but_a_pause_does(settings):
    open_breaker("crm")
    assert list(bars.standing("default").barred) == ["crm"]

    entry = settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {**entry, "BREAKER": None}}
    assert bars.standing("default").barred == {}
    bars.pause("default", "crm", by="ann", reason="")
    assert bars.standing("default").barred == {"crm": inf}


# Pauses.


@pytest.mark.django_db(transaction=True)
def test_with_autocommit_off_an_endpoint_is_resumed_as_well():
    pausing.pause("crm", by="ann")
    transaction.set_autocommit(False)
    try:
        assert pausing.resume("crm", by="ann")
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)

    assert bars.standing("default").barred == {}


@pytest.mark.django_db
def test_whoever_pauses_what_is_paused_may_give_another_reason(caplog):
    caplog.set_level(logging.INFO)
    pausing.pause("crm", by="ann", reason="They move house.")
    since = state().paused_at
    with told(signals.endpoint_paused) as paused:
        assert not pausing.pause("crm", by="bob", reason="They are bankrupt.")

    assert (state().paused_by, state().pause_reason) == ("bob", "They are bankrupt.")
    assert state().paused_at == since
    assert paused == []
    assert caplog.records[-1].getMessage() == (
        "The endpoint 'crm' stays paused, says bob: They are bankrupt."
    )


@pytest.mark.django_db
def test_a_person_pauses_and_resumes_an_endpoint(caplog):
    caplog.set_level(logging.INFO)
    with told(signals.endpoint_paused) as paused, told(signals.endpoint_resumed) as resumed:
        assert pausing.pause("crm", by="ann", reason="They move house.")
        assert not pausing.pause("crm", by="bob")
        assert bars.standing("default").barred == {"crm": inf}
        assert (state().paused_by, state().pause_reason) == ("ann", "They move house.")
        assert pausing.resume("crm", by="bob")
        assert not pausing.resume("crm", by="bob")

    assert bars.standing("default").barred == {}
    assert (state().paused_at, state().paused_by, state().pause_reason) == (None, "", "")
    where = {"endpoint": "crm", "using": "default"}
    assert paused == [{**where, "by": "ann", "reason": "They move house."}]
    assert resumed == [{**where, "by": "bob"}]
    assert [r.action for r in caplog.records] == ["endpoint_paused", "endpoint_resumed"]


@pytest.mark.django_db
def test_a_paused_endpoint_is_not_probed():
    open_breaker()
    pausing.pause("crm", by="ann")
    let_the_pause_pass()

    assert not bars.begin_probe("default", "crm", 30)
    assert bars.standing("default").barred == {"crm": inf}


@pytest.mark.django_db
def test_resuming_closes_the_breaker_and_forgets_what_it_counted():
    open_breaker()
    counting.add("default", "crm", {"breaker_attempts": 9, "breaker_failed": 9})

    assert pausing.resume("crm", by="ann")
    assert bars.standing("default").barred == {}
    assert counting.judged("default", "crm", 300) == (0, 0)


@pytest.mark.django_db
@pytest.mark.parametrize("change", [pausing.pause, pausing.resume])
def test_a_slip_of_the_pen_is_no_endpoint(change):
    for name in ("crmm", "crmm:42"):
        with pytest.raises(UnknownEndpoint):
            change(name, by="ann")

    assert not EndpointState.objects.exists()


@pytest.mark.django_db
def test_one_tenant_of_a_resolver_can_be_paused():
    assert pausing.pause("crm:42", by="ann")

    assert bars.standing("default").barred == {"crm:42": inf}
