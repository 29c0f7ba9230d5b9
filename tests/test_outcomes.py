import re
import socket
import ssl
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from requests.structures import CaseInsensitiveDict
from urllib3 import exceptions as urllib3_errors

from signal_dispatch import calling, credentials, failures
from signal_dispatch.exceptions import EndpointUnresolved, InvalidEndpoint, SendError
from signal_dispatch.failures import explain
from signal_dispatch.outcomes import (
    ERROR_CLASSES,
    Outcome,
    OutcomeKind,
    Response,
    outcome_of,
    outcome_of_error,
)
from tests.once import ONCE

pytestmark = ONCE

ROOT = Path(__file__).parent.parent
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
LATER = "Sun, 01 Mar 2026 12:01:00 GMT"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_success_delivers(status):
    assert outcome_of(Response(status), NOW) == Outcome.delivered()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_passing_trouble_is_tried_again(status):
    outcome = outcome_of(Response(status), NOW)

    assert outcome.kind is OutcomeKind.RETRY
    assert outcome.error_class == "status"
    assert str(status) in outcome.reason


@pytest.mark.parametrize(
    "status", [103, 199, 300, 301, 302, 304, 307, 400, 401, 404, 409, 410, 422, 499, 600, 601]
)
def test_everything_else_is_rejected(status):
    outcome = outcome_of(Response(status), NOW)

    assert outcome.kind is OutcomeKind.REJECTED
    assert outcome.error_class == "status"


def test_reason_is_a_sentence():
    assert outcome_of(Response(503), NOW).reason == "It answered 503 Service Unavailable."
    assert outcome_of(Response(599), NOW).reason == "It answered 599."


@pytest.mark.parametrize(
    ("status", "told"), [(199, False), (300, True), (399, True), (400, False), (404, False)]
)
def test_only_a_redirect_speaks_of_redirects(status, told):
    assert ("Redirects" in outcome_of(Response(status), NOW).reason) is told


def test_redirect_says_that_it_is_not_followed():
    reason = outcome_of(Response(302, {"Location": "https://elsewhere.example/"}), NOW).reason

    assert reason == "It answered 302 Found. Redirects are not followed."


@pytest.mark.parametrize(("value", "after"), [("30", 30), ("nonsense", None), (LATER, 60)])
def test_retry_after_is_heard(value, after):
    assert outcome_of(Response(503, {"retry-after": value}), NOW).after == after


def test_retry_after_of_a_rejection_means_nothing():
    assert outcome_of(Response(404, {"Retry-After": "30"}), NOW).after is None


def test_error_is_tried_again_with_its_class_and_sentence():
    outcome = outcome_of_error(SendError("dns", "No such name."))

    assert outcome == Outcome(OutcomeKind.RETRY, None, "No such name.", "dns")


def test_error_that_would_be_the_same_for_ever_is_no_reason_to_try_again():
    outcome = outcome_of_error(SendError("address", "Not there.", for_good=True))

    assert outcome == Outcome(OutcomeKind.REJECTED, None, "Not there.", "address")


def test_outcomes_that_a_hook_returns():
    assert Outcome.delivered() == Outcome(OutcomeKind.DELIVERED, None, "", "")
    assert Outcome.retry() == Outcome(OutcomeKind.RETRY, None, "")
    assert Outcome.retry(after=5, reason="Busy.") == Outcome(OutcomeKind.RETRY, 5, "Busy.")
    assert Outcome.rejected("No.") == Outcome(OutcomeKind.REJECTED, None, "No.")


def test_rows_keep_the_kinds_by_these_names():
    assert [*OutcomeKind] == ["delivered", "retry", "rejected", "recreate"]


@pytest.mark.parametrize("after", [0, 0.5])
def test_retry_at_once_or_very_soon_is_possible(after):
    assert Outcome.retry(after=after).after == after


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf")])
def test_retry_after_an_impossible_time_is_refused(after):
    sentence = r"^'after' must be a finite number of seconds, not negative\.$"

    with pytest.raises(ValueError, match=sentence):
        Outcome.retry(after=after)


def test_what_came_of_an_attempt_can_not_be_altered():
    with pytest.raises(FrozenInstanceError):
        Outcome.delivered().reason = "Lost."
    with pytest.raises(FrozenInstanceError):
        Response(200).status_code = 500


def test_recreate_is_no_failure_with_an_answer_of_its_own():
    assert Outcome.recreate() == Outcome(OutcomeKind.RECREATE)


def test_response_reads_like_that_of_requests():
    response = Response(201, {"Content-Type": "application/json"}, b'{"id": "c-7"}')

    assert response.ok
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"id": "c-7"}
    assert response.text == '{"id": "c-7"}'


def test_response_of_a_mere_status_has_nothing_else():
    bare = Response(204)

    assert (bare.headers, bare.content, bare.url, bare.reason) == ({}, b"", "", "")
    assert (bare.encoding, bare.elapsed, bare.redact) == (None, timedelta(), ())
    assert bare.truncated is False


def test_response_keeps_its_headers_when_those_it_was_made_of_change():
    headers = CaseInsensitiveDict({"ETag": "7"})
    response = Response(200, headers)
    headers["ETag"] = "8"

    assert response.headers["etag"] == "7"


def test_response_of_requests_is_frozen_as_it_came():
    answer = requests.Response()
    answer.status_code, answer.url, answer.encoding = 201, "https://crm.example.com/", "latin-1"
    answer.headers["ETag"], answer.elapsed = "7", timedelta(seconds=2)

    unnamed = Response.from_answer(answer, b"made", truncated=False)
    answer.reason = "Made"
    named = Response.from_answer(answer=answer, content=b"m", truncated=True, redact=("token",))

    rest = {"url": answer.url, "encoding": "latin-1", "elapsed": timedelta(seconds=2)}
    assert unnamed == Response(201, {"ETag": "7"}, b"made", **rest)
    rest |= {"reason": "Made", "truncated": True, "redact": ("token",)}
    assert named == Response(201, {"ETag": "7"}, b"m", **rest)


@pytest.mark.parametrize(("status", "ok"), [(200, True), (399, True), (400, False), (500, False)])
def test_response_is_ok_below_400(status, ok):
    assert Response(status).ok is ok


def test_response_of_an_error_is_yet_true():
    assert bool(Response(500)) is True


def test_response_shows_neither_its_url_nor_what_it_brought():
    response = Response(
        200, {"Set-Cookie": "s3cret"}, b"s3cret", url="https://hooks.example.com/s3cret"
    )

    assert repr(response) == "<Response [200], 6 bytes>"


def test_message_of_a_body_that_is_not_json_keeps_the_names_of_redact_to_itself():
    response = Response(200, content=b"access_token=s3cret", redact=("access_token",))

    with pytest.raises(requests.JSONDecodeError, match=r"it begins '\[redacted\]'") as caught:
        response.json()
    assert "s3cret" not in caught.value.doc


def test_json_passes_its_arguments_on():
    assert Response(200, content=b"1.50").json(parse_float=str) == "1.50"


def test_body_that_is_not_json_says_what_came():
    response = Response(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")

    with pytest.raises(ValueError, match=r"\(200, text/html\) is not JSON.*<html>Sign in</html>"):
        response.json()
    with pytest.raises(requests.JSONDecodeError):
        response.json()


@pytest.mark.parametrize(("content", "position"), [(b'{"a": x}', 6), (b"9" * 5000, 0)])
def test_body_that_is_not_json_says_where_that_shows(content, position):
    with pytest.raises(requests.JSONDecodeError) as caught:
        Response(200, content=content).json()

    assert caught.value.pos == position


def test_body_that_is_not_json_is_shown_by_its_beginning():
    with pytest.raises(ValueError, match=f"it begins '<{'a' * 59}'"):
        Response(200, content=b"<" + b"a" * 99).json()


def test_body_cut_short_says_so_when_it_is_not_json():
    with pytest.raises(ValueError, match=r"no content type, cut at 5 bytes"):
        Response(200, content=b'{"id"', truncated=True).json()


@pytest.mark.parametrize("content", [b"\xff\xfe\xff", b"[" * 200_000, b"9" * 5000, b""])
def test_no_body_makes_json_raise_anything_but_a_value_error(content):
    with pytest.raises(requests.JSONDecodeError):
        Response(200, content=content).json()


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("iso-8859-1", "Ã©ÿ"),
        ("ascii", "\ufffd\ufffd\ufffd"),
        (None, "é\ufffd"),
        ("no-such-code", "é\ufffd"),
        ("base64", "é\ufffd"),
        ("\0", "é\ufffd"),
    ],
)
def test_text_survives_any_encoding(encoding, text):
    content = "é".encode() + b"\xff"

    assert Response(200, content=content, encoding=encoding).text == text


def test_stored_response_is_the_same_again():
    headers = {"content-type": "text/plain; charset=latin-1"}
    stored = Response.from_stored(
        status_code=404, headers=headers, content=b"\xe9", truncated=True, url="https://h/7"
    )

    assert (stored.headers, stored.url) == (headers, "https://h/7")
    assert stored.reason == "Not Found"
    assert stored.text == "é"
    assert stored.truncated
    assert not stored.ok
    assert Response.from_stored(200, {}, b"") == Response(200, reason="OK")


def _wrapped(cause: Exception) -> requests.ConnectionError:
    return requests.ConnectionError(urllib3_errors.ProtocolError("Connection aborted.", cause))


@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (requests.ConnectionError(socket.gaierror(-2, "Name or service not known")), "dns"),
        (requests.exceptions.SSLError("handshake"), "tls"),
        (requests.ConnectionError(ssl.SSLError(1, "wrong version")), "tls"),
        (requests.exceptions.ProxyError("no"), "connect"),
        (ConnectionRefusedError(111, "Connection refused"), "connect"),
        (requests.ConnectionError("refused by a mock"), "connect"),
        (requests.ConnectTimeout("slow"), "timeout"),
        (requests.ReadTimeout("slow"), "timeout"),
        (TimeoutError("the deadline is over"), "timeout"),
        (_wrapped(ConnectionResetError(104, "Connection reset by peer")), "protocol"),
        (requests.exceptions.ChunkedEncodingError("odd"), "protocol"),
        (requests.exceptions.ContentDecodingError("not gzip"), "protocol"),
        (requests.exceptions.InvalidHeader("X: s3cret"), "protocol"),
        (UnicodeEncodeError("latin-1", "s3cret", 0, 1, "ordinal"), "protocol"),
        (urllib3_errors.LocationParseError("https://s3cret@host"), "protocol"),
        (RuntimeError("s3cret"), "protocol"),
    ],
)
def test_errors_are_told_by_class_and_without_secrets(error, error_class):
    told = explain(error, "crm.example.com")

    assert told.error_class == error_class
    assert "crm.example.com" in str(told)
    assert str(told).endswith(".")
    assert "s3cret" not in str(told)


def test_words_of_the_operating_system_are_repeated():
    told = explain(ConnectionRefusedError(111, "Connection refused"), "crm.example.com:8000")

    assert str(told) == "crm.example.com:8000 could not be reached: Connection refused."


def test_error_of_settings_speaks_for_itself():
    told = explain(InvalidEndpoint('SIGNAL_DISPATCH_ENDPOINTS["crm"]["AUTH"] is bad'), "h")

    assert str(told) == 'SIGNAL_DISPATCH_ENDPOINTS["crm"]["AUTH"] is bad'


# Error classes.

_GIVEN = re.compile(
    r"(?:error_class=|error_class(?:, [a-z.]+)? = (?:State.FAILED, )?"
    r'|SendError\(\s*|_fail\(delivery, |Outcome\(OutcomeKind.[A-Z]+, \w+, reason, )"(\w+)"'
)


def test_every_error_class_that_the_code_gives_is_known():
    code = "".join(path.read_text() for path in (ROOT / "signal_dispatch").rglob("*.py"))
    given = {*_GIVEN.findall(code), *(name for _kinds, name, _text in failures._FAILURES)}
    given |= {calling.FILES, calling.SDK, credentials.ERROR_CLASS, *EndpointUnresolved.CLASSES}

    assert given == set(ERROR_CLASSES)


def test_every_error_class_is_explained_in_the_documents():
    text = (ROOT / "docs/reference/states.md").read_text()
    table = text.partition("\n## Error classes\n")[2]

    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(ERROR_CLASSES)
