"""Say how all outboxes stand, and whether that is well: for the command and the health check."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.db import Error
from django.utils.translation import gettext as _

from signal_dispatch.databases import outbox_aliases
from signal_dispatch.limits import Limits
from signal_dispatch.models import Delivery
from signal_dispatch.status import Status, has_outbox, status_of


@dataclass(frozen=True, slots=True)
class Report:
    """How the outboxes stand that could be asked, and of each database what is not well.

    ``unreachable`` holds what was said by those that could not be asked.
    """

    limits: Limits
    found: tuple[Status, ...]
    unreachable: Mapping[str, str]
    without_outbox: tuple[str, ...]

    @property
    def problems(self) -> dict[str, list[str]]:
        """Return a sentence for each thing that is not well, by database."""
        found = {status.database: self.limits.problems(status) for status in self.found}
        unreachable = {
            alias: [_("It can't be reached: %s") % said] for alias, said in self.unreachable.items()
        }
        without = [_("It has no outbox: run 'migrate' on it.")]
        return found | unreachable | dict.fromkeys(self.without_outbox, without)

    @property
    def healthy(self) -> bool:
        """Whether all that was asked is within the limits."""
        return not any(self.problems.values())

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for those who run the site."""
        databases = _verdicts(self.problems)
        for status in self.found:
            stranded = [asdict(each) | {"advice": each.advice} for each in status.stranded]
            databases[status.database] |= asdict(status) | {"stranded": stranded}
        return {"healthy": self.healthy, "databases": databases}

    def as_public_json(self) -> dict[str, Any]:
        """Return what anybody may see: counts and times, and endpoints by their names in settings.

        Nothing of persons, hosts, processes, objects, tenants, or what errors say.
        """
        problems = {s.database: self.limits.problems(s, named=_entry_of) for s in self.found}
        problems |= {alias: [_("It can't be reached.")] for alias in self.unreachable}
        problems |= {alias: self.problems[alias] for alias in self.without_outbox}
        databases = _verdicts(problems)
        for status in self.found:
            databases[status.database] |= _public(status)
        return {"healthy": self.healthy, "databases": databases}


def report_on(limits: Limits, named: Sequence[str] | None = None) -> Report:
    """Ask the outboxes: those of the named databases, or all that there are.

    Raises ``InvalidSettings``.
    """
    found, unreachable, without = [], {}, []
    for alias in named or outbox_aliases(Delivery):
        try:
            if has_outbox(alias):
                found.append(status_of(alias))
            else:
                without.append(alias)
        except Error as error:
            unreachable[alias] = " ".join(str(error).split())
    # A database beside may well have no outbox; that none has one is a fault.
    faulty = without if named or not (found or unreachable) else []
    return Report(limits, tuple(found), unreachable, tuple(faulty))


def _verdicts(problems: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    return {
        alias: {"healthy": not sentences, "problems": sentences}
        for alias, sentences in problems.items()
    }


def _entry_of(endpoint: str) -> str:
    """Return the name in settings: that of a tenant's endpoint says which tenant it is."""
    return endpoint.partition(":")[0]


def _public(status: Status) -> dict[str, Any]:
    return {
        "states": status.states,
        "failed_lately": status.failed_lately,
        "oldest_due_seconds": status.oldest_due_seconds,
        "oldest_stranded_seconds": status.oldest_stranded_seconds,
        "backlogs": _public_backlogs(status),
        "barred": {
            "breaker": _entries(b.endpoint for b in status.barred if b.seconds_left is not None),
            "paused": _entries(b.endpoint for b in status.barred if b.seconds_left is None),
        },
        "unresolved": sum(each.deliveries for each in status.unresolved),
        "stranded": sum(each.deliveries for each in status.stranded),
        "workers": {
            "alive": sum(worker.alive for worker in status.workers),
            "dead": sum(not worker.alive for worker in status.workers),
        },
    }


def _entries(endpoints: Any) -> list[str]:
    return sorted({_entry_of(endpoint) for endpoint in endpoints})


def _public_backlogs(status: Status) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for backlog in status.backlogs:
        counts = asdict(backlog)
        entry = _entry_of(counts.pop("endpoint"))
        so_far = found.get(entry, dict.fromkeys(counts, 0))
        oldest = max(so_far["oldest_due_seconds"], counts["oldest_due_seconds"])
        sums = {name: so_far[name] + count for name, count in counts.items()}
        found[entry] = sums | {"oldest_due_seconds": oldest}
    return found
