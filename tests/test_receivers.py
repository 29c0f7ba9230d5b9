"""What is noticed, what is not, and that other apps' handlers live as they did without us."""

import inspect
import threading
from contextlib import contextmanager, nullcontext

import pytest
from asgiref.sync import async_to_sync
from django.core import serializers
from django.db import DatabaseError, IntegrityError, connection, connections, models, transaction
from django.db.models import F
from django.db.models.signals import post_save, pre_delete
from django.test.utils import CaptureQueriesContext

from signal_dispatch import Event, enqueue, outbox
from signal_dispatch.models import Delivery
from tests import savepoints
from tests.fieldzoo.models import Board, LitSign, NeonSign, Sign, SignBoard
from tests.shop.models import Customer, Order, OrderProxy, PriorityOrder, Seat, Shipment


def recorded():
    return [(d.event, d.object_pk) for d in Delivery.objects.order_by("id")]


# What Django does, and we rely on: a change there must turn one of these red.


def test_the_private_write_of_a_table_has_the_arguments_that_are_read():
    names = list(inspect.signature(models.Model._save_table).parameters)
    assert names == ["self", "raw", "cls", "force_insert", "force_update", "using", "update_fields"]


def test_nothing_is_wrapped_or_connected_without_a_dispatch():
    assert "_save_table" not in Order.__dict__
    assert not post_save.has_listeners(Order)
    assert not pre_delete.has_listeners(Order)


def test_only_what_is_in_on_is_listened_to(declare):
    declare(Order, on=[Event.CREATED])
    assert post_save.has_listeners(Order)
    assert not pre_delete.has_listeners(Order), "listening would make QuerySet.delete() fetch"
    assert not post_save.has_listeners(Customer)
    declare(Order, name="shop.Deleted", on=[Event.DELETED])
    assert pre_delete.has_listeners(OrderProxy)
    assert not pre_delete.has_listeners(PriorityOrder), "its parent is told of by itself"


@pytest.mark.django_db
def test_who_hears_of_deletes_only_keeps_nothing_for_a_signal_that_never_comes(declare):
    declare(Order, on=[Event.DELETED])
    assert not post_save.has_listeners(Order)
    order = Order.objects.create(number="A-1")
    order.save()
    assert not vars(order._state).get("signal_dispatch")

    declare(Order, name="shop.Saved", on=[Event.UPDATED])
    order.save()
    assert recorded() == [("updated", order.pk)]


def test_what_was_connected_is_taken_back(declare):
    from signal_dispatch.registry import registry

    made = declare(Order)
    registry.remove(made)
    test_nothing_is_wrapped_or_connected_without_a_dispatch()
    assert Order._save_table is models.Model._save_table


# Saves and deletes.


@pytest.mark.django_db
def test_create_update_and_delete_are_recorded(declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    pk = order.pk
    order.status = "paid"
    order.save()
    order.delete()

    assert recorded() == [("created", pk), ("updated", pk), ("deleted", pk)]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "save",
    [
        lambda: Order.objects.get_or_create(number="A-1"),
        lambda: Order.objects.update_or_create(number="A-1", defaults={"status": "x"}),
        lambda: Order(number="A-1").save(force_insert=True),
        lambda: Order(number="A-1").save_base(),
        lambda: Customer.objects.create(name="c").order_set.create(number="A-1"),
    ],
)
def test_every_way_to_create_makes_one_delivery(declare, save):
    declare(Order)
    save()

    assert [event for event, _pk in recorded()] == ["created"]


@pytest.mark.django_db
def test_updates_by_expression_and_by_update_fields_are_recorded(declare):
    declare(Order, fields=["number", "total"])
    order = Order.objects.create(number="A-1", total=1)
    order.total = F("total") + 1
    order.save(update_fields=["total"])

    last = Delivery.objects.latest("id")
    assert (last.event, last.payload["total"]) == ("updated", "2.00")


@pytest.mark.django_db
def test_a_save_that_writes_nothing_is_no_event(declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    order.save(update_fields=[])

    assert len(recorded()) == 1


@pytest.mark.django_db(transaction=True)
def test_async_saves_are_recorded(declare):
    declare(Order)

    async def save():
        order = await Order.objects.acreate(number="A-1")
        order.status = "paid"
        await order.asave()
        await Order.objects.aupdate_or_create(number="A-1", defaults={"status": "sent"})

    async_to_sync(save)()

    assert [event for event, _pk in recorded()] == ["created", "updated", "updated"]


@pytest.mark.django_db
def test_keys_of_all_kinds_come_back_as_a_filter_takes_them(declare):
    declare(Shipment, fields=())
    declare(Seat, name="shop.Seats", fields=["row", "number"])
    order = Order.objects.create(number="A-1")
    shipment = Shipment.objects.create(order=order)
    Seat.objects.create(row="B", number=4)

    first, second = Delivery.objects.order_by("id")
    assert Shipment.objects.get(pk=first.object_pk) == shipment
    assert Seat.objects.get(pk=second.object_pk).number == 4


@pytest.mark.django_db
def test_fixtures_make_no_call(declare):
    declare(Order)
    source = serializers.serialize("json", [Order(pk=5, number="A-5")])
    for loaded in serializers.deserialize("json", source):
        loaded.save()

    assert Order.objects.get().pk == 5
    assert recorded() == []


@pytest.mark.django_db
def test_cascading_deletes_are_recorded(declare):
    declare(Order)
    customer = Customer.objects.create(name="c")
    Order.objects.create(number="A-1", customer=customer)
    customer.delete()

    assert [event for event, _pk in recorded()] == ["created", "deleted"]


@pytest.mark.django_db
def test_deletes_and_enqueue_lock_the_objects_row_before_they_record(declare):
    if not connection.features.has_select_for_update:
        pytest.skip("SQLite has one writer, and no locks of rows.")
    declare(Order)
    order = Order.objects.create(number="A-1")
    for record in (lambda: enqueue(order), lambda: enqueue(Order.objects.all()), order.delete):
        with CaptureQueriesContext(connection) as queries:
            record()
        told = [q["sql"] for q in queries]
        locked = [i for i, sql in enumerate(told) if "UPDATE" in sql and sql.startswith("SELECT")]
        inserted = [i for i, sql in enumerate(told) if sql.startswith("INSERT")]
        assert locked
        assert min(locked) < min(inserted)


# Proxies and multi-table inheritance.


@pytest.mark.django_db
def test_a_proxy_and_a_child_follow_their_model_once_each(declare):
    declare(Order)
    proxy = OrderProxy.objects.create(number="P-1")
    child = PriorityOrder.objects.create(number="C-1", level=2)
    child.level = 3
    child.save()
    proxy_pk, child_pk = proxy.pk, child.pk
    proxy.delete()
    child.delete()

    assert recorded() == [
        ("created", proxy_pk),
        ("created", child_pk),
        ("updated", child_pk),
        ("deleted", proxy_pk),
        ("deleted", child_pk),
    ]
    assert set(Delivery.objects.values_list("model", flat=True)) == {"shop.order"}


@pytest.mark.django_db
@pytest.mark.parametrize("child", [LitSign, NeonSign])
def test_the_key_of_a_new_child_is_known_when_its_parent_is_told(declare, child):
    seen = []

    def should_send(self, sign, change):
        seen.append(sign.pk)
        return True

    declare(Sign, path="signs/{pk}", fields=["pk"], should_send=should_send)
    sign = child.objects.create()

    (delivery,) = Delivery.objects.all()
    assert (delivery.state, delivery.path) == ("pending", f"signs/{sign.pk}")
    assert (delivery.payload, delivery.object_pk, seen) == ({"pk": sign.pk}, sign.pk, [sign.pk])


@pytest.mark.django_db
def test_pk_is_the_key_of_the_declared_model(declare):
    """A child of two parents is known to each by another number."""
    Board.objects.create()
    declare(Sign, name="shop.S", path="signs/{pk}", fields=["pk"])
    declare(Board, name="shop.B", path="boards/{pk}", fields=["pk"])
    both = SignBoard.objects.create()

    of_each = {d.dispatch: (d.path, d.payload, d.object_pk) for d in Delivery.objects.all()}
    assert both.board_id != both.pk
    assert of_each == {
        "shop.S": (f"signs/{both.id}", {"pk": both.id}, both.id),
        "shop.B": (f"boards/{both.board_id}", {"pk": both.board_id}, both.board_id),
    }


@pytest.mark.django_db
def test_a_dispatch_for_a_proxy_hears_only_of_instances_used_as_it(declare):
    declare(OrderProxy)
    order = Order.objects.create(number="A-1")
    OrderProxy.objects.get(pk=order.pk).save()

    assert recorded() == [("updated", order.pk)]


@pytest.mark.django_db
@pytest.mark.parametrize("child_first", [True, False])
def test_parent_and_child_that_are_both_declared_are_each_told_once(declare, child_first):
    both = [(Order, "shop.P"), (PriorityOrder, "shop.C")]
    for model, name in reversed(both) if child_first else both:
        declare(model, name=name)
    child = PriorityOrder.objects.create(number="C-1")
    child.delete()

    told = Delivery.objects.order_by("id").values_list("dispatch", "event")
    assert sorted(told) == [
        ("shop.C", "created"),
        ("shop.C", "deleted"),
        ("shop.P", "created"),
        ("shop.P", "deleted"),
    ]


@pytest.mark.django_db
def test_a_parent_whose_fields_are_not_written_is_not_told(declare):
    declare(Order)
    declare(PriorityOrder, name="shop.C", fields=["level"])
    child = PriorityOrder.objects.create(number="C-1")
    Delivery.objects.all().delete()
    child.save(update_fields=["level"])

    assert list(Delivery.objects.values_list("dispatch", flat=True)) == ["shop.C"]


# With the save, or not at all.


@pytest.mark.django_db(transaction=True)
def test_a_failing_outbox_takes_the_save_with_it(declare, monkeypatch):
    declare(Order)

    def broken(*args, **kwargs):
        raise DatabaseError("no outbox")

    monkeypatch.setattr(outbox, "record", broken)
    with pytest.raises(DatabaseError, match="no outbox"):
        Order.objects.create(number="A-1")

    assert not Order.objects.exists()
    assert not connection.in_atomic_block


@pytest.mark.django_db(transaction=True)
def test_row_and_delivery_are_one_transaction_in_autocommit(declare):
    declare(Order)
    with CaptureQueriesContext(connection) as queries:
        Order.objects.create(number="A-1")

    words = [q["sql"].split()[0].upper().strip(";") for q in queries]
    assert words.count("INSERT") == 2
    if connection.vendor == "sqlite":
        assert words == ["BEGIN", "INSERT", "INSERT", "COMMIT"]


@pytest.mark.django_db(transaction=True)
def test_rollbacks_leave_no_delivery(declare):
    declare(Order)
    with pytest.raises(RuntimeError), transaction.atomic():
        Order.objects.create(number="A-1")
        raise RuntimeError
    with transaction.atomic():
        Order.objects.create(number="A-2")
        with pytest.raises(RuntimeError), transaction.atomic():
            Order.objects.create(number="A-3")
            raise RuntimeError
        sid = savepoints.create()
        Order.objects.create(number="A-4")
        transaction.savepoint_rollback(sid)

    assert [d.payload["number"] for d in Delivery.objects.all()] == ["A-2"]


@pytest.mark.django_db(transaction=True)
def test_with_autocommit_off_the_row_is_written_and_nothing_raises(declare, as_in_production):
    declare(Order)
    transaction.set_autocommit(False)
    try:
        Order.objects.create(number="A-1")
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)

    assert Delivery.objects.count() == 1


@pytest.mark.django_db(databases=["default", "other"])
def test_rows_stand_beside_their_object(declare):
    declare(Order)
    Order.objects.using("other").create(number="A-1")

    assert Delivery.objects.using("other").count() == 1
    assert not Delivery.objects.using("default").exists()


# Other apps' handlers.


@contextmanager
def handler(receiver):
    post_save.connect(receiver, sender=Order, weak=False)
    try:
        yield
    finally:
        post_save.disconnect(receiver, sender=Order)


def swallow(sender, instance, **kwargs):
    try:
        with transaction.atomic():
            Order.objects.bulk_create([Order(number=instance.number)])
    except IntegrityError:
        return


def swallow_without_savepoint(sender, instance, **kwargs):
    try:
        Order.objects.bulk_create([Order(number=instance.number)])
    except IntegrityError:
        return


def durable(sender, instance, **kwargs):
    with transaction.atomic(durable=True):
        Customer.objects.create(name="durable")


def raising(sender, instance, **kwargs):
    raise LookupError("theirs")


seen_elsewhere: list[bool] = []


def read_elsewhere(sender, instance, **kwargs):
    def read():
        try:
            seen_elsewhere.append(Order.objects.filter(pk=instance.pk).exists())
        finally:
            connections.close_all()

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()


def behaviour(receiver, *, in_atomic):
    """Save beside a handler, and tell all that anybody could notice of it."""
    seen_elsewhere.clear()
    error = None
    with handler(receiver):
        try:
            if in_atomic:
                with transaction.atomic():
                    Order.objects.create(number="A-1")
            else:
                Order.objects.create(number="A-1")
        except Exception as caught:  # noqa: BLE001 - what it is, is the question
            error = type(caught)
    told = (error, Order.objects.count(), Customer.objects.count(), list(seen_elsewhere))
    Order.objects.all().delete()
    Customer.objects.all().delete()
    return told


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("in_atomic", [False, True], ids=["autocommit", "atomic"])
@pytest.mark.parametrize(
    "receiver", [swallow, swallow_without_savepoint, durable, raising, read_elsewhere]
)
def test_other_handlers_behave_as_without_us(declare, receiver, in_atomic):
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        pytest.skip("Threads are locked out of an in-memory database.")
    without = behaviour(receiver, in_atomic=in_atomic)
    declare(Order)

    assert behaviour(receiver, in_atomic=in_atomic) == without


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production", "receiver")
@pytest.mark.parametrize("in_atomic", [False, True], ids=["autocommit", "atomic"])
@pytest.mark.parametrize("theirs_first", [False, True], ids=["ours first", "theirs first"])
@pytest.mark.parametrize(
    "other", [swallow, swallow_without_savepoint, durable, raising, read_elsewhere]
)
def test_other_handlers_behave_as_without_us_while_calls_are_made(
    declare, other, theirs_first, in_atomic
):
    if connection.vendor == "sqlite" and connection.is_in_memory_db():
        pytest.skip("Threads are locked out of an in-memory database.")
    without = behaviour(other, in_atomic=in_atomic)
    with handler(other) if theirs_first else nullcontext():
        declare(Order)
        assert behaviour(other, in_atomic=in_atomic) == without


@pytest.mark.django_db
@pytest.mark.parametrize("before_ours", [True, False])
def test_a_handler_that_saves_again_makes_one_delivery_more(declare, before_ours):
    def save_again(sender, instance, created, **kwargs):
        if created:
            instance.status = "again"
            instance.save()

    if not before_ours:
        declare(Order)
    with handler(save_again):
        if before_ours:
            declare(Order)
        Order.objects.create(number="A-1")

    assert [event for event, _pk in recorded()] == ["created", "updated"]


@pytest.mark.django_db
def test_a_signal_sent_by_hand_is_recorded(declare):
    declare(Order, when_changed=["status"])
    order = Order.objects.create(number="A-1")
    Delivery.objects.all().delete()
    Order.objects.filter(pk=order.pk).update(status="paid")
    order.refresh_from_db()
    post_save.send(sender=Order, instance=order)

    (made,) = Delivery.objects.all()
    assert (made.event, made.payload["status"]) == ("updated", "paid")


@pytest.mark.django_db
def test_signals_sent_by_hand_with_arguments_missing_hurt_nobody(declare):
    declare(Order)
    order = Order(number="A-1")
    post_save.send(sender=Order)
    post_save.send(sender=Order, instance=order, raw=True)
    pre_delete.send(sender=Order)
    pre_delete.send(sender=Order, instance=order)

    assert recorded() == []


@pytest.mark.django_db
def test_after_a_failed_save_a_signal_by_hand_is_recorded(declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    Order.objects.create(number="A-2")
    Delivery.objects.all().delete()
    order.number = "A-2"
    with pytest.raises(IntegrityError), transaction.atomic():
        order.save()
    order.refresh_from_db()
    post_save.send(sender=Order, instance=order, created=False)

    assert recorded() == [("updated", order.pk)]


def test_a_models_own_write_is_put_back(declare, monkeypatch):
    from signal_dispatch.registry import registry

    def own(self, *args, **kwargs):
        return super(Customer, self)._save_table(*args, **kwargs)

    monkeypatch.setattr(Customer, "_save_table", own)
    made = declare(Customer, fields=["name"])
    assert Customer._save_table is not own
    registry.remove(made)

    assert Customer.__dict__["_save_table"] is own
