import base64
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from signal_dispatch.exceptions import SignatureError
from signal_dispatch.signing import sign, verify
from tests.once import ONCE

pytestmark = ONCE

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
AT = 1614265330
BODY = b'{"test": 2432232314}'

PUBLISHED = [
    (SECRET, ID, AT, BODY, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    (
        OTHER,
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1649367553,
        b'{"email":"test@example.com","username":"test_user"}',
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    ),
]


def signed(*secrets, body=BODY, at=AT):
    return sign(secrets or [SECRET], id=ID, timestamp=at, body=body)


@pytest.mark.parametrize(("secret", "id_", "at", "body", "signature"), PUBLISHED)
def test_published_vectors_are_met(secret, id_, at, body, signature):
    headers = sign([secret], id=id_, timestamp=at, body=body)

    assert headers == {
        "webhook-id": id_,
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }
    verify(body, headers, [secret], now=at)


def test_several_secrets_sign_in_their_order():
    both = signed(SECRET, OTHER)["webhook-signature"]

    alone = [signed(secret)["webhook-signature"] for secret in (SECRET, OTHER)]
    assert both == " ".join(alone)


@given(
    key=st.binary(min_size=24, max_size=64),
    body=st.one_of(
        st.text().map(lambda text: text.encode(errors="replace")),
        st.floats(allow_nan=False).map(lambda number: json.dumps(number).encode()),
    ),
)
def test_the_reference_library_agrees(key, body):
    secret = "whsec_" + base64.b64encode(key).decode()
    now = int(time.time())
    headers = sign([secret], id=ID, timestamp=now, body=body)

    Webhook(secret).verify(body, headers, json_parse=False)
    # Told in UTC: of any other zone the library takes the clock's face.
    theirs = Webhook(secret).sign(ID, datetime.fromtimestamp(now, UTC), body.decode())
    assert theirs == headers["webhook-signature"]
    verify(body, headers | {"webhook-signature": theirs}, [secret])


def test_body_that_is_no_text_can_be_signed():
    body = b"\xff\x00\x80"

    verify(body, signed(body=body), [SECRET], now=AT)


@pytest.mark.parametrize("secrets", [[SECRET], [OTHER, SECRET], (SECRET, OTHER)])
def test_any_signature_of_any_secret_is_enough(secrets):
    fitting = signed()["webhook-signature"]
    header = f"v2,? v1,AAAA v1a,{fitting[3:]} {fitting} nonsense"

    verify(BODY, signed() | {"webhook-signature": header}, secrets, now=AT)


def test_names_of_headers_may_have_any_case():
    verify(BODY, {name.title(): value for name, value in signed().items()}, [SECRET], now=AT)


@pytest.mark.parametrize("off", [-300, 300])
def test_time_within_the_tolerance_is_taken(off):
    verify(BODY, signed(), [SECRET], now=AT + off)


def test_time_is_judged_by_the_clock():
    verify(BODY, signed(at=int(time.time())), [SECRET])
    with pytest.raises(SignatureError, match="in the past"):
        verify(BODY, signed(), [SECRET])


REFUSED = [
    ({"webhook-id": None}, {}, "The header webhook-id is missing."),
    ({"webhook-timestamp": None}, {}, "The header webhook-timestamp is missing."),
    ({"webhook-signature": None}, {}, "The header webhook-signature is missing."),
    ({"webhook-signature": ""}, {}, "The header webhook-signature is missing."),
    ({}, {"now": AT + 301}, "lies 301 s in the past, more than the 300 s that are tolerated."),
    ({}, {"now": AT - 301}, "lies 301 s in the future, more than"),
    ({}, {"now": AT + 11, "tolerance": 10}, "lies 11 s in the past, more than the 10 s"),
    *(
        ({"webhook-timestamp": stamp}, {}, "is no Unix time in seconds.")
        for stamp in ("1614265330.0", "-1", "now", "١٦١٤٢٦٥٣٣٠", "9" * 5000)
    ),
    ({"webhook-id": f"{ID}."}, {}, "holds a full stop."),
    ({"webhook-id": f"{ID}x"}, {}, "No signature in webhook-signature fits."),
    ({"webhook-timestamp": str(AT + 1)}, {}, "No signature"),
    ({}, {"body": BODY + b" "}, "No signature"),
    ({}, {"secrets": [OTHER]}, "No signature"),
    *(
        ({"webhook-signature": signature}, {}, "No signature")
        for signature in ("v1", "v1,", "v1,ü", "v1,\udcff", "v1a,g0hM9SsE", "v2,g0hM9SsE", ", ,")
    ),
    (
        {"webhook-signature": "v2" + PUBLISHED[0][4][2:]},
        {},
        "No signature",
    ),
]


@pytest.mark.parametrize(("changed", "arguments", "words"), REFUSED)
def test_what_does_not_hold_is_refused_and_says_why(changed, arguments, words):
    headers = {n: v for n, v in (signed() | changed).items() if v is not None}
    taken = {"body": BODY, "secrets": [SECRET], "now": AT} | arguments

    with pytest.raises(SignatureError) as caught:
        verify(taken.pop("body"), headers, taken.pop("secrets"), **taken)

    assert words in str(caught.value)
    assert SECRET[6:] not in str(caught.value)


@pytest.mark.parametrize("secrets", [[], SECRET, ["s3cret"], ["whsec_"], ["whsec_s3cret?"], [b"x"]])
def test_secrets_that_can_not_be_used_are_the_receivers_own_fault(secrets):
    with pytest.raises(ValueError, match="must be") as caught:
        verify(BODY, signed(), secrets, now=AT)

    assert not isinstance(caught.value, SignatureError)
    assert "s3cret" not in str(caught.value)


def test_every_pair_is_compared_in_constant_time(monkeypatch):
    """One that fits in front must not end the comparison, nor a wrong one be told by ``==``."""
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("signal_dispatch.signing.hmac.compare_digest", compare)
    verify(BODY, signed(SECRET, OTHER), [SECRET, OTHER], now=AT)

    assert len(compared) == 4
