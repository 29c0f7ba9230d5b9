import pytest

from signal_dispatch.breakers import Breaker
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import SETTING, Endpoint, parse
from signal_dispatch.exceptions import InvalidEndpoint, InvalidEndpointKey, UnknownEndpoint
from signal_dispatch.retries import RetryPolicy
from tests.once import ONCE

pytestmark = ONCE

URL = "https://crm.example.com/api/"

EVERYTHING = {
    "URL": URL,
    "HEADERS": {"Authorization": "Bearer s3cret"},
    "QUERY": {"key": "s3cret"},
    "AUTH": ("user", "s3cret"),
    "SECRETS": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    "TIMEOUT": (1, 2),
    "DEADLINE": 3,
    "SEND_LIMIT": 4,
    "RETRY": {"delays": [0, 1]},
    "MAX_CONCURRENCY": 5,
    "RATE": "10/s",
    "BREAKER": {"attempts": 5},
    "VERIFY": "/etc/ca.pem",
    "CERT": ("/c.pem", "/k.pem"),
    "PROXIES": {"https": "http://proxy.example:3128"},
    "SESSION": "requests.Session",
    "MAX_RESPONSE_BYTES": 6,
    "ALLOW_PRIVATE_ADDRESSES": False,
    "PORTS": [443, 8443],
    "REDACT": ["access_token"],
    "ENABLED": False,
    "BACKEND": "slow",
    "RESOLVER": "shop.tenants.resolve",
}


def test_every_key_is_read():
    endpoint, problems = parse("crm", EVERYTHING)

    assert problems == []
    assert endpoint == Endpoint(
        alias="crm",
        url=URL,
        headers={"Authorization": "Bearer s3cret"},
        query=(("key", "s3cret"),),
        auth=("user", "s3cret"),
        secrets=("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",),
        timeout=(1.0, 2.0),
        deadline=3.0,
        send_limit=4.0,
        retry=RetryPolicy(delays=[0, 1]),
        max_concurrency=5,
        rate=(10, 1.0),
        breaker=Breaker(attempts=5),
        verify="/etc/ca.pem",
        cert=("/c.pem", "/k.pem"),
        proxies={"https": "http://proxy.example:3128"},
        session="requests.Session",
        max_response_bytes=6,
        allow_private_addresses=False,
        ports=(443, 8443),
        redact=("access_token",),
        enabled=False,
        backend="slow",
        resolver="shop.tenants.resolve",
    )


def test_a_url_is_enough():
    endpoint, problems = parse("crm", {"URL": URL})

    assert problems == []
    assert endpoint == Endpoint("crm", URL)
    assert (endpoint.timeout, endpoint.deadline) == ((3.05, 10.0), 15.0)


def test_a_breaker_is_there_unless_it_is_taken_away():
    assert parse("crm", {"URL": URL})[0].breaker == Breaker()
    assert parse("crm", {"URL": URL, "BREAKER": None})[0].breaker is None


def test_a_resolver_needs_no_url_and_trusts_no_private_address():
    endpoint, problems = parse("tenant", {"RESOLVER": "shop.tenants.resolve"})

    assert problems == []
    assert endpoint.allow_private_addresses is False


def test_unknown_key_is_told_with_its_path_and_a_guess():
    _, problems = parse("crm", {"URL": URL, "TIMEOUTS": 3})

    assert [problem.path for problem in problems] == [f'{SETTING}["crm"]["TIMEOUTS"]']
    assert str(problems[0]) == (
        'SIGNAL_DISPATCH_ENDPOINTS["crm"]["TIMEOUTS"] is no key of an endpoint: '
        "did you mean TIMEOUT?"
    )


def test_unknown_key_like_no_other_lists_what_there_is():
    _, problems = parse("crm", {"URL": URL, 7: 3})

    assert "known are URL, HEADERS, QUERY" in str(problems[0])


@pytest.mark.parametrize("entry", [{}, {"HEADERS": {}}])
def test_an_endpoint_may_have_no_url(entry):
    """A check looks whether somebody needs it."""
    endpoint, problems = parse("crm", entry)

    assert problems == []
    assert (endpoint.url, endpoint.host, repr(endpoint)) == ("", "", "<Endpoint 'crm' at no host>")


@pytest.mark.parametrize("alias", ["", "tenant:42"])
def test_alias_with_a_meaning_of_its_own_is_refused(alias):
    _, problems = parse(alias, {"URL": URL})

    assert [problem.path for problem in problems] == [f'{SETTING}["{alias}"]']


@pytest.mark.parametrize(
    "secrets",
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ["MfKQ9r8GKYqr"], ["whsec_"], ["whsec_?"], [b"x"]],
)
def test_secrets_of_another_form_are_refused(secrets):
    _, problems = parse("crm", {"URL": URL, "SECRETS": secrets})

    assert [problem.path for problem in problems] == [f'{SETTING}["crm"]["SECRETS"]']
    assert "MfKQ" not in str(problems[0])


def test_every_problem_of_every_endpoint_is_found_at_once(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "good": {"URL": URL},
        "crm": {"URL": "crm.example.com", "TIMEOUT": "3", "RETRY": {"delays": []}},
        "mail": {"URL": URL, "COLOUR": "red"},
    }

    assert [problem.path.removeprefix(SETTING) for problem in endpoints.errors()] == [
        '["crm"]["URL"]',
        '["crm"]["TIMEOUT"]',
        '["crm"]["RETRY"]',
        '["mail"]["COLOUR"]',
    ]


def test_a_broken_endpoint_leaves_the_others_usable(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"good": {"URL": URL}, "bad": {"URL": "nowhere"}}

    assert endpoints["good"].url == URL
    with pytest.raises(InvalidEndpoint, match=r'\["bad"\]\["URL"\] must be an http'):
        endpoints["bad"]


def test_unknown_alias_is_told_with_a_guess_and_all_there_are():
    with pytest.raises(UnknownEndpoint, match=r"Did you mean 'hubspot'\? It has: crm, hubspot\."):
        endpoints["hubspott"]


def test_aliases_are_listed_and_asked_for():
    assert list(endpoints) == ["crm", "hubspot"]
    assert len(endpoints) == 2
    assert "crm" in endpoints
    assert endpoints.find("crm") is endpoints["crm"]
    assert endpoints.find("nowhere") is None


@pytest.mark.parametrize("alias", ["tenant", "tenant:", "tenant:4\x002"])
def test_an_entry_with_a_resolver_is_no_endpoint_without_a_key(settings, alias):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": {"RESOLVER": "shop.tenants.resolve"}}

    with pytest.raises(InvalidEndpointKey, match="stands for many endpoints: "):
        endpoints[alias]
    assert endpoints.find(alias) is None
    assert alias in endpoints
    assert endpoints.fault_of_key(alias).startswith(f'{SETTING}["tenant"] has a RESOLVER')
    assert endpoints.entry(alias).resolver == "shop.tenants.resolve"


def test_a_key_makes_sense_with_a_resolver_only(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": URL},
        "tenant": {"RESOLVER": "shop.tenants.resolve"},
    }
    for alias in ("crm:42", "nobody:42"):
        with pytest.raises(UnknownEndpoint, match=f"no endpoint '{alias}'"):
            endpoints[alias]
        assert alias not in endpoints
    assert "tenant:42" in endpoints
    assert [endpoints.fault_of_key(a) for a in ("crm", "crm:42", "tenant:42")] == ["", "", ""]


def test_aliases_with_a_key_are_not_remembered_without_end(settings, monkeypatch):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": {"RESOLVER": "shop.tenants.resolve"}}
    monkeypatch.setattr("signal_dispatch.endpoints._MOST_KEYED", 5)
    found = [endpoints[f"tenant:{number}"] for number in range(12)]

    assert len({id(entry) for entry in found}) == 1
    assert len(endpoints._keyed) <= 5


def test_endpoints_are_parsed_once_until_settings_change(settings):
    first = endpoints["crm"]
    assert endpoints["crm"] is first

    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://new.example.com/"}}

    assert endpoints["crm"].url == "https://new.example.com/"


def test_what_was_read_while_settings_changed_is_not_kept(settings, monkeypatch):
    def parse_slowly(alias, entry):
        parsed = parse(alias, entry)
        settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://new.example.com/"}}
        return parsed

    with monkeypatch.context() as patched:
        patched.setattr("signal_dispatch.endpoints.parse", parse_slowly)
        assert endpoints["crm"].url == URL

    assert endpoints["crm"].url == "https://new.example.com/"


def test_other_settings_leave_the_endpoints_alone(settings):
    first = endpoints["crm"]

    settings.LANGUAGE_CODE = "fr"

    assert endpoints["crm"] is first


@pytest.mark.parametrize(
    ("base", "path", "joined"),
    [
        ("https://a.example/api/", "orders/7", "https://a.example/api/orders/7"),
        ("https://a.example/api", "orders/7", "https://a.example/api/orders/7"),
        ("https://a.example", "orders/", "https://a.example/orders/"),
        ("https://a.example/api/", "", "https://a.example/api/"),
        ("https://a.example/hook?sig=1", "", "https://a.example/hook?sig=1"),
        ("https://a.example/hook?sig=1", "x", "https://a.example/hook/x?sig=1"),
        ("https://a.example/hook?sig=1", "x?y=2", "https://a.example/hook/x?sig=1&y=2"),
        ("https://a.example/", "x?y=2", "https://a.example/x?y=2"),
        ("https://a.example/", "x?", "https://a.example/x"),
    ],
)
def test_paths_are_joined_below_the_url(base, path, joined):
    assert Endpoint("a", base).join(path) == joined


def test_only_the_host_is_shown():
    endpoint = Endpoint("crm", "https://user:s3cret@crm.example.com:8443/s3cret?key=s3cret")

    assert endpoint.host == "crm.example.com:8443"
    assert repr(endpoint) == "<Endpoint 'crm' at crm.example.com:8443>"
    assert repr(Endpoint("crm")) == "<Endpoint 'crm' at no host>"
