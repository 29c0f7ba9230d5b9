"""Commands that are killed on their way: nothing is half done, and a second start goes on."""

import signal

import pytest
from django.db.models import Count

from signal_dispatch import suppressed
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Attempt, Delivery
from tests.acceptance import rows
from tests.acceptance.process import run, start
from tests.acceptance.soak import report, scaled
from tests.deliveries import attempt_of, delivery
from tests.settings import DATABASE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Another process can't see an in-memory database.",
    ),
]

COUNT = scaled(1500, 20_000)
#: The command's own process sends nothing.
QUIET = {"BACKEND": "deferred.DeferredBackend"}
ENDED = {"available_at": None, "finished_at": DatabaseNow(-9e6)}


def killed(url, *command, when):
    """Start the command, kill it once that is so."""
    process = start(url, *command, **QUIET)
    try:
        eventually(lambda: process.poll() is not None or when(), 60)
    finally:
        process.kill()
        said = process.communicate(timeout=10)[0]
    assert process.returncode == -signal.SIGKILL, said


def test_retries_go_on_where_they_were_killed(receiver):
    made = delivery(state="failed", error_class="status", **ENDED)
    rows.copy(made, COUNT - 1)
    pending = Delivery.objects.filter(state="pending", finished_at=None, held_by="")
    killed(receiver.url, "dispatch_retry", when=pending.exists)
    before = pending.count()
    said = run(receiver.url, "dispatch_retry", **QUIET)

    assert before < COUNT, "it was killed on its way"
    assert f"{COUNT - before} of {COUNT - before} deliveries go out again" in said
    assert pending.count() == COUNT
    report("retries killed", before=before, after=COUNT - before)


def test_pruning_goes_on_where_it_was_killed(receiver):
    made = delivery(state="delivered", **ENDED)
    rows.copy(made, COUNT - 1)
    for each in Delivery.objects.all()[:500]:
        attempt_of(each).save()
    killed(receiver.url, "dispatch_prune", when=lambda: Delivery.objects.count() < COUNT)
    assert Attempt.objects.filter(delivery__isnull=True).count() == 0
    left = Delivery.objects.count()
    said = run(receiver.url, "dispatch_prune")

    assert 0 < left < COUNT
    assert f"{left} deliveries are deleted." in said
    assert not Delivery.objects.exists()
    assert not Attempt.objects.exists()


def test_a_first_adoption_goes_on_where_it_was_killed(receiver):
    with suppressed():
        Order.objects.bulk_create([Order(number=f"A-{n}") for n in range(COUNT)])
    command = ("dispatch_resync", "shop.Order", "--missing")
    killed(receiver.url, *command, when=Delivery.objects.exists)
    before = Delivery.objects.count()
    said = run(receiver.url, *command, **QUIET)

    assert before < COUNT, "it was killed on its way"
    assert f"{COUNT} objects of shop.Order: {COUNT - before} deliveries are recorded." in said
    assert Delivery.objects.count() == COUNT
    assert not Delivery.objects.values("object_pk").annotate(n=Count("id")).filter(n__gt=1)
    report("adoption killed", before=before, after=COUNT - before)
