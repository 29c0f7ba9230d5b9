"""Deletes on the far side of a relation: whoever had the deleted object is told without it."""

import threading

import pytest
from django.db import connection, connections, transaction
from django.db.models.signals import post_delete, pre_delete
from django.test.utils import CaptureQueriesContext

from signal_dispatch import Event, suppressed
from signal_dispatch.models import Delivery
from tests.deliveries import statements
from tests.fieldzoo.models import Animal, Cage, Club, Keeper, LitSign, Sign, SignProxy, Zoo
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
def orders(told, tags):
    """Make two orders with all tags, and one without; forget what was told of them."""
    made = [Order.objects.create(number=f"A-{n}") for n in range(3)]
    for order in made[:2]:
        order.tags.set(tags)
    Delivery.objects.all().delete()
    return made


def payloads():
    return [d.payload for d in Delivery.objects.order_by("id")]


def seen():
    return [(d.event, d.object_pk) for d in Delivery.objects.order_by("id")]


def test_a_delete_tells_each_object_that_had_it_without_it(orders, tags):
    left = [tag.pk for tag in tags[1:]]
    tags[0].delete()

    assert payloads() == [{"number": "A-0", "tags": left}, {"number": "A-1", "tags": left}]
    assert {d.event for d in Delivery.objects.all()} == {"updated"}


@pytest.mark.parametrize("merge", [True, False])
def test_a_queryset_that_deletes_many_tells_each_object_once(orders, told, monkeypatch, merge):
    monkeypatch.setattr(told, "merge", merge)
    Tag.objects.exclude(name="b").delete()

    left = [Tag.objects.get().pk]
    assert payloads() == [{"number": "A-0", "tags": left}, {"number": "A-1", "tags": left}]


def test_what_nobody_had_tells_nobody(told):
    Tag.objects.create().delete()
    Tag.objects.all().delete()

    assert payloads() == []


def test_in_one_transaction_it_is_part_of_the_one_delivery(declare, tags):
    declare(Order, fields=["status", "tags"], m2m_fields=["tags"])
    old = Order.objects.create(number="A-1")
    old.tags.set(tags)
    Delivery.objects.all().delete()
    left = [tag.pk for tag in tags[1:]]
    with transaction.atomic():
        old.status = "paid"
        old.save()
        new = Order.objects.create(number="A-2")
        new.tags.set(tags)
        tags[0].delete()

    assert seen() == [("updated", old.pk), ("created", new.pk)]
    assert payloads() == [{"status": "paid", "tags": left}, {"status": "draft", "tags": left}]


def test_an_object_that_is_deleted_later_in_the_transaction_is_deleted(declare, tags):
    declare(Order, fields=["tags"], on=[Event.UPDATED, Event.DELETED], m2m_fields=["tags"])
    order = Order.objects.create(number="A-1")
    order.tags.set(tags)
    Delivery.objects.all().delete()
    pk = order.pk
    with transaction.atomic():
        tags[0].delete()
        order.delete()

    assert seen() == [("deleted", pk)]


@pytest.mark.parametrize("on", [list(Event), [Event.CREATED, Event.UPDATED]])
@pytest.mark.parametrize(
    ("model", "relation"), [(Cage, "signs"), (Sign, "cage_set")], ids=["declared", "by accessor"]
)
def test_one_that_goes_in_the_same_cascade_is_deleted_and_no_more(declare, on, model, relation):
    declare(model, fields=[relation], on=on, m2m_fields=[relation])
    zoo = Zoo.objects.create()
    cage, sign = Cage.objects.create(zoo=zoo), Sign.objects.create(zoo=zoo)
    stays = {Cage: Cage, Sign: Sign}[model].objects.create()
    cage.signs.add(sign)
    getattr(stays, relation).add(sign if model is Cage else cage)
    goes = (cage if model is Cage else sign).pk
    Delivery.objects.all().delete()
    zoo.delete()

    deleted = [("deleted", goes)] if Event.DELETED in on else []
    assert sorted(seen()) == [*deleted, ("updated", stays.pk)]
    assert Delivery.objects.get(event="updated").payload == {relation: []}


def test_of_a_model_that_is_related_to_itself_only_the_others_are_told(declare):
    declare(Animal, fields=["friends"], m2m_fields=["friends"])
    keepers = [Keeper.objects.create(code=code) for code in "ab"]
    one, two = (Animal.objects.create(keeper=keepers[0]) for _ in range(2))
    other = Animal.objects.create(keeper=keepers[1])
    for animal in (one, other):
        animal.friends.set([two])
    gone = [("deleted", one.pk), ("deleted", two.pk)]
    Delivery.objects.all().delete()
    keepers[0].delete()

    assert sorted(seen()) == [*sorted(gone), ("updated", other.pk)]
    assert Delivery.objects.get(event="updated").payload == {"friends": []}


def test_a_relation_with_a_model_of_its_own_counts_too(declare):
    declare(Club, fields=["members"], on=[Event.UPDATED], m2m_fields=["members"])
    club, keeper = Club.objects.create(), Keeper.objects.create(code="a")
    club.members.add(keeper)
    Delivery.objects.all().delete()
    keeper.delete()

    assert payloads() == [{"members": []}]


@pytest.mark.parametrize("kind", [SignProxy, LitSign])
def test_proxies_and_children_of_the_far_side_count_too(declare, kind):
    declare(Cage, fields=["signs"], on=[Event.UPDATED], m2m_fields=["signs"])
    cage, sign = Cage.objects.create(), kind.objects.create()
    cage.signs.add(sign)
    Delivery.objects.all().delete()
    sign.delete()

    assert payloads() == [{"signs": []}]


def test_children_tell_of_a_relation_they_inherit(declare, told, tags):
    declare(PriorityOrder, name="shop.Child", fields=["tags"], m2m_fields=["tags"], on=["updated"])
    child = PriorityOrder.objects.create(number="P-1")
    child.tags.set(tags[:2])
    Delivery.objects.all().delete()
    tags[0].delete()

    assert sorted(d.dispatch for d in Delivery.objects.all()) == ["shop.Child", "shop.Told"]
    assert {tuple(p["tags"]) for p in payloads()} == {(tags[1].pk,)}


def test_a_dispatch_of_a_proxy_hears_nothing_of_it(declare, tags):
    declare(OrderProxy, fields=["tags"], on=[Event.UPDATED], m2m_fields=["tags"])
    OrderProxy.objects.create(number="A-1").tags.set(tags)
    Delivery.objects.all().delete()
    tags[0].delete()

    assert payloads() == [], "the object was not used as the proxy"


def test_suppressed_holds_for_it_too(orders, tags):
    with suppressed("shop.Told"):
        tags[0].delete()

    assert payloads() == []


def test_a_delete_that_fails_tells_nobody_and_the_next_one_does(orders, tags):
    def refuse(**kwargs):
        raise RuntimeError("not this one")

    pre_delete.connect(refuse, sender=Tag)
    try:
        with pytest.raises(RuntimeError), transaction.atomic():
            tags[0].delete()
    finally:
        pre_delete.disconnect(refuse, sender=Tag)
    orders[0].tags.remove(tags[0])
    Delivery.objects.all().delete()
    tags[0].delete()

    assert [p["number"] for p in payloads()] == ["A-1"]


def test_a_handler_that_deletes_another_one_in_between_hides_nothing(orders, tags):
    def take_along(instance, **kwargs):
        if instance.name == "a":
            Tag.objects.get(name="b").delete()

    pre_delete.connect(take_along, sender=Tag)
    try:
        tags[0].delete()
    finally:
        pre_delete.disconnect(take_along, sender=Tag)

    assert payloads() == [{"number": f"A-{n}", "tags": [tags[2].pk]} for n in range(2)]


def test_signals_sent_by_hand_hurt_nobody(orders, tags):
    for signal in (pre_delete, post_delete):
        signal.send(sender=Tag)
        signal.send(sender=Tag, instance=Tag())
        signal.send(sender=Order, instance=Order())
    assert payloads() == []
    pre_delete.send(sender=Tag, instance=tags[0])
    post_delete.send(sender=Tag, instance=tags[0])

    assert [p["tags"] for p in payloads()] == [[tag.pk for tag in tags]] * 2, "as it stands"


@pytest.mark.django_db(transaction=True)
def test_a_signal_sent_by_hand_outside_of_a_transaction_is_no_error(orders, tags):
    pre_delete.send(sender=Tag, instance=tags[0])
    post_delete.send(sender=Tag, instance=tags[0])

    assert payloads() == []


def test_without_a_dispatch_that_names_it_a_delete_costs_nothing(declare, tags):
    def cost(tag):
        Order.objects.create(number=tag.name).tags.add(tag)
        with CaptureQueriesContext(connection) as queries:
            Tag.objects.filter(pk=tag.pk).delete()
        return len(queries)

    bare = cost(tags[0])
    declare(Order, on=[Event.UPDATED, Event.DELETED])
    assert cost(tags[1]) == bare
    declare(Order, name="shop.Both", on=[Event.UPDATED], m2m_fields=["tags"])
    assert cost(tags[2]) > bare
    assert len(Delivery.objects.filter(dispatch="shop.Both")) == 2


def test_each_deleted_object_costs_a_look_and_all_of_them_one_record(orders, tags):
    with CaptureQueriesContext(connection) as queries:
        Tag.objects.all().delete()

    selects = [s.replace("`", '"') for s in statements(queries, "SELECT")]
    looks = [s for s in selects if s.startswith('SELECT "shop_order_tags"."order_id"')]
    reads = [s for s in selects if 'FROM "shop_order" ' in s]
    assert len(looks) == 3
    assert len(reads) == (1 if DATABASE.startswith("sqlite") else 4), "a lock each, and one read"


@pytest.mark.skipif(DATABASE == "sqlite-memory", reason="It has one connection.")
@pytest.mark.django_db(transaction=True)
def test_whoever_changes_the_relation_meanwhile_is_waited_for(told, tags, monkeypatch):
    if connection.vendor == "sqlite":
        options = connection.settings_dict["OPTIONS"]
        monkeypatch.setitem(options, "transaction_mode", "IMMEDIATE")
    order = Order.objects.create(number="A-1")
    order.tags.add(tags[0])
    before, after = [tags[0].pk, tags[1].pk], [tags[1].pk]
    changed, done = threading.Event(), threading.Event()

    def add():
        with transaction.atomic():
            order.tags.add(tags[1])
            changed.set()
            done.wait(0.5)  # by then the delete waits for us
        connections.close_all()

    other = threading.Thread(target=add)
    other.start()
    assert changed.wait(10)
    tags[0].delete()
    done.set()
    other.join(10)

    assert [p["tags"] for p in payloads()][1:] == [before, after]


@pytest.mark.skipif(DATABASE != "sqlite", reason="Only a SQLite file has one writer for many.")
@pytest.mark.django_db(transaction=True)
def test_it_is_deleted_while_others_write(told, tags):
    order = Order.objects.create(number="A-1")
    order.tags.add(tags[0])
    wrote = threading.Event()

    def write_elsewhere():
        Tag.objects.create(name="elsewhere")
        connections.close_all()
        wrote.set()

    def meanwhile(**kwargs):
        threading.Thread(target=write_elsewhere).start()
        wrote.wait(0.3)  # it either waits for us, or has overtaken us by then

    pre_delete.connect(meanwhile, sender=Tag)
    try:
        tags[0].delete()
    finally:
        pre_delete.disconnect(meanwhile, sender=Tag)
    assert wrote.wait(30)

    assert payloads()[-1] == {"number": "A-1", "tags": []}
