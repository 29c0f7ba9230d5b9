"""The page of one delivery: its way, why it waits, what was sent and answered."""

import re
from html import unescape

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch.admin import detail
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Attempt
from tests.deliveries import delivery
from tests.once import ONCE
from tests.shop.models import Order
from tests.test_admin_list import URL, text_of, viewer

# The lists ask the databases the same kinds of questions.
pytestmark = [pytest.mark.django_db(databases=["default", "other"]), ONCE]


@pytest.fixture
def page(admin_client):
    def page(made, query=""):
        answer = admin_client.get(f"{URL}{made.pk}/change/{query}")
        assert answer.status_code == 200
        return answer

    return page


def attempt(made, number=1, **values):
    defaults = {"number": number, "started_at": timezone.now(), "outcome": "retry"}
    return Attempt.objects.create(delivery=made, **defaults | values)


def test_the_way_so_far_is_told_from_the_record_on(page, declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    made = delivery(object_pk=order.pk, attempts=2, available_at=DatabaseNow(242))
    attempt(made, 1, error_class="dns", error="The name of crm.example.com could not be resolved.")
    attempt(
        made,
        2,
        status_code=503,
        duration_ms=31,
        error_class="status",
        error="It answered 503 Service Unavailable.",
        response_headers={"Retry-After": "60"},
        response_body=b'{"busy": true}',
        truncated=True,
        sender="web1:4711:aabbccdd",
    )

    answer = page(made)
    text = text_of(answer)

    for part in (
        *("Why it waits: Attempt 3 of 12 is made in 4 min.", "Recorded, and committed together"),
        *("Attempt 1 dns", "could not be resolved.", "No answer came."),
        *("Attempt 2 503 31 ms web1:4711", "Retry-After 60", '"busy": true'),
        "Cut: the answer was longer",
    ):
        assert part in text, part
    assert text.index("Recorded, and") < text.index("Attempt 1") < text.index("Attempt 2 503")
    assert answer.text.count("<details open>") == 1
    assert "aabbccdd" not in text


def test_the_request_is_shown_without_what_lets_somebody_in(page, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {
            "URL": "https://crm.example.com/s3cret/",
            "HEADERS": {"Authorization": "Bearer s3cret", "X-Odd": "s3cret"},
            "QUERY": {"key": "s3cret"},
        }
    }
    made = delivery(
        method="PUT",
        path="orders/A-1",
        headers={"Content-Type": "application/json", "X-Api-Key": "s3cret"},
        body=b'{"number": "A-1"}',
    )
    attempt(made, status_code=200, response_headers={"Set-Cookie": "s3cret", "X-Token": "s3cret"})

    text = text_of(page(made))

    assert "PUT crm.example.com … /orders/A-1" in text
    assert "X-Odd [redacted]" in text
    assert f"Idempotency-Key {made.uid}" in text
    assert '{ "number": "A-1" }' in text
    assert "s3cret" not in page(made).text


def test_what_is_sensitive_is_shown_to_nobody(page, declare):
    declare(Order, sensitive=["iban"])
    made = delivery(
        headers={"Content-Type": "application/json"}, body=b'{"iban": "s3cret", "number": "A-1"}'
    )

    assert '"iban": "[redacted]", "number": "A-1"' in text_of(page(made))


def test_headers_that_are_asked_for_are_named(page, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": "https://crm.example.com/", "HEADERS": {"X-Key": lambda: "s3cret"}}
    }

    assert "X-Key [redacted]" in text_of(page(delivery()))


def test_a_get_shows_no_key_and_no_body(page):
    text = text_of(page(delivery(method="GET", path="")))

    assert "Idempotency-Key" not in text
    assert "It has no body." in text


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"a=1&b=2", "a=1&b=2"),
        (b"\xff\xfe", "(2 bytes that are no text)"),
        (b"[" * 30_000, "(more is not shown)"),
    ],
)
def test_bodies_of_every_kind_are_shown(page, body, shown):
    made = delivery(body=body)
    attempt(made, status_code=200, response_body=body)

    assert text_of(page(made)).count(shown) == 2


def test_a_call_that_is_taken_later_says_so(page):
    assert "taken from the object at the first attempt" in text_of(page(delivery(method="")))


def test_the_one_before_it_is_linked(page, declare):
    declare(Order)
    head = delivery(lane="a")
    made = delivery(lane="a", state="waiting", available_at=None)

    answer = page(made)

    assert f"It waits behind delivery {head.pk}" in text_of(answer)
    assert f'<a href="{URL}{head.pk}/change/">See delivery {head.pk}</a>' in answer.text


def test_the_one_that_replaced_it_is_linked(page):
    newer = delivery()
    made = delivery(
        state="cancelled",
        available_at=None,
        finished_at=DatabaseNow(),
        replaced_by=newer,
        reason="A newer one.",
    )

    answer = page(made)

    assert "What became of it: A newer one." in text_of(answer)
    assert f"See delivery {newer.pk}" in answer.text


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dispatch": "shop.Old"}, "No dispatch named shop.Old is registered here"),
        ({"endpoint": "gone"}, "The settings here know no endpoint gone"),
        ({"model": "shop.renamed"}, "The site has no model shop.renamed any more"),
        ({"object_pk": 77}, "The object is gone."),
        ({"model": "shop.shipment", "object_pk": 5}, "The object is gone."),
    ],
)
@pytest.mark.parametrize("state", ["pending", "failed"])
def test_what_is_unknown_here_still_opens_and_says_so(page, declare, values, sentence, state):
    declare(Order)
    order = Order.objects.create(number="A-1")
    sound = {"object_pk": order.pk, "state": state}
    if state == "failed":
        sound |= {"available_at": None, "finished_at": DatabaseNow()}

    assert sentence in text_of(page(delivery(**sound | values)))
    assert sentence not in text_of(page(delivery(**sound)))


def test_other_deliveries_of_the_object_are_linked(page, monkeypatch):
    monkeypatch.setattr(detail, "SHOWN_OTHERS", 2)
    others = [delivery(event=event) for event in ("first", "second", "third")]
    made = delivery()
    delivery(object_pk=2, event="alien")

    answer = page(made)

    assert "first" not in text_of(answer)
    for other in others[1:]:
        assert f'<a href="{URL}{other.pk}/change/">{other.pk}</a> {other.event}' in answer.text
    assert f'href="{URL}?model=shop.order&object_pk=1"' in unescape(answer.text)
    assert "alien" not in answer.text


def test_of_many_attempts_the_last_are_shown(page, monkeypatch):
    monkeypatch.setattr(detail, "SHOWN_ATTEMPTS", 2)
    made = delivery(attempts=5)
    for number in range(1, 6):
        attempt(made, number)

    text = text_of(page(made))

    assert "3 earlier attempts, not shown" in text
    assert "Attempt 3" not in text
    assert "Attempt 4" in text


def test_markup_in_payload_headers_and_answer_is_shown_as_text(page):
    evil = "<img src=x onerror=alert(1)>"
    made = delivery(
        **dict.fromkeys(["dispatch", "endpoint", "event", "model", "path", "reason"], evil),
        **dict.fromkeys(["held_by", "trace", "object_pk", "environment"], evil),
        headers={evil: evil},
        body=evil.encode(),
    )
    attempt(
        made,
        status_code=200,
        error=evil,
        error_class=evil,
        sender=evil,
        response_headers={evil: evil},
        response_body=f'{{"a": "{evil}"}}'.encode(),
    )

    answer = page(made)

    assert "<img" not in answer.text
    assert answer.text.count("&lt;img src=x") >= 15


def test_a_delivery_that_was_deleted_leads_back_to_the_list(admin_client):
    for odd in ("999999", "x", "9" * 40):
        answer = admin_client.get(f"{URL}{odd}/change/", follow=True)
        assert "There is no such delivery any more." in answer.text
        assert answer.redirect_chain[-1][0] == URL


def test_the_page_of_another_outbox(page):
    made = delivery(using="other", dispatch="shop.Elsewhere")

    assert "shop.Elsewhere" in page(made, "?using=other").text


def test_whoever_may_view_sees_the_page_and_nobody_else(client):
    made = delivery()
    client.force_login(viewer("view_delivery"))
    assert client.get(f"{URL}{made.pk}/change/").status_code == 200
    assert client.get(f"{URL}{made.pk}/history/").status_code == 200

    client.force_login(User.objects.create_user("other", is_staff=True))
    assert client.get(f"{URL}{made.pk}/change/").status_code == 403


def test_it_makes_few_statements(client, declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    head = delivery(lane="a", object_pk=order.pk)
    made = delivery(lane="a", object_pk=order.pk, state="waiting", available_at=None)
    for number in range(1, 4):
        attempt(head, number, status_code=500)
    client.force_login(viewer("view_delivery"))
    for one in (head, made):
        with CaptureQueriesContext(connection) as queries:
            client.get(f"{URL}{one.pk}/change/")
        assert len([q for q in queries if "SAVEPOINT" not in q["sql"]]) <= 12


def test_the_page_has_no_styles_or_scripts_of_its_own(page):
    text = page(delivery()).text

    assert "<style" not in text
    assert " style=" not in text
    assert not re.search(r"<script(?![^>]* src=)[^>]*>", text)
