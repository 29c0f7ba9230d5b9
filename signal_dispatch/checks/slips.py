"""Check for slips of the pen: what Python takes without a word, and what then never happens."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from http import HTTPMethod
from inspect import isasyncgenfunction, iscoroutinefunction, signature
from typing import Any, Final

from django.core.checks import CheckMessage

from signal_dispatch.checks.names import is_list_of_names
from signal_dispatch.checks.problems import Problem, where
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.events import Event

# How alike two names are (difflib's ratio) before one is taken for a slip of the other.
_ALIKE = 0.8
# Methods are short: of four letters that changed places, three are in order.
_METHODS_ALIKE = 0.65
_METHODS: Final = frozenset(method.value for method in HTTPMethod)
# WebDAV's (RFC 4918), which is no slip of PATCH.
_NO_SLIPS: Final = frozenset({"PROPPATCH"})
_OURS: Final = frozenset(name for name in dir(ModelDispatch) if not name.startswith("_"))
# What we set ourselves, on each class and on each instance.
_SET_BY_US = frozenset({"tracked", "model"})


def check_spelling(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Warn of attributes and methods that are almost ours, and so do nothing."""
    known = _OURS | _SET_BY_US
    for name in sorted(_defined_by_the_site(type(dispatch)) - known):
        close = get_close_matches(name, _OURS, n=1, cutoff=_ALIKE)
        if close and not name.startswith("_"):
            yield Problem.ATTRIBUTE_MISSPELT.message(
                f"{where(dispatch, name)} is nothing that a dispatch knows. "
                f"Did you mean {close[0]!r}?",
                hint="Correct the name; or let that of a helper of your own begin with '_'.",
            )


def check_event_names(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Warn of events of the site's own that are almost Django's, and so are never noticed."""
    for event in dispatch.on if is_list_of_names(dispatch.on) else ():
        close = get_close_matches(event.lower(), Event.values, n=1, cutoff=_ALIKE)
        # Such as "recreated": whoever put something before the whole word meant it.
        if close and not event.endswith(close[0]):
            yield Problem.EVENT_MISSPELT.message(
                f"{where(dispatch, 'on')} has {event!r}, which no save and no delete ever is. "
                f"Did you mean {close[0]!r}?",
                hint=f"Write Event.{Event(close[0]).name}; or give an event of your own, which "
                "enqueue() records, a name that can't be mistaken.",
            )


def check_method_names(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Warn of methods that are almost HTTP's own, and that no remote knows."""
    method: Any = {} if dispatch.overrides("get_method") else dispatch.method
    for token in method.values() if isinstance(method, Mapping) else [method]:
        name = token.upper() if isinstance(token, str) and token.isalpha() else ""
        close = get_close_matches(name, _METHODS, n=1, cutoff=_METHODS_ALIKE)
        if close and name not in _METHODS | _NO_SLIPS:
            yield Problem.METHOD_MISSPELT.message(
                f"{where(dispatch, 'method')} holds {token!r}. Did you mean {close[0]!r}?",
                hint="Correct it; or silence this, if the remote has a method of that name.",
            )


def check_hooks(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Refuse hooks that are coroutines, and those that can't be called as they are."""
    for name in sorted(_OURS):
        if is_async(getattr(type(dispatch), name)):
            yield Problem.HOOK_ASYNC.message(
                f"{where(dispatch, name)}() is async, and hooks are called from threads, where "
                "nobody awaits it: it would never run.",
                hint=f"Write 'def {name}'. Within, asgiref's async_to_sync() calls what is async.",
            )
        elif dispatch.overrides(name) and (given := _refused_arguments(dispatch, name)):
            yield Problem.HOOK_SIGNATURE.message(
                f"{where(dispatch, name)}() is called with ({', '.join(given)}), which it does "
                "not take.",
                hint=f"Write 'def {name}({', '.join(['self', *given])})'.",
            )


def _refused_arguments(dispatch: ModelDispatch[Any], name: str) -> list[str]:
    """Return what a hook is called with, where it does not take that."""
    ours, theirs = getattr(ModelDispatch, name), getattr(dispatch, name)
    if not (callable(ours) and callable(theirs)):
        return []
    given = list(signature(ours).parameters)[1:]
    try:
        signature(theirs).bind(*given)
    except TypeError:
        return given
    except ValueError:  # written in C: it does not say
        return []
    return []


def is_async(hook: Any) -> bool:
    """Say whether a call of it runs nothing yet, for it has to be awaited."""
    return iscoroutinefunction(hook) or isasyncgenfunction(hook)


def _defined_by_the_site(declared: type[ModelDispatch[Any]]) -> set[str]:
    bases = set(declared.__mro__) - set(ModelDispatch.__mro__)
    return {name for base in bases for name in vars(base)}
