"""Which dispatches are silent right now, and how far a chain of answers has come."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

#: A delivery that is this many hooks away from a person's own change is not sent.
MAX_HOPS = 5


@dataclass(frozen=True, slots=True)
class _Context:
    everything: bool = False
    names: frozenset[str] = frozenset()
    objects: frozenset[tuple[str, str, Any]] = field(default_factory=frozenset)
    hops: int = 0


_context: ContextVar[_Context] = ContextVar("signal_dispatch", default=_Context())  # noqa: B039 - it is frozen


@contextmanager
def suppressed(*dispatches: Any) -> Iterator[None]:
    """Make no delivery for changes inside.

    Takes dispatch classes or names; without arguments it means all. Holds for the current
    context (``contextvars``), so for the current thread or task only.
    """
    names = frozenset(d if isinstance(d, str) else d.get_name() for d in dispatches)
    now = _context.get()
    everything = now.everything or not dispatches
    with _entered(_Context(everything, now.names | names, now.objects, now.hops)):
        yield


@contextmanager
def running_hook(dispatch: str, model: str, pk: Any, hops: int) -> Iterator[None]:
    """Mark the time in which an answer is handled.

    The same dispatch is silent for the same object, and deliveries that other changes make
    count one hop more than the delivery that was answered.
    """
    now = _context.get()
    objects = now.objects | {(dispatch, model, pk)}
    with _entered(_Context(now.everything, now.names, objects, hops + 1)):
        yield


def is_suppressed(dispatch: str) -> bool:
    """Say whether this dispatch is silent, whatever the object."""
    now = _context.get()
    return now.everything or dispatch in now.names


def is_object_suppressed(dispatch: str, model: str, pk: Any) -> bool:
    """Say whether this dispatch is silent for this object: its own answer is being handled."""
    objects = _context.get().objects
    return bool(objects) and (dispatch, model, pk) in objects


def current_hops() -> int:
    """Count how many hooks led to the change being made: 0 outside of hooks."""
    return _context.get().hops


@contextmanager
def _entered(context: _Context) -> Iterator[None]:
    token = _context.set(context)
    try:
        yield
    finally:
        _context.reset(token)
