"""A broker that goes while a site saves: nobody waits for it, and nothing is lost."""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

from tests.acceptance.fleet import Fleet, Process, Remote, await_calm, states
from tests.acceptance.soak import patience, report, scaled
from tests.acceptance.wire import Wire
from tests.shop.models import Order
from tests.waiting import eventually

#: What whoever publishes says of it.
COMPLAINT = "No message can be published"


def go_and_come(
    what: str,
    fleet: Fleet,
    wire: Wire,
    through: Mapping[str, str],
    *,
    remote: Remote,
    start_worker: Callable[[], object],
    directory: Path,
) -> None:
    """Let the broker behind the wire refuse, and then hang, while a site saves; and come back.

    ``through`` leads the site's processes there. The worker starts when all that is over.
    """
    stop, count = directory / "stop", scaled(40, 1000)
    saver = fleet.start("save_until", str(stop), "site", **through)
    await_saves(fleet, saver, count)
    spans = {"calm": (5, count)}
    for fault, cause, cure in (
        ("refused", wire.cut, wire.mend),
        ("hung", wire.freeze, wire.thaw),
    ):
        cause()
        # A script that ends does so, too.
        fleet.join(fleet.start("save", "3", fault, **through))
        began = len(durations(fleet, saver))
        await_saves(fleet, saver, began + count)
        eventually(lambda known=spans: complaints(fleet, saver) >= len(known), 60)  # type: ignore[misc]
        spans[fault] = (began, len(durations(fleet, saver)))
        cure()
    stop.touch()
    eventually(lambda: "stopped" in fleet.output(saver), 60)
    start_worker()
    await_calm(60)
    fleet.kill(saver)

    tell(what, durations(fleet, saver), spans, remote)
    total = Order.objects.count()
    assert len(remote.taken) == len(remote.keys) == total
    assert states() == {"delivered": total}


def tell(
    what: str, seconds: list[float], spans: Mapping[str, tuple[int, int]], remote: Remote
) -> None:
    """Report how long the saves took in each span, and what became of them."""
    counts = {"lost": float(Order.objects.count() - len(remote.keys))}
    counts["doubled"] = remote.duplicates
    for name, (first, last) in spans.items():
        counts[f"{name}_ms"] = 1000 * median(seconds[first:last])
        counts[f"{name}_max_ms"] = 1000 * max(seconds[first:last])
    report(what, **counts)


def durations(fleet: Fleet, saver: Process) -> list[float]:
    """Return how long each save took so far, in seconds."""
    lines = [line.split() for line in fleet.output(saver).splitlines()]
    return [float(line[1]) for line in lines if len(line) == 2 and line[0] == "took"]


def await_saves(fleet: Fleet, saver: Process, count: int) -> None:
    """Wait until so many saves returned."""
    eventually(lambda: len(durations(fleet, saver)) >= count, patience(120))


def complaints(fleet: Fleet, saver: Process) -> int:
    """Count how often the saver said that it can't publish."""
    return fleet.output(saver).count(COMPLAINT)
