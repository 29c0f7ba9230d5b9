"""Which deliveries a change makes, what they carry, and what happens when they can't be built."""

import re
from contextlib import nullcontext
from decimal import Decimal

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from signal_dispatch import Event, ModelDispatch, enqueue, outbox, suppressed
from signal_dispatch.exceptions import PayloadError
from signal_dispatch.models import Delivery, State
from signal_dispatch.signals import delivery_enqueued
from tests.shop.models import Customer, Order, Tag

pytestmark = pytest.mark.django_db


def last():
    return Delivery.objects.latest("id")


def events():
    return list(Delivery.objects.order_by("id").values_list("event", flat=True))


# What a delivery carries.


def test_a_delivery_carries_method_path_headers_and_payload(declare):
    declare(
        Order,
        path="orders/{number}{?status}",
        method={"created": "put", "updated": "PATCH", "deleted": "DELETE"},
        headers={"X-Source": "shop"},
        fields=["number", "total", "customer__email", "customer"],
    )
    customer = Customer.objects.create(name="c", email="c@example.com")
    Order.objects.create(number="A/1", total=12, status="paid", customer=customer)

    made = last()
    assert (made.method, made.path) == ("PUT", "orders/A%2F1?status=paid")
    assert made.headers == {"X-Source": "shop", "Content-Type": "application/json"}
    assert made.payload == {
        "number": "A/1",
        "total": "12.00",
        "customer__email": "c@example.com",
        "customer": customer.pk,
    }
    assert (made.state, made.environment, made.endpoint) == ("pending", "", "crm")
    assert (made.model, made.dispatch) == ("shop.order", "shop.Told")


def test_a_form_is_encoded_as_one(declare):
    declare(Order, encoding="form")
    Order.objects.create(number="A 1", status="ü")

    assert bytes(last().body) == b"number=A+1&status=%C3%BC"
    assert last().headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert last().payload == {"number": "A 1", "status": "ü"}


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_methods_without_a_body_carry_none_unless_asked(declare, method):
    declare(Order, method=method)
    Order.objects.create(number="A-1")
    assert bytes(last().body) == b""

    class WithPayload(ModelDispatch):
        def get_payload(self, instance, change):
            return {"why": "asked for"}

    declare(Order, name="shop.Other", base=WithPayload, method=method)
    Order.objects.create(number="A-2")
    assert last().payload == {"why": "asked for"}


def test_empty_fields_mean_no_body(declare):
    declare(Order, fields=())
    Order.objects.create(number="A-1")

    assert (bytes(last().body), last().headers) == (b"", {})


def test_a_serializer_gives_the_payload(declare):
    class Serializer:
        def __init__(self, instance):
            self.data = {"id": instance.pk, "total": Decimal("1.50")}

    declare(Order, fields=None, serializer_class=Serializer)
    order = Order.objects.create(number="A-1")

    assert last().payload == {"id": order.pk, "total": "1.50"}


def test_a_serializer_of_rest_framework_gives_the_payload(declare):
    from rest_framework import serializers

    class OrderSerializer(serializers.ModelSerializer):
        class Meta:
            model = Order
            fields = ("number", "total", "tags")

    declare(Order, fields=None, serializer_class=OrderSerializer)
    Order.objects.create(number="A-1", total=2)

    assert last().payload == {"number": "A-1", "total": "2.00", "tags": []}


def test_hooks_see_the_instance_as_post_save_shows_it(declare):
    seen = []

    class Looking(ModelDispatch):
        def should_send(self, order, change):
            seen.append((order.pk is not None, order._state.db, order._state.adding, change.using))
            return True

    declare(Order, base=Looking)
    Order.objects.create(number="A-1")

    assert seen == [(True, "default", False, "default")]


def test_one_class_for_two_models_stores_each_model(declare):
    declare(Order, Customer, fields=["pk"])
    Order.objects.create(number="A-1")
    Customer.objects.create(name="c")

    assert list(Delivery.objects.order_by("id").values_list("dispatch", "model")) == [
        ("shop.Told", "shop.order"),
        ("shop.Told", "shop.customer"),
    ]


# Whether, and to whom.


def test_should_send_and_get_event_decide(declare):
    class Choosing(ModelDispatch):
        def get_event(self, order, change):
            return {"hidden": Event.DELETED, "quiet": None}.get(order.status, change.event)

        def should_send(self, order, change):
            return order.status != "draft"

    declare(Order, base=Choosing, on=[Event.UPDATED])
    order = Order.objects.create(number="A-1")
    for status in ["draft", "paid", "quiet", "hidden"]:
        order.status = status
        order.save()

    assert events() == ["updated", "deleted"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, []),
        ("hubspot", ["hubspot"]),
        (["crm", "hubspot", "crm"], ["crm", "hubspot"]),
        ([], []),
    ],
)
def test_get_endpoint_names_none_one_or_several(declare, answer, expected):
    class Routed(ModelDispatch):
        def get_endpoint(self, order, change):
            return answer

    declare(Order, base=Routed)
    Order.objects.create(number="A-1")

    assert sorted(Delivery.objects.values_list("endpoint", flat=True)) == expected


def test_a_disabled_endpoint_records_nothing(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": "https://crm.example.com/", "ENABLED": False}
    }
    declare(Order)
    Order.objects.create(number="A-1")

    assert not Delivery.objects.exists()


def test_an_unknown_alias_is_recorded_for_whoever_knows_it(declare):
    class Routed(ModelDispatch):
        def get_endpoint(self, order, change):
            return "elsewhere"

    declare(Order, base=Routed)
    Order.objects.create(number="A-1")

    assert (last().state, last().endpoint, last().held_by) == ("pending", "elsewhere", "")


@pytest.mark.parametrize("alias", ["tenant", "tenant:", "tenant:4\n2"])
def test_an_alias_that_lacks_its_key_is_failed_and_the_others_are_told(
    declare, as_in_production, tenant, alias
):
    declare(Order, get_endpoint=lambda self, order, change: ["tenant:42", alias, "crm"])
    with transaction.atomic():
        Order.objects.create(number="A-1")

    states = dict(Delivery.objects.values_list("endpoint", "state"))
    assert states == {"tenant:42": "pending", alias: "failed", "crm": "pending"}
    made = Delivery.objects.get(endpoint=alias)
    assert made.error_class == "build"
    assert 'ENDPOINTS["tenant"] has a RESOLVER and stands for many endpoints: ' in made.reason
    assert tenant.asked == []


def test_in_tests_an_alias_that_lacks_its_key_is_raised(declare, tenant):
    declare(Order, endpoint="tenant")
    with pytest.raises(PayloadError, match=r'shop\.Told: .* name one of them, as "tenant:42"\.'):
        Order.objects.create(number="A-1")


def test_a_family_that_is_disabled_records_nothing_and_asks_nobody(declare, settings, tenant):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": {"RESOLVER": tenant.PATH, "ENABLED": False}}
    declare(Order, get_endpoint=lambda self, order, change: ["tenant:42", "tenant"])
    Order.objects.create(number="A-1")

    assert not Delivery.objects.exists()
    assert tenant.asked == []


def test_the_environment_is_stored(declare, settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    declare(Order)
    Order.objects.create(number="A-1")

    assert last().environment == "staging"


def test_suppressed_changes_make_no_delivery(declare):
    told = declare(Order)
    declare(Order, name="shop.Other")
    with suppressed():
        Order.objects.create(number="A-1")
    assert events() == []
    with suppressed(told):
        Order.objects.create(number="A-2")
    with suppressed("shop.Other"):
        Order.objects.create(number="A-3")

    assert list(Delivery.objects.order_by("id").values_list("dispatch", flat=True)) == [
        "shop.Other",
        "shop.Told",
    ]


def test_a_receiver_hears_of_what_is_enqueued(declare):
    heard = []

    def hear(sender, delivery, using, **kwargs):
        heard.append((delivery.pk, delivery.state, using))

    declare(Order)
    delivery_enqueued.connect(hear)
    try:
        Order.objects.create(number="A-1")
    finally:
        delivery_enqueued.disconnect(hear)

    assert heard == [(last().pk, "pending", "default")]


# What changed.


@pytest.mark.parametrize(
    ("save", "told"),
    [
        (lambda o: o.save(), False),
        (lambda o: (setattr(o, "notes", "n"), o.save()), False),
        (lambda o: (setattr(o, "status", "paid"), o.save()), True),
        (lambda o: (setattr(o, "status", "paid"), o.save(update_fields=["notes"])), False),
        (lambda o: (setattr(o, "total", "1"), o.save()), False),
        (lambda o: (setattr(o, "total", F("total") + 0), o.save()), False),
        (lambda o: (setattr(o, "total", F("total") + 1), o.save()), True),
        (lambda o: (o.data.update(new=1), o.save()), True),
        (lambda o: (setattr(Order.objects.only("notes").get(), "notes", "n"), o.save()), False),
        (lambda o: (Order.objects.update(status="paid"), o.save()), True),
    ],
    ids=[
        "nothing",
        "another field",
        "status",
        "not written",
        "same as text",
        "expression, same",
        "expression",
        "in-place JSON",
        "only()",
        "stale",
    ],
)
def test_when_changed_compares_with_what_stood_in_the_database(declare, save, told):
    declare(Order, when_changed=["status", "total", "data"])
    order = Order.objects.create(number="A-1", total=1)
    Delivery.objects.all().delete()
    save(Order.objects.get())

    assert events() == (["updated"] if told else [])
    assert order.pk is not None


def test_hooks_are_told_old_and_new_values(declare):
    seen = []

    class Looking(ModelDispatch):
        def should_send(self, order, change):
            if change.event == Event.UPDATED:
                seen.append(
                    (
                        dict(change.old),
                        change.changed("status"),
                        change.became("status", "paid"),
                        change.changed("total"),
                        change.changed("customer"),
                    )
                )
            return True

    declare(Order, base=Looking, when_changed=["status"], track=["total", "customer"])
    order = Order.objects.create(number="A-1")
    order.status = "paid"
    order.save()

    old = {"status": "draft", "total": Decimal("0.00"), "customer": None}
    assert seen == [(old, True, True, False, False)]


def test_created_counts_as_changed_in_everything(declare):
    seen = []

    class Looking(ModelDispatch):
        def should_send(self, order, change):
            seen.append((change.changed("anything"), change.became("status", "draft"), change.old))
            return True

    declare(Order, base=Looking, track=["status"])
    Order.objects.create(number="A-1")

    assert seen == [(True, True, {})]


def test_an_untracked_name_is_an_error_that_names_the_cure(declare):
    class Careless(ModelDispatch):
        def should_send(self, order, change):
            return change.changed("notes")

    declare(Order, base=Careless, on=[Event.UPDATED])
    order = Order.objects.create(number="A-1")
    with pytest.raises(ValueError, match=r"'notes'.*'track'"):
        order.save()


def test_nothing_is_read_for_dispatches_that_track_nothing(declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    with CaptureQueriesContext(connection) as queries:
        order.save()
    words = [q["sql"].split()[0] for q in queries]
    assert words == ["UPDATE", "INSERT"]


# Errors of the site's own code.


class Broken(ModelDispatch):
    """Fails where the order says so."""

    def should_send(self, order, change):
        if order.status == "should_send":
            raise KeyError("oops")
        return True

    def get_payload(self, order, change):
        if order.status == "query":
            with connection.cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")
        return {"total": float("nan") if order.status == "nan" else 1, "o": self._odd(order)}

    def _odd(self, order):
        return object() if order.status == "odd" else None


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("should_send", r"shop\.Told: should_send\(\) raised KeyError: 'oops'"),
        ("query", r"shop\.Told: get_payload\(\) raised (Operational|Programming)Error"),
        ("nan", r"shop\.Told: .*total.*"),
        ("odd", r"shop\.Told: .*object.*'o'"),
    ],
)
def test_an_error_leaves_the_save_and_a_failed_delivery(
    declare, as_in_production, status, sentence, caplog
):
    declare(Order, base=Broken)
    with transaction.atomic():
        Order.objects.create(number="A-1", status=status)
        Tag.objects.create(name="the transaction is still good")

    assert Order.objects.count() == Tag.objects.count() == 1
    assert (last().state, last().error_class) == (State.FAILED, "build")
    assert re.match(sentence, last().reason), last().reason
    (record,) = [r for r in caplog.records if r.action == "build_failed"]
    told = f"shop.Told could not build its call for shop.Order {Order.objects.get().pk} ('created')"
    assert record.getMessage().startswith(told)


class Odd(ModelDispatch):
    """Answers what the order's data say."""

    answers: dict = {}

    def get_event(self, order, change):
        return self.answers.get("event", change.event)

    def get_endpoint(self, order, change):
        return self.answers.get("endpoint", "crm")

    def get_method(self, order, change):
        return self.answers.get("method", "POST")

    def get_path(self, order, change):
        return self.answers.get("path", "")

    def get_path_values(self, order, change):
        return self.answers.get("values", {})

    def get_headers(self, order, change):
        return self.answers.get("headers", {})

    def get_payload(self, order, change):
        if "error" in self.answers:
            raise self.answers["error"]
        return {}

    def encode(self, payload):
        return self.answers.get("encode", (b"{}", "application/json"))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"event": "x" * 500}, "get_event() gave"),
        ({"event": "a\0"}, "get_event() gave"),
        ({"endpoint": [None]}, "get_endpoint() named None"),
        ({"endpoint": "a" * 300}, "get_endpoint() gave"),
        ({"method": "X" * 500}, "get_method() gave"),
        ({"method": None}, "get_method() returned None"),
        ({"path": None}, "get_path() returned None"),
        ({"values": None}, "get_path_values() returned None"),
        ({"headers": None}, "get_headers() returned None"),
        ({"headers": {"X": "a\nb"}}, "The header 'X' can't be sent"),
        ({"headers": {"X": "\u017dofie"}}, "The header 'X' can't be sent"),
        ({"headers": {"X": "\ud800"}}, "The header 'X' can't be sent"),
        ({"headers": {"X Y": "1"}}, "The header 'X Y' can't be sent"),
        ({"encode": ("text", "text/plain")}, "encode() returned str"),
        ({"error": ValueError("\ud800")}, "get_payload() raised ValueError"),
        ({"error": ValueError("a\0b")}, "get_payload() raised ValueError"),
    ],
)
def test_odd_answers_of_hooks_are_failed_and_never_break_the_save(
    declare, as_in_production, answers, words
):
    declare(Order, base=Odd, answers=answers)
    Order.objects.create(number="A-1")

    assert Order.objects.count() == 1
    assert (last().state, last().error_class) == ("failed", "build")
    assert words in last().reason


@pytest.mark.parametrize("name", ["should_send", "get_event", "get_payload", "get_path"])
def test_a_hook_that_does_not_take_what_it_is_given_is_named(declare, as_in_production, name):
    def hook(self, order):
        """Take no change."""

    hook.__qualname__ = f"Told.{name}"  # as if it had been written in the class
    declare(Order, **{name: hook})
    Order.objects.create(number="A-1")

    assert f"shop.Told: {name}() raised TypeError" in last().reason


@pytest.mark.parametrize("in_atomic", [False, True])
def test_hooks_that_write_in_blocks_of_their_own_and_fail_leave_the_save(
    declare, as_in_production, in_atomic
):
    class Writing(ModelDispatch):
        def get_payload(self, order, change):
            Tag.objects.bulk_create([Tag(name="undone")])
            order.tags.set([])
            raise ValueError("after the write")

    declare(Order, base=Writing)
    with transaction.atomic() if in_atomic else nullcontext():
        Order.objects.create(number="A-1")

    assert Order.objects.count() == 1
    assert not Tag.objects.exists()
    assert last().state == "failed"


def test_a_faulty_entry_of_the_settings_breaks_no_save(declare, as_in_production, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "nowhere"}}
    declare(Order)
    Order.objects.create(number="A-1")

    assert (last().state, last().held_by) == ("pending", "")


def test_in_tests_an_error_is_raised(declare):
    declare(Order, base=Broken)
    with pytest.raises(KeyError):
        Order.objects.create(number="A-1", status="should_send")


@pytest.mark.parametrize("value", ["../..", "..", ".", "", None])
def test_a_value_that_would_leave_the_path_is_failed_and_nothing_is_sent(
    declare, as_in_production, value
):
    class Odd(ModelDispatch):
        def get_path_values(self, order, change):
            return {"slug": value}

    declare(Order, base=Odd, path="orders/{slug}")
    Order.objects.create(number="A-1")

    assert (last().state, last().error_class) == ("failed", "build")
    assert "slug" in last().reason


def test_a_value_with_marks_is_one_segment(declare):
    declare(Order, path="orders/{number}/lines")
    Order.objects.create(number="a/b?c#d")

    assert last().path == "orders/a%2Fb%3Fc%23d/lines"


def test_a_missing_related_object_is_failed(declare, as_in_production):
    declare(Order, fields=["customer__email"])
    order = Order(number="A-1", customer_id=999)
    with connection.constraint_checks_disabled():
        order.save()
        assert (last().state, last().error_class) == ("failed", "build")
        assert "customer__email" in last().reason
        order.customer_id = None
        order.save()


def test_an_event_without_path_is_failed(declare, as_in_production):
    declare(Order, path={"created": "orders"})
    order = Order.objects.create(number="A-1")
    order.save()

    assert last().state == "failed"
    assert "'updated'" in last().reason


def test_five_megabytes_are_carried_whole(declare):
    declare(Order, fields=["notes"])
    notes = "x" * 5_000_000
    Order.objects.create(number="A-1", notes=notes)

    assert last().payload == {"notes": notes}


def test_user_code_without_queries_costs_no_savepoint(declare):
    declare(Order, fields=["number"])
    with CaptureQueriesContext(connection) as queries:
        Order.objects.create(number="A-1")
    assert not [q["sql"] for q in queries if "SAVEPOINT" in q["sql"].upper()]


@pytest.mark.django_db(transaction=True)
def test_what_this_process_can_not_serve_is_leased_to_nobody(declare, as_in_production, caplog):
    declare(Order, endpoint="elsewhere")
    Order.objects.create(number="A-1")

    assert (last().state, last().held_by, last().epoch) == ("pending", "", 0)
    assert "'elsewhere' is not known here" in caplog.text


def test_commit_hooks_of_a_hook_that_failed_are_dropped(declare, as_in_production):
    class Hooked(ModelDispatch):
        def get_payload(self, order, change):
            Tag.objects.create(name="undone")
            transaction.on_commit(hook)
            raise ValueError("after it")

    def hook():
        raise AssertionError

    declare(Order, base=Hooked)
    with transaction.atomic():
        Order.objects.create(number="A-1")

    assert hook not in [each[1] for each in connection.run_on_commit]


def unknown_endpoints(caplog):
    actions = [getattr(record, "action", "") for record in caplog.records]
    return actions.count("endpoint_unknown")


def test_what_is_delayed_for_an_unknown_alias_is_told_in_the_log_too(declare, caplog):
    declare(Order, endpoint="elsewhere", delay=60)
    Order.objects.create()

    assert unknown_endpoints(caplog) == 1


def test_many_for_an_unknown_alias_are_told_in_the_log_once(declare, caplog):
    Order.objects.bulk_create([Order(number=str(n)) for n in range(3)])
    declare(Order, endpoint="elsewhere")
    assert enqueue(Order.objects.all()) == 3

    assert unknown_endpoints(caplog) == 1


# A database that nobody migrated.


@pytest.fixture
def without_table(transactional_db):
    """Take the table of the outbox away from both databases, until the test ends."""
    table = Delivery._meta.db_table

    def rename(old, new):
        for using in ("default", "other"):
            with connections[using].cursor() as cursor:
                cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    rename(table, "away")
    yield
    rename("away", table)


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
@pytest.mark.parametrize(
    ("using", "there"), [("default", ""), ("other", " --database other")], ids=lambda value: value
)
@pytest.mark.parametrize("latest_wins", [False, True])
def test_a_save_without_the_outbox_says_how_to_make_it(
    declare, without_table, using, there, latest_wins
):
    Order.objects.using(using).bulk_create([Order(number="A-0"), Order(number="A-1")])
    declare(Order, latest_wins=latest_wins)
    note = [f"The database {using!r} has no outbox: run 'manage.py migrate{there}'."]
    order = Order.objects.using(using).earliest("pk")
    for change in (
        lambda: Order.objects.using(using).create(number="A-2"),
        order.save,
        lambda: enqueue(Order.objects.using(using).all()),
    ):
        with pytest.raises(DatabaseError) as caught:
            change()
        assert caught.value.__notes__ == note


def test_an_error_of_another_kind_gets_no_advice(declare, monkeypatch):
    def refuse(*args, **options):
        raise OperationalError("server gone")

    declare(Order)
    monkeypatch.setattr(outbox, "record", refuse)
    with pytest.raises(OperationalError) as caught, transaction.atomic():
        Order.objects.create()
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize(("code", "noted"), [("42P01", True), ("42703", False)])
@pytest.mark.parametrize("attribute", ["sqlstate", "pgcode"])
def test_postgresql_tells_by_a_code_that_the_table_is_missing(
    declare, monkeypatch, attribute, code, noted
):
    def refuse(*args, **options):
        cause = Exception()
        setattr(cause, attribute, code)
        raise OperationalError from cause

    declare(Order)
    monkeypatch.setattr(outbox, "record", refuse)
    with pytest.raises(OperationalError) as caught, transaction.atomic():
        Order.objects.create()
    assert hasattr(caught.value, "__notes__") == noted
