"""A secret in every place that settings have for one is nowhere to be found afterwards."""

import base64
import logging
import socket
import traceback
from io import StringIO
from urllib.parse import quote

import pytest
from django.core.management import call_command
from django.db import connection
from requests.auth import AuthBase, HTTPDigestAuth
from standardwebhooks import Webhook

from signal_dispatch import ModelDispatch
from signal_dispatch.calling import call_for
from signal_dispatch.endpoints import endpoints
from signal_dispatch.exceptions import EndpointUnresolved, SendError
from signal_dispatch.interventions import INTERVENTIONS
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.opentelemetry import instrument, uninstrument
from signal_dispatch.sender import send
from signal_dispatch.sessions import SessionCache
from tests import tenants
from tests.acceptance import soak
from tests.once import ONCE
from tests.proxy import Proxy
from tests.receiver import Receiver
from tests.shop.models import Order
from tests.test_admin_list import URL
from tests.test_opentelemetry import Collected
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
    ONCE,
]

PLACES = (
    "header", "header_asked", "query", "query_asked", "password", "password_asked", "digest",
    "token", "secret", "secret_asked", "url_path", "url_query", "proxy", "raised", "faulty",
    "cookie",
)  # fmt: skip
#: Letters only, so that no encoding of URLs or headers makes them look otherwise.
PLANTED = {place: f"Planted{place.title().replace('_', '')}QfXw" for place in PLACES}


def signing_secret(place):
    return f"whsec_{base64.b64encode(PLANTED[place].ljust(24, 'x').encode()).decode()}"


class Token(AuthBase):
    """Add a bearer's token."""

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {PLANTED['token']}"
        return request


def raise_it(*args):
    raise RuntimeError(PLANTED["raised"])


CONSTANT = {
    "HEADERS": {"X-Key": PLANTED["header"]},
    "QUERY": {"key": PLANTED["query"]},
    "AUTH": ("shop", PLANTED["password"]),
    "SECRETS": [signing_secret("secret")],
}
ASKED_WHOLE = {
    "HEADERS": lambda: {"X-Key": PLANTED["header_asked"]},
    "QUERY": lambda: {"key": PLANTED["query_asked"]},
    "AUTH": lambda: ("shop", PLANTED["password_asked"]),
    "SECRETS": lambda: [signing_secret("secret_asked")],
}
ASKED_IN_PARTS = {
    "HEADERS": {"X-Key": lambda: PLANTED["header_asked"]},
    "QUERY": {"key": lambda: PLANTED["query_asked"]},
    "AUTH": ("shop", lambda: PLANTED["password_asked"]),
    "SECRETS": [lambda: signing_secret("secret_asked"), signing_secret("secret")],
}
WAYS = {
    "constant": CONSTANT,
    "whole": ASKED_WHOLE,
    "parts": ASKED_IN_PARTS,
    "digest": CONSTANT | {"AUTH": HTTPDigestAuth("shop", PLANTED["digest"])},
    "token": CONSTANT | {"AUTH": Token},
}


class Playground:
    """The remotes, each of which lets a call end in its own way."""

    def __init__(self, receiver, secure, proxy, closed_port):
        self.receiver, self.secure = receiver, secure
        receiver.script = self.answer
        mine, theirs = f"127.0.0.1:{receiver.port}", f"127.0.0.1:{closed_port}"
        through = {"PROXIES": {"all": f"http://shop:{PLANTED['proxy']}@{proxy.host}"}}
        refused = {"PROXIES": {"all": f"http://other:{PLANTED['proxy']}@{proxy.host}"}}
        lost = {"PROXIES": {"all": f"http://shop:{PLANTED['proxy']}@{theirs}"}}
        self.ends = {
            "succeeds": (f"http://{mine}/200", {}),
            "fails": (f"http://{mine}/500", {}),
            "rejects": (f"http://{mine}/404", {}),
            "redirects": (f"http://{mine}/302", {}),
            "hangs": (f"http://{mine}/hang", {"DEADLINE": 0.25}),
            "refuses": (f"http://{theirs}/", {}),
            "distrusts": (f"https://127.0.0.1:{secure.port}/", {}),
            "proxied": (f"http://{mine}/200", through),
            "unproxied": (f"http://{mine}/200", lost),
            "untunnelled": (f"https://{mine}/", refused),
        }

    def answer(self, request):
        kind = request.path.split("/")[1]
        if kind == "hang":
            self.receiver.wait(5)
        told = request.headers.get("Authorization", "")
        headers = {"Set-Cookie": f"id={PLANTED['cookie']}"}
        if kind == "302":
            headers["Location"] = f"http://elsewhere.example{request.path}"
        if not told:
            return 401, {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'}, b""
        return int(kind) if kind.isdigit() else 200, headers, b'{"id": 1}'

    def entries(self):
        """Return an entry for each way to give credentials and each end of a call."""
        found = {
            f"{way}-{end}": {
                "URL": f"{url}/{PLANTED['url_path']}?sig={PLANTED['url_query']}",
                "RETRY": {"delays": [0], "jitter": 0},
                **keys,
                **more,
            }
            for way, keys in WAYS.items()
            for end, (url, more) in self.ends.items()
        }
        base = found["constant-succeeds"]
        faulty = {"X-Key": f"{PLANTED['faulty']}\r\n"}
        swapped = {f"Bearer {PLANTED['faulty']}": "Authorization"}
        found["raises"] = base | {"HEADERS": {"X-Key": raise_it}}
        found["raises-whole"] = base | {"SECRETS": raise_it}
        found["is-faulty"] = base | {"HEADERS": lambda: faulty}
        found["is-swapped"] = base | {"HEADERS": lambda: swapped}
        found["is-faulty-secret"] = base | {"SECRETS": lambda: [PLANTED["faulty"]]}
        found["can-not-be-written"] = base | {"QUERY": lambda: {"key": PLANTED["faulty"].encode()}}
        tenants.answers |= {
            "constant": found["constant-succeeds"],
            "fails": found["whole-fails"],
            "raises": RuntimeError(PLANTED["raised"]),
            "faulty": base | {"URL": f"ftp://{PLANTED['faulty']}", "AUTH": PLANTED["faulty"]},
        }
        return found


@pytest.fixture
def playground(receiver, settings, tls):
    with (
        socket.create_server(("127.0.0.1", 0)) as busy,
        Receiver(tls=tls) as secure,
        Proxy(f"shop:{PLANTED['proxy']}") as proxy,
    ):
        closed = busy.getsockname()[1]
        busy.close()
        made = Playground(receiver, secure, proxy, closed)
        tenant = {"RESOLVER": tenants.PATH, "ALLOW_PRIVATE_ADDRESSES": True}
        settings.SIGNAL_DISPATCH_ENDPOINTS = made.entries() | {"tenant": tenant}
        yield made
        tenants.forget()


@pytest.fixture
def traces():
    collected = Collected()
    instrument(collected.tracer_provider, collected.meter_provider)
    yield collected
    uninstrument()
    collected.tracer_provider.shutdown()
    collected.meter_provider.shutdown()


class Everywhere(ModelDispatch):
    """Call every endpoint."""

    name = "shop.Everywhere"
    path = "orders/{number}"
    fields = ["number", "status"]

    def get_endpoint(self, instance, change):
        keys = [f"tenant:{key}" for key in tenants.answers]
        return [alias for alias in endpoints if alias != "tenant"] + keys


class HandlerFails(Everywhere):
    """Raise when the answer is there."""

    name = "shop.HandlerFails"

    def handle_response(self, delivery, response):
        raise ValueError("The handler failed.")


class BuildFails(Everywhere):
    """Raise before there is anything to send."""

    name = "shop.BuildFails"

    def get_payload(self, instance, change):
        raise ValueError("The payload failed.")


class FilesFail(ModelDispatch):
    """Raise when files are to go along, in words that hold a secret."""

    name = "shop.FilesFail"
    endpoint = "constant-succeeds"
    fields = ["number"]
    get_files = raise_it


class SdkFails(ModelDispatch):
    """Raise instead of making the call, as libraries do that repeat the key they were given."""

    name = "shop.SdkFails"
    endpoint = "constant-succeeds"
    fields = ["number"]

    def send(self, delivery, session):
        raise_it()


#: Deliveries for these wait until somebody knows where they are.
LOST = ["tenant:raises", "tenant:faulty"]


def test_no_secret_is_left_anywhere(playground, declare, traces, caplog, capfd, admin_client):
    caplog.set_level(logging.DEBUG)
    connection.force_debug_cursor = True
    try:
        for base in (Everywhere, HandlerFails, BuildFails, FilesFail, SdkFails):
            declare(Order, base=base, name=base.name, endpoint=base.endpoint)
        Order.objects.create(number="A-1", status="paid")
    finally:
        connection.force_debug_cursor = False
    lost = Delivery.objects.filter(endpoint__in=LOST, state="pending")
    eventually(lambda: not Delivery.objects.unfinished().exclude(pk__in=lost).exists(), 60)
    eventually(lambda: not lost.filter(reason="").exists(), 60)

    ends = set(Attempt.objects.values_list("error_class", flat=True))
    assert ends == {
        "", "status", "timeout", "connect", "tls", "credentials", "handler", "files", "sdk",
    }  # fmt: skip
    assert Delivery.objects.filter(error_class="build").count() > len(WAYS) * len(playground.ends)
    assert lost.count() == 2 * len(LOST)
    seen = {
        "admin": "\n".join(admin_pages(admin_client)),
        "dump of the database": dump(),
        "log": log(caplog),
        "printed": commands() + "".join(capfd.readouterr()),
        "tracebacks and reprs": "\n".join(tracebacks()),
        "traces": traces.everything(),
    }
    hits = {
        (where, place, form)
        for where, text in seen.items()
        for place in PLACES
        for form, needle in forms(place).items()
        if needle in text
    }
    assert hits == set()
    assert all(seen.values())
    everything_arrived(playground.receiver.requests)
    soak.report(
        "secrets",
        planted=len(PLACES),
        attempts=Attempt.objects.count(),
        hits=len(hits),
    )


def everything_arrived(requests):
    """See that what was planted did go over the wire, where it has to."""
    wire = "\n".join(f"{r.method} {r.path} {dict(r.headers)}" for r in requests)
    for place in ("header", "header_asked", "query", "query_asked", "token"):
        assert PLANTED[place] in wire, place
    for place in ("url_path", "url_query"):
        assert PLANTED[place] in wire, place
    for place in ("password", "password_asked"):
        assert base64.b64encode(f"shop:{PLANTED[place]}".encode()).decode() in wire
    assert 'username="shop"' in wire
    signers = {place: Webhook(signing_secret(place)) for place in ("secret", "secret_asked")}
    for place, signer in signers.items():
        assert any(holds(signer, request) for request in requests), place


def holds(signer, request):
    try:
        signer.verify(request.body, request.headers)
    except Exception:  # noqa: BLE001 - of whatever kind
        return False
    return True


def forms(place):
    """Return the shapes in which a secret would still be one."""
    secret = PLANTED[place]
    packed = secret.encode()
    # Inside of a longer text base64 has three ways to write it; the ends are not its own.
    shifted = {
        f"base64+{n}": base64.b64encode(b"x" * n + packed + b"x" * 3).decode()[4:-8]
        for n in range(3)
    }
    return {
        "plain": secret,
        "quoted": quote(secret),
        "hex": packed.hex(),
        "HEX": packed.hex().upper(),
        "reversed": secret[::-1],
        **shifted,
    }


def dump():
    """Return every cell of every table, decoded where it is bytes."""
    cells = []
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")  # noqa: S608
            for row in cursor.fetchall():
                cells += [decoded(cell) for cell in row]
    return "\n".join(cells)


def decoded(cell):
    return bytes(cell).decode("latin-1") if isinstance(cell, bytes | memoryview) else str(cell)


def log(caplog):
    """Return all that was logged, with tracebacks and what a handler for machines would take."""
    formatter = logging.Formatter("%(name)s %(message)s")
    told = [formatter.format(record) for record in caplog.records]
    assert any(line.startswith("urllib3.connectionpool") for line in told)
    return "\n".join([*told, *(repr(vars(record)) for record in caplog.records)])


def commands():
    out = StringIO()
    order = Order.objects.first()
    call_command("dispatch_list", stdout=out)
    call_command("dispatch_list", object=f"shop.order:{order.pk}", stdout=out)
    for json_too in (False, True):
        try:
            call_command(
                "dispatch_status", json=json_too, database=["default"], stdout=out, stderr=out
            )
        except SystemExit:
            continue
    return out.getvalue()


def admin_pages(client):
    """Yield every page of the admin, as a person sees it who may do everything."""
    asked = [URL, f"{URL}?state=failed", f"{URL}?state=pending"]
    asked += [
        f"{URL}{name}" for name in ("overview/", "dispatches/", "endpoints/", "endpoints/?p=2")
    ]
    # Each way in which a call ended, whoever declared it.
    ends = {}
    for made in Delivery.objects.order_by("pk"):
        ends.setdefault((made.dispatch, made.endpoint, made.state, made.error_class), made.pk)
    asked += [f"{URL}{pk}/{page}/" for pk in ends.values() for page in ("change", "history")]
    aliases = sorted(set(Delivery.objects.values_list("endpoint", flat=True)))
    one = f"{URL}endpoint/?endpoint="
    asked += [one + quote(alias) for alias in aliases]
    asked.append("/admin/")
    for address in asked:
        answer = client.get(address, follow=True)
        assert answer.status_code == 200, address
        yield answer.text
    yield from deeds(client, aliases, one)


def deeds(client, aliases, one):
    """Yield what is shown before and after what a person may do."""
    ids = list(Delivery.objects.values_list("pk", flat=True))
    for name in INTERVENTIONS:
        answer = client.post(URL, {"_selected_action": ids, "action": name})
        assert answer.status_code == 200, name
        yield answer.text
    for alias in aliases:
        if alias.endswith("hangs"):
            continue  # each as long as its deadline
        asked = {"deed": "test", "confirmed": "yes", "method": "POST", "path": "orders/1"}
        answer = client.post(one + quote(alias), asked)
        assert answer.status_code == 200, alias
        yield answer.text
    for deed in ("pause", "resume", "replay"):
        yield client.post(one + aliases[0], {"deed": deed}).text
        yield client.post(one + aliases[0], {"deed": deed, "confirmed": "yes"}, follow=True).text


def tracebacks():
    """Yield what a person, or a service for errors that shows local variables, would see."""
    sessions = SessionCache()
    try:
        for delivery in Delivery.objects.filter(dispatch="shop.Everywhere"):
            call = call_for(delivery)
            try:
                endpoint = endpoints[delivery.endpoint]
            except EndpointUnresolved as error:
                yield "".join(with_locals(error).format())
                continue
            yield f"{endpoint!r} {call!r}"
            try:
                yield repr(send(call, endpoint, sessions.get(endpoint)))
            except SendError as error:
                yield repr(error)
                yield "".join(with_locals(error).format())
    finally:
        sessions.close()


def with_locals(error):
    # The frame of this test knows the settings, as any frame of the site's own may.
    error.__traceback__ = error.__traceback__.tb_next
    return traceback.TracebackException.from_exception(error, capture_locals=True)


def test_places_are_told_apart():
    """A secret that were part of another one would be found for it."""
    for place, secret in PLANTED.items():
        assert [p for p, other in PLANTED.items() if secret in other] == [place]
