"""Ours, with the backend that ``BENCH_BACKEND`` names."""

from signal_dispatch import Event, ModelDispatch, register
from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery
from tests.benchmarks.contenders.base import Contender
from tests.benchmarks.settings import SENDERS
from tests.benchmarks.shop.models import FIELDS, Sale


@register(Sale)
class SaleToSink(ModelDispatch[Sale]):
    """Tells the sink of a sale."""

    name = "shop.SaleToSink"
    endpoint = "sink"
    path = "sales/{number}"
    on = [Event.CREATED, Event.UPDATED]
    fields = FIELDS


class Ours(Contender):
    """The declaration above; the worker is for a backend that sends nothing by itself."""

    worker = (
        *("-m", "tests.benchmarks.command", "tests.benchmarks.contenders.ours"),
        *("dispatch_worker", "--concurrency", str(SENDERS)),
    )

    def worker_beside(self) -> tuple[str, ...]:
        """Return none: the default backend sends from the process that saves."""
        return ()

    def is_recorded(self) -> bool:
        """Say whether no delivery has to be made any more."""
        return not Delivery.objects.unfinished().exists()

    def stop(self) -> None:
        """End the backend's threads."""
        backends["default"].stop()
