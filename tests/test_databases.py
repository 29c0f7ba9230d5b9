"""The clock in SQL and the way a transaction begins, on the database of this run."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from django.db import NotSupportedError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from signal_dispatch import databases
from signal_dispatch.clocks import DatabaseNow, SecondsFromNow, StoredMoment, now_sql
from signal_dispatch.databases import (
    joined_transaction,
    outbox_aliases,
    own_transaction,
    reads_old_snapshots,
    row_lock,
)
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.shop.models import Customer, Order


@pytest.mark.django_db
def test_the_clock_is_utc_and_counts_seconds():
    before = datetime.now(UTC)
    made = delivery(available_at=DatabaseNow(90))
    made.refresh_from_db()

    assert -2 < (made.available_at - before).total_seconds() - 90 < 2


@pytest.mark.django_db
def test_the_clock_goes_on_within_a_transaction():
    first = delivery(available_at=DatabaseNow())
    for _ in range(50):
        second = delivery(available_at=DatabaseNow())
    first.refresh_from_db()
    second.refresh_from_db()

    assert second.available_at > first.available_at


@pytest.mark.django_db
@pytest.mark.parametrize("seconds", [-30.0, 45.5])
def test_seconds_from_now_may_be_past_or_to_come(seconds):
    made = delivery(available_at=DatabaseNow(seconds))
    rows = Delivery.objects.filter(pk=made.pk)

    (left,) = rows.annotate(left=SecondsFromNow("available_at")).values_list("left", flat=True)

    assert abs(float(left) - seconds) < 2


@pytest.mark.django_db
@pytest.mark.parametrize("micros", [0, 123000])
def test_a_moment_that_was_read_equals_the_one_that_stands_there(micros):
    made = delivery()
    moment = datetime(2026, 1, 2, 3, 4, 5, micros, tzinfo=UTC)
    if connection.vendor == "sqlite":  # as its own clock writes
        with connection.cursor() as cursor:
            text = f"{moment:%Y-%m-%d %H:%M:%S}.{micros // 1000:03}"
            cursor.execute("UPDATE signal_dispatch_delivery SET created_at = %s", [text])
    else:
        Delivery.objects.update(created_at=moment)
    made.refresh_from_db()

    assert made.created_at == moment
    assert Delivery.objects.filter(created_at=StoredMoment(made.created_at)).exists()
    assert not Delivery.objects.filter(created_at__gt=StoredMoment(made.created_at)).exists()


def test_another_database_is_refused_by_name():
    class Oracle:
        vendor, alias = "oracle", "old"

    with pytest.raises(NotSupportedError, match=r"oracle.*'old'"):
        now_sql(Oracle())


@pytest.mark.django_db(transaction=True)
def test_own_transactions_take_the_write_lock_at_once_on_sqlite():
    if connection.vendor != "sqlite":
        pytest.skip("Only SQLite has one writer.")
    with (
        CaptureQueriesContext(
            connection,
        ) as queries,
        own_transaction("default"),
    ):
        pass
    assert "BEGIN IMMEDIATE" in [query["sql"] for query in queries]

    with CaptureQueriesContext(connection) as queries, transaction.atomic():
        pass
    assert "BEGIN" in [query["sql"] for query in queries], "the site's own stay as they are"


@pytest.mark.django_db(transaction=True)
def test_own_transaction_is_undone_by_an_error():
    with pytest.raises(RuntimeError), own_transaction("default"):
        delivery()
        raise RuntimeError

    assert not Delivery.objects.exists()
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_joined_transaction_tells_whether_it_is_its_own():
    with joined_transaction("default") as alone:
        assert alone
        with joined_transaction("default") as inner:
            assert not inner
    with transaction.atomic(), joined_transaction("default") as alone:
        assert not alone
    transaction.set_autocommit(False)
    try:
        with joined_transaction("default") as alone:
            assert not alone
            assert not connection.in_atomic_block
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


def test_the_outbox_stands_where_the_routers_let_it(settings):
    assert outbox_aliases(Delivery) == ["default", "other"]
    settings.DATABASE_ROUTERS = [NotOnOther()]
    assert outbox_aliases(Delivery) == ["default"]


class NotOnOther:
    def allow_migrate(self, db, app_label, **hints):
        return db != "other"


class ReadFromOther:
    def db_for_read(self, model, **hints):
        return "other"

    def db_for_write(self, model, **hints):
        return "default"


class OrdersToOther:
    """The rest goes to the default database, whatever is asked for."""

    def db_for_write(self, model, **hints):
        return "other" if model is Order else "default"


def test_an_alias_that_routers_only_read_from_is_no_outbox_to_send_from(settings):
    settings.DATABASE_ROUTERS = [ReadFromOther()]
    assert outbox_aliases(Delivery, [Order]) == ["default"]


def test_an_alias_that_mirrors_another_is_no_outbox_to_send_from(monkeypatch):
    monkeypatch.setitem(connections.settings["other"]["TEST"], "MIRROR", "default")
    assert outbox_aliases(Delivery, [Order]) == ["default"]


class WantsTenant:
    def db_for_write(self, model, **hints):
        raise LookupError("no tenant here")


def test_routers_that_can_not_say_leave_every_outbox_to_be_looked_at(settings):
    settings.DATABASE_ROUTERS = [WantsTenant()]
    assert outbox_aliases(Delivery, [Order]) == ["default", "other"]


def test_an_alias_that_models_are_written_to_has_an_outbox_whoever_writes_there(settings):
    settings.DATABASE_ROUTERS = [OrdersToOther()]
    assert outbox_aliases(Delivery, [Order]) == ["default", "other"]
    assert outbox_aliases(Delivery, [Customer]) == ["default"]


@pytest.mark.parametrize(
    ("vendor", "level", "old"),
    [
        ("mysql", "read committed", False),
        ("mysql", "read uncommitted", False),
        ("mysql", "repeatable read", True),
        ("mysql", None, True),
        ("postgresql", None, False),
        ("sqlite", None, False),
    ],
)
def test_snapshots_are_old_where_the_isolation_was_raised(vendor, level, old):
    assert reads_old_snapshots(SimpleNamespace(vendor=vendor, isolation_level=level)) is old


@pytest.mark.django_db
def test_the_isolation_that_a_connection_has_is_known():
    connection.ensure_connection()
    assert not reads_old_snapshots(connection)


def test_rows_are_locked_where_the_database_can():
    expected = {"sqlite": None, "postgresql": {"no_key": True}, "mysql": {}}
    assert row_lock("default") == expected[connection.vendor]


class Connection:
    """A connection of a thread's, as far as its age is looked at."""

    def __init__(self, *, pooled=False):
        self.settings_dict = {"OPTIONS": {"pool": True} if pooled else {}}
        self.errors_occurred = False
        self.looks = 0

    def close_if_unusable_or_obsolete(self):
        self.looks += 1


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(databases, "monotonic", lambda: clock.now)
    monkeypatch.setattr(databases, "_judged", SimpleNamespace())
    return clock


def test_the_age_of_a_connection_is_looked_at_from_time_to_time(clock, monkeypatch):
    plain, pooled = Connection(), Connection(pooled=True)
    held = SimpleNamespace(all=lambda **kwargs: [plain, pooled])
    monkeypatch.setattr(databases, "connections", held)
    seen = []
    for seconds in (0, 1, 3.5, 0.5, 1):
        clock.now += seconds
        databases.refresh_connections()
        seen.append((plain.looks, pooled.looks))

    assert seen == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5)]


def test_a_connection_with_an_error_is_looked_at_at_once(clock, monkeypatch):
    one = Connection()
    monkeypatch.setattr(databases, "connections", SimpleNamespace(all=lambda **kwargs: [one]))
    databases.refresh_connections()
    one.errors_occurred = True
    databases.refresh_connections()

    assert one.looks == 2


def test_django_still_notes_errors_on_a_connection():
    """The name is not documented; without it a broken connection would be kept for a while."""
    assert connection.errors_occurred in (True, False)
