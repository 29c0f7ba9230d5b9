import pytest
from requests.auth import HTTPDigestAuth

from signal_dispatch import readers
from tests.once import ONCE

pytestmark = ONCE


@pytest.mark.parametrize(
    ("reader", "value", "result"),
    [
        (readers.text, "a", "a"),
        (readers.texts, {"a": "b"}, {"a": "b"}),
        (readers.dotted_path, "shop.api.make", "shop.api.make"),
        (readers.flag, False, False),
        (readers.flag_or_text, "/etc/ca.pem", "/etc/ca.pem"),
        (readers.text_or_pair, "/c.pem", "/c.pem"),
        (readers.text_or_pair, ["/c.pem", "/k.pem"], ("/c.pem", "/k.pem")),
        (readers.count, 1, 1),
        (readers.names, ["access_token", "X-Session"], ("access_token", "X-Session")),
        (readers.names, (), ()),
        (readers.ports, [443, 8443], (443, 8443)),
        (readers.seconds, 2, 2.0),
        (readers.delay, 0, 0.0),
        (readers.timeout, 3, (3.0, 3.0)),
        (readers.timeout, [3, 10], (3.0, 10.0)),
        (readers.rate, None, None),
        (readers.rate, "10/s", (10, 1.0)),
        (readers.rate, "600/m", (600, 60.0)),
        (readers.url, "https://crm.example.com/api/", "https://crm.example.com/api/"),
        (readers.url, "http://[::1]:8000", "http://[::1]:8000"),
        (readers.url, "https://hooks.example.com/x?sig=1", "https://hooks.example.com/x?sig=1"),
        (readers.headers, {"X-Key": "v"}, {"X-Key": "v"}),
        (readers.query, {"key": "v", "n": 1, "many": ["a", "b"]},
         (("key", "v"), ("n", "1"), ("many", "a"), ("many", "b"))),
        (readers.auth, ("user", "word"), ("user", "word")),
        (readers.auth, HTTPDigestAuth("user", "word"), HTTPDigestAuth("user", "word")),
        (readers.secret, "whsec_AAEC", b"\x00\x01\x02"),
        (readers.secrets, ["whsec_AAEC"], ("whsec_AAEC",)),
    ],
)  # fmt: skip
def test_values_are_read_in_one_form(reader, value, result):
    assert reader(value) == result


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        (readers.text, ""),
        (readers.text, None),
        (readers.texts, ["a"]),
        (readers.texts, {"Authorization": None}),
        (readers.texts, {1: "a"}),
        (readers.dotted_path, "make"),
        (readers.dotted_path, "shop..make"),
        (readers.dotted_path, 1),
        (readers.flag, 1),
        (readers.flag_or_text, ""),
        (readers.flag_or_text, None),
        (readers.text_or_pair, ["a", "b", "c"]),
        (readers.text_or_pair, ["a", 1]),
        (readers.count, 0),
        (readers.count, True),
        (readers.count, 1.5),
        (readers.names, "access_token"),
        (readers.names, [""]),
        (readers.names, ["-"]),
        (readers.names, [b"access_token"]),
        (readers.names, {"access_token": 1}),
        (readers.ports, []),
        (readers.ports, 443),
        (readers.ports, ["443"]),
        (readers.ports, [True]),
        (readers.ports, [0]),
        (readers.ports, [65536]),
        (readers.seconds, 0),
        (readers.delay, -0.1),
        (readers.delay, float("nan")),
        (readers.seconds, "1"),
        (readers.timeout, [1]),
        (readers.timeout, [1, None]),
        (readers.rate, "10"),
        (readers.rate, "0/s"),
        (readers.rate, "10/d"),
        (readers.rate, "1\u0660/s"),
        (readers.rate, 10),
        (readers.url, "crm.example.com"),
        (readers.url, "ftp://crm.example.com/"),
        (readers.url, "https://"),
        (readers.url, "https:///api"),
        (readers.url, "https://crm.example.com:99999/"),
        (readers.url, "https://[::1"),
        (readers.url, "https://crm.example.com/ api"),
        (readers.url, "https://crm.example.com\\@evil.example/"),
        (readers.url, "https://user:word@crm.example.com/"),
        (readers.url, "https://crm.example.com/#top"),
        (readers.url, None),
        (readers.headers, {"X Key": "v"}),
        (readers.headers, {"X-Key": "a\r\nEvil: b"}),
        (readers.headers, {"X-Key": "€"}),
        (readers.query, "key=v"),
        (readers.query, {"key": None}),
        (readers.query, {1: "v"}),
        (readers.auth, ["user"]),
        (readers.auth, 1),
        (readers.auth, "shop.word.auth"),
        (readers.secret, "AAEC"),
        (readers.secret, "whsec_word"[:-1]),
        (readers.secret, "whsec_ü"),
        (readers.secrets, "whsec_AAEC"),
        (readers.secrets, ["whsec_AAEC", "word"]),
        (readers.texts, {b"word": "a"}),
        (readers.headers, {"Bearer word": "Authorization"}),
        (readers.query, {b"word": "v"}),
    ],
)
def test_values_of_the_wrong_kind_are_refused_without_repeating_them(reader, value):
    with pytest.raises((TypeError, ValueError), match=r"^(must|holds)") as caught:
        reader(value)
    for secret in ("word", "evil.example", "Evil", "top"):
        assert secret not in str(caught.value).replace("password", "")
