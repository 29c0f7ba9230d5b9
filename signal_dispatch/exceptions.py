"""What can go wrong: one base that is never raised itself, leaves that say one thing each."""

from django.core.exceptions import ImproperlyConfigured


class SignalDispatchError(Exception):
    """Base of every error of this package."""


class InvalidSettings(SignalDispatchError, ImproperlyConfigured):
    """A ``SIGNAL_DISPATCH_*`` setting can't be used; the message begins with its path."""


class InvalidEndpoint(InvalidSettings):
    """An entry of ``SIGNAL_DISPATCH_ENDPOINTS`` can't be used."""


class UnknownEndpoint(InvalidEndpoint):
    """No entry of ``SIGNAL_DISPATCH_ENDPOINTS`` has this alias."""


class InvalidEndpointKey(InvalidEndpoint):
    """An alias lacks the key that its RESOLVER needs, or has one that can't be a key."""


class InvalidBackend(InvalidSettings):
    """An entry of ``SIGNAL_DISPATCH_BACKENDS`` can't be used."""


class LibraryMissing(SignalDispatchError, ImportError):
    """A backend needs a library that is not installed; ``extra`` is ours that brings it."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(
            f"the library {library} is not installed: "
            f"pip install 'django-signal-dispatch[{extra}]'",
            name=library,
        )


class InvalidDispatch(SignalDispatchError, ImproperlyConfigured):
    """A dispatch can't be registered as it is declared."""


class PayloadError(SignalDispatchError, ValueError):
    """The payload of a delivery can't be built or encoded; the message names the field."""


class PathError(SignalDispatchError, ValueError):
    """The path of a delivery can't be built safely; the message names the value."""


class SendError(SignalDispatchError):
    """No answer came; ``error_class`` says in one word why (``timeout``, ``connect``, ...).

    ``for_good``: it would be the same at every other attempt.
    """

    def __init__(self, error_class: str, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.for_good = for_good


class SignatureError(SignalDispatchError):
    """What a receiver got does not bear a signature that holds; the message says why."""


class EndpointUnresolved(SignalDispatchError):
    """A RESOLVER names no endpoint, or none that can be used: what goes there waits.

    ``error_class`` is one of ``CLASSES``; ``wait`` says for how many seconds.
    """

    CLASSES = ("gone", "resolver")

    def __init__(self, error_class: str, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.wait = wait


class LeaseLost(SignalDispatchError):
    """Another process holds this delivery now; nothing may be written for it any more."""


class EndpointNotMocked(SignalDispatchError, AssertionError):
    """A test would have called a real endpoint; the message says how to mock it."""
