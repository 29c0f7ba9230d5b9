"""The database goes away in the middle of the work, and comes back."""

import contextlib
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from django.db import OperationalError, connection, connections
from django.db.models import Value
from django.db.models.functions import Concat

from signal_dispatch import ModelDispatch
from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery
from tests.acceptance import changed
from tests.acceptance.private_servers import PrivatePostgres
from tests.acceptance.soak import patience, report, scaled
from tests.services import POSTGRES
from tests.settings import RUN
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.skipif(
        connection.vendor == "sqlite", reason="A file has no server and no connections to end."
    ),
]
only_postgres = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="Django has a pool for PostgreSQL alone."
)
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid="self"):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Unhurried:
    """How much of a processor a process uses meanwhile."""

    def __init__(self, pid="self"):
        self.pid = pid

    def __enter__(self):
        self.began, self.cpu = time.monotonic(), cpu_seconds(self.pid)
        return self

    def __exit__(self, *error):
        used = cpu_seconds(self.pid) - self.cpu
        self.share = used / (time.monotonic() - self.began)


# A server that is restarted.


@pytest.fixture(scope="module")
def started_cluster():
    with PrivatePostgres() as made:
        names = [f"signal_dispatch_{RUN}_{alias}" for alias in ("default", "other")]
        ask(made, f"CREATE DATABASE {names[0]}", database="postgres")
        migrate = ("migrate", "--run-syncdb", "--verbosity", "0")
        changed.run("http://127.0.0.1/", *migrate, **made.environment)
        ask(made, f"CREATE DATABASE {names[1]} TEMPLATE {names[0]}", database="postgres")
        yield made


@pytest.fixture
def cluster(started_cluster):
    ask(started_cluster, "TRUNCATE signal_dispatch_delivery CASCADE")
    ask(started_cluster, "TRUNCATE shop_order CASCADE")
    return started_cluster


def ask(cluster, sql, database=f"signal_dispatch_{RUN}_default"):
    import psycopg

    with psycopg.connect(
        host="127.0.0.1",
        port=cluster.port,
        user=POSTGRES["USER"],
        dbname=database,
        autocommit=True,
    ) as session:
        cursor = session.execute(sql)
        return cursor.fetchall() if cursor.description else []


def states_in(cluster):
    return dict(ask(cluster, "SELECT state, count(*) FROM signal_dispatch_delivery GROUP BY state"))


@only_postgres
@pytest.mark.parametrize("how", ["immediate", "fast"])
def test_a_restart_in_the_middle_loses_nothing_and_is_waited_for_quietly(receiver, cluster, how):
    count = scaled(100, 3000)
    for_the_worker = {"BACKEND": "deferred.DeferredBackend", **cluster.environment}
    changed.run(receiver.url, "save", str(count), "r", **for_the_worker)
    receiver.script = lambda request: (receiver.wait(0.02), (200, {}, b"{}"))[1]
    worker = changed.start(
        receiver.url, "dispatch_worker", "--concurrency", "2", **cluster.environment
    )
    try:
        receiver.wait_for(count // 4, timeout=patience(60))
        cluster.stop(how)
        with Unhurried(worker.pid) as away:
            time.sleep(scaled(3, 25))
        cluster.start()
        began = time.monotonic()
        before = len(receiver.requests)
        eventually(lambda: len(receiver.requests) > before, 30)
        resumed = time.monotonic() - began
        eventually(lambda: states_in(cluster) == {"delivered": count}, 60 + count / 10)
    finally:
        worker.terminate()
        output = changed.finish(worker)
    keys = [request.headers["Idempotency-Key"] for request in receiver.requests]
    twice = len(keys) - len(set(keys))
    report(f"restart, {how}", calls=count, twice=twice, cpu=away.share, seconds=resumed)

    assert "Traceback" not in output
    assert len(set(keys)) == count, "nothing is lost"
    assert away.share < 0.05
    # Calls in flight, and answers that the server had not recorded when it stopped.
    assert twice <= 32 + 2


# Connections that are ended.

WAYS = {
    "one request long": {"CONN_MAX_AGE": 0},
    "ten minutes long": {"CONN_MAX_AGE": 600},
    "from a pool": {"OPTIONS": {"pool": {"min_size": 1, "max_size": 8, "timeout": 1}}},
}


@pytest.fixture
def connected(request):
    """Let connections of the default database live as the parameter says."""
    configured = connections.settings["default"]
    before = {**configured, "OPTIONS": dict(configured["OPTIONS"])}
    connection.close()
    configured["CONN_MAX_AGE"] = request.param.get("CONN_MAX_AGE", 0)
    configured["OPTIONS"].update(request.param.get("OPTIONS", {}))
    yield
    backends["default"].stop()
    connection.close()
    if "pool" in configured["OPTIONS"]:
        connection.close_pool()
    configured.clear()
    configured.update(before)


def ways():
    pooled = [only_postgres]
    return [
        pytest.param(way, id=name, marks=pooled if "pool" in name else [])
        for name, way in WAYS.items()
    ]


class Answered(ModelDispatch):
    """Write the answer back, so that senders need connections, too."""

    name = "shop.Answered"
    endpoint = "crm"
    fields = ["number"]

    def handle_response(self, delivery, response):
        Order.objects.filter(pk=delivery.object_pk).update(crm_id=Concat("crm_id", Value("x")))
        time.sleep(0.02)  # its connection is there to be hit, in the middle of its transaction


def end_connections(spared):
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)",
                [spared],
            )
            return cursor.fetchone()[0]
        cursor.execute(
            "SELECT id FROM information_schema.processlist"
            " WHERE db = database() AND id NOT IN (connection_id(), %s)",
            [spared],
        )
        ended = cursor.fetchall()
        for (number,) in ended:
            with contextlib.suppress(OperationalError):  # it has ended by itself
                cursor.execute("KILL %s", [number])
        return len(ended)


def own_number():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_backend_pid()"
            if connection.vendor == "postgresql"
            else "SELECT connection_id()"
        )
        return cursor.fetchone()[0]


@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize("connected", ways(), indirect=True)
def test_ended_connections_cost_no_delivery_and_no_answer(receiver, connected, declare, settings):
    # However often one handler is hit, it is not given up.
    often = {"delays": [0, *[0.05] * 100], "jitter": 0}
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": receiver.url, "RETRY": often}}
    # A claim whose commit took place unheard of is held until its lease is over.
    settings.SIGNAL_DISPATCH_LEASE_SECONDS = 20
    declare(Order, base=Answered)
    spared, over, ended = own_number(), threading.Event(), []

    def end_them_again_and_again():
        while not over.wait(0.1):
            ended.append(end_connections(spared))
        connections.close_all()

    ender = threading.Thread(target=end_them_again_and_again)
    ender.start()
    count, wanted = 0, scaled(60, 1500)
    try:
        while count < wanted or sum(ended) <= 5:
            assert count < 30 * wanted, f"only {sum(ended)} connections were hit"
            Order.objects.create(number=f"A-{count}")
            count += 1
            receiver.wait(0.02)
    finally:
        over.set()
        ender.join(30)
    eventually(lambda: not Delivery.objects.unfinished().exists(), 90)
    report("connections ended", calls=count, ended=sum(ended))

    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    assert set(Order.objects.values_list("crm_id", flat=True)) == {"x"}
    keys = [request.headers["Idempotency-Key"] for request in receiver.requests]
    assert len(set(keys)) == len(keys) == count


@only_postgres
@pytest.mark.usefixtures("as_in_production")
@pytest.mark.parametrize(
    "connected",
    [{"OPTIONS": {"pool": {"min_size": 1, "max_size": 3, "timeout": 0.5}}}],
    indirect=True,
)
def test_a_pool_that_has_no_connection_left_is_waited_for_quietly(
    receiver, connected, declare, monkeypatch, caplog
):
    declare(Order)
    release = threading.Event()

    def hold_one():
        connection.ensure_connection()
        held.release()
        release.wait(60)
        connection.close()

    count = scaled(10, 300)
    connection.ensure_connection()
    held, holders = threading.Semaphore(0), [threading.Thread(target=hold_one) for _ in range(2)]
    for holder in holders:
        holder.start()
    try:
        for _holder in holders:
            assert held.acquire(timeout=30)
        # From now on it refuses at once, so that whoever asks again at once is found out.
        monkeypatch.setattr(connection.pool, "timeout", 0.02)
        for number in range(count):
            Order.objects.create(number=f"A-{number}")
        receiver.wait_for(2)
        with Unhurried() as exhausted:
            time.sleep(scaled(3, 25))
        assert Delivery.objects.unfinished().count() == count
        # Who looks for what is due and who writes down what came pause each for themselves.
        told = [r.msg for r in caplog.records if "can't be reached" in r.getMessage()]
        refused = max(Counter(told).values(), default=0)
    finally:
        monkeypatch.setattr(connection.pool, "timeout", 0.5)
        release.set()
        for holder in holders:
            holder.join(30)
    eventually(lambda: not Delivery.objects.unfinished().exists(), 30)
    report("pool exhausted", calls=count, refused=refused, cpu=exhausted.share)

    assert exhausted.share < 0.05
    assert 1 <= refused <= scaled(5, 8), "it pauses between, longer and longer"
    keys = [request.headers["Idempotency-Key"] for request in receiver.requests]
    assert len(set(keys)) == len(keys) == count
