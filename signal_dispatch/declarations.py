"""What a site writes: a model, its events, the endpoint, and what to carry there."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from django.apps import apps
from django.core.checks import CheckMessage
from django.db.models import Model

from signal_dispatch import payloads
from signal_dispatch.events import Change, Event
from signal_dispatch.exceptions import PayloadError
from signal_dispatch.outcomes import Outcome, Response
from signal_dispatch.retries import RetryPolicy

if TYPE_CHECKING:
    from requests import Session

    from signal_dispatch.models import Attempt, Delivery

ModelT = TypeVar("ModelT", bound=Model)

#: Methods whose requests carry no body unless ``get_payload`` is overridden (RFC 9110, 9.3).
BODILESS_METHODS = frozenset({"GET", "HEAD", "DELETE"})


class ModelDispatch(Generic[ModelT]):
    """Declare that changes of a model are told to an endpoint.

    Set an attribute where the value is constant, override ``get_<attribute>`` where it is
    computed. There is one instance for each model the class is registered for.
    """

    #: Stable name that is stored in rows; pin it before you rename the class.
    name: str = ""
    #: Alias in ``SIGNAL_DISPATCH_ENDPOINTS``.
    endpoint: str = ""
    #: Events that count: ``Event`` members and names of your own.
    on: Sequence[str] = (Event.CREATED, Event.UPDATED, Event.DELETED)
    #: RFC 6570 template, joined to the endpoint's URL; or one for each event.
    path: str | Mapping[str, str] = ""
    #: HTTP method; or one for each event.
    method: str | Mapping[str, str] = "POST"
    #: Allow-list of the payload, with ``__`` look-ups; ``()`` means no body.
    fields: Sequence[str] | None = None
    #: Anything called as ``serializer_class(instance).data``.
    serializer_class: Any = None
    #: ``"json"`` or ``"form"``.
    encoding: str = "json"
    #: Many-to-many names whose change counts as ``UPDATED``.
    m2m_fields: Sequence[str] = ()
    #: A save that leaves all of these as they were is no event.
    when_changed: Sequence[str] = ()
    #: Further fields whose old values ``change.old`` should carry.
    track: Sequence[str] = ()
    #: Added to the endpoint's headers, and stored: no secrets here.
    headers: Mapping[str, str] = {}
    #: ``"plain"``: the payload is the body. ``"standard"``: that of Standard Webhooks around it.
    envelope: str = "plain"
    #: Names of the payload (with full stops for what is deeper) that are not kept once it is sent.
    sensitive: Sequence[str] = ()
    #: Dotted path of the remote's id in its response.
    remote_id: str = ""
    #: Deliveries for one object go one after the other.
    ordered: bool = True
    #: A newer delivery replaces those of its lane that still wait.
    latest_wins: bool = False
    #: Seconds before the first attempt.
    delay: float = 0
    #: Several changes of one object in one transaction are one delivery.
    merge: bool = True
    #: The endpoint's policy, unless the dispatch has its own.
    retry: RetryPolicy | None = None
    #: When path, method, headers and payload are taken: ``"save"``, or ``"send"``, at the first
    #: attempt.
    snapshot: str = "save"

    #: ``when_changed`` and ``track`` together. Set by the class itself.
    tracked: ClassVar[tuple[str, ...]] = ()
    #: ``on`` as a tuple. Set by the class itself.
    events: ClassVar[tuple[str, ...]] = ()
    #: ``m2m_fields`` as a tuple. Set by the class itself.
    related: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: type[ModelT]) -> None:
        self.model = model
        self.name = self.get_name()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # What is no list of names counts as none here; a system check tells of it.
        cls.events, cls.related = _names(cls.on), _names(cls.m2m_fields)
        cls.tracked = tuple(dict.fromkeys([*_names(cls.when_changed), *_names(cls.track)]))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} for {self.model._meta.label}>"

    @classmethod
    def get_name(cls) -> str:
        """Return the stable name: ``name``, or ``"<app_label>.<ClassName>"``."""
        if cls.name:
            return cls.name
        config = apps.get_containing_app_config(cls.__module__) if apps.apps_ready else None
        label = config.label if config else cls.__module__.split(".")[0]
        return f"{label}.{cls.__name__}"

    @classmethod
    def overrides(cls, name: str) -> bool:
        """Say whether the class brings a method or attribute of its own."""
        return getattr(cls, name) is not getattr(ModelDispatch, name)

    @property
    def connectable(self) -> bool:
        """Whether the model has a table of ours; a system check tells of those that have not."""
        return self.model._meta.managed and not self.model._meta.abstract

    # Asked when the change is recorded.

    def get_event(self, instance: ModelT, change: Change[ModelT]) -> str | None:
        """Return the event to send, ``None`` for none; it is not filtered by ``on``."""
        return change.event

    def should_send(self, instance: ModelT, change: Change[ModelT]) -> bool:
        """Say whether this change is told at all."""
        return True

    def get_endpoint(self, instance: ModelT, change: Change[ModelT]) -> str | Iterable[str] | None:
        """Return the alias, several for one delivery each, or ``None`` for no delivery."""
        return self.endpoint

    def get_method(self, instance: ModelT, change: Change[ModelT]) -> str:
        """Return the HTTP method for the change's event."""
        return self._for_event("method", change.event)

    def get_path(self, instance: ModelT, change: Change[ModelT]) -> str:
        """Return the path's template for the change's event."""
        return self._for_event("path", change.event)

    def get_path_values(self, instance: ModelT, change: Change[ModelT]) -> Mapping[str, Any]:
        """Return names for the path's template beside fields, properties and ``pk``."""
        return {}

    def get_headers(self, instance: ModelT, change: Change[ModelT]) -> Mapping[str, str]:
        """Return headers to add to the endpoint's. They are stored."""
        return self.headers

    def get_payload(self, instance: ModelT, change: Change[ModelT]) -> Any:
        """Return what the body says, ``None`` for no body."""
        if self.serializer_class is not None:
            return self.serializer_class(instance).data
        if not self.fields:
            return None
        return payloads.from_fields(instance, self.fields, model=self.model)

    def encode(self, payload: Any) -> tuple[bytes, str]:
        """Return the body's bytes and its content type."""
        encode = payloads.encode_form if self.encoding == "form" else payloads.encode_json
        return encode(payload)

    # Asked when it is sent.

    def get_files(self, delivery: "Delivery") -> Mapping[str, Any] | None:
        """Return files to send along, open; they make the call ``multipart/form-data``.

        Under each name bytes, a file object, ``(filename, either of these[, content type])``, or
        a list of such. Asked anew for each attempt, whose files are closed. With ``None`` the call
        goes as it is stored.
        """
        return None

    def send(self, delivery: "Delivery", session: "Session") -> Any:
        """Make the call yourself, by a vendor's SDK: override it, and HTTP is left to you.

        Return what came: a ``Response``, one of ``requests``, or a JSON value (a 200; ``None`` is a
        204). Or say with an ``Outcome`` what it means. An exception is a retry. The lease is kept
        for up to ``SEND_LIMIT`` seconds. ``session`` has the endpoint's certificates, proxies and
        ``SESSION``, but none of its credentials.
        """
        raise NotImplementedError

    # Asked when an answer came.

    def get_outcome(self, delivery: "Delivery", response: Response) -> Outcome | None:
        """Return what the response means; ``None`` for the usual table of status codes."""
        return None

    def get_remote_id(self, delivery: "Delivery", response: Response) -> Any:
        """Return the remote's id for the object; by default what stands at ``remote_id``."""
        value = response.json()
        for step in self.remote_id.split("."):
            value = value[int(step)] if isinstance(value, list) else value[step]
        return value

    def handle_response(self, delivery: "Delivery", response: Response) -> None:
        """Process the answer; commits together with the mark that the delivery is delivered."""

    def handle_failure(self, delivery: "Delivery", attempt: "Attempt | None") -> None:
        """Process that a delivery is finally FAILED. Called once."""

    # Asked by ``manage.py check``.

    def check(self) -> list[CheckMessage]:
        """Return further messages for ``manage.py check``."""
        return []

    def _for_event(self, attribute: str, event: str) -> str:
        value = getattr(self, attribute)
        if isinstance(value, str):
            return value
        if event not in value:
            raise PayloadError(
                f"{type(self).__name__}.{attribute} has no entry for the event {str(event)!r}; "
                f"it has {', '.join(map(str, value))}."
            )
        return str(value[event])


def _names(given: Any) -> tuple[str, ...]:
    return tuple(given) if isinstance(given, list | tuple | set | frozenset) else ()
