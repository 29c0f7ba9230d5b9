"""Say what each dispatch declares, and how its deliveries fare."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Max
from django.utils.translation import gettext as _

from signal_dispatch.clocks import DatabaseNow, SecondsFromNow
from signal_dispatch.conf import settings
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import uses_remote_id
from signal_dispatch.endpoints import endpoints
from signal_dispatch.managers import silent_managers
from signal_dispatch.models import Delivery, State
from signal_dispatch.registry import registry
from signal_dispatch.status import COUNTED, unfinished_groups

#: How many of the newest deliveries are looked at for the last one of each dispatch.
LOOKED_AT = 10_000
#: What "lately" means for what failed, in seconds.
LATELY_SECONDS = 86400.0

SILENT = "(ENABLED is False)"


@dataclass(frozen=True, slots=True)
class Told:
    """What goes out for some events: the method and the path's template."""

    events: tuple[str, ...]
    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Mapping:
    """A dispatch as it is declared for one model, and how it fares in one outbox.

    ``last`` has ``age_in`` and ``finished_in``, negative seconds; it is None where none of the
    ``LOOKED_AT`` newest deliveries is of this dispatch. ``failed`` counts those of the last day,
    all dispatches together up to ``COUNTED``.
    """

    name: str
    model: str
    endpoint: str
    host: str
    calls: tuple[Told, ...]
    carries: str
    conditions: tuple[str, ...]
    options: tuple[str, ...]
    #: Managers of the model whose bulk operations make no call.
    silent_managers: tuple[str, ...] = ()
    unfinished: int = 0
    failed: int = 0
    last: Any = None

    @property
    def has_page(self) -> bool:
        """Whether the endpoint is one, that settings name."""
        return self.endpoint in endpoints


def mappings(using: str) -> list[Mapping]:
    """Return what is registered here, by model and name, with how it fares."""
    unfinished: Counter[tuple[str, str]] = Counter()
    for group in unfinished_groups(using):
        if group["environment"] == settings.environment:
            counts = ("due", "scheduled", "held", "waiting")
            unfinished[group["dispatch"], group["model"]] += sum(group[name] for name in counts)
    failed, last = _failed(using), _last(using)
    return [
        Mapping(
            dispatch.name,
            dispatch.model._meta.label,
            *destination_of(dispatch),
            tuple(calls_of(dispatch)),
            _carries(dispatch),
            tuple(_conditions(dispatch)),
            tuple(_options(dispatch)),
            tuple(silent_managers(dispatch)),
            unfinished[key],
            failed[key],
            last.get(key),
        )
        for dispatch in sorted(registry, key=lambda d: (d.model._meta.label, d.name))
        for key in [(dispatch.name, dispatch.model._meta.label_lower)]
    ]


def calls_of(dispatch: ModelDispatch[Any]) -> Iterator[Told]:
    """Yield a line for each method and path that events have in common."""
    calls: dict[tuple[str, str], list[str]] = {}
    for event in dispatch.on:
        call = (_declared(dispatch, "method", event), _declared(dispatch, "path", event))
        calls.setdefault(call, []).append(str(event))
    for (method, path), events in calls.items():
        yield Told(tuple(events), method, path)


def destination_of(dispatch: ModelDispatch[Any]) -> tuple[str, str]:
    """Return the endpoint and its host, or what stands for them."""
    alias = dispatch.endpoint
    entry = endpoints.entry(alias)
    if entry is not None and entry.resolver:
        shown = alias if ":" in alias else f"{alias}:…"
        return shown, "(RESOLVER)" if entry.enabled else SILENT
    if dispatch.overrides("get_endpoint"):
        return "get_endpoint()", "-"
    if alias not in endpoints:
        return alias or "-", "unknown"
    endpoint = endpoints[alias]
    return alias, (endpoint.host or "-") if endpoint.enabled else SILENT


def _declared(dispatch: ModelDispatch[Any], attribute: str, event: str) -> str:
    if dispatch.overrides(f"get_{attribute}"):
        return f"get_{attribute}()"
    value = getattr(dispatch, attribute)
    return str((value if isinstance(value, str) else value.get(event)) or "-")


def _carries(dispatch: ModelDispatch[Any]) -> str:
    if dispatch.overrides("get_payload"):
        return "get_payload()"
    if dispatch.serializer_class is not None:
        return str(getattr(dispatch.serializer_class, "__name__", dispatch.serializer_class))
    return ", ".join(dispatch.fields or ()) or _("no body")


def _conditions(dispatch: ModelDispatch[Any]) -> Iterator[str]:
    if dispatch.when_changed:
        yield _("a save that changes %s") % ", ".join(dispatch.when_changed)
    if dispatch.m2m_fields:
        yield _("a change of %s") % ", ".join(dispatch.m2m_fields)
    for hook in ("get_event", "should_send"):
        if dispatch.overrides(hook):
            yield f"{hook}()"


def _options(dispatch: ModelDispatch[Any]) -> Iterator[str]:
    yield from _times(dispatch)
    if not dispatch.ordered:
        yield _("in no order")
    if dispatch.latest_wins:
        yield _("the newest replaces what waits")
    if dispatch.retry is not None:
        yield _("%d attempts") % dispatch.retry.attempts
    hooks = ("send", "get_files", "get_outcome", "handle_response", "handle_failure")
    yield from (f"{hook}()" for hook in hooks if dispatch.overrides(hook))


def _times(dispatch: ModelDispatch[Any]) -> Iterator[str]:
    if dispatch.delay:
        yield _("%g s after the save") % dispatch.delay
    if dispatch.snapshot == "send":
        yield _("taken when it is sent")
    if uses_remote_id(dispatch):
        yield _("keeps the remote's id")


def _failed(using: str) -> Counter[tuple[str, str]]:
    rows = Delivery.objects.using(using).filter(
        state=State.FAILED,
        finished_at__gte=DatabaseNow(-LATELY_SECONDS),
        environment=settings.environment,
        replaced_by__isnull=True,
    )
    return Counter(rows.order_by().values_list("dispatch", "model")[: COUNTED + 1])


def _last(using: str) -> dict[tuple[str, str], Delivery]:
    """Return the newest delivery of each dispatch, as far as it is among the newest of all."""
    rows = Delivery.objects.using(using)
    ids = rows.order_by("-pk").values_list("pk", flat=True)
    since = next(iter(ids[LOOKED_AT : LOOKED_AT + 1]), 0)
    groups: Iterable[Any] = rows.filter(pk__gt=since).order_by().values("dispatch", "model")
    newest = [group["newest"] for group in groups.annotate(newest=Max("pk"))]  # type: ignore[attr-defined]
    found = rows.filter(pk__in=newest).defer("body", "headers")
    timed = found.annotate(
        age_in=SecondsFromNow("created_at"), finished_in=SecondsFromNow("finished_at")
    )
    return {(row.dispatch, row.model): row for row in timed}
