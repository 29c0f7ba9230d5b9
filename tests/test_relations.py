"""Many-to-many relations that count as part of an object."""

import io
import threading
from collections import Counter

import pytest
from django.core import serializers
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.models.signals import m2m_changed
from django.test.utils import CaptureQueriesContext

from signal_dispatch import Event, suppressed
from signal_dispatch.models import Delivery
from tests.deliveries import statements
from tests.settings import DATABASE
from tests.shop.models import Order, OrderProxy, PriorityOrder, Tag

pytestmark = pytest.mark.django_db


@pytest.fixture
def told(declare):
    return declare(Order, fields=["number", "tags"], on=[Event.UPDATED], m2m_fields=["tags"])


@pytest.fixture
def tags(db):
    return [Tag.objects.create(name=name) for name in "abc"]


@pytest.fixture
def order(told):
    return Order.objects.create(number="A-1")


def payloads():
    return [d.payload for d in Delivery.objects.order_by("id")]


def test_each_change_of_the_relation_tells_its_object(order, tags):
    order.tags.add(tags[0])
    order.tags.remove(tags[0])
    order.tags.set([tags[1], tags[2]])
    order.tags.clear()

    assert [p["tags"] for p in payloads()] == [[tags[0].pk], [], [tags[1].pk, tags[2].pk], []]
    assert Counter(Delivery.objects.values_list("event", flat=True)) == {"updated": 4}


def test_set_that_takes_away_and_adds_is_one_delivery(order, tags):
    order.tags.set(tags[:2])
    order.tags.set(tags[1:])

    assert [p["tags"] for p in payloads()][1:] == [[tags[1].pk, tags[2].pk]]


def test_changes_that_change_nothing_tell_nobody(order, tags):
    order.tags.add(tags[0])
    Delivery.objects.all().delete()
    order.tags.add(tags[0])
    order.tags.remove(tags[1])
    order.tags.set([tags[0]])
    Order.objects.create(number="A-2").tags.clear()

    assert payloads() == []


def test_a_change_from_the_other_side_tells_each_object(order, tags):
    second = Order.objects.create(number="A-2")
    tags[0].order_set.add(order, second)
    assert payloads() == [
        {"number": "A-1", "tags": [tags[0].pk]},
        {"number": "A-2", "tags": [tags[0].pk]},
    ]
    tags[0].order_set.remove(second)
    tags[0].order_set.clear()
    assert payloads()[2:] == [{"number": "A-2", "tags": []}, {"number": "A-1", "tags": []}]


def test_a_dispatch_of_the_other_side_names_the_relation_by_its_accessor(declare, tags):
    declare(Tag, fields=["name", "order_set"], on=[Event.UPDATED], m2m_fields=["order_set"])
    order = Order.objects.create(number="A-1")
    order.tags.add(tags[0], tags[1])
    tags[2].order_set.add(order)
    order.tags.clear()

    told = [(p["name"], p["order_set"]) for p in payloads()]
    here = [order.pk]
    assert told == [("a", here), ("b", here), ("c", here), ("a", []), ("b", []), ("c", [])]


def test_only_the_relation_that_is_named_counts(declare, tags):
    declare(Order, on=[Event.UPDATED])
    Order.objects.create(number="A-1").tags.add(*tags)

    assert payloads() == []


def test_relations_count_only_where_updates_do(declare, tags):
    declare(Order, on=[Event.CREATED], m2m_fields=["tags"])
    Order.objects.create(number="A-1").tags.add(*tags)

    assert [d.event for d in Delivery.objects.all()] == ["created"]


def test_it_is_told_as_it_stands_in_the_database(order, tags):
    Order.objects.filter(pk=order.pk).update(number="A-9")
    order.number = "never saved"
    order.tags.add(tags[0])

    assert payloads() == [{"number": "A-9", "tags": [tags[0].pk]}]


def test_when_changed_does_not_judge_relations(declare, tags):
    declare(
        Order,
        fields=["tags"],
        on=[Event.UPDATED],
        m2m_fields=["tags"],
        when_changed=["status"],
    )
    order = Order.objects.create(number="A-1")
    order.tags.add(tags[0])

    assert payloads() == [{"tags": [tags[0].pk]}]


def test_create_relation_and_two_saves_in_one_transaction_are_one_created(declare, tags):
    declare(Order, fields=["number", "status", "tags"], m2m_fields=["tags"])
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        order.tags.add(*tags)
        order.status = "paid"
        order.save()
        order.tags.remove(tags[0])

    (delivery,) = Delivery.objects.all()
    assert delivery.event == "created"
    kept = [tags[1].pk, tags[2].pk]
    assert delivery.payload == {"number": "A-1", "status": "paid", "tags": kept}


def test_children_tell_of_a_relation_they_inherit(told, tags):
    PriorityOrder.objects.create(number="P-1").tags.add(tags[0])
    tags[1].order_set.add(PriorityOrder.objects.get())

    assert [len(p["tags"]) for p in payloads()] == [1, 2]


def test_a_dispatch_of_the_child_hears_of_it_from_the_other_side(declare, tags):
    declare(PriorityOrder, fields=["tags"], on=[Event.UPDATED], m2m_fields=["tags"])
    child, other = PriorityOrder.objects.create(number="P-1"), Order.objects.create(number="A-1")
    tags[0].order_set.add(child.order_ptr, other)

    assert [(d.object_pk, d.payload) for d in Delivery.objects.all()] == [
        (child.pk, {"tags": [tags[0].pk]})
    ]


def test_a_dispatch_of_a_proxy_hears_only_of_objects_used_as_it(declare, tags):
    declare(OrderProxy, fields=["tags"], on=[Event.UPDATED], m2m_fields=["tags"])
    order = Order.objects.create(number="A-1")
    order.tags.add(tags[0])
    tags[1].order_set.add(order)
    assert payloads() == []
    OrderProxy.objects.get().tags.add(tags[2])

    assert [len(p["tags"]) for p in payloads()] == [3]


def test_fixtures_tell_nobody_and_later_changes_do(order, tags):
    order.tags.add(tags[0])
    Delivery.objects.all().delete()
    fixture = serializers.serialize("json", [order])
    for loaded in serializers.deserialize("json", fixture):
        loaded.object.tags.clear()
        Delivery.objects.all().delete()
        loaded.save()
        assert payloads() == []
        loaded.object.save()
        loaded.object.tags.add(tags[1])
    assert [len(p["tags"]) for p in payloads()] == [1, 2]


def test_loaddata_tells_nobody(order, tags, tmp_path):
    order.tags.add(*tags)
    fixture = tmp_path / "orders.json"
    fixture.write_text(serializers.serialize("json", [order]))
    order.tags.clear()
    Delivery.objects.all().delete()
    call_command("loaddata", str(fixture), stdout=io.StringIO())

    assert order.tags.count() == 3
    assert payloads() == []


def test_suppressed_holds_for_relations_too(order, tags):
    with suppressed("shop.Told"):
        order.tags.add(tags[0])

    assert payloads() == []


def test_without_a_dispatch_that_names_it_a_relation_costs_nothing(declare, tags):
    def cost():
        order = Order.objects.create(number=f"A-{Order.objects.count()}")
        with CaptureQueriesContext(connection) as queries:
            order.tags.add(tags[0])
        return len(queries)

    bare = cost()
    declare(Order, on=[Event.UPDATED])
    assert cost() == bare


def test_an_addition_costs_a_lock_a_read_and_an_insert(order, tags):
    with CaptureQueriesContext(connection) as queries:
        order.tags.add(tags[0])

    ours = statements(queries, "INSERT INTO")
    assert len([s for s in ours if "signal_dispatch_delivery" in s]) == 1
    reads = [
        s for s in statements(queries, "SELECT") if 'FROM "shop_order" ' in s.replace("`", '"')
    ]
    assert len(reads) == (1 if DATABASE.startswith("sqlite") else 2)


@pytest.mark.skipif(DATABASE == "sqlite-memory", reason="It has one connection.")
@pytest.mark.django_db(transaction=True)
def test_two_concurrent_additions_are_told_one_after_the_other(declare, monkeypatch):
    if connection.vendor == "sqlite":
        # Django itself reads and then writes here; the check W001 names this cure.
        options = connection.settings_dict["OPTIONS"]
        monkeypatch.setitem(options, "transaction_mode", "IMMEDIATE")
    declare(Order, fields=["tags"], on=[Event.UPDATED], m2m_fields=["tags"])
    order, tags = Order.objects.create(number="A-1"), [Tag.objects.create() for _ in range(8)]
    errors = []
    start = threading.Barrier(len(tags))

    def add(tag):
        try:
            start.wait(10)
            Order.objects.get().tags.add(tag)
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=add, args=(tag,)) for tag in tags]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []
    assert [len(p["tags"]) for p in payloads()] == list(range(1, 9))
    assert set(payloads()[-1]["tags"]) == set(order.tags.values_list("pk", flat=True))


def test_a_handler_that_changes_another_relation_in_between_hides_nothing(order, tags):
    implied = tags[2]

    def add_implied(instance, action, pk_set, **kwargs):
        if action == "pre_add" and implied.pk not in pk_set:
            instance.tags.add(implied)

    m2m_changed.connect(add_implied, sender=Order.tags.through)
    try:
        order.tags.add(tags[0])
    finally:
        m2m_changed.disconnect(add_implied, sender=Order.tags.through)

    assert payloads()[-1]["tags"] == [tags[0].pk, implied.pk]


def test_a_change_that_failed_halfway_is_not_taken_for_the_next_one(order, tags):
    def refuse(action, **kwargs):
        if action == "pre_add":
            raise RuntimeError("not this one")

    m2m_changed.connect(refuse, sender=Order.tags.through)
    with pytest.raises(RuntimeError), transaction.atomic():
        order.tags.add(tags[0])
    m2m_changed.disconnect(refuse, sender=Order.tags.through)
    Order.objects.create(number="A-2").tags.clear()
    assert payloads() == []
    order.tags.add(tags[1])

    assert payloads() == [{"number": "A-1", "tags": [tags[1].pk]}]


def test_a_fixture_of_the_other_side_tells_nobody(declare, tags):
    declare(Tag, fields=["name"], on=[Event.UPDATED], m2m_fields=["order_set"])
    order = Order.objects.create(number="A-1")
    order.tags.add(*tags)
    fixture = serializers.serialize("json", [order])
    order.tags.clear()
    Delivery.objects.all().delete()
    for loaded in serializers.deserialize("json", fixture):
        loaded.save()
    assert payloads() == []
    order.tags.clear()

    assert len(payloads()) == 3


@pytest.mark.skipif(DATABASE != "sqlite", reason="Only a SQLite file has one writer for many.")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", ["remove", "clear"])
def test_a_relation_is_taken_away_while_others_write(declare, monkeypatch, change):
    declare(Order, fields=["tags"], on=[Event.UPDATED], m2m_fields=["tags"])
    order, tag = Order.objects.create(number="A-1"), Tag.objects.create()
    order.tags.add(tag)
    wrote = threading.Event()

    def write_elsewhere():
        Tag.objects.create(name="elsewhere")
        connections.close_all()
        wrote.set()

    def meanwhile(action, **kwargs):
        if action.startswith("pre_"):
            threading.Thread(target=write_elsewhere).start()
            wrote.wait(0.3)  # it either waits for us, or has overtaken us by then

    m2m_changed.connect(meanwhile, sender=Order.tags.through)
    try:
        order.tags.remove(tag) if change == "remove" else order.tags.clear()
    finally:
        m2m_changed.disconnect(meanwhile, sender=Order.tags.through)
    assert wrote.wait(30)

    assert payloads()[-1] == {"tags": []}
