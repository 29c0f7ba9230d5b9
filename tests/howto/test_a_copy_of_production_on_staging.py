"""The how-to on a copy of production's database."""

from io import StringIO

import pytest
from django.core.management import call_command

from signal_dispatch import Event, ModelDispatch
from signal_dispatch.models import Attempt, Delivery, RemoteObject
from tests import tenants
from tests.deliveries import delivery
from tests.howto.pages import Page
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db(databases=["default", "other"])]

NAME = "how-to/a-copy-of-production-on-staging"
PAGE = Page(NAME)
NAMED = PAGE.block("os.environ")
CALLED = PAGE.block("sandbox")
CLEANING = PAGE.block("This is not staging")
RENAMED = PAGE.block('update(environment="production")')


class Staging:
    environ = {"SITE_ENVIRONMENT": "staging"}


class Production:
    environ = {}


def manage(name, *arguments):
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


@pytest.fixture
def staging(settings):
    """Have the settings of the page, on staging, after a copy of production's rows."""
    names = run(NAMED, os=Staging)
    names["SIGNAL_DISPATCH_ENDPOINTS"] = {
        "crm": {"URL": "https://crm.example.com/api/"},
        "warehouse": {"URL": "https://warehouse.example.com/"},
        "tenant": {"RESOLVER": tenants.PATH},
    }
    given = {name: value for name, value in names.items() if name.startswith("SIGNAL_")}
    for name, value in {**given, **_after(CALLED, given)}.items():
        setattr(settings, name, value)


def _after(code, given):
    names = run(code, **given)
    return {name: value for name, value in names.items() if name.startswith("SIGNAL_")}


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []
    assert {name for name, _options in commands(NAME)} == {"dispatch_status", "dispatch_list"}


def test_production_keeps_the_empty_name():
    assert run(NAMED, os=Production)["SIGNAL_DISPATCH_ENVIRONMENT"] == ""


@pytest.mark.usefixtures("staging")
def test_what_came_with_the_copy_is_not_sent_and_what_is_saved_here_is(
    declare, deliveries, mock_endpoint
):
    declare(Order)
    crm = mock_endpoint("crm")
    crm.reply(200)
    foreign = delivery(environment="")
    failed = delivery(environment="", state="failed", available_at=None)
    Order.objects.create(number="A")
    deliveries.send()
    manage("dispatch_retry")

    assert [call.json["number"] for call in crm.calls] == ["A"]
    states = Delivery.objects.filter(environment="").values_list("pk", "state")
    assert dict(states) == {foreign.pk: "pending", failed.pk: "failed"}
    assert Delivery.objects.get(environment="staging").state == "delivered"


@pytest.mark.usefixtures("staging")
@pytest.mark.parametrize(("endpoint", "recorded"), [("crm", 1), ("warehouse", 0), ("tenant:42", 0)])
def test_nothing_is_recorded_for_those_that_staging_calls_not(declare, endpoint, recorded):
    class ToOne(ModelDispatch):
        def get_endpoint(self, order, change):
            return endpoint

    declare(Order, base=ToOne, endpoint="")
    Order.objects.create(number="A")

    assert Delivery.objects.count() == recorded


@pytest.mark.usefixtures("staging")
def test_status_names_what_is_foreign_and_stays_healthy(declare):
    declare(Order)
    delivery(environment="")
    text = manage("dispatch_status", "--database", "default")

    assert "NOBODY HERE MAY TAKE" in text
    assert "another environment" in text
    assert "If it came with a copy of its database, cancel it." in text
    assert text.rstrip().endswith("Healthy.")


@pytest.mark.usefixtures("staging")
def test_list_shows_whom_staging_calls(declare):
    declare(Order)
    declare(Order, name="shop.ToWarehouse", endpoint="warehouse")
    text = manage("dispatch_list")

    assert "sandbox.crm.example.com" in text
    assert "warehouse.example.com" not in text


#: How the page's calls tell of ids that the remote gives out.
BY_ID = {
    "remote_id": "id",
    "path": {Event.CREATED: "", Event.UPDATED: "{remote_id}"},
    "method": {Event.CREATED: "POST", Event.UPDATED: "PATCH"},
    "on": [Event.UPDATED],
}


def known_there(order, environment):
    """Keep an id that the real remote gave to the order."""
    RemoteObject.objects.create(
        environment=environment,
        dispatch="shop.Told",
        endpoint="crm",
        model="shop.order",
        object_pk=order.pk,
        remote_id="of-production",
    )


@pytest.mark.usefixtures("staging")
def test_ids_of_production_are_not_used_on_staging(declare, deliveries, mock_endpoint):
    declare(Order, **BY_ID)
    order = Order.objects.create(number="A")
    known_there(order, environment="")
    crm = mock_endpoint("crm")
    crm.reply(201, json={"id": "of-the-sandbox"})
    order.save()
    deliveries.send()

    assert [(call.method, call.path) for call in crm.calls] == [("POST", "")]
    run(CLEANING)
    assert RemoteObject.objects.get().remote_id == "of-the-sandbox"


def test_production_keeps_its_ids_under_its_new_name(declare, deliveries, mock_endpoint, settings):
    declare(Order, **BY_ID)
    order = Order.objects.create(number="A")
    known_there(order, environment="")
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "production"
    run(RENAMED)
    crm = mock_endpoint("crm")
    crm.reply(200)
    order.save()
    deliveries.send()

    assert [(call.method, call.path) for call in crm.calls] == [("PATCH", "of-production")]


@pytest.mark.usefixtures("staging")
def test_after_the_cleaning_nothing_of_production_is_left(declare, deliveries, mock_endpoint):
    declare(Order, **BY_ID)
    order = Order.objects.create(number="A")
    foreign = delivery(environment="", state="delivered", object_pk=order.pk)
    Attempt.objects.create(
        delivery=foreign, number=1, outcome="delivered", started_at=foreign.created_at
    )
    known_there(order, environment="")
    crm = mock_endpoint("crm")
    crm.reply(201, json={"id": "of-the-sandbox"})

    run(CLEANING)
    order.save()
    deliveries.send()

    assert [(call.method, call.path) for call in crm.calls] == [("POST", "")]
    assert RemoteObject.objects.get().remote_id == "of-the-sandbox"
    assert set(Delivery.objects.values_list("environment", flat=True)) == {"staging"}


def test_the_cleaning_refuses_to_run_elsewhere(settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = ""
    delivery()
    with pytest.raises(SystemExit, match="not staging"):
        run(CLEANING)
    assert Delivery.objects.count() == 1
