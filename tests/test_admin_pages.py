"""The pages beside the list: overview and dispatches."""

import re
import subprocess
import sys
from datetime import timedelta
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.interventions import INTERVENTIONS
from signal_dispatch.models import EndpointMinute, Repair
from signal_dispatch.repair_steps import ask_for
from signal_dispatch.selecting import Selection
from tests.deliveries import delivery
from tests.once import ONCE
from tests.shop.models import Order, Seat, Ticket
from tests.test_admin_list import URL, shown, text_of, viewer
from tests.test_heartbeats import worker_process

pytestmark = [pytest.mark.django_db(databases=["default", "other"]), ONCE]

PAGES = ["overview", "dispatches"]


@pytest.fixture
def page(admin_client):
    def page(name, query=""):
        answer = admin_client.get(f"{URL}{name}/{query}")
        assert answer.status_code == 200
        return answer

    return page


def asked(what="retry", by="ann", expected="5", **given):
    intervention = INTERVENTIONS[what]
    return ask_for(intervention, Selection.of(given), "default", by=by, expected=expected)


def test_an_overview_of_nothing_says_that_all_is_well(page):
    text = text_of(page("overview"))

    assert "All is well" in text
    assert "Due now 0" in text
    assert "No dispatch_worker is known" in text


@pytest.mark.parametrize(
    ("values", "query", "what", "cure"),
    [
        (
            {"environment": "green"},
            "",
            "another environment green",
            "sent by processes of that environment",
        ),
        ({"endpoint": "erp"}, "endpoint=erp&", "unknown endpoint erp", "add or correct it"),
        (
            {"dispatch": "shop.Old"},
            "dispatch=shop.Old&",
            "unknown dispatch shop.Old",
            "deploy the code that declares it",
        ),
        (
            {"model": "shop.tag"},
            "dispatch=shop.Told&model=shop.tag&",
            "dispatch not for shop.tag shop.Told",
            "register it for that",
        ),
    ],
)
def test_all_is_not_well_where_nobody_takes_something(
    page, admin_client, declare, values, query, what, cure
):
    declare(Order)
    made = delivery(**values)
    delivery()
    delivery(state="delivered", available_at=None, finished_at=DatabaseNow(-60), **values)

    answer = page("overview")

    text = text_of(answer)
    assert "All is well" not in text
    assert "Nobody here takes 1 delivery" in text
    assert f"{what} (1) : " in text
    assert cure in text
    assert "choose them in the list, and cancel them; or," in text
    assert "give them to another dispatch or endpoint." in text
    query = f"?environment={values.get('environment', '')}&{query}state=unfinished"
    assert f'href="{URL}{query}"' in unescape(answer.text)
    assert shown(admin_client.get(f"{URL}{query}")) == [made.pk]


GONE = {"error_class": "gone", "reason": "The RESOLVER names no tenant 42."}


def test_what_waits_for_its_resolver_is_told_apart_and_nobody_is_told_to_cancel_it(page, declare):
    """No attempt is used up: it goes out once the RESOLVER answers again."""
    declare(Order)
    delivery(available_at=DatabaseNow(300), **GONE)

    answer = page("overview")

    text = text_of(answer)
    assert "All is well" not in text
    assert "Nobody here takes" not in text
    assert "cancel them" not in text
    assert "1 delivery waits for its RESOLVER" in text
    assert "The RESOLVER names no tenant 42." in text
    assert f'href="{URL}?state=pending&endpoint=crm"' in unescape(answer.text)


def test_what_its_resolver_did_not_name_and_nobody_here_takes_is_counted_once(page, declare):
    declare(Order)
    delivery(available_at=DatabaseNow(300), endpoint="tenant:42", **GONE)

    text = text_of(page("overview"))

    assert "Nobody here takes 1 delivery" in text
    assert "RESOLVER" not in text


def test_what_is_stranded_in_another_outbox_is_linked_there(page, declare):
    declare(Order)
    delivery(using="other", endpoint="erp")

    text = unescape(page("overview", "?using=other").text)
    assert f'href="{URL}?using=other&environment=&endpoint=erp&state=unfinished"' in text


def test_the_overview_shows_how_the_outbox_stands(page, declare):
    declare(Order)
    delivery(available_at=DatabaseNow(-400))
    delivery(available_at=DatabaseNow(300))
    delivery(held_by="web1:4711:aabbccdd", available_at=DatabaseNow(50))
    delivery(state="waiting", available_at=None, lane="a")
    delivery(state="failed", available_at=None, finished_at=DatabaseNow(-60))
    delivery(dispatch="shop.Old")
    worker_process(name="worker1:12:aabbccdd")
    for ago in (60, 7200):
        minute = timezone.now() - timedelta(seconds=ago)
        EndpointMinute.objects.create(endpoint="crm", minute=minute, attempts=5, delivered=4)

    text = text_of(page("overview"))

    assert "A delivery has been due for 400 s (limit 300)." in text
    assert "1 FAILED within an hour" in text
    for figure in (
        *("Due now 2", "Longest due 6 min", "In hand 1", "Scheduled 1", "Waiting behind others 1"),
        *("Attempts, 1 h 5", "Delivered, 1 h 4"),
        *("Failed within the hour 1", "Workers alive 1", "crm 2 6 min 1 1 1"),
    ):
        assert figure in text, figure
    assert "web1:4711 has 1 delivery in hand" in text
    assert "worker1:12" in text
    assert "No dispatch has the name 'shop.Old' here" in text
    assert "aabbccdd" not in text


def test_work_in_the_background_is_shown_and_may_be_stopped(page, admin_client):
    running, done = asked(state="failed", endpoint="crm"), asked("cancel", expected="more than 9")
    Repair.objects.filter(pk=running.pk).update(looked_at=2, changed=1)
    Repair.objects.filter(pk=done.pk).update(finished_at=DatabaseNow())

    answer = page("overview")

    text = text_of(answer)
    assert "Retry now state: failed, endpoint: crm ann 1 of 5 2 looked at Stop" in text
    assert "Cancel everything ann 0 of more than 9 done" in text
    assert '<progress max="5" value="2"' in answer.text
    assert "What was not changed is left as it is" in text

    answer = admin_client.post(f"{URL}overview/", {"stop": running.pk}, follow=True)

    assert "Retry now is stopped." in text_of(answer)
    assert "Stopped by admin." in text_of(answer)
    assert LogEntry.objects.get().object_id == str(running.pk)
    again = admin_client.post(f"{URL}overview/", {"stop": running.pk}, follow=True)
    assert "is stopped" not in text_of(again)


@pytest.mark.parametrize("pk", ["", "x", "999", "\u00b2", "9" * 30])
def test_stopping_what_there_is_not_does_nothing(admin_client, pk):
    assert admin_client.post(f"{URL}overview/", {"stop": pk}).status_code == 302


def test_without_work_in_the_background_nothing_is_said_of_what_it_leaves(page):
    assert "What was not changed" not in text_of(page("overview"))


def test_whoever_may_not_do_it_may_not_stop_it(client):
    repair = asked("cancel")
    client.force_login(viewer("view_delivery", "can_retry"))

    assert ">Stop<" not in client.get(f"{URL}overview/").text
    assert client.post(f"{URL}overview/", {"stop": repair.pk}).status_code == 403
    assert Repair.objects.get().finished_at is None


def test_work_that_this_code_does_not_know_is_shown_by_its_name(page):
    asked(state="failed")
    Repair.objects.update(what="paint")

    assert "paint state: failed" in text_of(page("overview"))


@pytest.mark.parametrize(
    ("selection", "shown"),
    [
        ({"colour": "red"}, "colour: red"),
        ({"since": "yesterday", "endpoint": "crm"}, "since: yesterday, endpoint: crm"),
        ({"endpoint": 5}, "endpoint: 5"),
    ],
)
def test_work_with_a_filter_that_is_none_is_shown_with_it(page, selection, shown):
    asked()
    Repair.objects.update(selection=selection)

    assert f"Retry now {shown} ann" in text_of(page("overview"))


def test_dispatches_are_shown_as_they_are_declared(page, declare):
    declare(Order, path="orders/{number}", when_changed=["status"], latest_wins=True)
    declare(Seat, name="shop.Seats", endpoint="gone", fields=["taken"])
    made = delivery(state="failed", available_at=None, finished_at=DatabaseNow(-60))

    answer = page("dispatches")

    text = text_of(answer)
    for part in (
        *("shop.Told shop.Order", "POST orders/{number}", "crm crm.example.com"),
        *("number, status the newest replaces what waits", "a save that changes status"),
        "shop.Seats shop.Seat created, updated, deleted POST - gone unknown",
    ):
        assert part in text, part
    assert f"{URL}{made.pk}/change/" in answer.text
    assert "?state=failed&dispatch=shop.Told" in unescape(answer.text)


def test_a_dispatch_says_of_which_managers_bulk_operations_make_no_call(page, declare):
    declare(Order, name="shop.Orders")
    declare(Ticket, name="shop.Tickets")

    text = text_of(page("dispatches"))

    orders, tickets = text.split("shop.Tickets")
    assert "Bulk operations of objects make no call." in orders
    assert "Bulk operations" not in tickets


def test_where_nothing_is_registered_that_is_said(page):
    assert "No dispatch is registered" in text_of(page("dispatches"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_makes_few_statements(client, declare, name):
    for number in range(5):
        declare(Order, name=f"shop.N{number}")
        delivery(dispatch=f"shop.N{number}", endpoint=f"e{number}")
        worker_process(name=f"host{number}:1:x")
        asked(state="failed")
    client.force_login(viewer("view_delivery"))
    with CaptureQueriesContext(connection) as queries:
        client.get(f"{URL}{name}/")

    assert len(queries) <= 12


@pytest.mark.parametrize("name", PAGES)
def test_whoever_may_view_sees_a_page_and_nobody_else(client, name):
    client.force_login(viewer("view_delivery"))
    assert client.get(f"{URL}{name}/").status_code == 200

    client.force_login(User.objects.create_user("other", is_staff=True))
    assert client.get(f"{URL}{name}/").status_code == 403
    client.logout()
    assert client.get(f"{URL}{name}/").status_code == 302


@pytest.mark.parametrize("name", PAGES)
def test_pages_are_of_the_outbox_that_the_address_names(page, declare, name):
    declare(Order)
    delivery(using="other", endpoint="elsewhere")

    answer = page(name, "?using=other")

    assert f'href="{URL}overview/?using=other"' in answer.text
    assert f'href="{URL}?using=other"' in answer.text
    if name == "overview":
        assert "elsewhere" in answer.text
        assert "elsewhere" not in page(name).text


@pytest.mark.parametrize("name", PAGES)
def test_markup_is_shown_as_text(page, declare, name):
    evil = "<img src=x>"
    declare(Order, name=evil, endpoint=evil, path=evil, fields=[evil])
    delivery(dispatch=evil, endpoint=evil, model=evil, environment=evil, held_by=evil)
    delivery(endpoint=evil, held_by=evil, available_at=DatabaseNow(60))
    worker_process(name=f"{evil}:1:x")
    asked(endpoint=evil, by=evil, expected=evil)

    answer = page(name)

    assert "<img" not in answer.text
    assert "&lt;img src=x" in answer.text


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_no_styles_or_scripts_of_its_own(page, name):
    asked(state="failed")
    text = page(name).text

    assert "<style" not in text
    assert " style=" not in text
    assert not re.search(r"<script(?![^>]* src=)[^>]*>", text)


def test_the_pages_are_reached_from_the_app_and_from_each_other(admin_client, client):
    for address in ("/admin/signal_dispatch/", URL, f"{URL}overview/"):
        text = admin_client.get(address).text
        for name in PAGES:
            assert f'href="{URL}{name}/"' in text
    user = User.objects.create_user("other", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="view_attempt"))
    client.force_login(user)
    assert "sd-nav" not in client.get("/admin/signal_dispatch/", follow=True).text


def test_a_site_without_the_admin_loads_templates_all_the_same():
    script = """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "signal_dispatch"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
)
django.setup()
from django.template import engines
print(engines["django"].from_string("{% load signal_dispatch %}{{ 'failed'|pill }}").render())
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert "sd-failed" in ran.stdout
