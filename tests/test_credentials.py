import functools

import pytest
from requests.auth import AuthBase, HTTPBasicAuth, HTTPDigestAuth

from signal_dispatch.credentials import Asked
from signal_dispatch.entries import SETTING, Endpoint, parse
from signal_dispatch.exceptions import EndpointNotMocked, SendError
from tests.once import ONCE

pytestmark = ONCE

URL = "https://crm.example.com/api/"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
HERE = "tests.test_credentials"


class Vault:
    """Give what it was told to give, and count how often it was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, 0

    def __call__(self):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def give_headers():
    return {"X-Key": "from the vault"}


def give_digest():
    return HTTPDigestAuth("user", "word")


kept_digest = HTTPDigestAuth("user", "kept")
not_callable = {"X-Key": "here"}


def endpoint(**keys):
    found, problems = parse("crm", {"URL": URL, **keys})
    assert problems == []
    return found


def refused(**keys):
    with pytest.raises(SendError) as caught:
        endpoint(**keys).credentials()
    assert caught.value.error_class == "credentials"
    assert "s3cret" not in str(caught.value)
    return str(caught.value).removeprefix(f'{SETTING}["crm"]')


# What is constant.


def test_constants_are_given_as_they_are():
    known = endpoint(
        HEADERS={"X-Key": "k"}, QUERY={"key": 1}, AUTH=["user", "word"], SECRETS=[SECRET]
    ).credentials()

    assert known.headers == {"X-Key": "k"}
    assert known.query == (("key", "1"),)
    assert known.auth == HTTPBasicAuth(b"user", b"word")
    assert known.secrets == (SECRET,)


def test_constants_are_put_together_once():
    one = endpoint(HEADERS={"X-Key": "k"})

    assert one.credentials() is one.credentials()


def test_nothing_is_added_unless_told():
    known = Endpoint("crm", URL).credentials()

    assert (known.headers, known.query, known.auth, known.secrets) == ({}, (), None, ())


def test_basic_takes_what_lies_beyond_latin_1():
    assert endpoint(AUTH=("ü", "€")).credentials().auth == HTTPBasicAuth("ü".encode(), "€".encode())


def test_auth_object_of_requests_may_stand_in_settings():
    auth = HTTPDigestAuth("user", "word")

    assert endpoint(AUTH=auth).credentials().auth is auth


# What is asked for.

WHOLE = [
    ("HEADERS", {"X-Key": "k"}, "headers", {"X-Key": "k"}),
    ("QUERY", {"key": [1, 2]}, "query", (("key", "1"), ("key", "2"))),
    ("AUTH", ("user", "word"), "auth", HTTPBasicAuth(b"user", b"word")),
    ("AUTH", HTTPDigestAuth("user", "word"), "auth", HTTPDigestAuth("user", "word")),
    ("SECRETS", [SECRET, OTHER], "secrets", (SECRET, OTHER)),
]


@pytest.mark.parametrize(("key", "answer", "attribute", "read"), WHOLE)
def test_a_callable_may_stand_for_a_whole_key(key, answer, attribute, read):
    vault = Vault(answer)
    one = endpoint(**{key: vault})
    assert vault.asked == 0

    assert getattr(one.credentials(), attribute) == read
    one.credentials()

    assert vault.asked == 2


PARTS = [
    ("HEADERS", lambda v: {"X-Key": v, "X-Plain": "p"}, "k", "headers",
     {"X-Key": "k", "X-Plain": "p"}),
    ("QUERY", lambda v: {"key": v, "plain": 1}, ["a", 2], "query",
     (("key", "a"), ("key", "2"), ("plain", "1"))),
    ("AUTH", lambda v: ("user", v), "word", "auth", HTTPBasicAuth(b"user", b"word")),
    ("AUTH", lambda v: [v, "word"], "user", "auth", HTTPBasicAuth(b"user", b"word")),
    ("SECRETS", lambda v: [v, OTHER], SECRET, "secrets", (SECRET, OTHER)),
]  # fmt: skip


@pytest.mark.parametrize(("key", "around", "answer", "attribute", "read"), PARTS)
def test_a_callable_may_stand_for_a_part(key, around, answer, attribute, read):
    vault = Vault(answer)
    one = endpoint(**{key: around(vault)})
    assert vault.asked == 0

    assert getattr(one.credentials(), attribute) == read
    assert vault.asked == 1


def test_what_a_callable_gives_may_hold_callables():
    assert endpoint(AUTH=lambda: ("user", lambda: "word")).credentials().auth == HTTPBasicAuth(
        b"user", b"word"
    )


def test_dotted_path_names_a_callable_or_an_auth_object():
    assert endpoint(HEADERS=f"{HERE}.give_headers").credentials().headers == give_headers()
    assert endpoint(AUTH=f"{HERE}.give_digest").credentials().auth == give_digest()
    assert endpoint(AUTH=f"{HERE}.kept_digest").credentials().auth is kept_digest


def test_answer_is_asked_for_anew_each_time():
    vault = Vault({"X-Key": "old"})
    one = endpoint(HEADERS=vault)
    one.credentials()

    vault.answer = {"X-Key": "new"}

    assert one.credentials().headers == {"X-Key": "new"}


def test_any_function_that_is_asked_for_may_be_what_requests_takes_as_auth():
    def authenticate(request):
        return request

    assert endpoint(AUTH=lambda: authenticate).credentials().auth is authenticate


# What goes wrong.


@pytest.mark.parametrize("key", ["HEADERS", "QUERY", "AUTH", "SECRETS"])
def test_callable_that_raises_is_told_without_its_words(key):
    vault = Vault(RuntimeError("s3cret"))

    assert refused(**{key: vault}) == f'["{key}"] was asked for, and RuntimeError was raised.'


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("HEADERS", {"X-Plain": "s3cret", "X-Key": Vault(OSError("s3cret"))}, '["X-Key"]'),
        ("QUERY", {"key": Vault(OSError("s3cret"))}, '["key"]'),
        ("AUTH", ("user", Vault(OSError("s3cret"))), "[1]"),
        ("SECRETS", [Vault(OSError("s3cret"))], "[0]"),
    ],
)
def test_part_that_raises_is_told_by_its_place(key, value, place):
    assert refused(**{key: value}) == f'["{key}"]{place} was asked for, and OSError was raised.'


ANSWERS = [
    ("HEADERS", None, "must be a dict of strings."),
    ("HEADERS", {"X-Key": b"s3cret"}, "must hold strings only, which 'X-Key' is not."),
    ("HEADERS", {"X-Key": "s3cret\r\nX: y"}, "holds a line break or a character beyond"),
    ("HEADERS", {"Bearer s3cret": "Authorization"}, "holds a name, its number 1,"),
    ("HEADERS", {"Transfer-Encoding": "chunked"}, "must not have 'Transfer-Encoding'"),
    ("HEADERS", {"content-length": "5"}, "must not have 'content-length'"),
    ("QUERY", "key=s3cret", "must be a dict of parameters."),
    ("QUERY", {"key": b"s3cret"}, "must hold strings and numbers only, which 'key' is not."),
    ("AUTH", None, "must be a pair (user, password) or a requests auth object."),
    ("AUTH", "s3cret", "must be a pair (user, password) or a requests auth object."),
    ("AUTH", ("user", b"s3cret"), "must be a pair of strings."),
    ("SECRETS", SECRET, "must be a list of secrets."),
    ("SECRETS", ["s3cret"], 'holds a secret, in place 0, that must be "whsec_" and base64.'),
    ("SECRETS", [], "holds no secret."),
]


@pytest.mark.parametrize(("key", "answer", "words"), ANSWERS)
def test_answer_that_can_not_be_used_is_told_without_it(key, answer, words):
    told = refused(**{key: Vault(answer)})

    assert told.startswith(f'["{key}"] was asked for, and the answer {words}')


def test_part_that_can_not_be_used_is_told_with_its_key():
    told = refused(AUTH=("user", Vault(None)))

    assert told == '["AUTH"] was asked for, and the answer must be a pair of strings.'


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("s3cret.nowhere", "(ModuleNotFoundError)"),
        ("tests.s3cret", "(ImportError)"),
        ("tests.needs_what_is_not_there.token", "(ModuleNotFoundError: No module named 'hvac')"),
    ],
)
def test_path_that_can_not_be_imported_is_not_repeated(path, words, tmp_path, monkeypatch):
    (tmp_path / "needs_what_is_not_there.py").write_text("import hvac\n")
    monkeypatch.setattr("tests.__path__", [str(tmp_path)])

    assert refused(AUTH=path) == f'["AUTH"] can\'t be imported {words}.'


def test_path_of_no_callable_is_no_answer():
    assert "must be a pair" in refused(AUTH=f"{HERE}.not_callable")


def test_endpoint_that_a_test_forgot_to_mock_is_heard():
    with pytest.raises(EndpointNotMocked):
        endpoint(AUTH=Vault(EndpointNotMocked("Mock it."))).credentials()


def test_error_keeps_nothing_of_what_it_met():
    with pytest.raises(SendError) as caught:
        endpoint(AUTH=Vault(RuntimeError("s3cret"))).credentials()

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


# What settings may say.

FAULTY = [
    ("HEADERS", "Authorization: s3cret", "must be a dict of strings, a callable, or the dotted"),
    ("HEADERS", {"X-Key": functools.partial(give_headers), "X-Other": None}, "must hold strings"),
    ("HEADERS", {"s3cret s3cret": give_headers}, "holds a name, its number 1,"),
    ("QUERY", {"key": give_headers, "other": b"s3cret"}, "must hold strings and numbers only"),
    ("QUERY", {"key": [give_headers]}, "must hold strings and numbers only, which 'key' is not."),
    ("AUTH", "s3cret", "must be a pair (user, password), a requests auth object, a callable, or"),
    ("AUTH", ("user", give_headers, "s3cret"), "must be a pair of strings."),
    ("SECRETS", SECRET, "must be a list of secrets, a callable, or the dotted path of one."),
    ("SECRETS", [give_headers, "s3cret"], "holds a secret, in place 1, that must be"),
]


@pytest.mark.parametrize(("key", "value", "words"), FAULTY)
def test_what_is_constant_beside_a_callable_is_read_as_ever(key, value, words):
    _, (problem,) = parse("crm", {"URL": URL, key: value})

    assert str(problem).startswith(f'{SETTING}["crm"]["{key}"] {words}')
    assert "s3cret" not in str(problem)
    assert SECRET not in str(problem)


# What is shown and compared.


def test_nothing_is_asked_for_to_be_shown_or_compared():
    vault = Vault(AssertionError())

    one, other = (
        endpoint(HEADERS={"X": vault}, AUTH=vault),
        endpoint(HEADERS={"X": vault}, AUTH=vault),
    )

    assert one == other
    assert one != endpoint(HEADERS={"X": Vault("")}, AUTH=vault)
    assert "asked when it is sent" in repr(one.headers)
    assert repr(one) == "<Endpoint 'crm' at crm.example.com>"
    assert vault.asked == 0


def test_credentials_show_nothing():
    known = endpoint(HEADERS={"X": "s3cret"}, AUTH=("s3cret", "s3cret")).credentials()

    assert "s3cret" not in repr(known)
    assert "s3cret" not in repr(Asked({"X": "s3cret"}))


def test_auth_object_is_a_constant_although_it_can_be_called():
    class Own(AuthBase):
        def __call__(self, request):
            raise AssertionError("It was called.")

    own = Own()

    assert endpoint(AUTH=own).credentials().auth is own
    assert endpoint(AUTH=Own).credentials().auth.__class__ is Own
