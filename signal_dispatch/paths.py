"""Paths: from a template and values to the part of the URL that follows the endpoint's.

A path can never leave the endpoint's URL: values are percent-encoded, and neither they nor the
template may hold what a server or a client could read as a step upwards or as another host.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from reprlib import repr as shortened
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import uritemplate
from django.db.models import Model

from signal_dispatch.exceptions import PathError
from signal_dispatch.scalars import to_text

_NOBODY: frozenset[str] = frozenset()
_MISSING = object()

# RFC 6570, section 2: what stands between braces, and what a name in it looks like.
_BRACES = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"([A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*)(?::[1-9][0-9]{0,3}|\*)?")
_OPERATORS = frozenset("+#./;?&=,!@|")
_RESERVED_OPERATORS = frozenset("=,!@|")
_PAIRS = {"{": "}", "}": "{"}
# Section 2.1 leaves these out of literals (but allows the apostrophe, as OData does).
_NO_LITERAL = re.compile(r"[\x00-\x20\x7f\"<>\\^`{|}]|%(?![0-9A-Fa-f]{2})")


class _Expression(NamedTuple):
    text: str
    operator: str
    names: tuple[str, ...]

    @property
    def is_query(self) -> bool:
        return self.operator in ("?", "&")

    @property
    def is_name(self) -> bool:
        return self.names == (self.text,)


def variables(template: str) -> list[str]:
    """List the names in a template, each once, in their order."""
    return list(_variables(template))


def problem_with(template: str, *, keep: frozenset[str] = _NOBODY) -> str | None:
    """Say in one sentence what is wrong with a template, ``None`` if nothing is.

    ``keep`` is what ``expand`` will be given. A slash at the beginning is no problem.
    """
    return _problem_with(template, keep)


def expand(template: str, values: Mapping[str, Any], *, keep: frozenset[str] = _NOBODY) -> str:
    """Fill a template (RFC 6570) with values; the result never begins with a slash.

    Values are written as ``to_text`` does; a model instance is its pk; a list or tuple, such as a
    composite pk, is joined by commas or as the template's ``*`` says. ``None`` in ``{?x}`` or
    ``{&x}`` is left out. An expression of names in ``keep`` stays as it is: the result is a
    template again, in which what was filled in is not touched a second time.

    Raises ``PathError`` for a template with a problem, and for a value that is missing, ``None``,
    empty, or holds ``.`` or ``..`` as a segment.
    """
    if problem := problem_with(template, keep=keep):
        raise PathError(problem)

    def fill(match: re.Match[str]) -> str:
        expression = _parse(match[1])
        if keep.intersection(expression.names):
            return match[0]
        texts = _checked(expression, values, template)
        if expression.is_name and isinstance(texts[expression.text], str):
            return quote(texts[expression.text], safe="")  # as uritemplate does, which takes longer
        return uritemplate.expand(match[0], texts)

    path = _BRACES.sub(fill, template)
    # A prefix such as {x:2} may cut a harmless value, and literals may complete one, to dots.
    if _climbs(path):
        raise PathError(f"The path '{template}' becomes '{path}', which has a '.' or '..' segment.")
    return path.removeprefix("/")


def _checked(expression: _Expression, values: Mapping[str, Any], template: str) -> dict[str, Any]:
    texts: dict[str, Any] = {}
    for name in expression.names:
        value = values.get(name, _MISSING)
        if value is None and expression.is_query:
            continue
        try:
            texts[name] = _text(value)
        except ValueError as error:
            raise PathError(f"The path '{template}' can't be filled: '{name}' {error}.") from error
    return texts


def _text(value: Any) -> str | list[str]:
    """Write a value as text; raise ``ValueError`` with the end of a sentence where it is unsafe."""
    if isinstance(value, Model):
        value = value.pk
    if isinstance(value, (list, tuple)) and value:
        return [_single(item) for item in value]
    return _single(value)


def _single(value: Any) -> str:
    if value is _MISSING:
        raise ValueError("is not known")
    if value is None:
        raise ValueError("is None")
    try:
        text = to_text(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"has no form in a path ({error})") from error
    if not text.strip():
        raise ValueError("is empty")
    if _has_dots(text):
        raise ValueError(f"is {shortened(text)}, which has a '.' or '..' segment")
    return text


def _has_dots(text: str) -> bool:
    # There are servers and clients that take a backslash for a slash, or '..;v=1' for '..'.
    if "." not in text:
        return False
    segments = (segment.partition(";")[0] for segment in re.split(r"[/\\]", text))
    return any(segment in (".", "..") for segment in segments)


def _climbs(path: str) -> bool:
    # Decoded, because clients undo the encoding of dots: %2e%2e is sent as '..'.
    return _has_dots(unquote(path.partition("?")[0]))


# Nearly every template is a constant of a class, and is asked about at each save.
_remembered = lru_cache(maxsize=512)


@_remembered
def _parse(text: str) -> _Expression:
    operator = text[:1] if text[:1] in _OPERATORS else ""
    parts = text.removeprefix(operator).split(",")
    matches = [_NAME.fullmatch(part) for part in parts]
    return _Expression(text, operator, tuple(match[1] for match in matches if match))


def _expressions(template: str) -> list[_Expression]:
    return [_parse(text) for text in _BRACES.findall(template)]


@_remembered
def _variables(template: str) -> tuple[str, ...]:
    names = [name for expression in _expressions(template) for name in expression.names]
    return tuple(dict.fromkeys(names))


@_remembered
def _problem_with(template: str, keep: frozenset[str]) -> str | None:
    return (
        _problem_with_expressions(template, keep)
        or _problem_with_literals(template)
        or _problem_with_query(template)
    )


def _problem_with_expressions(template: str, keep: frozenset[str]) -> str | None:
    for text, operator, names in _expressions(template):
        if operator in ("+", "#"):
            name = text.removeprefix(operator)
            return (
                f"The path '{template}' has '{{{text}}}', whose value could leave the endpoint's "
                f"URL; write '{{{name}}}'."
            )
        if operator in _RESERVED_OPERATORS or len(names) != text.count(",") + 1:
            cure = "; let get_path_values() return the value as it is to be written"
            return (
                f"The path '{template}' has '{{{text}}}', which is no expression of RFC 6570"
                f"{cure if ':' in text else ''}."
            )
        if not keep.isdisjoint(names) and not keep.issuperset(names):
            return (
                f"The path '{template}' has '{{{text}}}', of which a part is filled in later; "
                f"give {', '.join(sorted(keep.intersection(names)))} an expression of its own."
            )
    return None


def _problem_with_literals(template: str) -> str | None:
    literals = _BRACES.sub(lambda match: _parse(match[1]).operator + "x", template)
    path = literals.partition("?")[0]
    found = _NO_LITERAL.search(literals)
    if found and found[0] in _PAIRS:
        return f"The path '{template}' has a '{found[0]}' without its '{_PAIRS[found[0]]}'."
    if found:
        return f"The path '{template}' has a {found[0]!r}, which has to be percent-encoded."
    if "#" in literals:
        return f"The path '{template}' has a '#'; what follows it is never sent, so leave it out."
    if "//" in path:
        return f"The path '{template}' has '//'; write what follows the endpoint's URL."
    if _climbs(literals):
        return f"The path '{template}' has a '.' or '..' segment; change the endpoint's URL."
    return None


def _problem_with_query(template: str) -> str | None:
    """Find a query that would begin twice, or go on without having begun."""
    for match in _BRACES.finditer(template):
        before = template[: match.start()]
        in_query = "?" in _BRACES.sub("", before)
        if match[1].startswith("?") and (in_query or "{?" in before):
            return (
                f"The path '{template}' begins its query twice; write '{{&x}}' after a '?' of "
                "the template, and all names that may be left out as one '{?x,y}'."
            )
        if match[1].startswith("&") and not in_query:
            return (
                f"The path '{template}' has '{match[0]}' where no query may have begun; "
                "write all names as one '{?x,y}'."
            )
    return None
