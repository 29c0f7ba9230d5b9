"""Keep what one save() recorded, on its way from the write of a table to ``post_save``."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Model

from signal_dispatch.queueing import Recorded

_NOTICED = "signal_dispatch"


@dataclass(slots=True)
class Noticed:
    """What one save() recorded, of which models, and whether its transaction was our own."""

    models: set[type[Model]] = field(default_factory=set)
    recorded: list[Recorded] = field(default_factory=list)
    alone: bool = True


@contextmanager
def keeping(instance: Model, model: type[Model]) -> Iterator[Noticed]:
    """Keep what the write of a table records until ``post_save`` comes.

    A multi-table child writes several tables before its one signal; a handler that saves the
    same instance again comes in between, and its own signal comes first.
    """
    stack: list[Noticed] = instance._state.__dict__.setdefault(_NOTICED, [])
    if not stack or model in stack[-1].models:
        stack.append(Noticed())
    noticed = stack[-1]
    noticed.models.add(model)
    try:
        yield noticed
    except BaseException:
        stack.remove(noticed)
        raise


def take(instance: Model) -> Noticed:
    """Return what the last save() of the instance recorded, and forget it."""
    stack: list[Noticed] = instance._state.__dict__.get(_NOTICED) or [Noticed()]
    return stack.pop()


@contextmanager
def as_in_post_save(instance: Model, model: type[Model], using: str) -> Iterator[None]:
    """Let hooks see the instance as ``post_save`` shows it; Django sets this a moment later."""
    for link in _links_to(model, instance):
        setattr(instance, link.attname, getattr(instance, link.related_model._meta.pk.attname))
    state = instance._state
    before = state.db, state.adding
    state.db, state.adding = using, False
    try:
        yield
    finally:
        state.db, state.adding = before


def _links_to(model: type[Model], child: Model) -> Iterable[Any]:
    """Find what makes a multi-table child one of the model, the nearest to the model first."""
    fields: Iterable[Any] = () if type(child) is model else child._meta.concrete_fields
    return (
        field
        for field in fields
        if getattr(field.remote_field, "parent_link", False)
        and issubclass(field.related_model, model)
    )
