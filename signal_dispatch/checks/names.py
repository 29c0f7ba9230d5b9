"""Check the names that a dispatch writes down: look-ups, columns, and those in a path."""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from django.core.checks import CheckMessage

from signal_dispatch import lookup_problems, lookups, paths
from signal_dispatch.checks.problems import Problem, where
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import REMOTE_ID, uses_remote_id
from signal_dispatch.events import Event


def check_fields(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Follow each look-up of the payload."""

    def problem_with(name: str) -> str | None:
        return lookup_problems.problem_with(dispatch.model, name)

    if dispatch.fields is not None:
        hint = 'List field look-ups, such as ["number", "customer__email"].'
        yield from _check_list(
            dispatch, "fields", problem_with, problem=Problem.LOOKUP_UNKNOWN, hint=hint
        )


def check_tracked(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that what is compared before and after a save is a column of the table it writes."""

    def problem_with(name: str) -> str | None:
        return _problem_with_column(dispatch, name)

    hint = "Name columns of the model's own table; their old values are read before it is written."
    for attribute in ("when_changed", "track"):
        yield from _check_list(
            dispatch, attribute, problem_with, problem=Problem.TRACKED_INVALID, hint=hint
        )


def check_relations(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that ``m2m_fields`` names relations, and tell what of them is never seen."""
    hint = "Name many-to-many fields, or the accessors of those that other models declare."

    def problem_with(name: str) -> str | None:
        if lookups.many_to_many(dispatch.model, name) is None:
            return f"'{name}' of {dispatch.model._meta.label} is no many-to-many relation."
        return None

    place = where(dispatch, "m2m_fields")
    yield from _check_list(
        dispatch, "m2m_fields", problem_with, problem=Problem.RELATION_INVALID, hint=hint
    )
    if dispatch.related and Event.UPDATED not in dispatch.events:
        yield Problem.RELATION_INVALID.message(
            f"{place} counts as 'updated', which is not in 'on'.",
            hint="Add Event.UPDATED to on, or leave m2m_fields out.",
        )
    for name in dispatch.related:
        yield from _check_relation(dispatch, name, place)


def _check_relation(dispatch: ModelDispatch[Any], name: Any, place: str) -> Iterator[CheckMessage]:
    found = lookups.many_to_many(dispatch.model, name) if isinstance(name, str) else None
    if found is None:
        return
    through = found[0]
    if not through._meta.auto_created:
        yield Problem.THROUGH_UNSEEN.message(
            f"{place}: rows that are made on {through._meta.label} itself are not seen.",
            hint=f"Say enqueue(...) there, or register a dispatch for {through._meta.label}.",
        )
    declared: Any = {f.name: f for f in dispatch.model._meta.many_to_many}.get(name)
    if declared is not None and declared.remote_field.symmetrical:
        yield Problem.RELATION_ONE_SIDED.message(
            f"{place}: '{name}' is symmetrical, and a change is told of one of the two alone.",
            hint="Say enqueue(...) for the other one, or silence this.",
        )


def check_path(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Read each template, and look up each of its names."""
    if dispatch.overrides("get_path"):
        return
    path: Any = dispatch.path
    place = where(dispatch, "path")
    for template in path.values() if isinstance(path, Mapping) else [path]:
        yield from _check_template(dispatch, template, place)
    first = path.get(Event.CREATED, "") if isinstance(path, Mapping) else path
    needed = isinstance(first, str) and REMOTE_ID in paths.variables(first)
    creates = is_list_of_names(dispatch.on) and Event.CREATED in dispatch.on
    if needed and creates and uses_remote_id(dispatch):
        yield Problem.REMOTE_ID_TOO_EARLY.message(
            f"{place} needs {{remote_id}} on 'created', when the remote has given out none.",
            hint="Give path a dict by event, whose entry for Event.CREATED does without it.",
        )


def _check_template(
    dispatch: ModelDispatch[Any], template: Any, place: str
) -> Iterator[CheckMessage]:
    kept = frozenset({REMOTE_ID}) if uses_remote_id(dispatch) else frozenset[str]()
    if not isinstance(template, str):
        yield Problem.PATH_INVALID.message(
            f"{place} holds {template!r}, which is no string.",
            hint='Write a template such as "orders/{number}".',
        )
    elif sentence := paths.problem_with(template, keep=kept):
        yield Problem.PATH_INVALID.message(
            f"{place}: {sentence}",
            hint="Templates are those of RFC 6570 without {+x} and {#x}, below the URL.",
        )
    elif not dispatch.overrides("get_path_values"):
        yield from _check_path_names(dispatch, template, place)


def _check_path_names(
    dispatch: ModelDispatch[Any], template: str, place: str
) -> Iterator[CheckMessage]:
    for name in paths.variables(template):
        if name == REMOTE_ID and uses_remote_id(dispatch):
            continue
        sentence = lookup_problems.problem_with(dispatch.model, name)
        if sentence and name == REMOTE_ID:
            yield Problem.REMOTE_ID_UNDECLARED.message(
                f"{place} has {{remote_id}}, and nothing says where the remote's id comes from.",
                hint='Set remote_id, such as "id", or override get_remote_id().',
            )
        elif sentence:
            yield Problem.PATH_NAME_UNKNOWN.message(
                f"{place} has {{{name}}}: {sentence}",
                hint="Name a field look-up or property, pk or remote_id, or add the name in "
                "get_path_values().",
            )


def _check_list(
    dispatch: ModelDispatch[Any],
    attribute: str,
    problem_with: Callable[[str], str | None],
    *,
    problem: Problem,
    hint: str,
) -> Iterator[CheckMessage]:
    names = getattr(dispatch, attribute)
    place = where(dispatch, attribute)
    if not is_list_of_names(names):
        yield problem.message(f"{place} must be a list or tuple of names.", hint=hint)
        return
    for name in names:
        if sentence := problem_with(name):
            yield problem.message(f"{place}: {sentence}", hint=hint)


def is_list_of_names(value: Any) -> bool:
    """Say whether a value holds names; a string does not, it would be read letter by letter."""
    kinds = (list, tuple, set, frozenset)
    return isinstance(value, kinds) and all(isinstance(name, str) and name for name in value)


def _problem_with_column(dispatch: ModelDispatch[Any], name: str) -> str | None:
    model = dispatch.model._meta.concrete_model or dispatch.model
    own = {n: f for f in model._meta.local_concrete_fields for n in (f.name, f.attname)}
    inherited = {n: f for f in model._meta.concrete_fields for n in (f.name, f.attname)}
    if name in own:
        if not getattr(own[name], "generated", False):
            return None
        return f"'{name}' of {model._meta.label} is computed by the database; name its sources."
    if name in inherited:
        # Django writes the parents' tables first, so their old values are gone by then.
        parent = inherited[name].model._meta.label
        return f"'{name}' is a column of {parent}; register a dispatch for that model."
    if lookups.many_to_many(dispatch.model, name) is not None:
        return f"'{name}' is no column but a many-to-many relation: name it in m2m_fields."
    close = get_close_matches(name, own, n=1)
    guess = f" Did you mean '{close[0]}'?" if close else ""
    return f"'{name}' is no column of {model._meta.label}.{guess}"
