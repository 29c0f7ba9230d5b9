import json
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from signal_dispatch import Event, ModelDispatch
from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery, RemoteObject
from signal_dispatch.registry import registry
from tests import tenants
from tests.shop.models import Customer, Order, OrderProxy, Place, PriorityOrder, Seat, Shipment

pytestmark = pytest.mark.django_db(databases=["default", "other"])

URL = "https://crm.example.com/"


@pytest.fixture
def declare():
    """Register a dispatch that is sound but for the attributes given."""
    declared = []

    def register(*for_models, class_name="ToCRM", **attributes):
        sound = {
            "__module__": "tests.shop.dispatches",
            "endpoint": "crm",
            "fields": ["number"],
            "path": "orders/{number}",
            "method": "PUT",
        }
        made = type(class_name, (ModelDispatch,), sound | attributes)
        registry.add(made, *for_models or [Order])
        declared.append(made)
        return made

    yield register
    for made in declared:
        registry.remove(made)


@pytest.fixture
def order():
    """An order that was there before anything was registered."""
    return Order.objects.create(number="A-1", status="paid")


@pytest.fixture(autouse=True)
def _plain_endpoints(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": URL},
        "hubspot": {"URL": "https://api.hubapi.example/crm/v3/objects/"},
    }


def printed(**options):
    out = StringIO()
    call_command("dispatch_list", stdout=out, **options)
    return out.getvalue()


def shown(instance, **options):
    return printed(object=f"{instance._meta.label_lower}:{instance.pk}", **options)


def answer(value=None):
    return lambda self, *args: value


# --- the table


def test_nothing_registered_is_said():
    assert printed() == "No dispatch is registered: nothing is told to anybody.\n"


def test_mappings_are_an_aligned_table(declare):
    declare(name="shop.OrderToCRM", on=[Event.CREATED, "refunded"])
    declare(
        Place,
        name="shop.PlaceToHubSpot",
        endpoint="hubspot",
        path={"created": "places", "updated": "places/{pk}", "deleted": "places/{pk}"},
        method={"created": "POST", "updated": "PATCH", "deleted": "PATCH"},
    )

    assert printed().splitlines() == [
        "MODEL       DISPATCH             EVENTS             ENDPOINT  HOST                METHOD"
        "  PATH",
        "shop.Order  shop.OrderToCRM      created, refunded  crm       crm.example.com     PUT   "
        "  orders/{number}",
        "shop.Place  shop.PlaceToHubSpot  created            hubspot   api.hubapi.example  POST  "
        "  places",
        "shop.Place  shop.PlaceToHubSpot  updated, deleted   hubspot   api.hubapi.example  PATCH "
        "  places/{pk}",
    ]


def cells(number=1):
    return printed().splitlines()[number].split()


def test_what_hooks_compute_is_named(declare):
    declare(
        on=["created"],
        get_endpoint=answer("crm"),
        get_path=answer("x"),
        get_method=answer("POST"),
    )

    assert cells()[3:] == ["get_endpoint()", "-", "get_method()", "get_path()"]


def test_endpoint_that_settings_do_not_know_is_told(declare):
    declare(on=["created"], endpoint="crn", path="")

    assert cells()[3:] == ["crn", "unknown", "PUT", "-"]


@pytest.mark.parametrize("alias", ["tenant:42", "tenant"])
def test_endpoint_that_a_resolver_names_is_shown_without_asking(declare, settings, alias):
    entry = {"RESOLVER": tenants.PATH}
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": entry}
    declare(on=["created"], endpoint=alias, get_endpoint=answer("tenant:42"))

    assert cells()[3:5] == [alias if ":" in alias else "tenant:…", "(RESOLVER)"]
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": entry | {"ENABLED": False}}
    assert "(ENABLED is False)" in printed()
    assert tenants.asked == []


def test_endpoint_that_is_switched_off_is_told(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": URL, "ENABLED": False}}
    declare()

    assert "(ENABLED is False)" in printed()


def test_table_shows_nothing_of_the_url_but_its_host(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://hooks.example.com/T0/s3cret"}}
    declare()

    out = printed()

    assert "hooks.example.com" in out
    assert "s3cret" not in out


def test_settings_that_can_not_be_used_are_an_error_with_its_path(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "x"}}
    declare()

    with pytest.raises(CommandError, match=r'^SIGNAL_DISPATCH_ENDPOINTS\["crm"\]\["URL"\] must'):
        printed()


# --- the request of one object


def test_request_is_shown_as_it_would_be_sent(declare, order):
    declare(fields=["number", "status"], headers={"Accept": "text/x"}, path="orders/{number}{?pk}")

    lines = shown(order).splitlines()

    assert lines[0] == f"# shop.ToCRM: shop.Order {order.pk}"
    assert lines[1] == f"PUT https://crm.example.com/orders/A-1?pk={order.pk}  (updated, to 'crm')"
    blank = lines.index("")
    assert {"Accept: text/x", "Content-Type: application/json"} < set(lines[2:blank])
    assert any(line.startswith("User-Agent: django-signal-dispatch/") for line in lines[2:blank])
    assert "Idempotency-Key: (one for each delivery)" in lines
    assert json.loads("".join(lines[blank:])) == {"number": "A-1", "status": "paid"}
    assert '  "number": "A-1",' in lines


def test_secrets_of_the_endpoint_are_masked(declare, order, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {
            "URL": "https://hooks.example.com:8443/T0/s3cret?sig=s3cret",
            "HEADERS": {"Authorization": "Bearer s3cret", "accept": "s3cret"},
            "QUERY": {"a key": "s3cret"},
            "AUTH": ("s3cret", "s3cret"),
        }
    }
    declare(headers={"Accept": "text/x"})

    out = shown(order)

    assert "s3cret" not in out
    assert (
        "PUT https://hooks.example.com:8443/[redacted]/orders/A-1?[redacted]&a%20key=[redacted]  ("
        in out
    )
    assert "Authorization: [redacted]" in out
    assert "accept: text/x" in out.lower()
    assert "(AUTH: [redacted])" in out


def test_what_is_asked_for_when_it_is_sent_is_not_asked_for_here(declare, order, settings):
    def vault():
        raise AssertionError("It was asked.")

    whole = dict.fromkeys(["HEADERS", "QUERY", "AUTH", "SECRETS"], vault)
    in_parts = {
        "HEADERS": {"X-Key": vault, "X-Plain": "s3cret"},
        "QUERY": {"key": vault, "plain": "s3cret"},
        "AUTH": ("s3cret", vault),
        "SECRETS": [vault],
    }
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": URL, **whole},
        "hubspot": {"URL": URL, **in_parts},
        "signed": {"URL": URL, "SECRETS": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]},
    }
    declare(get_endpoint=answer(["crm", "hubspot", "signed"]))

    first, second, third = shown(order).split("PUT ")[1:]

    assert first.startswith(f"{URL}orders/A-1  (updated")
    for key in ("HEADERS", "QUERY", "AUTH"):
        assert f"\n({key}: asked when it is sent)\n" in first
    assert "\nwebhook-id: (one for each delivery)\n" in first
    assert "\nwebhook-timestamp: (one for each attempt)\n" in first
    assert "\nwebhook-signature: (asked when it is sent)\n" in first
    assert second.startswith(f"{URL}orders/A-1?key=[redacted]&plain=[redacted]  (updated")
    assert "\nX-Key: (asked when it is sent)\nX-Plain: [redacted]\n" in second
    assert "(HEADERS" not in second
    assert "\n(QUERY: asked when it is sent)\n(AUTH: asked when it is sent)\n" in second
    assert "\nwebhook-signature: (asked when it is sent)\n" in second
    assert "\nwebhook-signature: [redacted]\n" in third
    assert "s3cret" not in second


def test_call_without_path_and_body_shows_neither(declare, order, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://c.example/", "QUERY": {"k": 1}}}
    declare(path="", method="GET")

    out = shown(order)

    assert "GET https://c.example?k=[redacted]  (updated, to 'crm')" in out
    assert "Idempotency-Key" not in out
    assert "A-1" not in out


@pytest.mark.parametrize(
    ("attributes", "body"),
    [
        ({"encoding": "form", "fields": ["number", "status"]}, "number=A-1&status=paid"),
        ({"encode": answer(("<ü/>".encode(), "text/xml"))}, "<ü/>"),
        ({"encode": answer((b"\xff\x00", "image/png"))}, "(2 bytes)"),
    ],
    ids=["form", "text", "bytes"],
)
def test_body_that_is_no_json_is_shown_as_far_as_it_can_be_read(declare, order, attributes, body):
    declare(**attributes)

    assert f"\n\n{body}\n" in shown(order)


def test_each_endpoint_gets_its_request(declare, order):
    declare(get_endpoint=answer(["crm", "hubspot", "unheard"]))

    out = shown(order)

    assert "https://crm.example.com/orders/A-1" in out
    assert "https://api.hubapi.example/[redacted]/orders/A-1" in out
    assert "https://unknown/orders/A-1  (updated, to 'unheard', waits until settings know" in out


def test_request_goes_where_the_resolver_says(declare, order, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": {"RESOLVER": tenants.PATH}}
    tenants.answers["42"] = {"URL": "https://hook.example/s3cret", "HEADERS": {"X-Key": "s3cret"}}
    declare(get_endpoint=answer(["tenant:42", "tenant:7"]))
    out = shown(order)

    assert "PUT https://hook.example/[redacted]/orders/A-1  (updated, to 'tenant:42')" in out
    assert "X-Key: [redacted]" in out
    assert "s3cret" not in out
    assert f"to 'tenant:7', waits: {tenants.PATH}(\"7\") knows no endpoint.)" in out
    tenants.forget()


def test_when_changed_is_a_condition_not_an_obstacle(declare, order):
    asked = []
    declare(
        when_changed=["status", "total"],
        should_send=lambda self, instance, change: not asked.append(change.changed("status")),
    )

    out = shown(order)

    assert "Only by a save that changes status or total." in out
    assert "PUT https://crm.example.com/orders/A-1" in out
    assert asked == [False]


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"on": ["created"]}, "'updated' is not in its 'on'"),
        ({"get_event": answer(None)}, "get_event() answers None"),
        ({"should_send": answer(value=False)}, "should_send() says no"),
        ({"get_endpoint": answer(None)}, "get_endpoint() names no endpoint that is enabled"),
    ],
)
def test_dispatch_that_would_send_nothing_says_why(declare, order, attributes, sentence):
    declare(**attributes)

    assert shown(order).splitlines()[1:] == [f"Nothing is sent: {sentence}.", ""]


def test_endpoint_that_is_switched_off_is_a_reason(declare, order, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": URL, "ENABLED": False}}
    declare()

    assert "Nothing is sent: ENABLED is False for the endpoint 'crm'." in shown(order)


def test_request_that_can_not_be_built_says_why_and_logs_no_advice(
    declare, order, monkeypatch, caplog
):
    monkeypatch.setattr(backends, "live", 1)
    declare(path="orders/{crm_id}")

    out = shown(order)

    assert "Nothing can be sent, the delivery would be FAILED: shop.ToCRM: " in out
    assert "'crm_id' is empty" in out
    assert caplog.records == [], "no delivery was recorded that 'dispatch_retry' could send"


def test_what_is_taken_when_it_is_sent_is_shown_as_it_would_be_now(declare, order):
    declare(snapshot="send")
    shown = printed(object=f"shop.order:{order.pk}")

    assert "Taken when it is sent" in shown
    assert f"PUT {URL}orders/A-1  (updated, to 'crm')" in shown
    assert '"number": "A-1"' in shown


def test_what_could_not_be_taken_when_it_is_sent_says_why_and_logs_no_advice(
    declare, order, monkeypatch, caplog
):
    monkeypatch.setattr(backends, "live", 1)
    declare(snapshot="send", path="orders/{notes}")

    assert "would be FAILED then: " in printed(object=f"shop.order:{order.pk}")
    assert caplog.records == []


def test_request_for_a_known_remote_id_goes_there(declare, order):
    declare(**BY_REMOTE_ID)
    RemoteObject.objects.create(
        dispatch="shop.ToCRM",
        endpoint="crm",
        model="shop.order",
        object_pk=order.pk,
        remote_id="r/7",
    )

    assert "PATCH https://crm.example.com/contacts/r%2F7  (updated, to 'crm')" in shown(order)


def test_request_without_a_remote_id_goes_as_created(declare, order):
    declare(**BY_REMOTE_ID)

    assert "POST https://crm.example.com/contacts  (created, to 'crm')" in shown(order)


def test_deletion_of_what_the_remote_never_knew_is_not_sent(declare, order):
    declare(**BY_REMOTE_ID, get_event=answer(Event.DELETED))

    assert "Nothing is sent to 'crm': it never knew this object." in shown(order)


def test_path_that_needs_an_unknown_remote_id_is_told(declare, order):
    declare(path="contacts/{remote_id}", remote_id="id")

    assert "Nothing can be sent: 'contacts/{remote_id}' needs the remote's id" in shown(order)


BY_REMOTE_ID = {
    "path": {
        "created": "contacts",
        "updated": "contacts/{remote_id}",
        "deleted": "contacts/{remote_id}",
    },
    "method": {"created": "POST", "updated": "PATCH", "deleted": "DELETE"},
    "remote_id": "id",
}


def test_nothing_is_written_even_by_hooks(declare, order):
    def get_payload(self, instance, change):
        Customer.objects.create(name="made by a hook")
        return {"customers": Customer.objects.count()}

    declare(get_payload=get_payload)
    declare(Customer, class_name="Other", path="", fields=["name"])

    assert '"customers": 1' in shown(order)
    assert not Customer.objects.exists()
    assert not Delivery.objects.exists()


# --- which object


def test_child_is_shown_to_its_parent_s_dispatches(declare):
    child = PriorityOrder.objects.create(number="P-1")
    declare()
    declare(PriorityOrder, class_name="Child", path="p/{pk}")
    declare(OrderProxy, class_name="Proxy")

    out = shown(child)

    assert "# shop.ToCRM: " in out
    assert f"https://crm.example.com/p/{child.pk}" in out
    assert "Proxy" not in out


def test_object_that_nobody_is_told_of_is_said(declare, order):
    declare(Place)

    assert shown(order) == "No dispatch is registered for shop.Order: a save tells nobody.\n"


def test_keys_of_every_kind_are_found(declare, order):
    declare(Shipment, Seat, path="x/{pk}", fields=())
    shipment = Shipment.objects.create(pk=UUID(int=7), order=order)
    Seat.objects.create(row="A", number=4)

    assert f"/x/{shipment.pk}  (" in shown(shipment)
    assert "/x/A,4  (" in printed(object='shop.Seat:["A", 4]')


def test_object_is_read_from_the_database_that_is_named(declare):
    declare()
    elsewhere = Order.objects.using("other").create(pk=77, number="B-2")

    assert "orders/B-2" in shown(elsewhere, database="other")
    with pytest.raises(CommandError, match=r"'default' has no shop\.Order with the key 77"):
        shown(elsewhere)


@pytest.mark.parametrize(
    ("named", "cure"),
    [
        ("", "--object '' names no model. Write the model's label and the key: shop.order:7."),
        ("order:7", "Write the model's label and the key: shop.order:7."),
        ("shop.ordr:7", "shop.order:7. Models with a dispatch: shop.Order."),
        ("shop.order", "'' is no key of shop.Order. Write one after the colon: "),
        ("shop.order:A-1", "'A-1' is no key of shop.Order. Write one after the colon: "),
        ("shop.shipment:7", "'7' is no key of shop.Shipment. Write one after the colon: "),
        ("shop.seat:7", 'Write one after the colon: a JSON list, as ["A", 4]'),
        ("shop.seat:A,4", 'Write one after the colon: a JSON list, as ["A", 4]'),
        ("shop.order:7", "Use --database to look into another one."),
    ],
)
def test_object_that_can_not_be_found_is_an_error_that_says_how(declare, named, cure):
    declare()

    with pytest.raises(CommandError) as caught:
        printed(object=named)

    assert cure in str(caught.value)


def test_database_that_does_not_exist_is_an_error_that_names_those_that_do(declare):
    declare()

    with pytest.raises(CommandError, match=r"--database .third. is not known\. Known: default, "):
        printed(object="shop.order:7", database="third")


def test_a_call_by_send_is_shown_without_what_it_does_not_use(declare, order, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"HEADERS": {"Authorization": "s3cret"}}}
    declare(send=answer(None))

    out = shown(order)
    assert "PUT orders/A-1 by send()  (updated, to 'crm')" in out
    assert "Authorization" not in out
    assert '"number": "A-1"' in out
    (line,) = (line.split() for line in printed().splitlines() if "shop.ToCRM" in line)
    assert line[-4:] == ["crm", "-", "PUT", "orders/{number}"]


def test_an_envelope_says_the_event_that_would_be_sent(declare, order):
    declare(**BY_REMOTE_ID, envelope="standard")

    assert '"type": "order.created"' in shown(order)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_files_that_would_go_along_are_mentioned_and_not_opened(declare, order, method):
    opened = []
    declare(get_files=lambda self, delivery: opened.append(delivery), method=method)

    assert ("multipart/form-data, with what get_files()" in shown(order)) == (method == "PUT")
    assert opened == []


def test_what_a_person_typed_does_nothing_to_the_terminal(declare):
    Order.objects.create(pk=77, number="A\x1b[2J\x9b1m\n\u202eB")
    declare(class_name="Quoted")
    declare(
        class_name="Bare",
        get_payload=lambda self, order, change: order.number,
        path="",
        encode=lambda self, payload: (payload.encode(), "text/plain"),
    )
    said = printed(object="shop.order:77")

    assert not set("\x1b\x9b\u202e").intersection(said)
    assert r'"A\u001b[2J\x9b1m\n\u202eB"' in said
    assert "A\\x1b[2J\\x9b1m\n\\u202eB" in said, "the lines of a text stay lines"
