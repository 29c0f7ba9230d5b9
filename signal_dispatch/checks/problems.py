"""Every message of the checks by its permanent id, and what the checks share to tell them."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from enum import StrEnum, unique
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage

from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.exceptions import (
    InvalidBackend,
    InvalidEndpoint,
    InvalidSettings,
    LibraryMissing,
)
from signal_dispatch.models import Delivery


@unique
class Problem(StrEnum):
    """The ids. One that was released keeps its meaning and is never given away again."""

    # Settings.
    SETTING_INVALID = "E001"
    ENDPOINT_INVALID = "E002"
    RATE_LIBRARY_MISSING = "E053"
    RATE_STORAGE_UNUSABLE = "E054"
    BACKEND_INVALID = "E004"
    BACKEND_UNKNOWN = "E005"
    LEASE_TOO_SHORT = "E006"
    RESOLVER_INVALID = "E062"
    SETTING_UNKNOWN = "W004"
    CREDENTIAL_UNASKABLE = "E049"
    CERTIFICATE_UNUSABLE = "E050"
    SIGNING_KEY_SHORT = "W015"
    RESOLVER_SHARES_SECRETS = "W019"

    # The model of a dispatch and its database.
    MODEL_REFUSED = "E010"
    OUTBOX_MISSING = "E011"
    KEY_TOO_LONG = "E012"
    SQLITE_NOT_IMMEDIATE = "W001"

    # What a dispatch declares.
    ENDPOINT_MISSING = "E020"
    ENDPOINT_UNKNOWN = "E021"
    EVENTS_INVALID = "E022"
    PAYLOAD_MISSING = "E023"
    LOOKUP_UNKNOWN = "E024"
    TRACKED_INVALID = "E025"
    PATH_INVALID = "E026"
    PATH_NAME_UNKNOWN = "E027"
    REMOTE_ID_UNDECLARED = "E028"
    REMOTE_ID_TOO_EARLY = "E029"
    REMOTE_ID_UNORDERED = "E030"
    EVENT_WITHOUT_ENTRY = "E031"
    METHOD_INVALID = "E032"
    VALUE_INVALID = "E033"
    HEADER_CONFIDENTIAL = "E034"
    NAME_TAKEN = "E035"
    HOOK_ASYNC = "E037"
    HOOK_SIGNATURE = "E063"
    RELATION_INVALID = "E038"
    LATEST_UNORDERED = "E039"
    ENVELOPE_NOT_JSON = "E057"
    FILES_INVALID = "E058"
    URL_MISSING = "E059"
    SENSITIVE_INVALID = "E060"
    SENSITIVE_IN_PATH = "W018"
    ENDPOINT_KEY_MISSING = "E061"
    ATTRIBUTE_MISSPELT = "W005"
    EVENT_MISSPELT = "W006"
    METHOD_MISSPELT = "W022"
    RELATION_ONE_SIDED = "W007"
    COLLECTION_CALLED = "W008"
    DELETED_AS_CHANGE = "W009"
    THROUGH_UNSEEN = "I001"
    BULK_UNSEEN = "I004"

    # What an endpoint lets out, and in.
    PORT_REFUSED = "E045"
    ADDRESS_REFUSED = "E046"
    REMOTE_ID_REDACTED = "E047"
    HTTP_TO_PUBLIC = "W012"
    GUARD_BEHIND_PROXY = "W013"
    PORTS_UNUSED = "W014"

    # A check, or something of the site's that it asked, raised.
    CHECK_BROKEN = "E040"

    # Told by the backends themselves.
    UWSGI_WITHOUT_THREADS = "W002"
    IMMEDIATE_OUTSIDE_DEBUG = "W003"
    BROKER_UNKNOWN = "W020"
    TASKS_WITHOUT_WORKERS = "W021"
    TASKS_UNUSABLE = "E064"

    @property
    def id(self) -> str:
        """Return the id as ``SILENCED_SYSTEM_CHECKS`` takes it."""
        return f"signal_dispatch.{self.value}"

    def message(self, sentence: str, *, hint: str) -> CheckMessage:
        """Return the message: what is wrong and where, and in the hint how to cure it."""
        return _KINDS[self.value[0]](sentence, hint=hint, id=self.id)


_KINDS = {"E": checks.Error, "W": checks.Warning, "I": checks.Info}


def guarded(place: str, messages: Iterable[CheckMessage]) -> Iterator[CheckMessage]:
    """Pass messages on; what is raised on the way becomes one, so that other checks still run."""
    try:
        yield from messages
    except InvalidSettings as error:
        yield of_settings(error)
    except Exception as error:  # noqa: BLE001 - hooks and classes of the site are anybody's code
        yield Problem.CHECK_BROKEN.message(
            f"{place} can't be checked: {type(error).__name__}: {error}",
            hint="Correct what raises here: it would raise at work as well.",
        )


def of_settings(error: InvalidSettings) -> CheckMessage:
    """Return the message for a setting that can't be used."""
    problem = Problem.SETTING_INVALID
    if isinstance(error, InvalidEndpoint):
        problem = Problem.ENDPOINT_INVALID
    elif isinstance(error, InvalidBackend):
        problem = Problem.BACKEND_INVALID
    missing = isinstance(error.__cause__, LibraryMissing)
    hint = "Install it, or name another one." if missing else "Correct this entry of your settings."
    return problem.message(str(error), hint=hint)


def where(dispatch: ModelDispatch[Any], attribute: str = "") -> str:
    """Return the dotted path of the class, or of one of its attributes."""
    declared = type(dispatch)
    path = f"{declared.__module__}.{declared.__qualname__}"
    return f"{path}.{attribute}" if attribute else path


def choice(wanted: str, known: Iterable[str], place: str) -> str:
    """Say what there is to choose from, the likeliest first."""
    names = sorted(known)
    close = get_close_matches(wanted, names, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    return f"{guess}{place} has: {', '.join(names) or 'nothing'}."


def longest(column: str) -> int:
    """Return how many characters a column of the outbox takes."""
    field: Any = Delivery._meta.get_field(column)
    return int(field.max_length)
