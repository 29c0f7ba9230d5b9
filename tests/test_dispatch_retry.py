"""Deliveries that a person lets go out again, from the command line."""

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.management import batches
from signal_dispatch.management.commands import dispatch_retry
from signal_dispatch.models import Delivery
from tests.deliveries import delivery

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def failed(using="default", **values):
    ended = {"state": "failed", "available_at": None, "finished_at": DatabaseNow()}
    return delivery(using, **ended | values)


def run(*arguments):
    out = StringIO()
    call_command("dispatch_retry", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def states():
    return list(Delivery.objects.order_by("id").values_list("state", flat=True))


def test_what_failed_goes_out_again():
    for number in range(3):
        failed(object_pk=number)
    delivery(state="cancelled", available_at=None)
    scheduled = delivery(available_at=DatabaseNow(600))

    assert run() == "Database 'default': 3 of 3 deliveries go out again.\n"
    assert states() == ["pending", "pending", "pending", "cancelled", "pending"]
    assert Delivery.objects.filter(available_at__gt=DatabaseNow()).get() == scheduled


def test_others_go_out_again_where_they_are_asked_for():
    delivery(state="cancelled", available_at=None)
    delivery(available_at=DatabaseNow(600))
    run("--state", "cancelled")
    run("--state", "pending")

    assert states() == ["pending", "pending"]
    assert not Delivery.objects.filter(available_at__gt=DatabaseNow()).exists()


def test_what_an_outage_cost_is_found_by_when_it_was_given_up():
    failed(object_pk=1, created_at=DatabaseNow(-9000), finished_at=DatabaseNow(-8000))
    failed(object_pk=2, created_at=DatabaseNow(-9000))
    since = (timezone.now() - timedelta(hours=1)).isoformat()
    run("--since", since)
    assert states() == ["failed", "failed"], "both were recorded before"
    run("--finished-since", since)

    assert states() == ["failed", "pending"]


def test_filters_say_which():
    failed(object_pk=1)
    failed(object_pk=2)
    run("--object", "shop.order:2")

    assert states() == ["failed", "pending"]


def test_nothing_that_matches_is_a_sentence_and_no_error():
    failed()
    assert run("--endpoint", "hubspot") == (
        "No deliveries of state failed, endpoint hubspot are there: nothing to retry.\n"
    )


def test_a_dry_run_counts_and_does_nothing():
    failed()
    failed("other", endpoint="hubspot")
    said = run("--dry-run").splitlines()

    assert said == [
        "Database 'default': 1 of 1 deliveries would go out again.",
        "ENDPOINT  DISPATCH   STATE   DELIVERIES",
        "crm       shop.Told  failed  1",
        "Database 'other': 1 of 1 deliveries would go out again.",
        "ENDPOINT  DISPATCH   STATE   DELIVERIES",
        "hubspot   shop.Told  failed  1",
    ]
    assert states() == ["failed"]


def test_a_dry_run_judges_as_the_real_one_does(monkeypatch):
    monkeypatch.setattr(batches, "BATCH", 2)
    for number in range(3):
        failed(object_pk=number, endpoint="erp")
    failed(lane="a", event="updated")
    delivery(lane="a", state="delivered", available_at=None, finished_at=DatabaseNow())
    failed(event="deleted", method="")
    before = list(Delivery.objects.order_by("id").values())

    assert run("--dry-run").splitlines() == [
        "Database 'default': 3 of 5 deliveries would go out again.",
        "ENDPOINT  DISPATCH   STATE   DELIVERIES",
        "erp       shop.Told  failed  3",
        "2 would be left: due already, perhaps where nobody here takes it (dispatch_status says), "
        "in somebody's hands, replaced by another, or a later one told the newer state.",
    ]
    assert list(Delivery.objects.order_by("id").values()) == before
    assert run("--object", "shop.order:1", "--endpoint", "crm", "--dry-run").startswith(
        "Database 'default': 0 of 2 deliveries would go out again.\n2 would be left: "
    )
    assert run().startswith("Database 'default': 3 of 5 deliveries go out again.")


def test_each_database_has_its_turn():
    failed()
    failed("other")
    run("--database", "other")
    assert (states(), Delivery.objects.using("other").get().state) == (["failed"], "pending")
    run()
    assert states() == ["pending"]


def test_what_is_left_as_it_is_is_told():
    failed(lane="a", event="updated")
    delivery(lane="a", state="delivered", available_at=None, finished_at=DatabaseNow())

    assert "0 of 1 deliveries go out again" in run()
    assert "1 were left: due already" in run()
    assert states() == ["failed", "delivered"]


def test_batches_follow_one_another_and_what_fails_meanwhile_is_left(monkeypatch):
    monkeypatch.setattr(batches, "BATCH", 2)
    for number in range(5):
        failed(object_pk=number)
    made, retry = [], dispatch_retry.retry

    def counted(rows):
        made.append(retry(rows))
        failed(object_pk=100 + len(made))
        return made[-1]

    monkeypatch.setattr(dispatch_retry, "retry", counted)

    assert run().startswith("Database 'default': 5 of 5 deliveries")
    assert made == [2, 2, 1]
    assert states() == ["pending"] * 5 + ["failed"] * 3


def test_told_to_stop_it_ends_after_the_batch_and_a_second_start_goes_on(monkeypatch):
    monkeypatch.setattr(batches, "BATCH", 2)
    for number in range(5):
        failed(object_pk=number)
    retry = dispatch_retry.retry

    def interrupted(rows):
        import signal

        done = retry(rows)
        signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(dispatch_retry, "retry", interrupted)
    with pytest.raises(CommandError, match="Start it again to go on") as raised:
        run()
    assert raised.value.returncode == 130
    assert states().count("pending") == 2
    monkeypatch.setattr(dispatch_retry, "retry", retry)
    assert run() == "Database 'default': 3 of 3 deliveries go out again.\n"
