"""Say what is wrong with a look-up, before anybody follows it."""

from difflib import get_close_matches
from typing import Any

from django.db.models import Model
from django.db.models.constants import LOOKUP_SEP
from django.db.models.fields.reverse_related import ForeignObjectRel

from signal_dispatch.lookups import is_model, relation


def problem_with(model: type[Model], lookup: str) -> str | None:
    """Say in one sentence what is wrong with a look-up, ``None`` if nothing is.

    Properties and other attributes of a class are fine; what follows them only the values know.
    """
    *way, last = lookup.split(LOOKUP_SEP)
    for name in way:
        found = relation(model, name)
        if found is None:
            return _problem_with_attribute(model, name)
        if problem := _problem_on_the_way(model, name, found):
            return problem
        if not is_model(found.related_model):  # a generic relation, or a missing app
            return None
        model = found.related_model
    return _problem_at_the_end(model, last)


def _problem_on_the_way(model: type[Model], name: str, field: Any) -> str | None:
    if field.one_to_many or field.many_to_many:
        return f"'{name}' of {model._meta.label} leads to many objects, so nothing can follow it."
    if not field.is_relation:
        return f"'{name}' of {model._meta.label} is no relation, so nothing can follow it."
    if not isinstance(field, ForeignObjectRel) and name != field.name:
        return f"'{name}' of {model._meta.label} is a key; write '{field.name}' to follow it."
    return None


def _problem_at_the_end(model: type[Model], name: str) -> str | None:
    field = relation(model, name)
    if field is None:
        return _problem_with_attribute(model, name)
    if field.one_to_many:
        return (
            f"'{name}' of {model._meta.label} leads to many objects; add what you need of them "
            "in get_payload()."
        )
    return None


def _problem_with_attribute(model: type[Model], name: str) -> str | None:
    if not hasattr(model, name):
        public = [other for other in dir(model) if not other.startswith("_")]
        close = get_close_matches(name, public, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return f"'{name}' is no field, relation or property of {model._meta.label}.{hint}"
    if callable(getattr(model, name)):
        return f"'{name}' of {model._meta.label} has to be called; make it a property."
    return None
