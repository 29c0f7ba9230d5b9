"""The pages of endpoints: what they show and cost, what may be done there, and by whom."""

import re
from datetime import UTC, datetime, timedelta

import pytest
import requests
import time_machine
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch import bars, pausing
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.horizons import Horizon
from signal_dispatch.models import Delivery, EndpointMinute, EndpointState, Repair
from signal_dispatch.repair_steps import step
from tests.deliveries import attempt_of, delivery
from tests.once import ONCE
from tests.shop.models import Order
from tests.test_admin_list import URL, text_of, viewer, words

pytestmark = pytest.mark.django_db(databases=["default", "other"])

LIST, ONE = f"{URL}endpoints/", f"{URL}endpoint/"
EVIL = "<img src=x onerror=alert(1)>"
DEEDS = {"pause": "can_pause", "resume": "can_pause", "test": "can_test", "replay": "can_retry"}


@pytest.fixture
def page(admin_client):
    def page(alias="crm", query=""):
        answer = admin_client.get(ONE + query, {"endpoint": alias})
        assert answer.status_code == 200
        return answer

    return page


def ask(client, deed, alias="crm", **data):
    return client.post(f"{ONE}?endpoint={alias}", {"deed": deed, **data})


def confirm(client, deed, alias="crm", **data):
    return ask(client, deed, alias, confirmed="yes", **data)


def minute(ago, alias="crm", using="default", **counts):
    """Keep what a minute so many seconds ago saw."""
    rows = EndpointMinute.objects.using(using)
    return rows.create(endpoint=alias, minute=timezone.now() - timedelta(seconds=ago), **counts)


def tried(made, **values):
    attempt_of(made, **values).save()


def failed(ago, **values):
    times = {"available_at": None, "finished_at": DatabaseNow(-ago)}
    return delivery(state="failed", **times, **values)


def row_of(answer, alias):
    """Return the words of an endpoint's line."""
    rows = re.findall(r"<tr>(.*?)</tr>", answer.text, re.DOTALL)
    (found,) = [words(row) for row in rows if words(row).startswith(f"{alias} ")]
    return found


# What is shown


def test_the_list_shows_how_each_endpoint_fares(admin_client):
    delivery(available_at=DatabaseNow(-600))
    delivery(available_at=DatabaseNow(-60), retried=True)
    delivery(available_at=DatabaseNow(600))
    delivery(held_by="me", available_at=DatabaseNow(60))
    for lane in "aab":
        delivery(state="waiting", available_at=None, lane=lane)
    minute(90, attempts=4, delivered=3, within_100ms=4)
    minute(7200, attempts=6, delivered=6, within_1s=6)
    minute(3 * 86400, attempts=10, delivered=0)

    answer = admin_client.get(LIST)

    queue = "crm crm.example.com ✔ open 2 since 10 min 2 3 blocked lanes: 2"
    assert row_of(answer, "crm") == f"{queue} 75.0 % 90.0 % 45.0 % ≤ 1 s ≤ 1 s"
    nothing = "hubspot api.hubapi.example ✔ open 0 0 0 - - - - -"
    assert row_of(answer, "hubspot") == nothing


@ONCE
def test_where_not_all_was_delivered_the_share_is_not_100(admin_client):
    minute(90, attempts=100_000, delivered=99_999)

    assert "99.9 %" in row_of(admin_client.get(LIST), "crm")


def test_the_list_shows_who_may_not_be_called(admin_client):
    pausing.pause("crm", by="ann", reason="moving")
    bars.open_breaker("default", "hubspot", Breaker(), attempts=10, failed=9)

    answer = admin_client.get(LIST)

    assert "‖ paused by ann" in row_of(answer, "crm")
    assert "✖ breaker open" in row_of(answer, "hubspot")


@ONCE
def test_a_breaker_that_settings_took_away_keeps_nobody_from_it(admin_client, settings):
    bars.open_breaker("default", "crm", Breaker(), attempts=10, failed=9)
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://a.example/", "BREAKER": None}}

    assert "✔ open" in row_of(admin_client.get(LIST), "crm")


@ONCE
def test_one_that_is_disabled_is_shown_as_such(admin_client, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://a.example/", "ENABLED": False}}

    assert "⊘ disabled" in row_of(admin_client.get(LIST), "crm")
    assert "ENABLED is False" in admin_client.get(ONE, {"endpoint": "crm"}).text


def test_endpoints_that_only_rows_name_are_listed(admin_client, tenant):
    delivery(endpoint="tenant:42")
    delivery(endpoint="tenant:finished", state="delivered", available_at=None)
    minute(90, "tenant:called", attempts=1)
    pausing.pause("tenant:paused", by="ann")
    delivery(endpoint="gone")
    delivery(endpoint="elsewhere", environment="staging")
    minute(90, "elsewhere too", attempts=1, environment="staging")

    answer = admin_client.get(LIST)

    names = re.findall(r'<th scope="row"><a [^>]*>([^<]*)</a>', answer.text)
    assert names == ["crm", "gone", "tenant:42", "tenant:called", "tenant:paused"]
    assert "? not in the settings" in row_of(answer, "gone")
    assert "(RESOLVER)" in row_of(answer, "tenant:42")
    assert "tenant: an endpoint for each key" in text_of(answer)


@ONCE
def test_where_settings_name_nothing_that_is_said(admin_client, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {}

    assert "The settings name no endpoint" in text_of(admin_client.get(LIST))


@ONCE
def test_many_endpoints_are_listed_in_pages(admin_client, settings):
    names = [f"e{number:02}" for number in range(30)]
    settings.SIGNAL_DISPATCH_ENDPOINTS = {name: {"URL": "https://a.example/"} for name in names}

    first, second = admin_client.get(LIST), admin_client.get(f"{LIST}?p=2")

    assert ">e24</a>" in first.text
    assert ">e25</a>" not in first.text
    assert 'href="?p=2"' in first.text
    assert ">e25</a>" in second.text
    assert 'href="?p=1"' in second.text


@ONCE
def test_what_is_not_counted_to_its_end_says_so(admin_client, monkeypatch):
    monkeypatch.setattr("signal_dispatch.admin.endpoints.COUNTED_IN_LIST", 2)
    for _number in range(2):
        delivery(retried=False)
        delivery(retried=True)

    assert "more than 2" in row_of(admin_client.get(LIST), "crm")


def test_a_page_shows_one_endpoint_whole(page):
    first = delivery(state="delivered", available_at=None, attempts=0)
    for number in range(1, 21):
        tried(first, number=number, status_code=200, duration_ms=number)
    again = delivery(retried=True)
    tried(again, outcome="retry", status_code=503, duration_ms=500)
    tried(again, number=2, outcome="retry", error_class="timeout", duration_ms=9000)
    tried(again, started_at=timezone.now() - timedelta(days=2), status_code=418)
    other = delivery(endpoint="hubspot", state="delivered", available_at=None)
    tried(other, status_code=204)
    minute(90, attempts=23, delivered=20, answered_2xx=20, answered_5xx=1, unanswered=2)

    text = text_of(page())

    for part in (
        *(
            "crm.example.com",
            "Due now 1",
            "p50 of answers, 24 h 11 ms",
            "p95 of answers, 24 h 20 ms",
        ),
        *("Delivered, 1 h 86.9 %", "2xx: 20 3xx: 0 4xx: 0 5xx: 1 no answer: 2"),
        *("Attempts 200 20 503 1 timeout 1", "MAX_CONCURRENCY 8", "RETRY 12 attempts"),
    ):
        assert part in text, part
    assert "418" not in text
    assert "204" not in text
    assert "There were more" not in text


def test_a_look_that_did_not_reach_all_says_so(page, monkeypatch):
    monkeypatch.setattr("signal_dispatch.recent_calls.LOOKED_AT", 2)
    for _number in range(3):
        tried(delivery(state="delivered", available_at=None), status_code=200)

    text = text_of(page())

    assert "There were more in the last 24 hours." in text
    assert "Of 2 attempts 200 2" in text


def test_what_waits_in_lanes_does_not_hide_what_was_tried(page, monkeypatch):
    monkeypatch.setattr("signal_dispatch.recent_calls.LOOKED_AT", 2)
    tried(delivery(state="delivered", available_at=None), status_code=200)
    for _number in range(3):
        delivery(state="waiting", available_at=None, lane="a")

    assert "Attempts 200 1" in text_of(page())


def test_the_chart_has_an_hour_each_and_a_table_beside_it(page):
    now = timezone.localtime()
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    EndpointMinute.objects.create(
        endpoint="crm", minute=this_hour - timedelta(hours=2), attempts=5, delivered=3
    )
    EndpointMinute.objects.create(endpoint="crm", minute=this_hour, attempts=1, delivered=1)

    answer = page()

    table = re.search(r'<table id="sd-hours-table">(.*?)</table>', answer.text, re.DOTALL)[1]
    rows = [words(row).split() for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)][1:]
    assert len(rows) == 24
    assert rows[-1] == [f"{this_hour:%H:%M}", "1", "0"]
    assert rows[-3] == [f"{this_hour - timedelta(hours=2):%H:%M}", "3", "2"]
    assert sum(int(row[1]) + int(row[2]) for row in rows) == 6
    assert f"<title>{this_hour - timedelta(hours=2):%H:%M}: 3 delivered, 2 failed</title>" in (
        answer.text
    )
    # What failed differs by where it is and by its pattern.
    assert answer.text.count('class="sd-down" x="4"') == 1
    assert answer.text.count('class="sd-up" x="4"') == 2


@ONCE
def test_hours_are_right_where_clocks_have_no_time_zone(page, settings):
    settings.USE_TZ = False
    minute(60, attempts=2, delivered=2)

    assert "2 delivered, 0 failed" in page().text


@ONCE
def test_an_endpoint_without_calls_has_no_chart(page):
    answer = page()

    assert "sd-chart" not in answer.text
    assert "No attempt is kept." in text_of(answer)
    assert "Nothing yet." in text_of(answer)


def test_a_page_says_who_paused_it_and_why(page):
    pausing.pause("crm", by="ann", reason="moving")

    assert "ann paused it 0 s ago . moving" in text_of(page())


def test_a_page_says_that_the_breaker_is_open_and_until_when(page):
    bars.open_breaker("default", "crm", Breaker(pause=90), attempts=10, failed=9)
    assert "Its breaker opened 0 s ago " in text_of(page())
    assert "In 1 min one call tries" in text_of(page())

    EndpointState.objects.update(open_until=DatabaseNow(-1))
    assert "The next call tries whether it is well." in text_of(page())


def test_an_endpoint_that_is_gone_from_settings_says_so(page):
    delivery(endpoint="gone")
    failed(60, endpoint="long gone")

    answer = page("gone")

    assert "The settings here do not name it" in text_of(answer)
    assert 'name="deed"' not in answer.text
    assert "The settings here do not name it" in text_of(page("long gone"))


@pytest.mark.parametrize("alias", ["", "unknown", "\x00", "x" * 500, "tenant"])
def test_an_endpoint_that_nobody_knows_is_not_found(admin_client, tenant, alias):
    assert admin_client.get(ONE, {"endpoint": alias}).status_code == 404
    assert admin_client.post(f"{ONE}?endpoint=unknown", {"deed": "pause"}).status_code == 404


@ONCE
def test_without_a_url_the_site_makes_the_calls_and_nothing_is_tried(page, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"RATE": "10/s", "BREAKER": None}}

    answer = page()

    assert "no URL: calls of the site's own" in text_of(answer)
    assert "RATE 10/1 s BREAKER -" in text_of(answer)
    assert 'value="test"' not in answer.text


@ONCE
def test_only_the_host_of_an_endpoint_is_shown(admin_client, page, settings):
    secret = "s3cret"
    entry = {
        "URL": f"https://a.example/{secret}?key={secret}",
        "HEADERS": {"X-Key": secret},
        "QUERY": {"key": secret},
        "AUTH": ("shop", secret),
        "PROXIES": {"all": f"http://x:{secret}@proxy.example"},
    }
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": entry}

    for answer in (admin_client.get(LIST), page()):
        assert "a.example" in answer.text
        assert secret not in answer.text


# What it costs, and that nothing is carried out


def many(declare):
    """Leave much of all that pages show."""
    declare(Order)
    for number in range(8):
        alias = f"gone{number}"
        made = delivery(endpoint=alias, state="delivered", available_at=None)
        tried(made, status_code=200)
        delivery(endpoint=alias)
        delivery(endpoint=alias, state="waiting", available_at=None, lane="a")
        minute(60 + 60 * number, alias, attempts=1)
        minute(60 + 60 * number, attempts=1)
        EndpointState.objects.create(endpoint=alias, paused_at=timezone.now())
    return made


def addresses(made):
    deliveries = [URL, f"{URL}?state=failed", f"{URL}{made.pk}/change/"]
    others = [f"{URL}{name}/" for name in ("overview", "endpoints", "dispatches")]
    return [*deliveries, *others, f"{ONE}?endpoint=crm", f"{ONE}?endpoint=gone1"]


def test_every_page_makes_few_statements(client, declare):
    made = many(declare)
    client.force_login(viewer("view_delivery", *DEEDS.values()))
    for address in addresses(made):
        with CaptureQueriesContext(connection) as queries:
            assert client.get(address).status_code == 200
        assert len(queries) <= 12, (address, [q["sql"][:80] for q in queries])


@ONCE
def test_asking_for_a_deed_makes_few_statements(person):
    client = person(*DEEDS.values())
    for deed in DEEDS:
        with CaptureQueriesContext(connection) as queries:
            assert ask(client, deed).status_code == 200
        assert len(queries) <= 12, deed


@ONCE
def test_markup_is_shown_as_text(admin_client, declare, mock_endpoint):
    declare(Order, name=EVIL)
    pausing.pause("crm", by=EVIL, reason=EVIL)
    made = failed(
        60,
        reason=EVIL,
        body=f'{{"a": "{EVIL}"}}'.encode(),
        headers={"Content-Type": "application/json", EVIL: EVIL},
        error_class=EVIL[:32],
    )
    tried(
        made,
        status_code=500,
        error=EVIL,
        response_headers={EVIL: EVIL},
        response_body=EVIL.encode(),
    )
    tried(made, number=2, error_class=EVIL[:32], error=EVIL)
    delivery(endpoint=EVIL)
    EndpointState.objects.create(endpoint=EVIL, paused_at=timezone.now(), paused_by=EVIL)
    mock_endpoint("crm").reply(200, body=EVIL.encode(), headers={"X-Evil": EVIL})

    answers = [admin_client.get(address) for address in addresses(made)[:-1]]
    answers.append(admin_client.get(ONE, {"endpoint": EVIL}))
    answers += [ask(admin_client, deed) for deed in DEEDS]
    answers.append(confirm(admin_client, "test", method="GET"))
    answers.append(confirm(admin_client, "test", method="GET", path=EVIL))

    assert [answer.status_code for answer in answers] == [200] * len(answers)
    for answer in answers:
        assert "<img src=x" not in answer.text
    assert answers[-2].text.count("&lt;img src=x") == 2
    told = "".join(answer.text for answer in answers)
    assert told.count("&lt;img src=x") > 15


@ONCE
def test_pages_have_no_styles_or_scripts_of_their_own(admin_client, person, page):
    minute(60, attempts=2, delivered=1)
    for answer in (page(), admin_client.get(LIST), ask(admin_client, "test")):
        assert "<style" not in answer.text
        assert " style=" not in answer.text
        assert not re.search(r"\son\w+=", answer.text)
        assert not re.search(r"<script(?![^>]* src=)[^>]*>", answer.text)


# Who may do what


@pytest.mark.parametrize("address", [LIST, f"{ONE}?endpoint=crm"])
def test_whoever_may_view_sees_a_page_and_nobody_else(client, address):
    client.force_login(viewer("view_delivery"))
    assert client.get(address).status_code == 200

    client.force_login(User.objects.create_user("other", is_staff=True))
    assert client.get(address).status_code == 403
    assert client.post(address, {"deed": "pause", "confirmed": "yes"}).status_code == 403
    client.logout()
    assert client.get(address).status_code == 302


@pytest.mark.parametrize("deed", DEEDS)
def test_a_viewer_can_not_act(person, deed):
    others = set(DEEDS.values()) - {DEEDS[deed]}
    client = person(*others)
    pausing.pause("crm", by="bob")

    assert f'value="{deed}"' not in client.get(ONE, {"endpoint": "crm"}).text
    assert ask(client, deed).status_code == 403
    assert confirm(client, deed, method="GET").status_code == 403
    assert EndpointState.objects.get().paused_by == "bob"
    assert not Repair.objects.exists()
    assert not LogEntry.objects.exists()


def test_whoever_has_the_permission_is_offered_it(person):
    for deed, permission in DEEDS.items():
        if deed == "resume":
            pausing.pause("crm", by="bob")
        text = person(permission).get(ONE, {"endpoint": "crm"}).text
        offered = set(re.findall(r'name="deed" value="(\w+)"', text))
        assert offered == {deed}
        if deed == "resume":
            pausing.resume("crm", by="bob")


@ONCE
@pytest.mark.parametrize("name", ["endpoints", "dispatches"])
def test_a_page_where_nothing_can_be_done_is_shown_again(admin_client, name):
    answer = admin_client.post(f"{URL}{name}/?using=default", {"deed": "pause"})

    assert (answer.status_code, answer.url) == (302, f"{URL}{name}/?using=default")


@pytest.mark.parametrize("deed", ["", "paint"])
def test_what_is_no_deed_does_nothing(admin_client, deed):
    assert confirm(admin_client, deed).status_code == 302
    delivery(endpoint="gone")
    assert confirm(admin_client, "pause", "gone").status_code == 302
    assert not LogEntry.objects.exists()


# What is done


def test_pausing_asks_first_and_is_noted(person):
    client = person("can_pause")

    answer = ask(client, "pause")
    assert "Nobody calls it until it is resumed" in text_of(answer)
    assert not EndpointState.objects.exists()

    answer = client.post(
        f"{ONE}?endpoint=crm",
        {"deed": "pause", "confirmed": "yes", "reason": "moving"},
        follow=True,
    )

    assert "crm is paused." in text_of(answer)
    assert "ann paused it" in text_of(answer)
    assert "ann: Paused. moving" in text_of(answer)
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user.username) == ("crm", "ann")
    confirm(client, "pause")
    assert "was paused already." in text_of(client.get(LIST))
    assert LogEntry.objects.count() == 1
    confirm(client, "pause", reason="moved")
    assert "was paused already, and has the new reason." in text_of(client.get(LIST))
    assert "ann: Still paused. moved" in text_of(client.get(ONE, {"endpoint": "crm"}))
    assert EndpointState.objects.get().pause_reason == "moved"


def test_what_was_done_in_another_outbox_is_told_there(person):
    client = person("can_pause")
    where = {"endpoint": "crm", "using": "other"}

    client.post(f"{ONE}?endpoint=crm&using=other", {"deed": "pause", "confirmed": "yes"})

    assert "ann: other: Paused." in text_of(client.get(ONE, where))
    assert "Paused." not in text_of(client.get(ONE, where | {"using": "default"}))


def test_resuming_closes_the_breaker_too(person):
    client = person("can_pause")
    bars.open_breaker("default", "crm", Breaker(), attempts=10, failed=9)

    assert ask(client, "resume").status_code == 200
    assert bars.standing("default").barred
    confirm(client, "resume")

    assert bars.standing("default").barred == {}
    assert "crm is called again." in text_of(client.get(LIST))
    assert LogEntry.objects.get().change_message == "Resumed."
    confirm(client, "resume")
    assert "neither paused nor open" in text_of(client.get(LIST))


def test_it_is_the_outbox_of_the_address_that_is_paused(admin_client):
    answer = admin_client.post(
        f"{ONE}?using=other&endpoint=crm", {"deed": "pause", "confirmed": "yes"}
    )

    assert answer.url == f"{ONE}?using=other&endpoint=crm"
    assert bars.standing("default").barred == {}
    assert list(bars.standing("other").barred) == ["crm"]
    assert "paused" in row_of(admin_client.get(f"{LIST}?using=other"), "crm")
    page = admin_client.get(f"{ONE}?using=other&endpoint=crm").text
    assert f'href="{LIST}?using=other"' in page
    assert "?endpoint=crm" in page


@ONCE
def test_a_test_call_shows_what_came_and_keeps_nothing(person, mock_endpoint):
    crm = mock_endpoint("crm")
    headers = {"Set-Cookie": "id=s3cret", "X-Kind": "b"}
    crm.reply(200, json={"ok": True}, headers=headers)
    pausing.pause("crm", by="bob")
    client = person("can_test")

    answer = ask(client, "test")
    assert "One call with the endpoint's own credentials" in text_of(answer)
    assert crm.calls == []
    answer = confirm(client, "test", method="POST", path="ping?a=1")

    (call,) = crm.calls
    assert (call.method, call.path, dict(call.query)) == ("POST", "ping", {"a": "1"})
    assert call.json == {"test": True}
    assert call.headers["Authorization"] == "Bearer t0ken"
    text = text_of(answer)
    assert "POST /ping?a=1 200" in text
    assert '{ "ok": true }' in text
    assert "X-Kind b" in text
    assert "s3cret" not in text
    assert "t0ken" not in text
    assert not Delivery.objects.exists()
    assert not EndpointMinute.objects.exists()
    assert LogEntry.objects.get().change_message == "Test call POST /ping: 200."


@ONCE
def test_a_test_call_that_fails_says_why(person, mock_endpoint):
    crm = mock_endpoint("crm")
    client = person("can_test")

    crm.fail(500, 1)
    text = text_of(confirm(client, "test", method="GET"))
    assert "GET / 500" in text
    assert "The answer had no body." in text
    crm.fail(requests.Timeout)
    text = text_of(confirm(client, "test", method="GET"))
    assert re.search(r"GET / timeout \d+ ms .*crm\.example\.com", text)


@ONCE
@pytest.mark.parametrize("path", ["../up", "a/%2E%2e/b", "/root", "a b", "a\\b", "é", "a#b"])
def test_a_test_call_stays_below_the_endpoint(person, mock_endpoint, path):
    crm = mock_endpoint("crm")

    answer = confirm(person("can_test"), "test", method="GET", path=path)

    assert "errorlist" in answer.text
    assert crm.calls == []


@ONCE
def test_a_test_call_uses_a_known_method(person, mock_endpoint):
    crm = mock_endpoint("crm")

    assert "errorlist" in confirm(person("can_test"), "test", method="DELETE").text
    assert crm.calls == []


@ONCE
def test_a_tenant_is_tried_where_the_resolver_says(person, tenant, mock_endpoint):
    tenant.answers["42"] = {"URL": "https://crm42.example.com/"}
    delivery(endpoint="tenant:42")
    delivery(endpoint="tenant:9")
    mock_endpoint("tenant:42").reply(204)
    client = person("can_test")

    assert "GET / 204" in text_of(confirm(client, "test", "tenant:42", method="GET"))
    assert "GET / gone" in text_of(confirm(client, "test", "tenant:9", method="GET"))


def test_what_failed_since_a_time_is_sent_again_in_the_background(person):
    wanted = [failed(60), failed(5000, created_at=DatabaseNow(-86400 * 3))]
    left = [
        failed(9000),
        failed(60, endpoint="hubspot"),
        failed(60, environment="staging"),
        delivery(state="delivered", available_at=None, finished_at=DatabaseNow(-60)),
    ]
    client = person("can_retry")

    answer = ask(client, "replay", hours="1")
    assert re.search(r"failed since .* will be sent again: 1 ", text_of(answer))
    since = (timezone.localtime() - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M")
    answer = ask(client, "replay", hours="1", moment=since)
    assert re.search(r"failed since .* will be sent again: 2 ", text_of(answer))
    assert not Repair.objects.exists()
    hidden = dict(re.findall(r'name="(moment|horizon)" value="([^"]*)"', answer.text))
    failed(30)  # meanwhile
    answer = confirm(client, "replay", moment=hidden["moment"])
    assert "will be sent again: 3" in text_of(answer), "no horizon: asked anew"
    assert not Repair.objects.exists()
    answer = confirm(client, "replay", **hidden)

    assert answer.status_code == 302
    repair = Repair.objects.get()
    assert (repair.expected, repair.by, repair.what) == ("2", "ann", "retry")
    assert "Begun." in text_of(client.get(f"{URL}overview/"))
    while step("default"):
        pass
    states = dict(Delivery.objects.values_list("pk", "state"))
    assert [states[each.pk] for each in wanted] == ["pending", "pending"]
    assert [states[each.pk] for each in left] == ["failed", "failed", "failed", "delivered"]
    assert states[max(states)] == "failed"
    assert {entry.object_id for entry in LogEntry.objects.all()} == {"crm", str(repair.pk)}


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
def test_hours_are_as_long_where_times_have_no_zone(zone, person, settings):
    settings.USE_TZ, settings.TIME_ZONE = False, zone
    failed(60)
    failed(2 * 3600)

    answer = ask(person("can_retry"), "replay", hours="1")

    assert re.search(r"failed since .* will be sent again: 1 ", text_of(answer))


def test_hours_that_begin_in_a_night_with_two_are_a_moment(person, monkeypatch, settings):
    settings.TIME_ZONE = "America/New_York"
    failed(60)
    second = datetime(2026, 11, 1, 7, 30, tzinfo=UTC)  # an hour after the second 1:30
    monkeypatch.setattr(Horizon, "of", lambda using: Horizon(10**6, second))
    client = person("can_retry")

    asked = ask(client, "replay", hours="1")
    hidden = dict(re.findall(r'name="(moment|horizon)" value="([^"]*)"', asked.text))
    confirm(client, "replay", **hidden)

    since = datetime.fromisoformat(Repair.objects.get().selection["finished_since"])
    assert since == second - timedelta(hours=1)


def test_hours_are_counted_by_the_database(person):
    failed(60)
    with time_machine.travel(timezone.now() + timedelta(hours=5)):
        client = person("can_retry")
        answer = ask(client, "replay", hours="1")

    assert re.search(r"failed since .* will be sent again: 1 ", text_of(answer))


@ONCE
def test_where_nothing_failed_there_is_nothing_to_confirm(person):
    answer = ask(person("can_retry"), "replay", hours="720")

    assert "will be sent again: 0" in text_of(answer)
    assert "Yes:" not in answer.text


@ONCE
@pytest.mark.parametrize("moment", ["yesterday", "0001-01-01T00:00", "9999-12-31T23:59"])
def test_a_moment_that_is_none_is_refused(person, moment):
    client = person("can_retry")

    assert ask(client, "replay", moment=moment).status_code == 302
    assert "That is no moment." in text_of(client.get(LIST))


# Where it is linked


@ONCE
def test_pages_are_linked_with_each_other(admin_client, declare):
    declare(Order)
    made = delivery()
    link = f'href="{ONE}?endpoint=crm"'

    for address in (LIST, f"{URL}overview/", f"{URL}dispatches/", f"{URL}{made.pk}/change/"):
        assert link in admin_client.get(address).text, address
    page = admin_client.get(ONE, {"endpoint": "crm"}).text
    assert f'href="{URL}?endpoint=crm"' in page
    assert f'href="{LIST}" aria-current="page"' in page
