"""One attempt: the call, what the answer means, and what the site's hooks make of it."""

import pytest
from django.db import transaction

from signal_dispatch import ModelDispatch, Outcome, RetryPolicy
from signal_dispatch.endpoints import endpoints
from signal_dispatch.exceptions import EndpointUnresolved
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.signals import attempt_finished, delivery_finished
from signal_dispatch.signing import verify
from tests.deliveries import seconds_until
from tests.receiver import HANG_UP
from tests.sending import attempt
from tests.shop.models import Order, Tag

pytestmark = pytest.mark.django_db


def only():
    return Delivery.objects.get()


def answer(status, body=b"{}", **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request: (status, {"Content-Type": "application/json"} | headers, body)


def test_a_call_carries_what_was_recorded_and_what_the_endpoint_adds(declare, receiver, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": receiver.url, "HEADERS": {"Authorization": "Bearer s3cret"}}
    }
    declare(Order, path="orders/{number}", method="PUT", headers={"X-Source": "shop"})
    Order.objects.create(number="A-1")
    attempt()

    (request,) = receiver.requests
    made = only()
    assert (request.method, request.path) == ("PUT", "/orders/A-1")
    assert request.json == {"number": "A-1", "status": "draft"}
    assert request.headers["Authorization"] == "Bearer s3cret"
    assert request.headers["X-Source"] == "shop"
    assert request.headers["Idempotency-Key"] == str(made.uid)
    assert "s3cret" not in str(made.headers)


def test_each_attempt_is_its_own(declare, receiver):
    told = []

    def note(sender, delivery, attempt, **kwargs):
        told.append((attempt.response_headers, attempt.delivery is delivery))
        attempt.response_headers["X-Noted"] = "by a receiver"

    declare(Order, retry=RetryPolicy(delays=[0]))
    made = Order.objects.create(number="A-1")
    receiver.script = lambda request: HANG_UP
    attempt_finished.connect(note)
    try:
        attempt()
        made.save()
        attempt()
    finally:
        attempt_finished.disconnect(note)

    assert told == [({"X-Noted": "by a receiver"}, True)] * 2
    assert [a.response_headers for a in Attempt.objects.all()] == [{}, {}]


def test_an_answer_is_recorded(declare, receiver):
    declare(Order)
    Order.objects.create(number="A-1")
    receiver.script = answer(201, b'{"id": 7}', X_Trace="t")
    attempt()

    made, tried = only(), Attempt.objects.get()
    assert (made.state, made.attempts, made.last_status) == ("delivered", 1, 201)
    assert made.finished_at is not None
    assert made.available_at is None
    assert made.last_duration_ms == tried.duration_ms
    assert (tried.number, tried.outcome, tried.status_code) == (1, "delivered", 201)
    assert bytes(tried.response_body) == b'{"id": 7}'
    assert tried.response_headers["X-Trace"] == "t"
    assert not tried.truncated


def test_what_an_answer_brings_in_confidence_is_masked_when_it_is_stored(
    declare, receiver, settings
):
    settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]["REDACT"] = ["access_token", "X-Session"]
    settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]["QUERY"] = {"key": "s3cret"}
    seen = []

    class Told(ModelDispatch):
        def handle_response(self, delivery, response):
            seen.append((response.json(), dict(response.headers)))
            if len(seen) == 1:
                raise RuntimeError("not now")

    declare(Order, base=Told)
    Order.objects.create(number="A-1")
    receiver.script = answer(
        200,
        b'{"id": 7, "access_token": "s3cret"}',
        Set_Cookie="s3cret",
        X_Session="s3cret",
        Location="/orders/?key=s3cret",
    )
    attempt()
    kept = Attempt.objects.get()
    attempt()

    fresh, again = seen
    assert fresh[0] == {"id": 7, "access_token": "s3cret"}
    assert fresh[1]["Set-Cookie"] == "s3cret"
    assert again[0] == {"id": 7, "access_token": "[redacted]"}, "the answer that was kept"
    assert again[1]["Set-Cookie"] == "[redacted]"
    assert len(receiver.requests) == 1
    assert "s3cret" not in f"{kept.response_headers}{kept.error}{only().reason}"
    assert b"s3cret" not in bytes(kept.response_body)
    assert kept.response_headers["Location"] == "/orders/?key=[redacted]"


def test_redirect_that_repeats_the_endpoints_url_does_not_give_it_away(declare, receiver, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]["URL"] = receiver.url + "services/s3cret/"
    declare(Order, path="orders")
    Order.objects.create(number="A-1")
    receiver.script = lambda request: (301, {"Location": request.path + "/"}, b"")
    attempt()

    assert Attempt.objects.get().response_headers["Location"] == "[redacted]orders/"


@pytest.mark.parametrize(
    "query", [lambda: {"key": "s3cret"}, {"key": lambda: "s3cret"}], ids=["whole", "part"]
)
def test_answer_that_repeats_what_was_asked_for_does_not_give_it_away(
    declare, receiver, settings, query
):
    url = f"{receiver.url}?sig=s3cret"
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": url, "QUERY": query}}
    receiver.script = lambda request: (201, {"Location": request.path}, b"{}")
    declare(Order, path="orders/{number}")
    Order.objects.create(number="A-1")
    attempt()

    assert receiver.requests[0].path == "/orders/A-1?sig=s3cret&key=s3cret"
    kept = Attempt.objects.get()
    assert kept.response_headers["Location"] == "/orders/A-1?sig=[redacted]&key=[redacted]"


@pytest.mark.parametrize("status", [301, 400, 404, 410])
def test_a_rejection_is_failed_at_once(declare, receiver, status):
    declare(Order)
    Order.objects.create(number="A-1")
    receiver.script = answer(status)
    attempt()

    assert (only().state, only().error_class, only().attempts) == ("failed", "status", 1)
    assert str(status) in only().reason


def test_a_failure_is_tried_again_until_the_policy_ends(declare, receiver):
    declare(Order, retry=RetryPolicy([0, 60, 60], jitter=0))
    Order.objects.create(number="A-1")
    receiver.script = answer(503)
    attempt()
    assert (only().state, only().attempts) == ("pending", 1)
    assert 50 < (only().available_at - only().created_at).total_seconds() < 70
    attempt()
    attempt()

    assert (only().state, only().attempts) == ("failed", 3)
    assert [a.outcome for a in Attempt.objects.order_by("number")] == ["retry"] * 3
    keys = {request.headers["Idempotency-Key"] for request in receiver.requests}
    assert keys == {str(only().uid)}


def test_retry_after_is_never_undercut(declare, receiver):
    declare(Order, retry=RetryPolicy([0, 1, 1], jitter=0))
    Order.objects.create(number="A-1")
    receiver.script = answer(429, Retry_After="600")
    attempt()

    assert (only().available_at - only().created_at).total_seconds() > 595


def test_a_network_error_is_a_retry_with_a_class(declare, receiver):
    declare(Order)
    Order.objects.create(number="A-1")
    receiver.close()
    attempt()

    assert (only().state, only().error_class, only().last_status) == ("pending", "connect", None)
    assert Attempt.objects.get().error == only().reason


# Credentials


def test_vault_that_fails_is_an_attempt_and_is_asked_anew_at_the_next(declare, receiver, settings):
    answers = [{}, {"X-Key": "s3cret\n"}, {"X-Key": "sound"}]

    def vault():
        return answers.pop(0)["X-Key"]

    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": receiver.url, "HEADERS": {"X-Key": vault}}}
    declare(Order)
    Order.objects.create(number="A-1")
    attempt()
    assert (only().state, only().error_class, only().attempts) == ("pending", "credentials", 1)
    attempt()
    attempt()

    (request,) = receiver.requests
    assert request.headers["X-Key"] == "sound"
    assert (only().state, only().attempts) == ("delivered", 3)
    path = 'SIGNAL_DISPATCH_ENDPOINTS["crm"]["HEADERS"]'
    assert list(Attempt.objects.values_list("outcome", "error_class", "error")) == [
        ("retry", "credentials", f'{path}["X-Key"] was asked for, and KeyError was raised.'),
        (
            "retry",
            "credentials",
            f"{path} was asked for, and the answer holds a line break or a character beyond "
            "Latin-1 in 'X-Key'.",
        ),
        ("delivered", "", ""),
    ]


def test_signature_bears_the_uid_at_every_attempt_and_is_kept_nowhere(declare, receiver, settings):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": receiver.url, "SECRETS": [secret]}}
    declare(Order, fields=["number", "total", "notes"])
    receiver.play((503, {}, b""), (200, {}, b""))
    Order.objects.create(number="A-1", total="1.50", notes="Zoë")
    attempt()
    attempt()

    assert [r.headers["webhook-id"] for r in receiver.requests] == [str(only().uid)] * 2
    for request in receiver.requests:
        verify(request.body, request.headers, [secret])
    assert not [name for name in only().headers if name.lower().startswith("webhook-")]


def test_signature_covers_files_that_go_along(declare, receiver, settings):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": receiver.url, "SECRETS": [secret]}}
    declare(Order, get_files=lambda self, delivery: {"invoice": ("a.pdf", b"\x00\xff%PDF")})
    Order.objects.create(number="A-1")
    attempt()

    (request,) = receiver.requests
    assert request.headers["Content-Type"].startswith("multipart/form-data")
    assert b"\x00\xff%PDF" in request.body
    verify(request.body, request.headers, [secret])


# get_outcome


@pytest.mark.parametrize(
    ("outcome", "state", "reason"),
    [
        (Outcome.rejected("It says no."), "failed", "It says no."),
        (Outcome.retry(reason="Not yet."), "pending", "Not yet."),
        (Outcome.retry(after=900), "pending", ""),
        (Outcome.delivered(), "delivered", ""),
        (None, "delivered", ""),
    ],
)
def test_get_outcome_is_believed(declare, receiver, outcome, state, reason):
    class Judging(ModelDispatch):
        def get_outcome(self, delivery, response):
            return outcome if response.json() == {} else None

    declare(Order, base=Judging)
    Order.objects.create(number="A-1")
    attempt()

    assert (only().state, only().reason) == (state, reason)
    if outcome and outcome.after:
        assert (only().available_at - only().created_at).total_seconds() > 890


def test_a_conflict_may_mean_delivered(declare, receiver):
    class HasIt(ModelDispatch):
        def get_outcome(self, delivery, response):
            return Outcome.delivered() if response.status_code == 409 else None

    declare(Order, base=HasIt)
    Order.objects.create(number="A-1")
    receiver.script = answer(409)
    attempt()

    assert (only().state, only().last_status) == ("delivered", 409)


# handle_response


class WritesBack(ModelDispatch):
    """Keeps the id of the answer; fails as often as the class says."""

    failures = 0

    def handle_response(self, delivery, response):
        Order.objects.filter(pk=delivery.object_pk).update(crm_id=response.json()["id"])
        if type(self).failures:
            type(self).failures -= 1
            raise RuntimeError("not now")


def test_the_answer_is_written_with_the_mark(declare, receiver):
    declare(Order, base=WritesBack)
    order = Order.objects.create(number="A-1")
    receiver.script = answer(201, b'{"id": "c-7"}')
    attempt()

    order.refresh_from_db()
    assert (order.crm_id, only().state) == ("c-7", "delivered")


def test_a_handler_that_raises_is_tried_alone(declare, receiver):
    declare(Order, base=WritesBack, failures=2, retry=RetryPolicy([0, 1, 1, 1], jitter=0))
    order = Order.objects.create(number="A-1")
    receiver.script = answer(201, b'{"id": "c-7"}')
    attempt()
    assert (only().state, only().error_class, only().handler_tries) == ("pending", "handler", 1)
    assert "handle_response() raised RuntimeError: not now" in only().reason
    order.refresh_from_db()
    assert order.crm_id == "", "what it wrote before it raised is undone"
    attempt()
    attempt()

    order.refresh_from_db()
    assert (order.crm_id, only().state, only().handler_tries) == ("c-7", "delivered", 2)
    assert len(receiver.requests) == Attempt.objects.count() == only().attempts == 1


def test_a_handler_that_never_works_is_failed_and_the_answer_stays(declare, receiver):
    declare(Order, base=WritesBack, failures=9, retry=RetryPolicy([0, 1], jitter=0))
    Order.objects.create(number="A-1")
    receiver.script = answer(201, b'{"id": "c-7"}')
    attempt()
    attempt()

    assert (only().state, only().error_class) == ("failed", "handler")
    assert bytes(Attempt.objects.get().response_body) == b'{"id": "c-7"}'
    assert len(receiver.requests) == 1


def test_an_answer_that_is_not_json_says_so(declare, receiver):
    declare(Order, base=WritesBack)
    Order.objects.create(number="A-1")
    receiver.script = answer(200, b"<html>hello", Content_Type="text/html")
    attempt()

    assert (only().state, only().error_class) == ("pending", "handler")
    assert "is not JSON" in only().reason
    assert "<html>hello" in only().reason


def test_a_failing_get_outcome_keeps_the_answer_too(declare, receiver):
    class Broken(ModelDispatch):
        def get_outcome(self, delivery, response):
            raise LookupError("bug")

    declare(Order, base=Broken)
    Order.objects.create(number="A-1")
    attempt()
    attempt()

    assert (only().state, only().handler_tries, only().attempts) == ("pending", 2, 1)
    assert len(receiver.requests) == 1


def test_a_kept_answer_that_says_not_now_leads_to_a_new_call(declare, receiver):
    class Mended(ModelDispatch):
        broken = True

        def get_outcome(self, delivery, response):
            if type(self).broken:
                raise LookupError("bug")

    mended = declare(Order, base=Mended)
    Order.objects.create(number="A-1")
    receiver.script = answer(503)
    attempt()
    mended.broken = False
    receiver.script = answer(200)
    attempt()
    attempt()

    assert (only().state, only().attempts) == ("delivered", 2)
    assert len(receiver.requests) == 2


def test_an_answer_that_was_judged_is_not_judged_again(declare, receiver):
    class Changeable(ModelDispatch):
        says = [Outcome.delivered(), Outcome.retry()]

        def get_outcome(self, delivery, response):
            return self.says.pop(0)

        def handle_response(self, delivery, response):
            if delivery.handler_tries == 0:
                raise RuntimeError("not today")

    declare(Order, base=Changeable)
    Order.objects.create(number="A-1")
    attempt()
    attempt()
    attempt()

    assert (only().state, only().attempts, only().handler_tries) == ("delivered", 1, 1)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize("wrong", ["delivered", True, Outcome])
def test_what_is_no_outcome_is_an_error_of_the_hook(declare, receiver, wrong):
    class Wrong(ModelDispatch):
        def get_outcome(self, delivery, response):
            return wrong

    declare(Order, base=Wrong, retry=RetryPolicy([0, 1], jitter=0))
    Order.objects.create(number="A-1")
    attempt()
    assert "get_outcome() raised TypeError: it returned" in only().reason
    attempt()

    assert (only().state, only().error_class, len(receiver.requests)) == ("failed", "handler", 1)


def test_a_handler_that_would_end_the_process_is_an_error_of_the_hook(declare, receiver):
    class Leaves(ModelDispatch):
        def handle_response(self, delivery, response):
            raise SystemExit(1)

    declare(Order, base=Leaves)
    Order.objects.create(number="A-1")
    attempt()

    assert (only().state, only().error_class) == ("pending", "handler")
    assert "sys.exit()" in only().reason


@pytest.mark.django_db(transaction=True)
def test_a_commit_hook_that_fails_undoes_nothing(declare, receiver, caplog):
    class Hooked(ModelDispatch):
        def handle_response(self, delivery, response):
            Tag.objects.create(name="once")
            transaction.on_commit(lambda: 1 / 0)

    declare(Order, base=Hooked)
    Order.objects.create(number="A-1")
    attempt()
    attempt()

    assert (only().state, Tag.objects.count(), Attempt.objects.count()) == ("delivered", 1, 1)
    assert "A commit hook of the site failed" in caplog.text


@pytest.mark.django_db(transaction=True)
def test_a_handler_may_delete_its_delivery(declare, receiver):
    class Cleans(ModelDispatch):
        def handle_response(self, delivery, response):
            delivery.delete()

    declare(Order, base=Cleans)
    Order.objects.create(number="A-1")
    attempt()
    attempt()

    assert not Delivery.objects.exists()
    assert len(receiver.requests) == 1


def test_where_the_answer_is_needed_whole_a_cut_one_is_failed(declare, receiver, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": receiver.url, "MAX_RESPONSE_BYTES": 10}}
    handled = declare(Order, base=WritesBack, name="shop.Handled")
    declare(Order)
    Order.objects.create(number="A-1")
    receiver.script = answer(200, b'{"id": "' + b"x" * 100 + b'"}')
    attempt()

    rows = {d.dispatch: (d.state, d.error_class) for d in Delivery.objects.all()}
    assert rows == {"shop.Handled": ("failed", "too_large"), "shop.Told": ("delivered", "")}
    assert Attempt.objects.filter(truncated=True).count() == 2
    assert handled is not None


def test_an_answer_saved_back_does_not_call_again(declare, receiver):
    class SavesBack(ModelDispatch):
        def handle_response(self, delivery, response):
            order = Order.objects.get(pk=delivery.object_pk)
            order.crm_id = "c-7"
            order.save()
            Order.objects.create(number="another")

    declare(Order, base=SavesBack)
    Order.objects.create(number="A-1")
    attempt()

    first, second = Delivery.objects.order_by("id")
    assert first.state == "delivered"
    assert (second.payload["number"], second.hops) == ("another", 1)


def test_dispatches_that_answer_each_other_end(declare, receiver):
    class Answering(ModelDispatch):
        def handle_response(self, delivery, response):
            Order.objects.get(number=self.other).save()

    declare(Order, base=Answering, name="shop.One", other="A-2", on=["updated"])
    with transaction.atomic():
        Order.objects.create(number="A-1")
        Order.objects.create(number="A-2")
    declare(Order, base=Answering, name="shop.Two", other="A-1", on=["updated"])
    Order.objects.get(number="A-1").save()
    for _ in range(8):
        attempt()

    assert max(Delivery.objects.values_list("hops", flat=True)) == 5
    assert not Delivery.objects.unfinished().exists()
    ended = Delivery.objects.filter(hops=5)
    assert {(d.state, d.error_class) for d in ended} == {("failed", "loop")}
    assert "answer each other" in ended[0].reason


# handle_failure


class Counts(ModelDispatch):
    """Counts its failures in tags."""

    def handle_failure(self, delivery, attempt):
        seen = (str(delivery.state), delivery.last_status, delivery.attempts, bool(delivery.reason))
        Tag.objects.create(name=f"{seen} {attempt.status_code}")
        if delivery.payload["status"] == "raise":
            raise RuntimeError("in the hook")


def test_handle_failure_is_called_once_when_it_is_final(declare, receiver, caplog):
    declare(Order, base=Counts, retry=RetryPolicy([0, 1], jitter=0))
    Order.objects.create(number="A-1")
    receiver.script = answer(500)
    attempt()
    assert not Tag.objects.exists()
    attempt()

    assert Tag.objects.get().name == "('failed', 500, 2, True) 500"
    assert (only().state, only().attempts) == ("failed", 2)
    assert "is failed for good. It answered 500" in caplog.text


def test_a_failing_handle_failure_changes_nothing(declare, receiver):
    declare(Order, base=Counts)
    Order.objects.create(number="A-1", status="raise")
    receiver.script = answer(400)
    attempt()

    assert (only().state, only().error_class) == ("failed", "status")
    assert "handle_failure() raised RuntimeError: in the hook" in only().reason
    assert not Tag.objects.exists()


# Order, signals, odd answers.


def test_the_next_of_a_lane_follows_its_head(declare, receiver):
    declare(Order)
    order = Order.objects.create(number="A-1")
    for status in "abc":
        order.status = status
        order.save()
    assert list(Delivery.objects.order_by("id").values_list("state", flat=True)) == [
        "pending",
        "waiting",
        "waiting",
        "waiting",
    ]
    attempt()

    assert [r.json["status"] for r in receiver.requests] == ["draft", "a", "b", "c"]


def test_a_failing_head_holds_up_its_own_lane_until_it_is_failed(declare, receiver):
    declare(Order, retry=RetryPolicy([0, 60], jitter=0))
    order = Order.objects.create(number="A-1")
    order.save()
    Order.objects.create(number="B-1")
    receiver.script = lambda r: (500 if r.json["number"] == "A-1" else 200, {}, b"")
    attempt()
    assert [r.json["number"] for r in receiver.requests] == ["A-1", "B-1"]
    attempt()

    assert [r.json["number"] for r in receiver.requests] == ["A-1", "B-1", "A-1", "A-1"]
    states = Delivery.objects.order_by("id").values_list("state", flat=True)
    assert list(states) == ["failed", "pending", "delivered"]


def test_without_order_nothing_waits(declare, receiver):
    declare(Order, ordered=False)
    order = Order.objects.create(number="A-1")
    order.save()

    assert set(Delivery.objects.values_list("state", "lane")) == {("pending", "")}


def test_receivers_hear_how_it_went(declare, receiver):
    heard = []

    def tried(delivery, attempt, **kwargs):
        heard.append(("attempt", attempt.number, delivery.state))

    def finished(delivery, **kwargs):
        heard.append(("finished", delivery.attempts, delivery.state))

    declare(Order)
    Order.objects.create(number="A-1")
    receiver.script = answer(503)
    attempt_finished.connect(tried)
    delivery_finished.connect(finished)
    try:
        attempt()
        receiver.script = answer(200)
        attempt()
    finally:
        attempt_finished.disconnect(tried)
        delivery_finished.disconnect(finished)

    assert heard == [
        ("attempt", 1, "pending"),
        ("attempt", 2, "delivered"),
        ("finished", 2, "delivered"),
    ]


def test_odd_bytes_in_an_answer_are_stored(declare, receiver):
    declare(Order)
    Order.objects.create(number="A-1")
    receiver.script = lambda request: (200, {"X-Odd": "caf\xe9"}, b"\x00\xff")
    attempt()

    assert only().state == "delivered"
    assert bytes(Attempt.objects.get().response_body) == b"\x00\xff"


def test_an_object_that_is_gone_is_still_told_of(declare, receiver):
    declare(Order, on=["created"])
    order = Order.objects.create(number="A-1")
    order.delete()
    attempt()

    assert receiver.requests[0].json["number"] == "A-1"
    assert only().state == "delivered"


def test_is_latest_knows_of_later_deliveries(declare, receiver):
    declare(Order)
    declare(Order, name="shop.Unordered", ordered=False)
    order = Order.objects.create(number="A-1")
    order.save()
    Order.objects.create(number="B-1")

    latest = [d.is_latest for d in Delivery.objects.order_by("dispatch", "id")]
    assert latest == [False, True, True, False, True, True]


# --- an endpoint that a RESOLVER names


@pytest.mark.parametrize("endpoint", ["tenant:42", ["tenant:42", "crm", "tenant:7"]])
def test_a_call_goes_where_the_resolver_says(declare, receiver, tenant, endpoint):
    tenant.come("42", HEADERS={"Authorization": "Bearer s3cret"})
    tenant.come("7")
    declare(Order, path="orders", get_endpoint=lambda self, order, change: endpoint)
    Order.objects.create(number="A-1")
    assert tenant.asked == [], "recording asks nobody"
    attempt()

    paths = {"tenant:42": "/42/orders", "tenant:7": "/7/orders", "crm": "/orders"}
    told = [endpoint] if isinstance(endpoint, str) else endpoint
    assert [request.path for request in receiver.requests] == [paths[name] for name in told]
    assert receiver.requests[0].headers["Authorization"] == "Bearer s3cret"
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    assert "s3cret" not in str(list(Delivery.objects.values()))


def test_a_delivery_whose_endpoint_is_gone_waits_and_uses_no_attempt(declare, receiver, tenant):
    declare(Order, endpoint="tenant:42")
    Order.objects.create(number="A-1")
    for _ in range(3):
        attempt()
        made = only()
        assert (made.state, made.attempts, made.error_class) == ("pending", 0, "gone")
        assert made.reason == f'{tenant.PATH}("42") knows no endpoint.'
        assert 4 < seconds_until(made.available_at) < 11
    assert tenant.asked == ["42"], "that is not asked again at once"
    assert not Attempt.objects.exists()

    tenant.come("42")
    endpoints.forget()
    attempt()
    made = only()
    assert (made.state, made.attempts, made.reason) == ("delivered", 1, "")


def test_a_resolver_that_fails_lets_its_delivery_wait_and_says_where(
    declare, receiver, tenant, as_in_production
):
    tenant.answers["42"] = RuntimeError("s3cret")
    declare(Order, endpoint="tenant:42")
    with transaction.atomic():  # whose hook is never called in a test
        Order.objects.create(number="A-1")
    (settlement,) = attempt()

    made = only()
    assert (made.state, made.attempts, made.error_class) == ("pending", 0, "resolver")
    assert made.reason == f'{tenant.PATH}("42") raised RuntimeError.'
    assert isinstance(settlement.hook_error, EndpointUnresolved), "for a test to raise"


def test_a_test_is_told_of_a_resolver_that_fails(declare, tenant):
    tenant.answers["42"] = error = RuntimeError("not today")
    declare(Order, endpoint="tenant:42")
    Order.objects.create(number="A-1")

    with pytest.raises(EndpointUnresolved) as caught:
        attempt(raising=True)
    assert caught.value.__cause__ is error


def test_what_is_taken_when_it_is_sent_is_taken_when_the_tenant_is_back(declare, receiver, tenant):
    declare(Order, endpoint="tenant:42", snapshot="send", merge=False)
    order = Order.objects.create(number="A-1")
    attempt()
    Order.objects.filter(pk=order.pk).update(status="paid")
    tenant.come("42")
    endpoints.forget()
    attempt()

    assert [request.json["status"] for request in receiver.requests] == ["paid"]


def test_an_answer_that_is_kept_needs_no_endpoint(declare, receiver, tenant):
    handled = []

    def handle_response(self, delivery, response):
        handled.append(response.status_code)
        if len(handled) == 1:
            raise RuntimeError("not today")

    tenant.come("42")
    declare(Order, endpoint="tenant:42", handle_response=handle_response)
    Order.objects.create(number="A-1")
    attempt()
    tenant.forget()
    endpoints.forget()
    attempt()

    assert (only().state, handled, len(receiver.requests)) == ("delivered", [200, 200], 1)
    assert tenant.asked == []


def test_the_retries_of_a_tenant_are_its_own(declare, receiver, tenant):
    tenant.come("42", RETRY={"delays": [0, 700], "jitter": 0})
    receiver.script = answer(503)
    declare(Order, endpoint="tenant:42")
    Order.objects.create(number="A-1")
    attempt()

    assert 690 < seconds_until(only().available_at) < 701
