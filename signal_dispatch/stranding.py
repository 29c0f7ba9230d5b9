"""Name the deliveries that nobody with this code and these settings may take, and what to do."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext_lazy

from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.registry import registry
from signal_dispatch.selecting import ANY_UNFINISHED


@dataclass(frozen=True, slots=True, order=True)
class Stranded:
    """Unfinished deliveries that no process with these settings and this code may take.

    ``because`` says what is foreign or unknown here, and ``name`` which one: ``environment``,
    ``endpoint``, ``dispatch``; or ``model``, where the dispatch of that name is not registered for
    the ``model``, which is empty else.
    """

    because: str
    name: str
    deliveries: int = 1
    model: str = ""

    @property
    def kind(self) -> str:
        """Say what is foreign or unknown here, in words that go before its name."""
        return str(_KINDS[self.because]) % {"model": self.model}

    @property
    def advice(self) -> str:
        """Say why nobody here takes them, be it one or many, and what to do about it."""
        told = {"name": self.name, "model": self.model, "mine": settings.environment}
        return str(_ADVICE[self.because]) % told

    @property
    def filter(self) -> dict[str, str]:
        """Return what a ``Selection`` of them asks for."""
        column = "dispatch" if self.because == "model" else self.because
        named = {"environment": settings.environment, column: self.name}
        model = {"model": self.model} if self.model else {}
        return named | model | {"state": ANY_UNFINISHED}


_KINDS = {
    "environment": gettext_lazy("another environment"),
    "endpoint": gettext_lazy("unknown endpoint"),
    "dispatch": gettext_lazy("unknown dispatch"),
    "model": gettext_lazy("dispatch not for %(model)s"),
}
_ADVICE = {
    "environment": gettext_lazy(
        "SIGNAL_DISPATCH_ENVIRONMENT is %(mine)r here: what belongs to %(name)r is sent by "
        "processes of that environment. If it came with a copy of its database, cancel it."
    ),
    "endpoint": gettext_lazy(
        'SIGNAL_DISPATCH_ENDPOINTS["%(name)s"] is missing or faulty here: add or correct it, or '
        "leave this to processes that know it."
    ),
    "dispatch": gettext_lazy(
        "No dispatch has the name %(name)r here: deploy the code that declares it; if its class "
        "was renamed, set its name to this one."
    ),
    "model": gettext_lazy(
        "The dispatch %(name)r is registered here, but not for %(model)s: register it for that "
        "model, too, or deploy the code that does."
    ),
}


def stranded_in(groups: Iterable[Mapping[str, Any]]) -> Iterator[Stranded]:
    """Yield them, counted, from groups of what is unfinished by all that says who may take it."""
    found: Counter[Stranded] = Counter()
    for group in groups:
        stranded = stranded_because(
            *(group[n] for n in ("environment", "endpoint", "dispatch", "model"))
        )
        if stranded is not None:
            found[stranded] += group["due"] + group["scheduled"] + group["held"] + group["waiting"]
    for stranded, deliveries in sorted(found.items()):
        yield replace(stranded, deliveries=deliveries)


def stranded_because(environment: str, endpoint: str, dispatch: str, model: str) -> Stranded | None:
    """Return why nobody here may take one delivery, or None."""
    if environment != settings.environment:
        return Stranded("environment", environment)
    if endpoints.find(endpoint) is None:
        return Stranded("endpoint", endpoint)
    if dispatch not in {name for name, _model in registry.pairs()}:
        return Stranded("dispatch", dispatch)
    if registry.find(dispatch, model) is None:
        return Stranded("model", dispatch, model=model)
    return None
