"""A pooler that gives out connections for a transaction: nothing of a session may be relied on."""

import pytest
from django.db import connection

from signal_dispatch.models import Delivery
from tests.acceptance import changed
from tests.acceptance.fleet import await_calm
from tests.acceptance.private_servers import PgBouncer
from tests.acceptance.soak import report, scaled
from tests.deliveries import delivery
from tests.services import POSTGRES

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.skipif(
        connection.vendor != "postgresql", reason="PgBouncer stands before PostgreSQL alone."
    ),
]
#: What Django and psycopg need there.
BEHIND_A_POOLER = {"DISABLE_SERVER_SIDE_CURSORS": True, "OPTIONS": {"prepare_threshold": None}}


def sessions_of_one_client(pooler):
    import psycopg

    name = connection.settings_dict["NAME"]
    settings = {"host": "127.0.0.1", "port": pooler.port, "user": POSTGRES["USER"], "dbname": name}
    with psycopg.connect(**settings, autocommit=True, prepare_threshold=None) as client:
        return {client.execute("SELECT pg_backend_pid()").fetchone() for _ in range(6)}


def test_processes_behind_a_pooler_make_each_call_once(receiver):
    each = scaled(60, 1000)
    # Beside what the savers send themselves, as many for the workers to claim.
    for _ in range(2 * each):
        delivery()
    # Fewer connections than threads want: each transaction may get another one.
    with PgBouncer(pool_size=2) as pooler:
        through = {"databases": BEHIND_A_POOLER, **pooler.environment}
        savers = [
            changed.start(receiver.url, "save", str(each), f"p{n}", **through) for n in range(2)
        ]
        workers = [
            changed.start(receiver.url, "dispatch_worker", "--concurrency", "4", **through)
            for _ in range(2)
        ]
        try:
            for saver in savers:
                changed.finish(saver, 60 + each)
            await_calm(60)
            assert len(sessions_of_one_client(pooler)) == 2, "none is a client's own"
        finally:
            for worker in workers:
                worker.terminate()
            # There is nothing left, so one that takes its time hangs in a statement.
            outputs = [changed.finish(worker, timeout=15) for worker in workers]
    keys = [request.headers["Idempotency-Key"] for request in receiver.requests]
    report("PgBouncer", rows=4 * each, calls=len(keys), twice=len(keys) - len(set(keys)))

    assert not [output for output in outputs if "Traceback" in output]
    assert len(keys) == len(set(keys)) == Delivery.objects.count() == 4 * each
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
