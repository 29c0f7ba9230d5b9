"""Name the deliveries that nobody with this code and these settings may take, and what to do."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy

from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.registry import registry
from signal_dispatch.selecting import ANY_UNFINISHED


@dataclass(frozen=True, slots=True)
class Stranded:
    """Unfinished deliveries that no process with these settings and this code may take.

    ``because`` says what is foreign or unknown here: ``environment``, ``endpoint``, ``dispatch``,
    or ``model`` for a dispatch that is not registered for it.
    """

    because: str
    name: str
    deliveries: int

    @property
    def advice(self) -> str:
        """Say why nobody here takes them, and what to do about it."""
        return _ADVICE[self.because] % {"name": self.name, "mine": settings.environment}

    @property
    def filter(self) -> dict[str, str]:
        """Return what a ``Selection`` of them asks for."""
        return {"environment": settings.environment, **self._named(), "state": ANY_UNFINISHED}

    def _named(self) -> dict[str, str]:
        if self.because == "model":
            dispatch, _for, model = self.name.rpartition(_FOR)
            return {"dispatch": dispatch, "model": model}
        return {self.because: self.name}


_FOR = " for "
_ADVICE = {
    "environment": gettext_lazy(
        "SIGNAL_DISPATCH_ENVIRONMENT is %(mine)r here: processes of that environment send them. "
        "If they came with a copy of its database, delete them."
    ),
    "endpoint": gettext_lazy(
        'SIGNAL_DISPATCH_ENDPOINTS["%(name)s"] is missing or faulty here: add or correct it, or '
        "leave them to processes that know it."
    ),
    "dispatch": gettext_lazy(
        "No dispatch has the name %(name)r here: deploy the code that declares it; if its class "
        "was renamed, set its name to this one."
    ),
    "model": gettext_lazy(
        "The dispatch is registered here, but not for that model: register it for that model, "
        "too, or deploy the code that does."
    ),
}


def stranded_in(groups: Iterable[Mapping[str, Any]]) -> Iterator[Stranded]:
    """Yield them, counted, from groups of what is unfinished by all that says who may take it."""
    found: Counter[tuple[str, str]] = Counter()
    for group in groups:
        reason = stranded_because(
            *(group[n] for n in ("environment", "endpoint", "dispatch", "model"))
        )
        if reason is not None:
            found[reason] += group["due"] + group["scheduled"] + group["held"] + group["waiting"]
    for (because, name), deliveries in sorted(found.items()):
        yield Stranded(because, name, deliveries)


def stranded_because(
    environment: str, endpoint: str, dispatch: str, model: str
) -> tuple[str, str] | None:
    """Return what is foreign or unknown here and its name, as ``Stranded`` has them, or None."""
    if environment != settings.environment:
        return "environment", environment
    if endpoints.find(endpoint) is None:
        return "endpoint", endpoint
    if dispatch not in {name for name, _model in registry.pairs()}:
        return "dispatch", dispatch
    if registry.find(dispatch, model) is None:
        return "model", f"{dispatch}{_FOR}{model}"
    return None
