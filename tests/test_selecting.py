"""Which rows a selection means, and that a long job can carry it along."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch import selecting
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery, State
from signal_dispatch.selecting import Selection, recorded_since
from tests.deliveries import delivery
from tests.once import ONCE

pytestmark = pytest.mark.django_db


def found(**given):
    return list(Selection.of(given).rows("default").order_by("pk"))


def test_each_name_narrows_the_rows():
    plain = delivery()
    for name, value in (
        *(("state", "failed"), ("environment", "production"), ("endpoint", "hubspot")),
        *(("dispatch", "shop.Other"), ("event", "deleted"), ("error_class", "dns")),
        ("model", "shop.seat"),
    ):
        made = delivery(**{name: value})
        assert found(**{name: value}) == [made]
    assert found(state="pending", endpoint="crm", environment="", model="shop.order")[0] == plain
    assert len(found()) == 8


def test_what_is_unfinished_is_pending_or_waiting():
    made = {state: delivery(state=state) for state in State.values}

    assert found(state="unfinished") == [made["pending"], made["waiting"]]
    assert found(state="unfinished", finished_since="2020-01-01") == []


def test_an_object_is_meant_by_its_key_as_it_stands_in_the_table():
    number, text, pair = (
        delivery(object_pk=7),
        delivery(object_pk="7"),
        delivery(object_pk=("A", 3)),
    )

    assert found(object_pk="7") == [number]
    assert found(object_pk='"7"') == [text]
    assert found(object_pk='["A",3]', model="shop.order") == [pair]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("987654", {"number", "text"}),
        ('"987654"', {"text"}),
        ("A/1", {"slash"}),
        ('["A", 3]', {"pair"}),
        ("shop.order:987654", {"number", "text"}),
        ("Shop.Seat:987654", set()),
        ("98765", set()),
        ("A", set()),
        ("9" * 30, set()),
        ("\x00", set()),
        ("[" * 2000, set()),
    ],
)
def test_what_is_typed_is_looked_up_exactly(typed, meant):
    rows = {
        "number": delivery(object_pk=987654),
        "text": delivery(object_pk="987654"),
        "slash": delivery(object_pk="A/1"),
        "pair": delivery(object_pk=("A", 3)),
    }

    assert found(q=typed) == [row for name, row in rows.items() if name in meant]


@pytest.mark.parametrize("write", [str, lambda key: key.hex, lambda key: str(key).upper()])
def test_a_key_is_typed_in_any_form_that_its_model_reads(write):
    key = uuid4()
    made = delivery(model="shop.shipment", object_pk=key)
    delivery(object_pk=key, model="shop.gone")

    assert found(q=f"shop.Shipment:{write(key)}") == [made]
    assert found(q="shop.order:007") == []
    seven = delivery(object_pk=7)
    assert found(q="shop.order:007") == [seven]


def test_a_key_that_its_model_does_not_read_is_looked_up_as_it_is_typed():
    made = [delivery(model=f"shop.{name}", object_pk="A-1") for name in ("order", "gone", "seat")]

    assert found(q="shop.order:A-1") == made[:1]
    assert found(q="shop.gone:A-1") == made[1:2]
    assert found(q="shop.seat:A-1") == made[2:]


def test_uid_and_number_are_typed_as_they_are_shown():
    made = delivery(uid=uuid4())
    delivery()

    assert found(q=f" {made.uid} ") == [made]
    assert found(q=made.uid.hex) == [made]
    assert made in found(q=str(made.pk))
    assert len(found(q="  ")) == 2


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
def test_days_are_those_of_the_reader(zone):
    with timezone.override(zone):
        noon = datetime(2026, 3, 10, 12, tzinfo=timezone.get_current_timezone())
        rows = [delivery(created_at=noon + timedelta(hours=h)) for h in (-37, -13, -11, 0, 11, 13)]

        assert found(since="2026-03-10", until="2026-03-10") == rows[2:5]
        assert found(since="2026-03-10") == rows[2:]
        assert found(until="2026-03-09") == rows[:2]
        assert found(since="2026-03-12") == []


def test_days_of_an_empty_outbox_are_empty():
    assert found(since="2026-03-10", until="2026-03-10") == []


def test_what_was_recorded_since_a_moment_is_found_without_a_look_at_the_rest(monkeypatch):
    monkeypatch.setattr(selecting, "_DISORDER", 0)
    now = datetime(2026, 3, 10, tzinfo=UTC)
    rows = [delivery(created_at=now + timedelta(minutes=n)) for n in range(40)]
    Delivery.objects.filter(pk__in=[row.pk for row in rows[5:9] + rows[20:25]]).delete()

    for minute, left in ((0, 31), (5, 26), (7, 26), (9, 26), (22, 15), (39, 1), (40, 0)):
        moment = now + timedelta(minutes=minute)
        meant = recorded_since(Delivery.objects.all(), moment)
        assert meant.count() == left
        bound = int(str(meant.query).split('"id" >= ')[-1].split("`id` >= ")[-1].rstrip(")"))
        assert not Delivery.objects.filter(pk__lt=bound, created_at__gte=moment).exists()
        assert not Delivery.objects.filter(pk__gte=bound, created_at__lt=moment).exists()


def test_it_costs_a_statement_to_find_where_a_day_begins():
    delivery()
    with CaptureQueriesContext(connection) as queries:
        found(since="2026-03-10", until="2027-03-10")

    assert len(queries) == 3


@ONCE
@pytest.mark.parametrize(
    "given",
    [
        {"colour": "red"},
        {"since": "yesterday"},
        {"until": "2026-13-01"},
        {"finished_since": "then"},
        {"since": "0001-01-01"},
        {"until": "9999-12-31"},
        {"object_pk": "no json"},
    ],
)
def test_what_is_no_selection_is_refused(given):
    with pytest.raises(ValueError, match=r"."):
        Selection.of(given)


@ONCE
def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'colour' is not known\. Known: state, environment"):
        Selection.of({"colour": "red"})


@ONCE
def test_a_selection_survives_being_written_down():
    given = {"state": "failed", "environment": "", "object_pk": '"7"', "since": "2026-03-10"}

    assert Selection.of(Selection.of(given).given()) == Selection.of(given)
    assert Selection.of(given).given() == given


@ONCE
@pytest.mark.parametrize(
    ("given", "passed_over"),
    [
        ({}, []),
        ({"state": "failed"}, []),
        ({"since": "2026-03-10"}, []),
        ({"state": "failed", "finished_since": "2026-03-10"}, []),
        ({"q": "41", "endpoint": "crm"}, []),
        ({"object_pk": "7", "model": "shop.order"}, []),
        ({"endpoint": "crm"}, ["endpoint"]),
        ({"state": "failed", "error_class": "dns"}, ["error_class"]),
        ({"state": "unfinished", "endpoint": "crm"}, ["endpoint"]),
    ],
)
def test_it_knows_whether_an_index_leads_to_its_rows(given, passed_over):
    led, passed = Selection.of(given).parted()

    assert list(passed) == passed_over
    assert Selection.of(led.given() | passed) == Selection.of(given)


@pytest.mark.parametrize("zoned", [True, False])
def test_moments_narrow_within_a_day(zoned, settings):
    settings.TIME_ZONE = "Europe/Berlin"
    at = datetime(2026, 3, 4, 11, 30, tzinfo=UTC)  # half past noon in Berlin
    before, made, after = (
        delivery(created_at=at + timedelta(minutes=minutes)) for minutes in (-60, 0, 60)
    )
    hour = "2026-03-04T{}+01:00" if zoned else "2026-03-04T{}"

    assert found(since=hour.format("12:00")) == [made, after]
    assert found(until=hour.format("12:00")) == [before]
    assert found(since=hour.format("12:00"), until=hour.format("13:00")) == [made]
    with pytest.raises(ValueError, match=r"hour must be in 0\.\.23"):
        Selection(since="2026-03-04T25:00")


def test_what_was_finished_since_a_moment_is_found_whenever_it_was_recorded():
    old = DatabaseNow(-86400.0 * 9)
    delivery(created_at=old)
    times = {"available_at": None, "created_at": old}
    delivery(state="failed", finished_at=DatabaseNow(-7200), **times)
    failed, delivered = (
        delivery(state=state, finished_at=DatabaseNow(-60), **times)
        for state in ("failed", "delivered")
    )
    since = (timezone.now() - timedelta(hours=1)).isoformat()

    assert found(state="failed", finished_since=since) == [failed]
    assert found(finished_since=since) == [failed, delivered]


def test_without_time_zones_moments_are_as_they_are_written(settings):
    settings.USE_TZ = False

    assert selecting._moment("2026-03-04T12:00") == datetime(2026, 3, 4, 12)  # noqa: DTZ001
    assert selecting._moment("2026-03-04T12:00+00:00").tzinfo is None


@ONCE
def test_what_is_asked_for_is_told_by_the_names_that_a_person_sees():
    given = {"q": "shop.order:7", "endpoint": "crm", "error_class": "dns", "object_pk": "7"}
    times = {"since": "2026-03-10", "until": "2026-03-11", "finished_since": "2026-03-12"}

    assert Selection.of(given | times).told() == {
        "endpoint": "crm",
        "error class": "dns",
        "object": "7",
        "recorded since": "2026-03-10",
        "recorded until": "2026-03-11",
        "finished since": "2026-03-12",
        "search": "shop.order:7",
    }


@ONCE
def test_whatever_may_be_asked_for_has_a_name_for_people():
    names = [field.name for field in fields(Selection)]
    given = dict.fromkeys(names, "7") | dict.fromkeys(selecting._TIMES, "2026-03-10")

    assert len(Selection.of(given).told()) == len(names)
