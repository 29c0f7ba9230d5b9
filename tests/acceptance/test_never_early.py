"""Nothing is sent before its commit, and nothing that was rolled back: real commits and calls."""

import contextlib
import functools
import itertools
import random
import threading
from collections import Counter
from contextlib import contextmanager

import pytest
import tablib
from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.models.signals import post_save
from import_export import resources

from signal_dispatch import Event, claims, enqueue, renewing
from signal_dispatch.backends import backends
from signal_dispatch.databases import own_transaction
from signal_dispatch.models import Delivery
from tests import savepoints
from tests.acceptance.soak import report, scaled
from tests.settings import DATABASE
from tests.shop.models import Customer, Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Threads are locked out of an in-memory database.",
    ),
]


class TakenBack(Exception):
    """Raised to roll something back."""


@contextmanager
def taken_back(**arguments):
    """Open a block that is rolled back at its end."""
    try:
        with transaction.atomic(**arguments):
            yield
            raise TakenBack
    except TakenBack:
        pass


@contextmanager
def taken_back_by_hand():
    """Open a savepoint and roll back to it without an exception: commit hooks stay registered."""
    sid = savepoints.create()
    yield
    transaction.savepoint_rollback(sid)


def calls(receiver):
    """Return what was told in the end: number and status of each call, in order of arrival."""
    backends["default"].drain(30)
    return [(request.json["number"], request.json["status"]) for request in receiver.requests]


@pytest.fixture(autouse=True)
def told(declare):
    paths = {Event.CREATED: "saved", Event.UPDATED: "saved", Event.DELETED: "deleted"}
    declare(Order, path=paths)


def test_what_is_rolled_back_makes_no_call(receiver):
    with taken_back():
        Order.objects.create(number="plain")
    with taken_back(durable=True):
        Order.objects.create(number="durable")
    with taken_back(), transaction.atomic():
        Order.objects.create(number="nested")
    with taken_back():
        enqueue(Order.objects.create(number="enqueued"))
    with pytest.raises(IntegrityError), transaction.atomic():
        Order.objects.bulk_create([Order(number="twice")])
        Order.objects.create(number="beside")
        Order.objects.create(number="twice")
    with transaction.atomic():
        Order.objects.create(number="set_rollback")
        transaction.set_rollback(True)

    assert calls(receiver) == []
    assert not Delivery.objects.exists()


@pytest.mark.parametrize("inner", [taken_back, taken_back_by_hand])
def test_what_a_savepoint_took_back_makes_no_call_beside_what_stays(receiver, inner):
    with transaction.atomic():
        Order.objects.create(number="before")
        with inner():
            Order.objects.create(number="in it")
            with transaction.atomic():
                Order.objects.create(number="deeper")
        Order.objects.create(number="after")
        with transaction.atomic(), inner():
            Order.objects.create(number="in another")

    assert sorted(calls(receiver)) == [("after", "draft"), ("before", "draft")]


@pytest.mark.parametrize("inner", [taken_back, taken_back_by_hand])
@pytest.mark.parametrize("saved_before", [True, False], ids=["created", "there before"])
def test_a_merge_that_a_savepoint_took_back_is_not_sent(receiver, inner, saved_before):
    order = Order(number="A-1", status="first")
    if not saved_before:
        Order.objects.bulk_create([order])
        order = Order.objects.get()
    with transaction.atomic():
        order.save()
        with inner():
            order.status = "taken back"
            order.save()

    assert calls(receiver) == [("A-1", "first")]


@pytest.mark.parametrize("inner", [taken_back, taken_back_by_hand])
def test_after_a_merge_was_taken_back_a_later_one_counts(receiver, inner):
    with transaction.atomic():
        order = Order.objects.create(number="A-1", status="first")
        with inner():
            order.status = "taken back"
            order.save()
        order.status = "last"
        order.save()

    assert calls(receiver) == [("A-1", "last")]


@pytest.mark.parametrize("inner", [taken_back, taken_back_by_hand])
def test_a_delete_that_a_savepoint_took_back_leaves_the_call(receiver, inner):
    with transaction.atomic():
        Order.objects.create(number="A-1", status="first")
        with inner():
            Order.objects.get().delete()

    assert calls(receiver) == [("A-1", "first")]


@pytest.fixture
def looks(monkeypatch):
    """Count how often the bookkeeper looks for what it never heard of, and let it look soon."""
    counted: list[str] = []
    read_back = claims.read_back

    def counting(using, holder, ids):
        counted.append(using)
        return read_back(using, holder, ids)

    monkeypatch.setattr(claims, "read_back", counting)
    monkeypatch.setattr(renewing, "HINT_SECONDS", 0.1)
    return counted


def test_nothing_is_sent_while_the_transaction_is_open(receiver, looks):
    with taken_back():
        Order.objects.create(number="A-1")
        eventually(lambda: len(looks) >= 3)
        assert receiver.requests == []
    with transaction.atomic():
        Order.objects.create(number="A-2")
        eventually(lambda: len(looks) >= 6)
        assert receiver.requests == []

    assert calls(receiver) == [("A-2", "draft")]


# Other apps, and a hint that gets lost on the way.


@pytest.mark.parametrize("robust", [True, False], ids=["robust", "not robust"])
@pytest.mark.usefixtures("looks")
def test_a_commit_hook_of_others_that_fails_before_ours_loses_no_call(receiver, robust):
    def fail():
        raise TakenBack

    outcome = contextlib.nullcontext() if robust else pytest.raises(TakenBack)
    with outcome, transaction.atomic():
        transaction.on_commit(fail, robust=robust)
        Order.objects.create(number="A-1")
    eventually(lambda: Delivery.objects.get().state == "delivered", 20)

    assert calls(receiver) == [("A-1", "draft")]


@pytest.mark.usefixtures("looks")
@pytest.mark.parametrize("in_atomic", [True, False], ids=["atomic", "autocommit"])
def test_a_handler_of_others_that_raises_before_ours_loses_no_call(receiver, declare, in_atomic):
    def fail(**kwargs):
        raise TakenBack

    post_save.connect(fail, sender=Customer, weak=False)
    try:
        declare(Customer, name="shop.ToldOfCustomer", fields=["name"])
        block = transaction.atomic() if in_atomic else contextlib.nullcontext()
        with block, pytest.raises(TakenBack):
            Customer.objects.create(name="c")
    finally:
        post_save.disconnect(fail, sender=Customer)
    eventually(lambda: Delivery.objects.get().state == "delivered", 20)

    assert [request.json for request in receiver.requests] == [{"name": "c"}]


class OrderResource(resources.ModelResource):
    """As a site with django-import-export writes it."""

    class Meta:
        model = Order
        fields = ("number", "status")
        import_id_fields = ("number",)


@pytest.mark.parametrize("in_atomic", [True, False], ids=["ATOMIC_REQUESTS", "autocommit"])
def test_the_dry_run_of_an_import_makes_no_call_and_the_import_makes_them(receiver, in_atomic):
    Order.objects.bulk_create([Order(number="A-1", status="first")])
    rows = tablib.Dataset(("A-1", "imported"), ("A-2", "imported"), headers=("number", "status"))
    request = transaction.atomic if in_atomic else contextlib.nullcontext
    with request():
        result = OrderResource().import_data(rows, dry_run=True, raise_errors=True)
    assert result.totals == result.totals | {"new": 1, "update": 1}
    assert calls(receiver) == []
    assert not Delivery.objects.exists()
    with request():
        OrderResource().import_data(rows, dry_run=False, raise_errors=True)

    assert sorted(calls(receiver)) == [("A-1", "imported"), ("A-2", "imported")]


# Anything at all, in any order.


class Saver(threading.Thread):
    """Do at random what transactions do, and note what the database says of each when it is over.

    No two savers touch the same orders, so what was committed is what is there afterwards. Each
    save writes another status, so a call tells which save it is from.
    """

    def __init__(self, seed, transactions):
        super().__init__()
        self.seed, self.transactions = seed, transactions
        self.random = random.Random(seed)
        self.saves = itertools.count()
        self.saved: list[tuple[str, str]] = []
        self.deleted: list[str] = []
        self.error: BaseException | None = None

    def run(self):
        try:
            for _ in range(self.transactions):
                self.transact()
        except BaseException as error:  # noqa: BLE001 - raised by the test
            self.error = error
        finally:
            connections.close_all()

    def transact(self):
        before = self.committed()
        if self.random.random() < 0.2:
            with contextlib.suppress(OperationalError):
                self.save()
        else:
            # MariaDB ends one of two transactions that wait for each other: that is a rollback too.
            with contextlib.suppress(TakenBack, OperationalError), own_transaction("default"):
                self.work(depth=0)
                if self.random.random() < 0.2:
                    raise TakenBack
        after = self.committed()
        changed = [pk for pk, row in after.items() if before.get(pk) != row]
        self.saved += [after[pk] for pk in changed]
        self.deleted += [before[pk][0] for pk in before.keys() - after.keys()]

    def committed(self):
        rows = Order.objects.filter(number__startswith=f"{self.seed}-")
        return {pk: (number, status) for pk, number, status in rows.values_list(*FIELDS)}

    def work(self, depth):
        steps = [self.save, self.save, self.save, self.delete]
        if depth < 3:
            blocks = [transaction.atomic, taken_back, taken_back_by_hand]
            steps += [functools.partial(self.nest, block, depth + 1) for block in blocks]
        for step in self.random.choices(steps, k=self.random.randint(1, 4)):
            step()

    def nest(self, block, depth):
        with block():
            self.work(depth)

    def one(self):
        number = f"{self.seed}-{self.random.randint(0, 3)}"
        return Order.objects.filter(number=number).first() or Order(number=number)

    def save(self):
        order = self.one()
        order.status = f"{next(self.saves):08}"
        order.save()

    def delete(self):
        order = self.one()
        if order.pk is not None:
            order.delete()


FIELDS = ("id", "number", "status")


def test_random_transactions_are_told_as_they_were_committed_and_never_before(receiver, declare):
    early = []

    def answer(request):
        """Look, as the call arrives, whether the database already says what it says."""
        if request.path == "/saved":
            number, status = request.json["number"], request.json["status"]
            stored = Order.objects.filter(number=number).values_list("status", flat=True).first()
            if stored is not None and stored < status:
                early.append((number, status, stored))
            connections.close_all()
        return 200, {}, b"{}"

    receiver.script = answer
    seeds = random.sample(range(10**6), 3)
    savers = [Saver(seed, scaled(40, 2000)) for seed in seeds]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()
    assert [saver.error for saver in savers] == [None] * 3, f"seeds {seeds}"
    backends["default"].drain(120)

    told = {"/saved": Counter(), "/deleted": Counter()}
    for request in receiver.requests:
        told[request.path][request.json["number"], request.json["status"]] += 1
    saved = Counter(pair for saver in savers for pair in saver.saved)
    deleted = Counter(number for saver in savers for number in saver.deleted)
    phantoms = told["/saved"] - saved
    assert early == [], f"seeds {seeds}"
    assert not phantoms, f"seeds {seeds}"
    assert not saved - told["/saved"], f"seeds {seeds}"
    assert Counter(number for number, _ in told["/deleted"].elements()) == deleted, f"seeds {seeds}"
    report(
        f"random transactions, {DATABASE}",
        calls=len(receiver.requests),
        early=len(early),
        phantom=phantoms.total(),
        lost=(saved - told["/saved"]).total(),
    )
