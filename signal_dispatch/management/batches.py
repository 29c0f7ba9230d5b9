"""Go through many rows a few at a time, and stop between two batches when told to."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from django.db.models import QuerySet

#: Rows in one batch.
BATCH = 500


def batches(
    rows: QuerySet[Any], told: Collection[int], after: Any = None
) -> Iterator[Sequence[Any]]:
    """Yield the keys of the rows, in their order, those that are there now; none once told.

    ``after`` is the key to go on behind. What is written meanwhile has higher keys, and is left.
    """
    keys = rows.order_by("pk").values_list("pk", flat=True)
    last = keys.last()
    if last is None:
        return
    keys = keys.filter(pk__lte=last)
    while not told:
        some = list((keys if after is None else keys.filter(pk__gt=after))[:BATCH])
        if not some:
            return
        yield some
        after = some[-1]
