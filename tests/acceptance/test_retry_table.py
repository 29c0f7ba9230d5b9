"""What each status leads to, and when it is tried again, to the second."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from signal_dispatch.entries import Endpoint
from signal_dispatch.outcomes import OutcomeKind, Response, outcome_of
from signal_dispatch.retries import MAX_RETRY_AFTER
from tests.acceptance.soak import report
from tests.calling import call
from tests.once import ONCE
from tests.receiver import Raw, Receiver

# The receivers are real servers.
pytestmark = [ONCE, pytest.mark.signal_dispatch_network]

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = 86_400
# Seconds until the next attempt at the earliest; None: as the policy says.
RETRY_AFTER = {
    None: None,
    "0": 0,
    "7": 7,
    "1000000000": DAY,
    "1e9": None,
    "-1": None,
    "1.5": None,
    format_datetime(NOW + timedelta(seconds=90), usegmt=True): 90,
    format_datetime(NOW + timedelta(days=3), usegmt=True): DAY,
    format_datetime(NOW - timedelta(seconds=90), usegmt=True): 0,
    "soon": None,
    "7, 9": None,
    "": None,
}
# Written out, so that it can differ from the code.
DELIVERS = set(range(200, 300))
RETRIES = {408, 425, 429} | set(range(500, 600))


def expected(status, after):
    if status in DELIVERS:
        return OutcomeKind.DELIVERED, None
    return (OutcomeKind.RETRY, after) if status in RETRIES else (OutcomeKind.REJECTED, None)


def judged(response):
    outcome = outcome_of(response, NOW)
    return outcome.kind, outcome.after


def test_every_status_with_every_retry_after():
    wrong = []
    for status in range(100, 600):
        for value, after in RETRY_AFTER.items():
            headers = {} if value is None else {"Retry-After": value}
            if judged(Response(status, headers)) != expected(status, after):
                wrong.append((status, value, judged(Response(status, headers))))
    report("retry table", pairs=500 * len(RETRY_AFTER), wrong=len(wrong))

    assert wrong == []
    assert MAX_RETRY_AFTER == DAY


def test_every_status_over_the_wire(receiver, sessions):
    endpoint = Endpoint("crm", receiver.url)
    statuses = [101, *range(200, 600)]
    wrong = {}
    for status in statuses:
        receiver.reply(status, headers={"Retry-After": "7"})
        found = judged(call(endpoint, sessions))
        if found != expected(status, 7):
            wrong[status] = found
    report("statuses over the wire", statuses=len(statuses), wrong=len(wrong))

    assert wrong == {}
    assert len(receiver.requests) == len(statuses)


def test_every_interim_status_over_the_wire(receiver, sessions):
    endpoint = Endpoint("crm", receiver.url)
    answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"
    interim = [100, *range(102, 200)]
    wrong = {}
    for status in interim:
        receiver.script = lambda request: Raw([b"HTTP/1.1 %d So\r\n\r\n" % status, answer])  # noqa: B023 - called within the round
        found = judged(call(endpoint, sessions))
        if found != (OutcomeKind.RETRY, 7):
            wrong[status] = found
    report("interim statuses over the wire", statuses=len(interim), wrong=len(wrong))

    assert wrong == {}


def test_every_retry_after_over_the_wire(receiver, sessions):
    endpoint = Endpoint("crm", receiver.url)
    for value, after in RETRY_AFTER.items():
        receiver.reply(429, headers={} if value is None else {"Retry-After": value})

        assert judged(call(endpoint, sessions)) == (OutcomeKind.RETRY, after), value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_redirect_to_a_second_host(receiver, sessions, status, method):
    with Receiver() as elsewhere:
        elsewhere_url = elsewhere.url.replace("127.0.0.1", "localhost")
        receiver.reply(status, headers={"Location": elsewhere_url, "Retry-After": "7"})
        endpoint = Endpoint("crm", receiver.url, headers={"Authorization": "Bearer s3cret"})
        response = call(endpoint, sessions, method=method)
        report(f"{status} for {method} to a second host", its_requests=len(elsewhere.requests))

        assert judged(response) == (OutcomeKind.REJECTED, None)
        assert len(receiver.requests) == 1
        assert elsewhere.requests == []
        assert elsewhere.connections == 0
