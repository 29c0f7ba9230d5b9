"""Make a call that no delivery stands behind: a person tries whether an endpoint is well."""

import logging
from time import monotonic
from uuid import uuid4

from django.utils import timezone

from signal_dispatch import payloads, sender
from signal_dispatch.delivering import keep
from signal_dispatch.endpoints import endpoints
from signal_dispatch.exceptions import EndpointUnresolved, SendError
from signal_dispatch.models import Attempt
from signal_dispatch.outcomes import OutcomeKind
from signal_dispatch.sessions import SessionCache

logger = logging.getLogger("signal_dispatch")

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH")
BODILESS = ("GET", "HEAD", "OPTIONS")
#: What a call with a body carries.
PAYLOAD = {"test": True}


def try_endpoint(alias: str, *, method: str, path: str, by: str) -> Attempt:
    """Make one call, whether the endpoint is paused or not; it is neither stored nor counted.

    What it brought is returned as an attempt, without all that none may keep.
    ``path`` is joined to the endpoint's URL, and must not lead out of it: ``ValueError``. Raises
    ``UnknownEndpoint``, and what a test's mocks raise.
    """
    refuse_path(path)
    endpoints[alias]  # a slip of the pen is no trial
    body, content_type = (b"", "") if method in BODILESS else payloads.encode_json(PAYLOAD)
    headers = {"Content-Type": content_type} if body else {}
    call = sender.Call(method=method, path=path, headers=headers, body=body, uid=str(uuid4()))
    attempt = Attempt(number=1, started_at=timezone.now(), outcome=OutcomeKind.RETRY)
    began, sessions = monotonic(), SessionCache()
    try:
        endpoint = endpoints.resolve(alias)
        if not endpoint.url:
            raise SendError(
                "connect", f"{endpoint.setting('URL')} is missing, so nothing is called."
            )
        answer = sender.send(call, endpoint, sessions.get(endpoint))
        keep(attempt, answer, endpoint)
        attempt.outcome = OutcomeKind.DELIVERED if answer.ok else OutcomeKind.REJECTED
    except (SendError, EndpointUnresolved) as error:
        attempt.error_class, attempt.error = error.error_class, str(error)
    finally:
        sessions.close()
    attempt.duration_ms = round(1000 * (monotonic() - began))
    logger.info(
        "%s made a test call to the endpoint %r: %s.",
        by,
        alias,
        attempt.status_code or attempt.error_class,
        extra={"action": "endpoint_tried", "endpoint": alias},
    )
    return attempt


def refuse_path(path: str) -> None:
    """Raise ``ValueError`` for a path that is none, or leads out of the endpoint's URL."""
    if not path.isascii() or not path.isprintable() or any(sign in path for sign in ' \\#"<>^`{|}'):
        raise ValueError("Write it as it stands in a URL, encoded.")
    decoded = path.partition("?")[0].lower().replace("%2e", ".").replace("%2f", "/")
    if path.startswith("/") or any(part in (".", "..") for part in decoded.split("/")):
        raise ValueError("It must stay below the endpoint's URL.")
