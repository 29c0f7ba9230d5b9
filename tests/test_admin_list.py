"""The list of deliveries in the admin: what it shows, finds, and costs."""

import re
from datetime import timedelta
from html import unescape
from pathlib import Path

import pytest
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin
from django.contrib.auth.models import Group, Permission, User
from django.contrib.staticfiles.finders import find
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch import bars, pausing
from signal_dispatch.admin import cells, changelist
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=["default", "other"])

URL = "/admin/signal_dispatch/delivery/"
ALIASES = ("default", "other")


@pytest.fixture
def page(admin_client):
    def page(query="", url=URL):
        answer = admin_client.get(url + query, follow=True)
        assert answer.status_code == 200
        return answer

    return page


def shown(answer):
    """Return the numbers in the list, from the top."""
    return [int(n) for n in re.findall(r'field-number"><a [^>]*>(\d+)<', answer.text)]


def text_of(answer):
    return words(answer.text)


def words(html):
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def cell(answer, name):
    found = re.search(rf'<td class="field-{name}[^>]*>(.*?)</td>', answer.text, re.DOTALL)
    return unescape(found[1])


def viewer(*names):
    user = User.objects.create_user("viewer", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    return user


def test_a_row_says_what_was_sent_where_and_how_it_stands(page, declare):
    declare(Order)
    delivery(
        attempts=3,
        available_at=DatabaseNow(242),
        created_at=DatabaseNow(-7200),
        last_status=503,
        last_duration_ms=31,
        error_class="status",
        reason="It answered 503 Service Unavailable.",
    )

    answer = page()

    assert "pending" in cell(answer, "state_pill")
    assert words(cell(answer, "call")) == "updated order 1 shop.Told → crm"
    assert words(cell(answer, "attempts_shown")) == "3/12 in 4 min"
    exact = r'title="[^"]*\d\d:\d\d:\d\d"[^>]*>in 4 min<'
    assert re.search(exact, cell(answer, "attempts_shown"))
    assert cell(answer, "last_result").startswith('<span title="It answered 503')
    assert words(cell(answer, "last_result")) == "503 31 ms"
    assert ">2 h 0 min ago<" in cell(answer, "recorded")


@pytest.mark.parametrize(
    ("bar", "said", "sentence"),
    [
        (
            lambda: pausing.pause("crm", by="ann", reason="a <b>house</b>"),
            "paused",
            r"Its endpoint has been paused by ann since [^<]*: a &lt;b&gt;house&lt;/b&gt;",
        ),
        (
            lambda: bars.open_breaker("default", "crm", Breaker(), attempts=10, failed=10),
            "breaker open",
            r"The breaker of its endpoint is open until [^<]*",
        ),
    ],
)
def test_what_waits_says_that_its_endpoint_is_barred(page, declare, settings, bar, said, sentence):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    declare(Order)
    mine = {"environment": "staging"}
    bar()
    delivery(**mine, state="delivered", available_at=None)
    delivery(**mine, endpoint="hubspot", available_at=DatabaseNow(242))
    delivery(environment="production", available_at=DatabaseNow(242), state="failed")
    assert "sd-barred" not in page().text

    delivery(**mine, available_at=DatabaseNow(242))
    answer = page()

    shown = f'in 4 min</time>, <span class="sd-barred" title="{sentence}">{said}</span>'
    assert len(re.findall(shown, answer.text)) == 1
    assert ".sd-barred {" in Path(find("signal_dispatch/admin.css")).read_text()


@pytest.mark.parametrize(
    ("foreign", "sentence"),
    [
        ({"environment": "production"}, "SIGNAL_DISPATCH_ENVIRONMENT is"),
        ({"endpoint": "gone"}, "SIGNAL_DISPATCH_ENDPOINTS"),
        ({"dispatch": "shop.Gone"}, "No dispatch has the name"),
        (
            {"model": "shop.tag"},
            "The dispatch &#x27;shop.Told&#x27; is registered here",
        ),
    ],
)
def test_what_nobody_here_takes_says_so_before_it_says_that_it_is_paused(
    page, declare, settings, foreign, sentence
):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    declare(Order)
    values = {"environment": "staging", **foreign}
    pausing.pause("crm", by="ann", reason="")
    delivery(**values, state="delivered", available_at=None)
    delivery(**values, held_by="web:1:ab", available_at=DatabaseNow(60))
    assert ">stranded<" not in page().text

    delivery(**values)
    delivery(**values, state="waiting", available_at=None, lane="a")
    answer = page()

    shown = f'<span class="sd-barred" title="Nobody here takes it. {sentence}[^"]*">stranded</span>'
    assert len(re.findall(shown, answer.text)) == 2


@ONCE
def test_a_call_without_an_answer_shows_its_error_class(page):
    delivery(error_class="dns")

    assert ">dns<" in cell(page(), "last_result")


@ONCE
def test_the_object_links_to_its_page_where_it_has_one(page):
    delivery(object_pk="a/b")
    assert words(cell(page(), "call")).startswith("updated order a/b shop")

    delivery(model="auth.user", object_pk=7)

    assert '<a href="/admin/auth/user/7/change/">user 7</a>' in cell(page(), "call")


class Apart:
    """Groups stand in the other database."""

    def db_for_read(self, model, **hints):
        return "other" if model is Group else None

    db_for_write = db_for_read


class Replica(Apart):
    """They are read in the other database and written to the first."""

    def db_for_write(self, model, **hints):
        return None


@ONCE
@pytest.mark.parametrize(
    ("router", "linked"),
    [(None, ["default"]), (Apart, ["other"]), (Replica, ["default", "other"])],
)
def test_the_object_links_to_its_page_only_where_that_shows_this_database(
    page, admin_client, router, linked, settings
):
    made = {name: delivery(using=name, model="auth.group", object_pk=7) for name in ALIASES}
    settings.DATABASE_ROUTERS = [router()] if router else []
    link = '<a href="/admin/auth/group/7/change/">group 7</a>'

    for name, row in made.items():
        query = f"?using={name}"
        one = admin_client.get(f"{URL}{row.pk}/change/{query}").text
        assert ("group 7" in one, link in one) == (True, name in linked)
        assert (link in cell(page(query), "call")) == (name in linked)
        assert words(cell(page(query), "call")).startswith("updated group 7 ")


@ONCE
def test_an_admin_of_another_database_is_linked_from_there(page, monkeypatch):
    monkeypatch.setattr(GroupAdmin, "get_queryset", lambda *given: Group.objects.using("other"))
    for name in ALIASES:
        delivery(using=name, model="auth.group", object_pk=7)

    assert "<a" in cell(page("?using=other"), "call")
    assert "<a" not in cell(page("?using=default"), "call")


@ONCE
@pytest.mark.parametrize("model", ["shop.gone", "gone.model", "nonsense", ""])
def test_rows_of_models_that_are_gone_are_shown_by_their_label(page, model):
    delivery(model=model, object_pk=("A", 3))

    assert words(cell(page(), "call")) == f"updated {model} A, 3 shop.Told → crm".replace("  ", " ")


@ONCE
def test_a_page_that_a_site_does_not_serve_is_not_linked():
    site = admin.AdminSite("elsewhere")
    site.register(Order)

    assert cells.object_url(Delivery(model="shop.order", object_pk=7), site, None) is None


@ONCE
def test_markup_is_shown_as_text(page):
    evil = "<script>alert(1)</script>"
    delivery(
        **dict.fromkeys(["dispatch", "endpoint", "event", "model"], evil),
        object_pk=evil,
        error_class=evil[:32],
        reason=evil,
    )

    for query in ("", "?q=" + evil, "?endpoint=" + evil):
        answer = page(query)
        assert len(shown(answer)) == 1
        assert "<script>alert" not in answer.text
        assert "&lt;script&gt;alert" in answer.text


def test_the_newest_stand_first_whatever_the_address_asks(page):
    ids = [delivery(created_at=DatabaseNow(n)).pk for n in (0, -50, 50)]

    assert shown(page()) == shown(page("?o=2")) == ids[::-1]


def test_filters_narrow_the_list_and_offer_what_is_known(page, declare):
    declare(Order, on=["updated", "refunded"])
    kept = delivery(state="failed", endpoint="tenant:42", error_class="odd", dispatch="shop.Old")
    waits = delivery()

    assert shown(page("?state=failed&endpoint=tenant:42&error_class=odd")) == [kept.pk]
    assert shown(page("?state=unfinished")) == [waits.pk]
    assert 'href="?state=unfinished"' in page().text
    text = text_of(page())
    for known in ("crm", "hubspot", "refunded", "shop.Told", "too_large"):
        assert known in text, known
    for found in ("tenant:42", "odd", "shop.Old"):
        assert found in text, found


@ONCE
def test_a_value_that_is_nowhere_any_more_is_still_offered_while_it_is_asked_for(page):
    answer = page("?dispatch=shop.Vanished")

    assert shown(answer) == []
    assert "shop.Vanished" in text_of(answer)


@ONCE
def test_environments_are_offered_where_there_are_several(page, settings):
    delivery()
    assert "?environment=" not in page().text

    delivery(environment="production")
    assert "?environment=production" in page().text
    assert "?environment=" in page("?environment=production").text


def test_search_finds_an_object_and_a_uid(page):
    made = delivery(object_pk="A-17")
    delivery()

    assert shown(page("?q=A-17")) == shown(page(f"?q={made.uid}")) == [made.pk]
    assert "shop.order:7" in text_of(page())  # the help beside the box


@ONCE
@pytest.mark.parametrize("query", ["?colour=red", "?since=soon", "?before=x", "?p=99", "?p=x&p=-1"])
def test_an_address_that_makes_no_sense_leads_to_the_whole_list(page, query):
    made = delivery()

    assert shown(page(query)) == [made.pk]


def test_days_lead_from_years_to_one_day(page):
    def on(*day):
        moment = timezone.datetime(*day, 12, tzinfo=timezone.get_current_timezone())
        return delivery(created_at=moment).pk

    on(2025, 12, 31)
    first, second = on(2026, 3, 10), on(2026, 3, 12)
    third = on(2026, 5, 1)

    assert ">2025<" in page().text
    year = page("?since=2026-01-01&until=2026-12-31")
    assert shown(year) == [third, second, first]
    assert ">March 2026<" in year.text
    assert ">June 2026<" not in year.text
    assert "All dates" in year.text
    month = page("?since=2026-03-01&until=2026-03-31")
    assert shown(month) == [second, first]
    assert ">March 10<" in month.text
    day = page("?since=2026-03-10&until=2026-03-10")
    assert shown(day) == [first]
    assert " March 2026 March 10 " in text_of(day)


@ONCE
def test_days_of_one_month_are_offered_at_once(page):
    delivery()
    today = timezone.localdate()

    assert f"?since={today}&amp;until={today}" in page().text


@ONCE
def test_any_other_span_of_days_is_no_step_of_the_way(page):
    made = delivery()
    long_ago, today = timezone.localdate() - timedelta(days=45), timezone.localdate()

    assert shown(page(f"?since={long_ago}&until={today}")) == [made.pk]
    assert shown(page(f"?since={today}T00:00&until={today}T23:59:59")) == [made.pk]


@ONCE
def test_an_empty_outbox_is_an_empty_list(page):
    assert "0 deliveries" in text_of(page())


@ONCE
def test_pages_are_turned(page):
    ids = [delivery().pk for _ in range(53)]

    assert shown(page()) == ids[:2:-1]
    assert shown(page("?p=2")) == ids[2::-1]
    assert "53 deliveries" in text_of(page())


def test_what_is_beyond_the_count_is_reached_by_a_link(page, monkeypatch):
    monkeypatch.setattr(changelist, "COUNTED", 3)
    ids = [delivery().pk for _ in range(5)]

    answer = page()

    assert shown(answer) == ids[:1:-1]
    assert "The newest 3 of them." in text_of(answer)
    (older,) = re.findall(r'class="sd-older" href="([^"]*)"', answer.text)
    assert shown(page(unescape(older))) == ids[1::-1]
    assert "Back to the newest" in page(unescape(older)).text


def test_where_no_index_helps_only_so_many_rows_are_looked_at(page, monkeypatch):
    monkeypatch.setattr(changelist, "LOOKED_AT", 3)
    monkeypatch.setattr(changelist, "LOOKED_AT_BY_STATE", 4)
    old = delivery(endpoint="rare")
    for _ in range(4):
        delivery()
    new = delivery(endpoint="rare")

    answer = page("?endpoint=rare")

    assert shown(answer) == [new.pk]
    assert "1 among the 3 deliveries looked at" in text_of(answer)
    (older,) = re.findall(r'class="sd-older" href="([^"]*)"', answer.text)
    assert "Look further back" in answer.text
    further = page(unescape(older))
    assert shown(further) == [old.pk]
    assert "sd-older" not in further.text
    # By state alone an index leads to the rows, however many others there are.
    assert "sd-older" not in page("?state=pending").text
    assert "1 among the 4 deliveries looked at" in text_of(page("?state=pending&endpoint=rare"))


@ONCE
def test_another_filter_begins_with_the_newest_again(page):
    delivery()

    assert "before=5&amp;endpoint" not in page("?before=5").text
    assert "endpoint=crm" in page("?before=5").text


def test_the_list_makes_few_statements_and_never_counts_the_table(page, declare):
    declare(Order)
    for n in range(30):
        delivery(object_pk=n, model="auth.user")
    for query in (
        "",
        "?endpoint=crm&since=2020-01-01&until=2020-12-31",
        "?q=7",
        "?p=1&state=failed",
    ):
        with CaptureQueriesContext(connection) as queries:
            page(query)
        statements = [q["sql"] for q in queries]
        assert len(statements) <= 12, statements
        assert not any("COUNT(" in sql for sql in statements)
        bodies = [sql for sql in statements if '"body"' in sql or "`body`" in sql]
        assert not bodies, "a list has no use for bodies"


def test_every_outbox_has_its_list(page):
    delivery()
    other = delivery(using="other", dispatch="shop.Elsewhere")

    answer = page("?using=other")

    assert "shop.Elsewhere" in cell(answer, "call")
    (link,) = re.findall(rf'href="({URL}{other.pk}/change/[^"]*)"', answer.text)
    assert "shop.Elsewhere" in page("", unescape(link)).text
    assert "?using=other" in page().text
    assert page().text.count("shop.Elsewhere") == 0


@ONCE
def test_an_outbox_that_there_is_not_is_not_found(admin_client):
    assert admin_client.get(URL + "?using=nowhere").status_code == 404


@ONCE
def test_nobody_adds_changes_or_deletes(page, admin_client):
    made = delivery()

    assert admin_client.get(URL + "add/").status_code == 403
    assert admin_client.get(f"{URL}{made.pk}/delete/").status_code == 403
    assert "delete_selected" not in page().text


@ONCE
def test_whoever_may_view_sees_the_list_and_nobody_else(client):
    delivery()
    client.force_login(viewer("view_delivery"))
    assert client.get(URL).status_code == 200

    client.force_login(User.objects.create_user("other", is_staff=True))
    assert client.get(URL).status_code == 403
    assert "deliver" not in client.get("/admin/").text.lower()


@ONCE
def test_no_template_has_styles_or_scripts_of_its_own(page):
    delivery()
    text = page().text

    assert "<style" not in text
    assert " style=" not in text
    assert not re.search(r"<script(?![^>]* src=)(?![^>]*json)[^>]*>", text)
    assert Delivery._meta.verbose_name
