"""When to leave an endpoint alone for a while: the numbers of its breaker."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from signal_dispatch import readers


@dataclass(frozen=True, slots=True)
class Breaker:
    """Say when an endpoint is no longer called, and for how long.

    It opens at ``attempts`` or more within ``window`` seconds of which a ``share`` (0 to 1) or
    more failed. After ``pause`` seconds one call tries whether the endpoint is well again.
    Raises ``TypeError`` or ``ValueError`` for anything else.
    """

    attempts: int = 10
    share: float = 0.7
    window: float = 300.0
    pause: float = 30.0

    def __post_init__(self) -> None:
        for name, read in (
            ("attempts", readers.count),
            ("share", readers.share),
            ("window", readers.seconds),
            ("pause", readers.seconds),
        ):
            try:
                object.__setattr__(self, name, read(getattr(self, name)))
            except (TypeError, ValueError) as error:
                raise type(error)(f"holds {name!r}, which {error}") from error

    @classmethod
    def from_setting(cls, value: Any) -> Self | None:
        """Read what stands in settings: a dict of its arguments, or None for no breaker."""
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise TypeError("must be a dict of a breaker's numbers, or None.")
        known = [field.name for field in fields(cls)]
        unknown = [str(name) for name in value if name not in known]
        if unknown:
            raise ValueError(f"does not know {', '.join(unknown)}: it takes {', '.join(known)}.")
        return cls(**value)

    def opens_at(self, attempts: int, failed: int) -> bool:
        """Say whether so many failed of so many attempts are too many."""
        # Rounded: 0.07 of 100 is 7.000000000000001 otherwise.
        return attempts >= self.attempts and failed >= round(self.share * attempts, 9)

    def is_near(self, attempts: int, failed: int) -> bool:
        """Say whether a few more failures could open it: half of the share is reached."""
        return failed > 0 and failed >= self.share / 2 * attempts
