"""What a RESOLVER is asked, how often, and what becomes of its answer."""

import os
import threading

import pytest
from django.core.exceptions import ObjectDoesNotExist

from signal_dispatch import resolved
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import NEVER_ANSWERED
from signal_dispatch.exceptions import EndpointUnresolved
from tests import tenants
from tests.once import ONCE
from tests.waiting import eventually

pytestmark = ONCE

URL = "https://shop.example/hook/"


@pytest.fixture
def clock(monkeypatch):
    """Let the test say what time it is: ``clock[0]``."""
    now = [1000.0]
    monkeypatch.setattr(resolved, "monotonic", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def entry(settings):
    """Configure the entry ``tenant``; ``entry(**keys)`` does so with other keys."""

    def configure(**keys):
        settings.SIGNAL_DISPATCH_ENDPOINTS = {
            "crm": {"URL": "https://crm.example.com/"},
            "tenant": {"RESOLVER": tenants.PATH, **keys},
        }

    configure()
    yield configure
    tenants.forget()


def refusal(alias="tenant:42"):
    with pytest.raises(EndpointUnresolved) as caught:
        endpoints.resolve(alias)
    return caught.value


def test_what_the_resolver_answers_stands_over_its_entry(entry):
    entry(URL="https://all.example/", HEADERS={"X-From": "us"}, DEADLINE=3, ENABLED=False)
    tenants.answers["42"] = {"URL": URL, "AUTH": ("me", "s3cret"), "MAX_CONCURRENCY": 2}

    endpoint = endpoints.resolve("tenant:42")
    assert (endpoint.alias, endpoint.url, endpoint.auth) == ("tenant:42", URL, ("me", "s3cret"))
    assert (endpoint.headers, endpoint.deadline) == ({"X-From": "us"}, 3.0)
    assert endpoint.max_concurrency == 2
    assert (endpoint.enabled, endpoint.resolver) == (False, "")
    assert "s3cret" not in repr(endpoint)


def test_what_is_asked_for_when_it_is_sent_may_be_the_entrys_or_a_callable_of_the_answer(entry):
    entry(AUTH="shop.vault.auth")
    tenants.answers["42"] = {"URL": URL, "HEADERS": lambda: {"X-Key": "s3cret"}}

    endpoint = endpoints.resolve("tenant:42")
    assert endpoint.auth.source == "shop.vault.auth"
    assert callable(endpoint.headers.source)


@pytest.mark.parametrize(("written", "allowed"), [({}, False), ({"ALLOW": True}, True)])
def test_only_the_entry_allows_private_addresses(entry, written, allowed):
    entry(**{"ALLOW_PRIVATE_ADDRESSES": True} if written else {})
    tenants.answers["42"] = {"URL": URL}

    assert endpoints.resolve("tenant:42").allow_private_addresses is allowed


def test_an_endpoint_without_resolver_is_what_it_is():
    assert endpoints.resolve("crm") is endpoints["crm"]
    assert not endpoints.is_open("crm")
    assert not endpoints.is_open("nobody:42")


def test_the_resolver_gets_all_that_stands_after_the_first_colon():
    tenants.answers["a:b c/ü"] = {"URL": URL}

    assert endpoints.resolve("tenant:a:b c/ü").url == URL


def test_an_answer_is_used_for_a_minute(clock):
    tenants.answers["42"] = {"URL": URL}
    first = endpoints.resolve("tenant:42")
    clock[0] += 59.9
    assert endpoints.resolve("tenant:42") is first
    assert endpoints["tenant:42"] is first
    assert not endpoints.is_open("tenant:42")
    assert tenants.asked == ["42"]

    clock[0] += 0.2
    assert endpoints.is_open("tenant:42")
    assert endpoints["tenant:42"].url == "", "the entry's, until it is asked"
    tenants.answers["42"] = {"URL": "https://new.example/"}
    assert endpoints.resolve("tenant:42").url == "https://new.example/"
    assert tenants.asked == ["42", "42"]


def test_what_is_known_without_asking_is_the_entrys(entry):
    entry(MAX_CONCURRENCY=3, BACKEND="slow")

    found = endpoints["tenant:42"]
    assert (found.max_concurrency, found.backend) == (3, "slow")
    assert endpoints.entry("tenant:42") is endpoints.entry("tenant") is found
    assert tenants.asked == []


def test_changed_settings_forget_the_answers(entry):
    tenants.answers["42"] = {"URL": URL}
    endpoints.resolve("tenant:42")
    entry(HEADERS={"X-New": "1"})

    assert endpoints.resolve("tenant:42").headers == {"X-New": "1"}
    assert tenants.asked == ["42", "42"]


def test_an_answer_to_an_older_question_is_not_kept_after_a_change(entry):
    tenants.answers["42"] = lambda: (entry(HEADERS={"X-New": "1"}), {"URL": URL})[1]
    assert endpoints.resolve("tenant:42").headers == {}

    tenants.answers["42"] = {"URL": URL}
    assert endpoints.resolve("tenant:42").headers == {"X-New": "1"}


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (None, 'tests.tenants.endpoint_of("42") knows no endpoint.'),
        (KeyError("s3cret"), 'tests.tenants.endpoint_of("42") knows no endpoint (KeyError).'),
        (
            ObjectDoesNotExist("s3cret"),
            'tests.tenants.endpoint_of("42") knows no endpoint (ObjectDoesNotExist).',
        ),
    ],
)
def test_no_endpoint_is_told_as_gone(answer, sentence):
    tenants.answers["42"] = answer

    assert (refusal().error_class, str(refusal())) == ("gone", sentence)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (RuntimeError("s3cret"), " raised RuntimeError."),
        (SystemExit("s3cret"), " raised SystemExit."),
        ("https://s3cret", " returned str, which is neither a dict nor None."),
        ({}, ' lacks "URL", as does the entry in settings.'),
        ({"URL": "s3cret"}, '["URL"] must be an http or https URL with a host'),
        ({"URL": URL, "TIMEOUTS": "s3cret"}, '["TIMEOUTS"] is no key of an endpoint: did you'),
        ({"URL": URL, "BREAKER": 3}, '["BREAKER"] must be a dict of a breaker'),
        ({"URL": URL, "AUTH": "shop.s3cret"}, '["AUTH"] must not be a dotted path in an answer'),
        ({"URL": URL, "HEADERS": "os.abort"}, '["HEADERS"] must not be a dotted path in an answer'),
        ({"URL": URL, "DEADLINE": 57}, '["DEADLINE"] is too long for SIGNAL_DISPATCH_LEASE_'),
        *(
            ({"URL": URL, key: value}, f'["{key}"] must stand in the settings\' entry.')
            for key, value in {
                "RESOLVER": tenants.PATH,
                "ENABLED": True,
                "BACKEND": "default",
                "ALLOW_PRIVATE_ADDRESSES": True,
                "PORTS": [22],
                "PROXIES": {"https": "http://10.0.0.1"},
                "SESSION": "requests.Session",
            }.items()
        ),
    ],
)
def test_what_can_not_be_used_is_told_by_its_place_and_never_repeated(answer, sentence, caplog):
    tenants.answers["42"] = answer

    refused = refusal()
    assert refused.error_class == "resolver"
    assert str(refused).startswith(f'tests.tenants.endpoint_of("42"){sentence}')
    assert "s3cret" not in str(refused) + caplog.text


def test_every_key_that_must_stand_in_settings_is_tried():
    (mark,) = [
        m
        for m in test_what_can_not_be_used_is_told_by_its_place_and_never_repeated.pytestmark
        if m.name == "parametrize"
    ]
    tried = {key for answer, _said in mark.args[1] if isinstance(answer, dict) for key in answer}
    assert set(NEVER_ANSWERED) <= tried


def test_a_resolver_that_is_nowhere_is_told_by_the_settings_path(entry):
    entry(RESOLVER="tests.nowhere.resolve")

    assert str(refusal()).startswith('SIGNAL_DISPATCH_ENDPOINTS["tenant"]["RESOLVER"] can\'t be')


def test_the_log_shows_the_way_to_what_raised_without_its_words(caplog):
    def broken():
        raise RuntimeError("s3cret")

    tenants.answers["42"] = broken
    refusal()

    assert "broken()." in caplog.text
    assert "s3cret" not in caplog.text


def test_whoever_asked_gets_the_cause_and_later_ones_the_sentence():
    error = RuntimeError("s3cret")
    tenants.answers["42"] = error

    assert refusal().__cause__ is error
    assert refusal().__cause__ is None, "kept, its traceback would hold on to secrets"
    assert tenants.asked == ["42"]


def test_a_failure_is_kept_for_seconds_and_the_wait_grows_up_to_ten_minutes(clock, monkeypatch):
    monkeypatch.setattr(resolved, "_share", lambda: 1.0)
    waits = []
    for _ in range(9):
        waits.append(refusal().wait)
        clock[0] += 4.9
        assert refusal().wait == waits[-1]
        clock[0] += 0.2

    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    assert len(tenants.asked) == 9
    monkeypatch.setattr(resolved, "_share", lambda: 0.0)
    assert refusal().wait == 300, "spread over the half of it"


def test_an_answer_ends_the_failures(clock, monkeypatch):
    monkeypatch.setattr(resolved, "_share", lambda: 1.0)
    for answer in (None, None, {"URL": URL}):
        clock[0] += 61
        tenants.answers["42"] = answer
        if answer:
            endpoints.resolve("tenant:42")
        else:
            refusal()
    clock[0] += 61
    tenants.answers["42"] = None

    assert refusal().wait == 10


def test_the_first_failure_is_a_warning(caplog, clock):
    for _ in range(3):
        refusal()
        clock[0] += 6

    levels = [r.levelname for r in caplog.records if "knows no endpoint" in r.message]
    assert levels == ["WARNING"]


def test_threads_that_need_the_same_one_ask_once_and_others_do_not_wait():
    go, found = threading.Event(), []
    tenants.answers["slow"] = lambda: (go.wait(10), {"URL": URL})[1]
    tenants.answers["42"] = {"URL": URL}
    threads = [
        threading.Thread(target=lambda: found.append(endpoints.resolve("tenant:slow")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    eventually(lambda: tenants.asked == ["slow"])

    assert endpoints.resolve("tenant:42").url == URL
    assert found == []
    go.set()
    for thread in threads:
        thread.join(10)
    assert [endpoint.alias for endpoint in found] == ["tenant:slow"] * 4
    assert tenants.asked == ["slow", "42"]


def test_if_whoever_asks_is_ended_the_next_one_asks():
    begun, found = threading.Event(), []

    def end():
        begun.wait(10)
        tenants.answers["42"] = {"URL": URL}
        raise KeyboardInterrupt

    tenants.answers["42"] = end

    def first():
        with pytest.raises(KeyboardInterrupt):
            endpoints.resolve("tenant:42")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    eventually(lambda: tenants.asked == ["42"])
    threads.append(threading.Thread(target=lambda: found.append(endpoints.resolve("tenant:42"))))
    threads[1].start()
    begun.set()
    for thread in threads:
        thread.join(10)

    assert [endpoint.url for endpoint in found] == [URL]
    assert tenants.asked == ["42", "42"]


def test_a_resolver_that_calls_what_it_is_asked_for_is_told():
    tenants.answers["42"] = lambda: endpoints.resolve("tenant:42")

    assert str(refusal()) == f"{tenants.PATH} makes a call to the endpoint that it is asked for."


def test_a_child_process_asks_itself(monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def slow_at_first():
        if len(tenants.asked) == 1:
            begun.set()
            go.wait(10)
        return {"URL": URL}

    tenants.answers["42"] = slow_at_first
    thread = threading.Thread(target=endpoints.resolve, args=("tenant:42",))
    thread.start()
    begun.wait(10)
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: 1)
        endpoint = endpoints.resolve("tenant:42")
    answered_first = thread.is_alive()
    go.set()
    thread.join(10)

    assert endpoint.url == URL
    assert answered_first, "nobody there ever answers what the parent asked"


def test_answers_that_are_over_do_not_pile_up(clock, monkeypatch):
    monkeypatch.setattr(resolved, "_MANY", 8)
    endpoints.forget()
    for number in range(50):
        tenants.answers[str(number)] = {"URL": URL} if number % 2 else None
        clock[0] += 10
        if number % 2:
            endpoints.resolve(f"tenant:{number}")
        else:
            refusal(f"tenant:{number}")

    assert len(endpoints._resolved._memory.answers) < 17
    endpoints.forget()
