"""What the processes of the fault tests declare, and what they do."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from django.db.models import F

from signal_dispatch import Event, ModelDispatch, enqueue, register
from signal_dispatch.endpoints import endpoints
from tests.shop.models import Order, Tag

# What is declared


def told() -> None:
    """Tell ``crm`` of each order."""

    @register(Order)
    class Told(ModelDispatch[Any]):
        name = "shop.Told"
        endpoint = "crm"
        fields = ("number", "status")


def counted() -> None:
    """Tell ``crm`` the total, by which ``change`` counts an order's changes as they commit."""

    @register(Order)
    class Counted(ModelDispatch[Any]):
        name = "shop.Counted"
        endpoint = "crm"
        fields = ("number", "total")
        m2m_fields = ("tags",)


def latest() -> None:
    """Tell ``crm`` the total, as it is when there is time to tell it."""

    @register(Order)
    class Latest(ModelDispatch[Any]):
        name = "shop.Latest"
        endpoint = "crm"
        fields = ("number", "total")
        m2m_fields = ("tags",)
        latest_wins = True


def handled() -> None:
    """Note each answer that was handled in the order's total; raise for the status ``broken``."""

    @register(Order)
    class Handled(ModelDispatch[Any]):
        name = "shop.Handled"
        endpoint = "crm"
        fields = ("number",)

        def handle_response(self, delivery: Any, response: Any) -> None:
            rows = Order.objects.filter(pk=delivery.object_pk)
            rows.update(total=F("total") + 1, crm_id=response.json()["id"])
            if rows.get().status == "broken":
                raise RuntimeError("not today")


def known_remotely() -> None:
    """Tell ``crm`` of each order by the id that it gives out."""
    by_id = "contacts/{remote_id}"

    @register(Order)
    class Known(ModelDispatch[Any]):
        name = "shop.Known"
        endpoint = "crm"
        path = {Event.CREATED: "contacts", Event.UPDATED: by_id, Event.DELETED: by_id}
        method = {Event.CREATED: "POST", Event.UPDATED: "PATCH", Event.DELETED: "DELETE"}
        fields = ("number", "total")
        remote_id = "id"

        def get_headers(self, instance: Any, change: Any) -> Any:
            return {"X-Number": instance.number}


def by_send() -> None:
    """Tell ``crm`` of each order by code that knows no deadline, as an SDK does not."""

    @register(Order)
    class BySend(ModelDispatch[Any]):
        name = "shop.BySend"
        endpoint = "crm"
        fields = ("number",)

        def send(self, delivery: Any, session: Any) -> Any:
            return session.post(endpoints["crm"].url, json=delivery.payload, timeout=60).json()


DECLARATIONS: dict[str, Callable[[], None]] = {
    "told": told,
    "counted": counted,
    "latest": latest,
    "handled": handled,
    "known_remotely": known_remotely,
    "by_send": by_send,
}

# What is done. Each way of changing an order adds one to its total, under its row's lock, so that
# the payloads carry the order in which the changes commit. It returns False, and changes nothing,
# where the total has been reached.


def _save_under_lock(pk: int, total: int) -> bool:
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=pk)
        if order.total >= total:
            return False
        order.total += 1
        order.save()
        # The transaction goes on, and the one before may be settled meanwhile.
        time.sleep(random.random() * 0.03)
    return True


def _save_in_autocommit(pk: int, total: int) -> bool:
    order = Order.objects.get(pk=pk)
    if order.total >= total:
        return False
    order.total = F("total") + 1
    order.save(update_fields=["total"])
    return True


def _update_and_enqueue(pk: int, total: int) -> bool:
    with transaction.atomic():
        row = Order.objects.filter(pk=pk)
        if not row.filter(total__lt=total).update(total=F("total") + 1):
            return False
        enqueue(row)
    return True


def _change_relation(pk: int, total: int) -> bool:
    with transaction.atomic():
        order = Order.objects.select_for_update().get(pk=pk)
        if not Order.objects.filter(pk=pk, total__lt=total).update(total=F("total") + 1):
            return False
        if order.tags.exists():
            order.tags.clear()
        else:
            order.tags.add(Tag.objects.create(name=f"of {order.number}"))
    return True


WAYS = (_save_under_lock, _save_in_autocommit, _update_and_enqueue, _change_relation)


def change(total: str, seed: str, *ways: str) -> None:
    """Change all orders at random, in every way or those named, until each has the total."""
    if connection.vendor == "sqlite":  # as a site on SQLite is told to have it
        connection.ensure_connection()  # which sets the mode that the settings have
        connection.transaction_mode = "IMMEDIATE"
    chance = random.Random(seed)
    chosen = [way for way in WAYS if not ways or way.__name__ in ways]
    open_ones = list(Order.objects.values_list("pk", flat=True))
    while open_ones:
        pk = chance.choice(open_ones)
        if not chance.choice(chosen)(pk, int(total)):
            open_ones.remove(pk)


def live(lives: str, seed: str) -> None:
    """Create, update and delete orders one after the other; each third one stays."""
    chance = random.Random(seed)
    for number in range(int(lives)):
        order = Order.objects.create(number=f"{seed}-{number}")
        for _change in range(chance.randrange(3)):
            order.total += 1
            order.save()
        if number % 3:
            order.delete()


def save_steadily(count: str, every: str, prefix: str) -> None:
    """Save so many new orders, one in so many seconds, and print when each was committed."""
    began = time.monotonic()
    for number in range(int(count)):
        time.sleep(max(0.0, began + number * float(every) - time.monotonic()))
        Order.objects.create(number=f"{prefix}-{number}")
        print(f"{prefix}-{number} {time.monotonic()}", flush=True)  # noqa: T201 - read by the test


def save_and_stay(count: str, prefix: str) -> None:
    """Save so many new orders, and live on."""
    for number in range(int(count)):
        Order.objects.create(number=f"{prefix}-{number}")
        print(number, flush=True)  # noqa: T201 - read by the test
    _stay()


def save_until(stop: str, prefix: str) -> None:
    """Save new orders until there is such a file; print how long each took; live on."""
    number = 0
    while not Path(stop).exists():
        time.sleep(0.02)
        began = time.monotonic()
        Order.objects.create(number=f"{prefix}-{number}")
        print("took", time.monotonic() - began, flush=True)  # noqa: T201 - read by the test
        number += 1
    print("stopped", flush=True)  # noqa: T201 - read by the test
    _stay()


def _stay() -> None:
    while True:
        time.sleep(1)


def publish_thrice(*ids: str) -> None:
    """Tell the workers of an engine three times of each delivery."""
    from signal_dispatch.backends import backends

    for first in range(0, len(ids), 4):
        for _again in range(3):
            backends["default"].publish("default", list(map(int, ids[first : first + 4])))


WORKS: dict[str, Callable[..., None]] = {
    "change": change,
    "live": live,
    "save_steadily": save_steadily,
    "save_and_stay": save_and_stay,
    "save_until": save_until,
    "publish_thrice": publish_thrice,
}
