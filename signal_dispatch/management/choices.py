"""Refuse what is not known, and say what is: a slip of the pen must not match nothing."""

from collections.abc import Collection, Iterable

from django.core.management.base import CommandError

from signal_dispatch.registry import registry


def refuse_unknown(option: str, given: Iterable[str] | None, known: Collection[str]) -> None:
    """Raise ``CommandError`` for the first value of an option that is none of the known ones."""
    for value in given or ():
        if value not in known:
            raise unknown(option, value, known)


def unknown(option: str, value: str, known: Iterable[str]) -> CommandError:
    """Return the error for a value that is not known."""
    return CommandError(f"{option} {value!r} is not known. Known: {', '.join(known) or 'none'}.")


def models_with_a_dispatch() -> str:
    """Say which models can be named."""
    labels = sorted({dispatch.model._meta.label for dispatch in registry})
    return f"Models with a dispatch: {', '.join(labels) or 'none'}."
