"""What the admin's list costs does not grow with what lies in the table."""

from datetime import timedelta
from time import perf_counter, process_time
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch.admin.changelist import LOOKED_AT
from signal_dispatch.admin.endpoints import LISTED
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Attempt, Delivery, EndpointMinute
from tests.acceptance.rows import copy, tidy
from tests.acceptance.soak import report, scaled
from tests.deliveries import delivery
from tests.test_admin_list import URL, shown

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor != "postgresql", reason="PostgreSQL counts the pages that it reads."
    ),
]

ROWS = scaled(100_000, 1_000_000)
PAYLOAD = b'{"number": "A-1", "status": "paid", "total": "12.00"' + b" " * 200 + b"}"
#: Those of LOOKED_AT rows: there are about ten to a page. At 1,000,000 rows the table has 100,000.
MOST_PAGES = LOOKED_AT / 5
#: Overview and dispatches count what is unfinished, by a look at each row.
UNFINISHED = ROWS * 5 // 100


@pytest.fixture
def outbox():
    """Fill the outbox: what failed long ago, then what was delivered since, then what is due."""
    kinds = [
        (10, {"state": "failed", "error_class": "status", "last_status": 500, "attempts": 12}),
        (85, {"state": "delivered", "last_status": 200, "attempts": 1}),
        (5, {"endpoint": "hubspot", "available_at": DatabaseNow(3600)}),
    ]
    for place, (share, values) in enumerate(kinds):
        finished = {} if "endpoint" in values else {"available_at": None}
        created = DatabaseNow(-86400.0 * (30 - 15 * place))
        made = delivery(
            body=PAYLOAD,
            headers={"Content-Type": "application/json"},
            path="orders/A-1",
            lane=f"{place:032}",
            created_at=created,
            **{**finished, **values},
        )
        copy(made, ROWS * share // 100)
    tidy()


def pages_read(client, query):
    """Ask for a page; return its numbers, its statements, and what they read."""
    read = 0

    def explained(execute, sql, params, many, context):
        nonlocal read
        if sql.startswith(("SELECT", "WITH")) and "signal_dispatch_delivery" in sql:
            execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params, many, context)
            ((told,),) = context["cursor"].fetchone()
            read += told["Plan"]["Shared Hit Blocks"] + told["Plan"]["Shared Read Blocks"]
        return execute(sql, params, many, context)

    with connection.execute_wrapper(explained):
        answer = client.get(URL + query)
    assert answer.status_code == 200
    with CaptureQueriesContext(connection) as queries:
        began, worked = perf_counter(), process_time()
        client.get(URL + query)
        spent = {"ms": perf_counter() - began, "ms_of_python": process_time() - worked}
    assert len(queries) <= 12
    return shown(answer), read, {name: round(seconds * 1000) for name, seconds in spent.items()}


@pytest.fixture
def a_week(outbox):
    """Let as many endpoints as a page lists have been called each minute of a week."""
    minute = timezone.now().replace(second=0, microsecond=0)
    aliases = ["crm", "hubspot", *(f"gone{number:02}" for number in range(LISTED - 2))]
    EndpointMinute.objects.bulk_create(
        (
            EndpointMinute(
                endpoint=alias,
                minute=minute - timedelta(minutes=number),
                attempts=20,
                delivered=19,
                within_100ms=20,
            )
            for alias in aliases
            for number in range(scaled(1_000, 7 * 1440))
        ),
        batch_size=5_000,
    )
    with connection.cursor() as cursor:
        table = Attempt._meta.db_table
        cursor.execute(
            f"INSERT INTO {table} (delivery_id, number, started_at, duration_ms, outcome,"  # noqa: S608
            " status_code, error_class, error, response_headers, response_body, truncated, sender)"
            " SELECT id, 1, statement_timestamp(), 31, 'delivered', 200, '', '', '{}', '', false,"
            f" '' FROM {Delivery._meta.db_table} WHERE state = 'delivered'"
        )
        cursor.execute(f"VACUUM ANALYZE {table}")
        cursor.execute(f"VACUUM ANALYZE {EndpointMinute._meta.db_table}")


def test_no_page_beside_the_list_reads_through_the_table(admin_client, a_week):
    """Whatever they show: endpoints of settings, and those that only rows name."""
    addresses = {
        "overview": "overview/",
        "dispatches": "dispatches/",
        "endpoints": "endpoints/",
        "what was called": "endpoint/?endpoint=crm",
        "what waits": "endpoint/?endpoint=hubspot",
        "one that is gone": "endpoint/?endpoint=gone01",
    }
    admin_client.get(f"{URL}endpoints/")  # what is compiled once
    for name, query in addresses.items():
        _numbers, read, spent = pages_read(admin_client, query)
        report(f"pages beside {ROWS:,} deliveries, {name}", pages=read, **spent)
        assert read < (MOST_PAGES if "endpoint" in query else UNFINISHED), name


def test_no_page_of_the_list_reads_through_the_table(admin_client, outbox):
    """Also where the newest row that matches is older than most of the table."""
    middle = Delivery.objects.order_by("pk")[ROWS // 2]
    middle.uid = uuid4()
    middle.save()
    day = timezone.localtime(Delivery.objects.order_by("pk")[0].created_at).date()
    addresses = {
        "the first page": ("", 50),
        "page 200": ("?p=200", 50),
        "failed long ago": ("?state=failed", 50),
        "failed long ago, by error class": ("?state=failed&error_class=status", 50),
        "delivered": ("?state=delivered", 50),
        "of a day": (f"?since={day}&until={day}", 50),
        "of a uid": (f"?q={middle.uid}", 1),
        "of a number": (f"?q={middle.pk}", 1),
        "an object that has none": ("?model=shop.order&object_pk=7", 0),
        "an endpoint of the newest": ("?endpoint=hubspot", 50),
        "an endpoint that has none": ("?endpoint=gone", 0),
        "an event that has none": ("?event=refunded", 0),
        "an error class that has none": ("?error_class=dns", 0),
        "failed for a reason that none has": ("?state=failed&error_class=dns", 0),
        "delivered to where none was": ("?state=delivered&endpoint=gone", 0),
        "unfinished": ("?state=unfinished", 50),
        "unfinished to where nothing goes": ("?state=unfinished&endpoint=gone", 0),
    }
    admin_client.get(URL)  # what is compiled once
    for name, (query, expected) in addresses.items():
        numbers, read, spent = pages_read(admin_client, query)
        report(f"list of {ROWS:,} deliveries, {name}", pages=read, **spent)
        assert len(numbers) == expected, name
        assert read < MOST_PAGES, name
