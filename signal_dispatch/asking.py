"""Ask a RESOLVER for one endpoint, and judge what it answers."""

import logging
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import ObjectDoesNotExist

from signal_dispatch.conf import MARGIN_SECONDS, settings
from signal_dispatch.entries import Endpoint, EndpointProblem, parse_answer
from signal_dispatch.exceptions import EndpointUnresolved, InvalidEndpoint

logger = logging.getLogger("signal_dispatch")


def ask(entry: Endpoint, written: Mapping[str, Any], alias: str) -> Endpoint:
    """Return the endpoint of a keyed alias; ``written`` is its entry as it stands in settings.

    Raises ``EndpointUnresolved`` where there is none, or none that can be used. The words of an
    error or an answer may be secrets, so neither the message nor the log repeats them.
    """
    key = alias.partition(":")[2]
    place = f'{entry.resolver}("{key}")'
    try:
        resolver: Callable[..., Any] = entry.load("RESOLVER")
        answer = resolver(key)
    except (InvalidEndpoint, EndpointUnresolved) as error:
        raise _fault(str(error)) from None
    except (LookupError, ObjectDoesNotExist) as error:
        raise _gone(f"{place} knows no endpoint ({type(error).__name__}).") from error
    except (Exception, SystemExit) as error:
        _log_the_way(place, error)
        raise _fault(f"{place} raised {type(error).__name__}.") from error
    if answer is None:
        raise _gone(f"{place} knows no endpoint.")
    endpoint, problems = parse_answer(alias, written, answer, place)
    if not problems and endpoint.deadline + 2 * MARGIN_SECONDS > settings.lease_seconds:
        sentence = "is too long for SIGNAL_DISPATCH_LEASE_SECONDS."
        problems.append(EndpointProblem(f'{place}["DEADLINE"]', sentence))
    if problems:
        raise _fault(str(problems[0]))
    return endpoint


def _gone(sentence: str) -> EndpointUnresolved:
    return EndpointUnresolved("gone", sentence)


def _fault(sentence: str) -> EndpointUnresolved:
    return EndpointUnresolved("resolver", sentence)


def _log_the_way(place: str, error: BaseException) -> None:
    """Log where it was raised, without its words and without the lines of code."""
    way = traceback.extract_tb(error.__traceback__)[1:]
    logger.error(
        "%s raised %s, by way of %s.",
        place,
        type(error).__name__,
        ", ".join(f"{step.filename}:{step.lineno} {step.name}()" for step in way) or "no function",
        extra={"action": "resolver_failed"},
    )
