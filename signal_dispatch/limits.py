"""Judge whether an outbox stands well: the limits, and a sentence for each that is passed."""

from collections.abc import Callable
from dataclasses import dataclass

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from signal_dispatch.barred import Barred
from signal_dispatch.spans import span
from signal_dispatch.status import Status, counted


@dataclass(frozen=True, slots=True)
class Limits:
    """What an outbox may come to before it counts as unhealthy; ``None`` is not judged."""

    max_age: float | None = 300.0
    max_failed: int | None = 0
    need_worker: bool = False
    #: Of a pause that something waits for: a shorter one is meant, a longer one was forgotten.
    max_pause: float | None = 86400.0

    def problems(self, status: Status, named: Callable[[str], str] = str) -> list[str]:
        """Return what is beyond the limits, a sentence each; ``named`` names endpoints."""
        found = []
        age, failed = status.oldest_due_seconds, status.failed_lately
        if self.max_age is not None and age > self.max_age:
            told = {"age": f"{age:.0f}", "limit": f"{self.max_age:g}"}
            found.append(_("A delivery has been due for %(age)s s (limit %(limit)s).") % told)
        if self.max_age is not None and status.oldest_stranded_seconds > self.max_age:
            told = {"age": f"{status.oldest_stranded_seconds:.0f}", "limit": f"{self.max_age:g}"}
            found.append(
                _(
                    "A delivery that nobody here may take has been due for %(age)s s "
                    "(limit %(limit)s)."
                )
                % told
            )
        if self.max_failed is not None and failed > self.max_failed:
            told = {"number": counted(failed), "limit": str(self.max_failed)}
            found.append(_("%(number)s FAILED within an hour (limit %(limit)s).") % told)
        # Without anything that waits for it, no call will ever try whether it is well again.
        broken = (b for b in status.barred if b.seconds_left is not None and b.deliveries)
        found += [
            _("The breaker of the endpoint %r is open: most calls to it failed.") % endpoint
            for endpoint in dict.fromkeys(named(each.endpoint) for each in broken)
        ]
        found += self._forgotten(status, named)
        if self.need_worker and not any(worker.alive for worker in status.workers):
            found.append(_("No dispatch_worker is alive."))
        return found

    def _forgotten(self, status: Status, named: Callable[[str], str]) -> list[str]:
        if self.max_pause is None:
            return []
        paused: dict[str, list[Barred]] = {}
        for each in status.barred:
            lasts = each.seconds_left is None and each.since_seconds_ago > self.max_pause
            if lasts and each.deliveries:
                paused.setdefault(named(each.endpoint), []).append(each)
        return [_forgotten(name, those, self.max_pause) for name, those in paused.items()]


def _forgotten(endpoint: str, paused: list[Barred], limit: float) -> str:
    number = sum(each.deliveries for each in paused)
    sentence = ngettext(
        "The endpoint %(endpoint)r has been paused for %(age)s (limit %(limit)s), and "
        "%(number)d delivery waits for it.",
        "The endpoint %(endpoint)r has been paused for %(age)s (limit %(limit)s), and "
        "%(number)d deliveries wait for it.",
        number,
    )
    age = max(each.since_seconds_ago for each in paused)
    told = {"endpoint": endpoint, "age": span(age), "limit": span(limit), "number": number}
    return sentence % told
