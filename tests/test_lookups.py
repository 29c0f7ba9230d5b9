from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import django
import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db.models import F, Value
from django.db.models.functions import Now

from signal_dispatch.exceptions import PayloadError
from signal_dispatch.lookup_problems import problem_with
from signal_dispatch.lookups import find, normalise, resolve
from tests.fieldzoo.models import Animal, Keeper, Note, Passport
from tests.shop.models import Customer, Order, PriorityOrder, Seat, Shipment, Tag

BERLIN = ZoneInfo("Europe/Berlin")


def field(name):
    return Animal._meta.get_field(name)


# --- following names


def test_relations_are_followed():
    shipment = Shipment(order=Order(number="A-1", customer=Customer(email="a@b.example")))

    assert resolve(shipment, "order__number") == "A-1"
    assert resolve(shipment, "order__customer__email") == "a@b.example"


def test_none_on_the_way_gives_none():
    assert resolve(Shipment(order=Order()), "order__customer__email") is None


@pytest.mark.parametrize("name", ["customer", "customer_id"])
def test_foreign_key_gives_its_key_without_a_query(name):
    assert resolve(Order(customer_id="7"), name) == 7


def test_foreign_key_to_another_field_gives_what_its_column_holds():
    assert resolve(Animal(keeper_id="K-1"), "keeper") == "K-1"


def test_pk_is_a_name():
    key = UUID(int=3)

    assert resolve(Shipment(pk=str(key)), "pk") == key
    assert resolve(PriorityOrder(pk=4), "pk") == 4
    assert resolve(Order(customer=Customer(pk=5)), "customer__pk") == 5


def test_composite_pk_is_a_tuple_in_stored_form():
    assert resolve(Seat(row="A", number="4"), "pk") == ("A", 4)


def test_properties_and_attributes_are_followed():
    animal = Animal(age=3)
    animal.owner = Customer(name="Zoë")

    assert resolve(animal, "label") == "animal 3"
    assert resolve(animal, "owner__name") == "Zoë"
    assert resolve(Passport(animal=animal), "animal__label") == "animal 3"


def test_attribute_of_a_plain_value_is_followed():
    assert resolve(Animal(born_on=date(2026, 1, 2)), "born_on__year") == 2026


@pytest.mark.parametrize("lookup", ["nothing", "broken", "born_on__nothing", "keeper__nothing"])
def test_name_that_leads_nowhere_is_named(lookup):
    animal = Animal(born_on=date(2026, 1, 2), keeper=Keeper())

    with pytest.raises(PayloadError, match=f"'{lookup}' of fieldzoo.Animal has no value"):
        resolve(animal, lookup)


def test_missing_related_object_is_named(db):
    with pytest.raises(PayloadError, match=r"'mother__age' of fieldzoo\.Animal .* does not exist"):
        resolve(Animal(mother_id=404), "mother__age")


def test_required_related_object_that_was_never_set_is_named():
    with pytest.raises(PayloadError, match=r"'order__number' of shop\.Shipment"):
        resolve(Shipment(), "order__number")


def test_one_to_one_from_the_other_side_is_followed(db):
    animal = Animal.objects.create()
    assert resolve(animal, "passport__number") is None
    assert resolve(animal, "passport") is None

    passport = Passport.objects.create(animal=animal, number="P-1")
    animal.refresh_from_db()
    assert resolve(animal, "passport__number") == "P-1"
    assert resolve(animal, "passport") == passport


def test_generic_relation_is_followed(db):
    tag = Tag.objects.create(name="new")
    note = Note(content_type=ContentType.objects.get_for_model(Tag), object_id=tag.pk)

    assert resolve(note, "about") == tag
    assert resolve(note, "about__name") == "new"


def test_many_to_many_gives_pks_in_their_order(db):
    order = Order.objects.create(number="A-1")
    first, last = (Tag.objects.create(name=name) for name in "ba")
    order.tags.add(last)
    order.tags.add(first)

    assert resolve(order, "tags") == [first.pk, last.pk]
    assert resolve(Shipment(order=order), "order__tags") == [first.pk, last.pk]


def test_many_to_many_from_the_other_side_gives_pks_too(db):
    liked, fan = Animal.objects.create(), Animal.objects.create()
    fan.friends.add(liked)

    assert resolve(liked, "liked_by") == [fan.pk]
    assert resolve(liked, "friends") == []


def test_many_to_many_before_the_first_save_is_named():
    with pytest.raises(PayloadError, match="'tags' of shop"):
        resolve(Order(), "tags")


# --- reading what is not there


def test_deferred_field_is_loaded(db, django_assert_num_queries):
    Order.objects.create(number="A-1", notes="fragile")
    order = Order.objects.only("number").get()

    with django_assert_num_queries(1):
        assert resolve(order, "notes") == "fragile"


def test_expression_gives_what_it_made_of_the_row(db):
    animal = Animal.objects.create(age=3)
    Animal.objects.filter(pk=animal.pk).update(age=4)
    animal.age = F("age") + 1  # as it stands on the instance once it was saved

    assert resolve(animal, "age") == 4


@pytest.mark.django_db(databases=["default", "other"])
def test_expression_and_relations_are_read_from_the_instance_s_own_database():
    here = Animal.objects.create(pk=1, age=3)
    there = Animal.objects.using("other").create(pk=1, age=5)
    there.friends.add(there)
    there.age = F("age") + 1

    assert resolve(there, "age") == 5
    assert resolve(there, "friends") == [1]
    assert resolve(here, "friends") == []


def test_expression_of_an_object_without_a_row_is_named(db):
    with pytest.raises(PayloadError, match="'age' of fieldzoo"):
        resolve(Animal(pk=1, age=F("age") + 1), "age")


@pytest.mark.skipif(django.VERSION < (6, 1), reason="fetch modes came with Django 6.1")
def test_field_whose_fetching_is_blocked_is_loaded_by_key(db):
    from django.db.models import FETCH_RAISE

    customer = Customer.objects.create(email="a@b.example")
    Order.objects.create(number="A-1", notes="fragile", customer=customer)
    order = Order.objects.fetch_mode(FETCH_RAISE).only("number").get()

    assert resolve(order, "notes") == "fragile"
    assert resolve(order, "customer") == customer.pk
    assert resolve(order, "customer__email") == "a@b.example"


# --- the stored form


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("age", None, None),
        ("age", "5", 5),
        ("weight", "1.5", Decimal("1.50000000")),
        ("weight", 0.1, Decimal("0.10000000")),
        ("worth", Decimal(10**37), Decimal("1" + "0" * 37 + ".00")),
        ("speed", "1.5", 1.5),
        ("tame", "True", True),
        ("born_on", "2026-01-02", date(2026, 1, 2)),
        ("sleeps_at", "21:30", time(21, 30)),
        ("nap", "00:20:00", timedelta(minutes=20)),
        ("chip", "00000000000000000000000000000001", UUID(int=1)),
        ("dna", b"\x00", b"\x00"),
        ("habits", {"a": [1, None]}, {"a": [1, None]}),
        ("photo", "cats/tom.png", "cats/tom.png"),
        ("photo", Animal(photo="cats/tom.png").photo, "cats/tom.png"),
        ("keeper", "K-1", "K-1"),
        ("keeper", Keeper(code="K-1"), "K-1"),
        ("mother", "7", 7),
        ("mother", Animal(pk=7), 7),
    ],
)  # fmt: skip
def test_value_is_what_the_database_will_give_back(name, value, expected):
    stored = normalise(field(name), value)

    assert stored == expected
    assert type(stored) is type(expected)
    assert str(stored) == str(expected)


def test_file_is_its_name():
    assert resolve(Animal(photo="cats/tom.png"), "photo") == "cats/tom.png"


def test_aware_time_is_in_the_connection_s_zone():
    value = datetime(2026, 7, 1, 12, 0, tzinfo=BERLIN)

    assert normalise(field("fed_at"), value).isoformat() == "2026-07-01T10:00:00+00:00"


def test_naive_time_is_taken_in_the_default_zone(settings):
    settings.TIME_ZONE = "Europe/Berlin"

    stored = normalise(field("fed_at"), datetime(2026, 7, 1, 12, 0))  # noqa: DTZ001 - the case

    assert stored.isoformat() == "2026-07-01T10:00:00+00:00"


def test_time_stays_as_it_is_without_time_zones(settings):
    settings.USE_TZ = False
    value = datetime(2026, 7, 1, 12, 0)  # noqa: DTZ001 - the case

    assert normalise(field("fed_at"), value) is value


@pytest.mark.parametrize("value", [Now(), F("age"), Value(1)])
def test_expression_is_returned_as_it_is(value):
    assert normalise(field("age"), value) is value


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("age", "many", "many"),
        ("worth", Decimal(10**40), "it is too large"),
        ("chip", "x", "UUID"),
        ("nap", object(), "object"),
    ],
)
def test_value_that_a_field_cannot_hold_is_refused_by_the_field_s_name(name, value, reason):
    with pytest.raises(PayloadError, match=rf"fieldzoo\.Animal\.{name} can't hold .*{reason}"):
        normalise(field(name), value)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "values",
    [
        {"weight": "1.000000005"},
        {"weight": "-1.000000015"},
        {"worth": Decimal("0.125")},
        {"worth": Decimal("0.135")},
        {"worth": 12},
        {"fed_at": datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=BERLIN)},
        {"age": "5", "tame": 1, "speed": 2, "nap": timedelta(milliseconds=1)},
        {"photo": "", "habits": [{"a": 1.5}], "dna": b"\x00\xff", "chip": str(UUID(int=7))},
        {"photo": None},
        {"born_on": datetime(2026, 1, 1, 23, 30, tzinfo=UTC)},
    ],
)
def test_stored_form_is_the_one_that_comes_back(values):
    animal = Animal.objects.create(**values)
    stored = {name: resolve(animal, name) for name in values}

    loaded = Animal.objects.get(pk=animal.pk)

    for name, value in stored.items():
        back = bytes(loaded.dna) if name == "dna" else getattr(loaded, name)
        assert str(value) == str(back)
        assert value == resolve(loaded, name)


# --- what the checks ask


@pytest.mark.parametrize(
    ("model", "lookup"),
    [
        (Order, "number"),
        (Order, "pk"),
        (Order, "customer"),
        (Order, "customer_id"),
        (Order, "customer__email"),
        (Order, "customer__pk"),
        (Order, "tags"),
        (Order, "priorityorder__level"),
        (PriorityOrder, "number"),
        (Shipment, "order__tags"),
        (Seat, "pk"),
        (Animal, "label"),
        (Animal, "label__whatever"),
        (Animal, "passport__number"),
        (Animal, "passport"),
        (Animal, "liked_by"),
        (Animal, "mother__mother__keeper__boss__code"),
        (Note, "about"),
        (Note, "about__whatever"),
    ],
)
def test_sound_lookup_has_no_problem(model, lookup):
    assert problem_with(model, lookup) is None


@pytest.mark.parametrize(
    ("model", "lookup", "problem"),
    [
        (Order, "totl", "no field, relation or property of shop.Order. Did you mean 'total'?"),
        (Order, "zzzzzz", "'zzzzzz' is no field, relation or property of shop.Order."),
        (Order, "customer__emial", "of shop.Customer. Did you mean 'email'?"),
        (Animal, "lable", "Did you mean 'label'?"),
        (Order, "number__x", "'number' of shop.Order is no relation"),
        (Order, "customer_id__email", "write 'customer' to follow it"),
        (PriorityOrder, "pk__number", "write 'order_ptr' to follow it"),
        (Order, "tags__name", "'tags' of shop.Order leads to many objects"),
        (Order, "shipment_set", "'shipment_set' of shop.Order leads to many objects"),
        (Order, "shipment_set__id", "leads to many objects"),
        (Order, "shipment", "Did you mean 'shipment_set'?"),
        (Animal, "children", "leads to many objects"),
        (Animal, "notes", "leads to many objects"),
        (Animal, "shout", "has to be called; make it a property"),
        (Animal, "get_mood_display", "has to be called; make it a property"),
        (Order, "", "'' is no field"),
        (Order, "customer__", "'' is no field"),
        (User, "pasword", "Did you mean 'password'?"),
    ],
)
def test_unsound_lookup_is_told_in_one_sentence(model, lookup, problem):
    assert problem in (problem_with(model, lookup) or "")


@pytest.mark.parametrize(
    ("model", "lookup", "expected"),
    [
        (Order, "total", Order._meta.get_field("total")),
        (Order, "customer_id", Order._meta.get_field("customer")),
        (Order, "customer__email", Customer._meta.get_field("email")),
        (Order, "pk", Order._meta.get_field("id")),
        (Order, "tags", Order._meta.get_field("tags")),
        (Animal, "passport__number", Passport._meta.get_field("number")),
        (Animal, "passport", None),
        (Animal, "label", None),
        (Animal, "label__x", None),
        (Note, "about__x", None),
        (Order, "number__x", None),
    ],
)
def test_field_at_the_end_is_found(model, lookup, expected):
    assert find(model, lookup) is expected
