"""What every backend can do: be told of rows, and see to it that they are sent."""

from collections.abc import Sequence
from typing import Any, ClassVar

from django.core.checks import CheckMessage

from signal_dispatch.endpoints import endpoints
from signal_dispatch.outbox import Lease
from signal_dispatch.queueing import Recorded
from signal_dispatch.scopes import Scope, own_scope


class BaseBackend:
    """Base of the backends. ``OPTIONS`` of the settings are its keyword arguments."""

    #: Is it made when the site is loaded, because workers of another engine have to know it?
    made_at_start: ClassVar[bool] = False
    #: Who sends what a command recorded and is gone? Nobody else, if it sends all by itself.
    left_to: ClassVar[str] = ""

    def __init__(self, alias: str, **options: Any) -> None:
        if options:
            raise TypeError(f"{type(self).__name__} takes no option {', '.join(options)}.")
        self.alias = alias

    def lease(self, using: str, endpoint: str) -> Lease | None:
        """Return the lease that a new row gets; None makes it due at once for anybody.

        A row whose endpoint is paused, or whose breaker is open, gets none all the same.
        """
        return None

    def scope(self) -> Scope:
        """Return which deliveries are this backend's to send."""
        sound = (entry for alias in endpoints if (entry := endpoints.entry(alias)))
        return own_scope(e.alias for e in sound if e.backend == self.alias)

    def remember(self, recorded: Recorded) -> None:
        """Note a new row before its transaction commits, should the hint get lost."""

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Hear that rows are committed.

        ``fresh`` says that they are as they were written; else the transaction went on after the
        INSERT, may have rewritten them or taken them back, and they are to be read back.
        """

    def look_for_repairs(self) -> None:
        """Hear that a person asked for work on many deliveries."""

    def look_again(self) -> None:
        """Hear that an endpoint may be called again."""

    def start(self) -> None:
        """Be ready to send: this process has served its first request."""

    def drain(self, timeout: float) -> None:
        """Wait until nothing is in flight or due. Raises ``TimeoutError`` after so many seconds."""

    def finish(self) -> bool:
        """Send what is in hand, as far as that is soon done, hand the rest back, end all threads.

        Returns whether there were any. Raises what one met.
        """
        return False

    def stop(self, timeout: float = 5.0) -> None:
        """End all threads within so many seconds, record what is known, hand the rest back."""

    def retire(self) -> None:
        """Stop for good: the settings changed, and another one takes this one's place."""
        self.stop()

    def check(self) -> list[CheckMessage]:
        """Return messages for ``manage.py check``."""
        return []
