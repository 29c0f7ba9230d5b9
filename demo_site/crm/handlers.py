"""What the CRM's two ports answer: the API that the shop calls, and the switches beside it."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from demo_site.crm.listening import Port
from demo_site.crm.records import Behaviour, Mode, Records
from signal_dispatch.exceptions import SignatureError
from signal_dispatch.signing import verify


class CRM:
    """The records, the behaviour, and the two ports of one CRM.

    ``secrets`` are those that it shares with the shop: both, while one takes the other's place.
    """

    def __init__(self, api_port: int, control_port: int, secrets: Sequence[str]) -> None:
        self.secrets = secrets
        self._switching = threading.Lock()
        self.records = Records()
        self.behaviour = Behaviour()
        self.api = Port(api_port, _handler(ApiHandler, self))
        self.control = Port(control_port, _handler(ControlHandler, self))

    def behave(self, behaviour: Behaviour) -> None:
        """Change the behaviour; the port obeys before this returns."""
        with self._switching:
            self.behaviour = behaviour
            if behaviour.mode is Mode.DOWN:
                self.api.close()
            else:
                self.api.open()

    def snapshot(self) -> dict[str, Any]:
        """Return the behaviour and what is held."""
        return {**asdict(self.behaviour), **self.records.snapshot()}


class _JSONHandler(BaseHTTPRequestHandler):
    crm: CRM

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name
        """Write nothing: calls are noted in the records."""

    def read(self) -> bytes:
        """Return the body. To be read before any answer: what is left unread resets the call."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, value: Any, *, retry_after: int = 0) -> None:
        """Send a status with JSON, and with Retry-After where there are seconds to wait."""
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if retry_after:
            self.send_header("Retry-After", str(retry_after))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class ApiHandler(_JSONHandler):
    """``PUT /orders/<number>``: verify the signature, store the order, answer with its id."""

    def do_PUT(self) -> None:
        """Behave as told, and note the call."""
        body = self.read()
        behaviour = self.crm.behaviour
        if behaviour.mode is Mode.SLOW:
            time.sleep(behaviour.seconds)
        if self.crm.behaviour.mode is Mode.DOWN:
            return  # went down meanwhile: the connection ends without an answer
        retry_after = 0
        if behaviour.mode is Mode.FAIL:
            status, value = behaviour.status, {"error": "told to fail"}
            retry_after = behaviour.retry_after
        else:
            status, value = self._verify_and_store(body)
        self.crm.records.note(self.command, self.path, status)
        self.answer(status, value, retry_after=retry_after)

    def _verify_and_store(self, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            # A real one remembers the webhook-id for five minutes, too. Here a call that comes
            # twice stores the same order again.
            verify(body, dict(self.headers.items()), self.crm.secrets)
        except SignatureError as error:
            return HTTPStatus.UNAUTHORIZED, {"error": str(error)}
        return self._store(body)

    def _store(self, body: bytes) -> tuple[int, dict[str, Any]]:
        collection, _, number = urlsplit(self.path).path.strip("/").partition("/")
        if collection != "orders" or not number:
            return HTTPStatus.NOT_FOUND, {"error": "orders live under /orders/<number>"}
        try:
            fields = json.loads(body)
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            return HTTPStatus.BAD_REQUEST, {"error": "the body must be a JSON object"}
        order, is_new = self.crm.records.store(unquote(number), fields)
        return HTTPStatus.CREATED if is_new else HTTPStatus.OK, order


class ControlHandler(_JSONHandler):
    """``GET``: everything the CRM holds. ``POST``: change its behaviour."""

    def do_GET(self) -> None:
        """Answer with the behaviour, the orders and the last calls."""
        self.answer(HTTPStatus.OK, self.crm.snapshot())

    def do_POST(self) -> None:
        """Take a behaviour."""
        try:
            self.crm.behave(Behaviour.from_json(json.loads(self.read())))
        except ValueError as error:
            self.answer(HTTPStatus.BAD_REQUEST, {"error": str(error)})
        else:
            self.answer(HTTPStatus.OK, self.crm.snapshot())


def _handler(base: type[_JSONHandler], crm: CRM) -> type[_JSONHandler]:
    """Return the handler for this CRM: http.server makes handlers itself, from their class."""
    return type(base.__name__, (base,), {"crm": crm})
