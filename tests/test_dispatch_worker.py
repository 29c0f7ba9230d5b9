"""The worker's command: in this process, and as one of its own with signals."""

import re
import signal
import threading
import time
from contextlib import contextmanager
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.db.backends.base.introspection import BaseDatabaseIntrospection

from signal_dispatch import ModelDispatch, bars, claims, repair_steps, tallies
from signal_dispatch.backends import backends
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.interventions import INTERVENTIONS
from signal_dispatch.management.commands import dispatch_worker
from signal_dispatch.models import Delivery, Repair
from signal_dispatch.repair_steps import ask_for
from signal_dispatch.selecting import Selection
from signal_dispatch.worker import Worker
from tests.acceptance import process
from tests.deliveries import delivery
from tests.shop.models import Order, Tag
from tests.waiting import eventually


def run(**options):
    call_command("dispatch_worker", once=True, **{"verbosity": 0} | options)


def state_of(made, using="default"):
    return Delivery.objects.using(using).get(pk=made.pk).state


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_once_sends_until_nothing_is_due(declare, receiver):
    declare(Order)
    made = [delivery(path=str(n)) for n in range(40)]
    leased = delivery(held_by="alive", epoch=1, available_at=DatabaseNow(60))
    later = delivery(available_at=DatabaseNow(60))
    lane = [delivery(lane="a"), delivery(lane="a", state="waiting", available_at=None)]
    run()

    assert {state_of(each) for each in (*made, *lane)} == {"delivered"}
    assert {state_of(leased), state_of(later)} == {"pending"}
    assert len(receiver.requests) == 42


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_only_the_named_endpoint_is_served(declare, receiver, settings):
    entry = settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": entry, "erp": entry}
    declare(Order)
    mine, other = delivery(endpoint="erp"), delivery()
    run(endpoint=["erp"])

    assert (state_of(mine), state_of(other)) == ("delivered", "pending")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    ("named", "delivered"),
    [
        (["tenant"], ["tenant:42", "tenant:7"]),
        (["tenant:42"], ["tenant:42"]),
        (["crm", "tenant:7"], ["crm", "tenant:7"]),
        (None, ["crm", "tenant:42", "tenant:7"]),
    ],
)
def test_tenants_are_served_all_or_those_that_are_named(
    declare, receiver, tenant, named, delivered, capsys
):
    tenant.come("42", "7")
    declare(Order)
    for name in ("crm", "tenant:42", "tenant:7", "nobody:42"):
        delivery(endpoint=name)
    run(endpoint=named, verbosity=1)

    done = Delivery.objects.filter(state="delivered").values_list("endpoint", flat=True)
    assert sorted(done) == delivered
    assert f"Sending for {', '.join(named or ['crm', 'tenant'])}.\n" in capsys.readouterr().out


@pytest.mark.django_db(transaction=True)
def test_a_worker_without_endpoints_says_who_tells_why(declare, settings, capsys):
    declare(Order)
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URl": "https://crm.example.com/"}}
    run(verbosity=1)

    said = "Sending for no endpoint: SIGNAL_DISPATCH_ENDPOINTS has none that is without fault"
    assert f"{said}, as 'manage.py check' tells.\n" in capsys.readouterr().out


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.usefixtures("as_in_production")
def test_only_the_named_database_is_served(declare, receiver):
    declare(Order)
    other, mine = delivery(), delivery("other")
    run(database=["other"])
    assert (state_of(mine, "other"), state_of(other)) == ("delivered", "pending")
    run()

    assert state_of(other) == "delivered"


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_once_says_at_its_end_what_it_did_and_what_it_left(declare, receiver, settings, capsys):
    entry = settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]
    # One after the other, so that the 503 comes last: a success after it would bring it forward.
    entry |= {"RETRY": {"delays": [0, 3600]}, "MAX_CONCURRENCY": 1}
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": entry, "erp": entry}
    receiver.script = lambda request: (int(request.path.strip("/")), {}, b"{}")
    declare(Order)
    for path in ("200", "200", "400", "503"):
        delivery(path=path)
    delivery(held_by="alive", epoch=1, available_at=DatabaseNow(60), lane="a")
    for _ in range(3):
        delivery(state="waiting", available_at=None, lane="a")
    delivery(endpoint="erp")
    delivery(environment="production")
    delivery(state="failed", available_at=None)
    run(verbosity=1, endpoint=["crm"])

    assert capsys.readouterr().out.splitlines()[1] == (
        "Delivered 2, failed 1. Left: 1 scheduled for later, 1 leased by others, "
        "3 waiting behind others, 2 not for this process."
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_what_was_cancelled_is_said_where_there_is_some(declare, receiver, capsys):
    declare(Order, remote_id="id")
    delivery(event="deleted")
    run(verbosity=1)

    said = "Delivered 0, failed 0, cancelled 1. Nothing is left."
    assert said in capsys.readouterr().out.splitlines()


def asked(what="retry", **given):
    """Ask for work on many as a person does, who is in a process of its own."""
    with mock.patch.object(backends, "look_for_repairs"):
        return ask_for(INTERVENTIONS[what], Selection.of(given), "default", by="ann")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_once_makes_the_repairs_that_are_asked_for_and_sends_what_they_free(
    declare, receiver, capsys, monkeypatch
):
    monkeypatch.setattr(repair_steps, "STEP", 2)
    declare(Order)
    made = [
        delivery(state="failed", available_at=None, finished_at=DatabaseNow(), object_pk=n)
        for n in range(5)
    ]
    first, second = asked(state="failed"), asked("cancel", state="pending", endpoint="hubspot")
    run(verbosity=1)

    assert {state_of(each) for each in made} == {"delivered"}
    for repair in (first, second):
        repair.refresh_from_db()
        assert repair.finished_at
    assert "Delivered 5, failed 0. Nothing is left." in capsys.readouterr().out.splitlines()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_once_waits_for_what_its_hooks_give_to_the_threads_of_this_process(
    declare, receiver, capsys
):
    class Answering(ModelDispatch):
        def handle_response(self, delivery, response):
            Tag.objects.create(name="a")

    go = threading.Event()

    def script(request):
        if request.path == "/tags":
            receiver.hold(go)
        return 200, {}, b"{}"

    receiver.script = script
    declare(Order, base=Answering)
    declare(Tag, name="shop.Tagged", fields=["name"], path="tags")
    delivery(path="orders")
    threading.Thread(target=lambda: (receiver.wait_for(2), go.wait(0.5), go.set())).start()
    run(verbosity=1)

    assert list(Delivery.objects.values_list("state", flat=True)) == ["delivered", "delivered"]
    assert "Delivered 2, failed 0. Nothing is left." in capsys.readouterr().out.splitlines()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_once_sends_what_the_threads_of_this_process_did_not_begin(declare, receiver, settings):
    class Answering(ModelDispatch):
        def handle_response(self, delivery, response):
            for number in range(20):
                Tag.objects.create(name=str(number))

    settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]["MAX_CONCURRENCY"] = 1
    settings.SIGNAL_DISPATCH_ENDPOINTS = dict(settings.SIGNAL_DISPATCH_ENDPOINTS)
    threads = "signal_dispatch.backends.threads.ThreadsBackend"
    options = {"drain_seconds": 0.01}
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": threads, "OPTIONS": options}}
    receiver.script = lambda request: (receiver.wait(0.05), (200, {}, b"{}"))[1]
    declare(Order, base=Answering)
    declare(Tag, name="shop.Tagged", fields=["name"], path="tags")
    delivery(path="orders")
    run()

    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    assert len(receiver.requests) == 21


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_once_says_which_repairs_it_leaves(declare, receiver, capsys, settings):
    declare(Order)
    asked(state="failed")
    Repair.objects.update(taken_by="alive", taken_until=DatabaseNow(60))
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    run(verbosity=1)
    assert "Nothing is left." in capsys.readouterr().out
    settings.SIGNAL_DISPATCH_ENVIRONMENT = ""
    run(verbosity=1)

    said = "Delivered 0, failed 0. Left: 1 repair that another process works on."
    assert said in capsys.readouterr().out.splitlines()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_once_says_what_waits_for_endpoints_that_are_not_called(
    declare, receiver, settings, capsys
):
    entry = settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": entry,
        "erp": entry | {"BREAKER": {}},
        "slack": entry,
    }
    declare(Order)
    for endpoint in ("crm", "crm", "erp", "slack"):
        delivery(endpoint=endpoint)
    delivery(available_at=DatabaseNow(60))
    bars.pause("default", "crm", by="ann", reason="")
    for endpoint in ("erp", "slack"):  # whose breaker settings took away meanwhile
        bars.open_breaker("default", endpoint, Breaker(), attempts=10, failed=9)
    run(verbosity=1)

    assert capsys.readouterr().out.splitlines()[1] == (
        "Delivered 1, failed 0. Left: 2 due at a paused endpoint, "
        "1 due where a breaker is open, 1 scheduled for later."
    )


@pytest.fixture
def rated(settings, monkeypatch):
    """Give the endpoint a rate, beside one without; who still drains after a while has failed."""
    drain, until = Worker.drain, time.monotonic() + 20

    def bounded(self, timeout):
        assert time.monotonic() < until, "it does not end"
        drain(self, timeout)

    def rate(text):
        entry = settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]
        settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": entry | {"RATE": text}, "erp": entry}

    monkeypatch.setattr(Worker, "drain", bounded)
    return rate


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize("many", [2, 40])
def test_once_leaves_what_a_rate_holds_back_for_long(declare, receiver, rated, capsys, many):
    rated("1/h")
    declare(Order)
    held_back = [delivery(path=str(number)) for number in range(many)]
    others = [delivery(endpoint="erp") for _ in range(3)]
    run(verbosity=1)

    assert {state_of(each) for each in others} == {"delivered"}
    assert [state_of(each) for each in held_back].count("delivered") == 1
    assert not Delivery.objects.filter(state="pending", available_at__gt=DatabaseNow()).exists()
    assert capsys.readouterr().out.splitlines()[1] == (
        f"Delivered 4, failed 0. Left: {many - 1} due at an endpoint whose RATE is used up."
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_once_waits_for_a_rate_that_has_room_again_in_a_moment(declare, receiver, rated, capsys):
    rated("2/s")
    declare(Order)
    for number in range(5):
        delivery(path=str(number))
    run(verbosity=1)

    assert "Delivered 5, failed 0. Nothing is left." in capsys.readouterr().out.splitlines()


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_a_database_that_is_away_at_the_end_is_no_error(declare, receiver, capsys, monkeypatch):
    def away(using, scope, slowed):
        raise OperationalError("server\n  gone")

    monkeypatch.setattr(tallies, "left_on", away)
    run(verbosity=1)

    said = "Delivered 0, failed 0. What is left in 'default' can't be counted: server gone"
    assert said in capsys.readouterr().out.splitlines()


def locked(monkeypatch, *usings):
    """Let these outboxes refuse every look."""
    look = claims.seconds_until_due

    def refusing(using, *args, **options):
        if using in usings:
            raise OperationalError("server\n  gone")
        return look(using, *args, **options)

    monkeypatch.setattr(claims, "seconds_until_due", refusing)


@pytest.fixture
def without_outbox(monkeypatch):
    """Let databases seem to have no tables of ours."""

    def without_outbox(*usings):
        locked(monkeypatch, *usings)
        names = BaseDatabaseIntrospection.table_names
        monkeypatch.setattr(
            BaseDatabaseIntrospection,
            "table_names",
            lambda self, *args, **options: (
                [] if self.connection.alias in usings else names(self, *args, **options)
            ),
        )

    return without_outbox


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.usefixtures("as_in_production")
def test_once_without_tables_is_an_error(declare, receiver, without_outbox, capsys):
    declare(Order)
    without_outbox("default", "other")
    said = (
        "The database 'default' has no outbox: run 'manage.py migrate'. "
        "The database 'other' has no outbox: run 'manage.py migrate --database other'."
    )
    with pytest.raises(CommandError, match=re.escape(said)):
        run(verbosity=1)

    assert capsys.readouterr().out.splitlines()[1:] == ["Delivered 0, failed 0.", "Stopped."]


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.usefixtures("as_in_production")
def test_a_database_beside_may_have_no_tables_unless_it_is_named(
    declare, receiver, without_outbox, capsys
):
    declare(Order)
    made = delivery()
    without_outbox("other")
    run(verbosity=1)
    assert state_of(made) == "delivered"
    assert "Delivered 1, failed 0. Nothing is left." in capsys.readouterr().out.splitlines()
    with pytest.raises(CommandError, match="'other' has no outbox"):
        run(database=["other", "default"])


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.usefixtures("as_in_production")
def test_once_fails_if_one_of_the_databases_can_not_be_reached(
    declare, receiver, monkeypatch, capsys
):
    declare(Order)
    made = delivery()
    locked(monkeypatch, "other")
    with pytest.raises(CommandError, match=r"^The database 'other' can't be reached: server gone$"):
        run(verbosity=1)

    assert state_of(made) == "delivered"
    assert "Delivered 1, failed 0." in capsys.readouterr().out.splitlines()


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.usefixtures("as_in_production")
def test_once_does_not_wait_for_ever_for_a_database(declare, receiver, monkeypatch, rated):
    monkeypatch.setattr(dispatch_worker, "REACH_SECONDS", 0.0)
    declare(Order)
    locked(monkeypatch, "default", "other")
    with pytest.raises(CommandError, match=r"'default' can't be reached: server gone"):
        run()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"endpoint": ["crm", "cmr"]}, "--endpoint 'cmr' is not known. Known: crm, hubspot"),
        ({"endpoint": ["crm:42"]}, "--endpoint 'crm:42' is not known"),
        ({"database": ["third"]}, "--database 'third' is not known. Known: default, other"),
        ({"concurrency": 0}, "--concurrency must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(CommandError, match=sentence):
        run(**options)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_it_says_what_it_does_and_leaves_the_signals_as_they_were(receiver, capsys):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    run(verbosity=1)

    assert capsys.readouterr().out == (
        "Sending for crm.\nDelivered 0, failed 0. Nothing is left.\nStopped.\n"
    )
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    assert not [t for t in threading.enumerate() if t.name.startswith("signal_dispatch-")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_an_error_leaves_no_thread_behind(receiver, monkeypatch):
    def broken(self, timeout):
        raise ZeroDivisionError

    monkeypatch.setattr(Worker, "drain", broken)
    with pytest.raises(ZeroDivisionError):
        run()
    assert not [t for t in threading.enumerate() if t.name.startswith("signal_dispatch-")]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_once_waits_for_calls_that_take_longer_than_it_looks(declare, receiver, monkeypatch):
    drain, waits = Worker.drain, []

    def impatient(self, timeout):
        waits.append(timeout)
        drain(self, 0.05)

    monkeypatch.setattr(Worker, "drain", impatient)
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b"{}"))[1]
    declare(Order)
    made = delivery()
    threading.Thread(target=lambda: (receiver.wait_for(1), go.wait(0.3), go.set())).start()
    run()

    assert state_of(made) == "delivered"
    assert len(waits) > 1


# As a process.


@contextmanager
def worker(url, *arguments):
    running = process.start(url, "dispatch_worker", *arguments)
    try:
        assert running.stdout.readline() == "Sending for crm.\n"
        yield running
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate(timeout=10)


@pytest.mark.django_db(transaction=True)
def test_the_first_signal_finishes_what_is_in_flight(receiver):
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b"{}"))[1]
    with worker(receiver.url) as running:
        made = delivery()
        receiver.wait_for(1)
        running.send_signal(signal.SIGTERM)
        go.set()
        rest, _none = running.communicate(timeout=20)

    assert (running.returncode, rest) == (0, "Stopped.\n")
    assert state_of(made) == "delivered"


@pytest.mark.django_db(transaction=True)
def test_the_second_signal_ends_at_once(receiver):
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b"{}"))[1]
    with worker(receiver.url) as running:
        made = delivery()
        receiver.wait_for(1)
        running.send_signal(signal.SIGTERM)
        # It may take a moment until the first one is heard.
        eventually(lambda: running.poll() or running.send_signal(signal.SIGTERM), timeout=10)
        go.set()

    assert running.returncode == -signal.SIGTERM
    made.refresh_from_db()
    assert (made.state, made.attempts) == ("pending", 0), "it did not wait for the call's end"
    assert made.held_by


@pytest.mark.django_db(transaction=True)
def test_a_worker_finds_what_others_record(receiver):
    with worker(receiver.url, "--concurrency", "2"):
        for _ in range(3):
            delivery()
        receiver.wait_for(3)
        eventually(lambda: not Delivery.objects.exclude(state="delivered").exists())
