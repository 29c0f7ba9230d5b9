import builtins
import importlib
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery import Celery
from django.contrib.auth.models import User
from django.core.checks import Error, Info, Warning  # noqa: A004 - what these tests compare with
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections, models
from django.test.utils import isolate_apps

import signal_dispatch.backends
from signal_dispatch import Event, ModelDispatch, checks
from signal_dispatch.backends import backends
from signal_dispatch.backends import celery as celery_module
from signal_dispatch.backends.tasks import LIBRARY
from signal_dispatch.checks.problems import Problem
from signal_dispatch.models import Delivery
from signal_dispatch.registry import registry
from tests.fieldzoo.models import Animal, Club
from tests.shop.models import (
    Legacy,
    Order,
    OrderProxy,
    Place,
    PriorityOrder,
    Seat,
    Shipment,
    Stamped,
    Ticket,
    TicketProxy,
)
from tests.tls import write_client

URL = "https://crm.example.com/api/"
WHERE = "tests.test_checks.ToCRM"
PATH = "tests.tenants.endpoint_of"
ENDPOINTS = "SIGNAL_DISPATCH_ENDPOINTS"
BACKENDS = "SIGNAL_DISPATCH_BACKENDS"
THREADS = "signal_dispatch.backends.threads.ThreadsBackend"
CELERY = "signal_dispatch.backends.celery.CeleryBackend"
TASKS = "signal_dispatch.backends.tasks.TasksBackend"


@pytest.fixture(autouse=True)
def _no_advice_about_sqlite(monkeypatch):
    """Let the databases be as a site has them that follows the advice."""
    for alias in connections:
        options = connections[alias].settings_dict["OPTIONS"]
        monkeypatch.setitem(options, "transaction_mode", "IMMEDIATE")


@pytest.fixture
def declare():
    """Register a dispatch that is sound but for the attributes given."""
    declared = []

    def register(*for_models, class_name="ToCRM", bases=(ModelDispatch,), **attributes):
        sound = {"__module__": __name__, "endpoint": "crm", "fields": ["pk"]}
        made = type(class_name, bases, sound | attributes)
        declared.append(made)
        registry.add(made, *for_models or [Order])
        return made

    yield register
    for made in declared:
        registry.remove(made)


def told(problem=None):
    """Return what is wrong, as ``{id: [message and hint]}`` or as the list of one id."""
    found = {}
    for message in checks.check():
        if message.id == Problem.BULK_UNSEEN.id and problem is None:
            continue  # true of nearly every model, and no fault
        found.setdefault(message.id, []).append(f"{message.msg} | {message.hint}")
    return found if problem is None else found.get(problem.id, [])


def answer(value=None):
    return lambda self, *args: value


async def later(self, *args):
    """A hook that somebody would have to await."""


async def in_parts(self, *args):
    """A hook that somebody would have to iterate over."""
    yield


# --- when nothing is wrong


def test_nothing_registered_means_nothing_told(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URl": 3}}
    settings.SIGNAL_DISPATCH_LEASE_SECONDS = -1

    assert checks.check() == []


def test_sound_dispatches_have_nothing_told_of_them(
    declare, settings, authority, trusted, tmp_path
):
    certificate, key = write_client(authority, tmp_path)
    both = tmp_path / "both.pem"
    both.write_text(Path(certificate).read_text() + Path(key).read_text())
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {
            "URL": URL,
            "AUTH": "requests.auth.AuthBase",
            "SESSION": "requests.Session",
            "VERIFY": str(Path(__file__).parent),  # a directory of CA certificates is as good
            "CERT": (certificate, key),
        },
        "erp": {"URL": URL, "VERIFY": trusted, "CERT": str(both)},
        "mail": {"URL": URL, "VERIFY": False},
    }
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {
            "BACKEND": THREADS,
            "OPTIONS": {
                "max_senders": 2,
                "queue_size": 1,
                "queue_bytes": 1,
                "idle_seconds": 0.1,
                "drain_seconds": 1,
                "sweep_seconds": 5,
            },
        }
    }
    declare(
        on=[Event.CREATED, Event.UPDATED, "refunded"],
        path={"created": "orders", "updated": "orders/{remote_id}", "refunded": "r/{pk}{?status}"},
        method={"created": "POST", "updated": "patch", "refunded": "PURGE"},
        fields=("number", "customer__email", "tags", "pk"),
        when_changed=["status", "customer", "customer_id"],
        track=("total",),
        headers={"Accept-Language": "de"},
        remote_id="id",
    )
    declare(OrderProxy, Shipment, Seat, class_name="Several", path="things/{pk}", fields=())
    declare(PriorityOrder, class_name="Child", when_changed=["level"], fields=["number", "level"])

    assert told() == {}


def test_what_hooks_compute_is_not_looked_up(declare):
    declare(
        endpoint="",
        fields=None,
        path={"created": "{nonsense}"},
        method="NO METHOD",
        encoding="xml",
        get_endpoint=answer("crm"),
        get_payload=answer({}),
        get_path=answer("orders"),
        get_method=answer("POST"),
        encode=answer((b"", "text/xml")),
    )
    declare(class_name="Other", path="{anything}/{remote_id}", get_path_values=answer({}))

    assert told() == {}


@pytest.mark.parametrize(
    "attributes",
    [
        {"serializer_class": dict, "fields": None},
        {
            "get_remote_id": answer("7"),
            "path": {"created": "", "updated": "{remote_id}", "deleted": "{remote_id}"},
            "method": {"created": "POST", "updated": "PUT", "deleted": "DELETE"},
        },
    ],
    ids=["serializer", "remote id from a hook"],
)
def test_other_ways_of_declaring_are_as_good(declare, attributes):
    declare(**attributes)

    assert told() == {}


# --- what a dispatch declares

HEADERS = [
    "Authorization",
    "proxy-authorization",
    "Cookie",
    "X-API-Key",
    "ApiKey",
    "x_api_key",
    "X-Auth-Token",
    "X-Auth-Key",
    "Client-Secret",
    "X-Password",
]

DECLARED = [
    (Problem.ENDPOINT_MISSING, {"endpoint": ""}, "names no endpoint"),
    (Problem.ENDPOINT_UNKNOWN, {"endpoint": "crn"}, "'crn', which SIGNAL_DISPATCH_ENDPOINTS"),
    (Problem.ENDPOINT_UNKNOWN, {"endpoint": "crn"}, "Did you mean 'crm'?"),
    (Problem.ENDPOINT_UNKNOWN, {"endpoint": ["crm"]}, "get_endpoint() may name several"),
    (Problem.EVENTS_INVALID, {"on": []}, ".on must be a list"),
    (Problem.EVENTS_INVALID, {"on": "created"}, ".on must be a list"),
    (Problem.EVENTS_INVALID, {"on": None}, ".on must be a list"),
    (Problem.EVENTS_INVALID, {"on": None, "path": "{remote_id}", "remote_id": "id"}, ".on must be"),
    (Problem.EVENTS_INVALID, {"on": ["created", 3]}, ".on must be a list"),
    (Problem.EVENTS_INVALID, {"on": [""]}, ".on must be a list"),
    (Problem.EVENTS_INVALID, {"on": ["x" * 101]}, "longer than 100"),
    (Problem.PAYLOAD_MISSING, {"fields": None}, 'no "all fields" default'),
    (Problem.LOOKUP_UNKNOWN, {"fields": ["numbr"]}, "Did you mean 'number'?"),
    (Problem.LOOKUP_UNKNOWN, {"fields": ["shipment_set"]}, "leads to many objects"),
    (Problem.LOOKUP_UNKNOWN, {"fields": ["tags__name"]}, "leads to many objects"),
    (Problem.LOOKUP_UNKNOWN, {"fields": ["customer__mail"]}, "'mail'"),
    (Problem.LOOKUP_UNKNOWN, {"fields": "number"}, ".fields must be a list"),
    (Problem.LOOKUP_UNKNOWN, {"fields": [None]}, ".fields must be a list"),
    (Problem.TRACKED_INVALID, {"when_changed": ["statos"]}, "Did you mean 'status'?"),
    (Problem.TRACKED_INVALID, {"when_changed": ["tags"]}, "name it in m2m_fields"),
    (Problem.TRACKED_INVALID, {"track": ["customer__email"]}, ".track: 'customer__email'"),
    (Problem.TRACKED_INVALID, {"track": ["pk"]}, "'pk' is no column"),
    (Problem.TRACKED_INVALID, {"when_changed": None}, ".when_changed must be a list"),
    (Problem.TRACKED_INVALID, {"when_changed": "status"}, ".when_changed must be a list"),
    (Problem.TRACKED_INVALID, {"track": None}, ".track must be a list"),
    (Problem.TRACKED_INVALID, {"track": "status"}, ".track must be a list"),
    (Problem.PATH_INVALID, {"path": None}, "None, which is no string"),
    (
        Problem.PATH_INVALID,
        {"path": 3, "remote_id": "id", "on": ["created"]},
        "3, which is no string",
    ),
    (Problem.PATH_INVALID, {"path": "a/{+number}"}, "write '{number}'"),
    (Problem.PATH_INVALID, {"path": "a/{#number}"}, "write '{number}'"),
    (Problem.PATH_INVALID, {"path": "a/{number"}, "without its"),
    (Problem.PATH_INVALID, {"path": "../{number}"}, "'..' segment"),
    (Problem.PATH_INVALID, {"path": dict.fromkeys(Event, 3)}, "3, which is no string"),
    (Problem.PATH_NAME_UNKNOWN, {"path": "a/{numbr}"}, "Did you mean 'number'?"),
    (Problem.PATH_NAME_UNKNOWN, {"path": "a/{customer.email}"}, "get_path_values()"),
    (Problem.PATH_NAME_UNKNOWN, {"path": dict.fromkeys(Event, "{x}")}, ".path has {x}"),
    (Problem.REMOTE_ID_UNDECLARED, {"path": "a/{remote_id}"}, "get_remote_id()"),
    (
        Problem.REMOTE_ID_TOO_EARLY,
        {"path": "{remote_id}", "remote_id": "id", "on": ["created"]},
        "'created'",
    ),
    (
        Problem.REMOTE_ID_UNORDERED,
        {"remote_id": "id", "ordered": False, "on": ["created"]},
        "ordered = True",
    ),
    (
        Problem.REMOTE_ID_UNORDERED,
        {"get_remote_id": answer("7"), "ordered": False, "on": ["created"]},
        "ordered = True",
    ),
    (Problem.EVENT_WITHOUT_ENTRY, {"path": {"created": "a"}, "on": ["created", "paid"]}, "'paid'"),
    (Problem.EVENT_WITHOUT_ENTRY, {"method": {"created": "POST"}}, ".method has no entry for"),
    (Problem.METHOD_INVALID, {"method": "PO ST"}, "'PO ST', which is no HTTP method"),
    (Problem.METHOD_INVALID, {"method": ""}, "no HTTP method"),
    (Problem.METHOD_INVALID, {"method": None}, "no HTTP method"),
    (Problem.METHOD_INVALID, {"method": "X" * 17}, "no HTTP method"),
    (Problem.METHOD_INVALID, {"method": dict.fromkeys(Event, "GET\r\n")}, "no HTTP method"),
    (Problem.VALUE_INVALID, {"encoding": "xml"}, ".encoding is 'xml'. | Use one of"),
    (Problem.VALUE_INVALID, {"envelope": "fancy"}, ".envelope is 'fancy'"),
    (Problem.VALUE_INVALID, {"snapshot": "later"}, ".snapshot is 'later'"),
    (Problem.VALUE_INVALID, {"retry": {"delays": [0]}}, ".retry is no RetryPolicy"),
    (
        Problem.VALUE_INVALID,
        {"remote_id": ["id"], "on": ["created"]},
        ".remote_id must be a string",
    ),
    (Problem.VALUE_INVALID, {"name": "x" * 151}, ".name is longer than 150"),
    (Problem.VALUE_INVALID, {"name": 3}, ".name must be a string"),
    (Problem.VALUE_INVALID, {"name": ["x"]}, ".name must be a string"),
    (Problem.VALUE_INVALID, {"retry": 3}, ".retry is no RetryPolicy"),
    (Problem.VALUE_INVALID, {"headers": None}, ".headers must be a dict"),
    (Problem.VALUE_INVALID, {"headers": ["Accept"]}, ".headers must be a dict"),
    (Problem.VALUE_INVALID, {"headers": {"a b": "c"}}, ".headers holds a name, its number 1,"),
    *((Problem.HEADER_CONFIDENTIAL, {"headers": {name: "x"}}, f"'{name}'") for name in HEADERS),
    (Problem.HEADER_CONFIDENTIAL, {"headers": {"Cookie": "x"}}, f'{ENDPOINTS}["crm"]["HEADERS"]'),
    (Problem.RELATION_INVALID, {"m2m_fields": "tags"}, "must be a list or tuple"),
    (Problem.RELATION_INVALID, {"m2m_fields": ["customer"]}, "no many-to-many relation"),
    (Problem.RELATION_INVALID, {"m2m_fields": ["tgas"]}, "'tgas' of shop.Order"),
    (Problem.RELATION_INVALID, {"m2m_fields": ["tags"], "on": ["created"]}, "not in 'on'"),
    (Problem.LATEST_UNORDERED, {"latest_wins": True, "ordered": False}, "needs ordered = True"),
    (Problem.VALUE_INVALID, {"delay": -3}, ".delay must be 0 seconds or more, and finite. | Write"),
    (Problem.VALUE_INVALID, {"delay": math.inf}, ".delay must be 0 seconds or more, and finite"),
    (Problem.VALUE_INVALID, {"delay": "3"}, ".delay must be a number of seconds"),
    (Problem.VALUE_INVALID, {"delay": False}, ".delay must be a number of seconds"),
    (Problem.VALUE_INVALID, {"latest_wins": "yes"}, "True or False. | Write it without quotes"),
    (Problem.VALUE_INVALID, {"ordered": "no"}, ".ordered must be True or False"),
    (Problem.VALUE_INVALID, {"merge": 0}, ".merge must be True or False"),
    (Problem.VALUE_INVALID, {"merge": None}, ".merge must be True or False"),
    *(
        (Problem.ENVELOPE_NOT_JSON, {"envelope": "standard", name: value}, f"and {words} makes")
        for name, value, words in [
            ("encoding", "form", 'encoding = "form"'),
            ("encode", answer((b"", "text/plain")), "encode()"),
            ("get_files", answer({}), "get_files()"),
        ]
    ),
    (
        Problem.FILES_INVALID,
        {"get_files": answer({}), "method": "GET"},
        "a call by GET has no body",
    ),
    (
        Problem.FILES_INVALID,
        {
            "get_files": answer({}),
            "method": {"created": "get", "updated": "HEAD", "deleted": "GET"},
        },
        "GET or HEAD has no body",
    ),
    (Problem.FILES_INVALID, {"get_files": answer({}), "encode": answer()}, "encode() makes bytes"),
    (Problem.FILES_INVALID, {"get_files": answer({}), "send": answer()}, "send() makes the call"),
    (Problem.SENSITIVE_INVALID, {"sensitive": "pk"}, "must be a list or tuple"),
    (Problem.SENSITIVE_INVALID, {"sensitive": ["pkk"]}, "'pkk', which is not in its fields"),
    (Problem.SENSITIVE_INVALID, {"sensitive": ["pk"], "encode": answer()}, "that encode() makes"),
    (
        Problem.SENSITIVE_IN_PATH,
        {"fields": ["number"], "sensitive": ["number"], "path": "x/{number}"},
        ".path has {number}, which is sensitive",
    ),
    (Problem.HOOK_ASYNC, {"should_send": later}, ".should_send() is async"),
    (Problem.HOOK_ASYNC, {"get_payload": in_parts}, ".get_payload() is async"),
    (Problem.HOOK_ASYNC, {"check": later}, ".check() is async"),
    (
        Problem.HOOK_SIGNATURE,
        {"should_send": lambda self, order: True},
        ".should_send() is called with (instance, change), which it does not take. "
        "| Write 'def should_send(self, instance, change)'.",
    ),
    (
        Problem.HOOK_SIGNATURE,
        {"handle_response": lambda self: None},
        ".handle_response() is called with (delivery, response)",
    ),
    (Problem.ATTRIBUTE_MISSPELT, {"when_change": ["status"]}, "Did you mean 'when_changed'?"),
    (Problem.ATTRIBUTE_MISSPELT, {"shoud_send": answer()}, "Did you mean 'should_send'?"),
    (Problem.ATTRIBUTE_MISSPELT, {"get_paylod": answer({})}, "Did you mean 'get_payload'?"),
    (Problem.METHOD_MISSPELT, {"method": "PSOT"}, ".method holds 'PSOT'. Did you mean 'POST'?"),
    (
        Problem.METHOD_MISSPELT,
        {"method": {"created": "PTU", "updated": "PROPPATCH", "deleted": "DELETE"}},
        "Did you mean 'PUT'?",
    ),
    (Problem.EVENT_MISSPELT, {"on": ["creatd"]}, "'creatd', which no save and no delete ever is"),
    (Problem.EVENT_MISSPELT, {"on": ["updatd"]}, "Did you mean 'updated'? | Write Event.UPDATED"),
    (Problem.EVENT_MISSPELT, {"on": ["update"]}, "Did you mean 'updated'?"),
    (Problem.EVENT_MISSPELT, {"on": ["create"]}, "Did you mean 'created'?"),
    (Problem.EVENT_MISSPELT, {"on": ["delete"]}, "Did you mean 'deleted'?"),
    (Problem.EVENT_MISSPELT, {"on": ["DELETED"]}, "Did you mean 'deleted'?"),
]


@pytest.mark.parametrize(("problem", "attributes", "words"), DECLARED)
def test_faulty_declaration_is_told_with_its_class_and_cure(declare, problem, attributes, words):
    declare(**attributes)

    found = told()

    # One fault is one id: nothing that follows from it is told as well.
    assert list(found) == [problem.id]
    assert any(words in text for text in found[problem.id])
    assert all(text.startswith(WHERE) for text in found[problem.id])


def test_every_fault_is_told_at_once(declare):
    declare(endpoint="crn", fields=["numbr"], path="{numbr}", envelope="standrad")

    assert set(told()) == {
        Problem.ENDPOINT_UNKNOWN.id,
        Problem.LOOKUP_UNKNOWN.id,
        Problem.PATH_NAME_UNKNOWN.id,
        Problem.VALUE_INVALID.id,
    }


def test_what_is_not_seen_of_a_relation_is_told(declare):
    declare(Club, fields=[], m2m_fields=["members", "friends"])

    found = told()
    assert list(found) == [Problem.THROUGH_UNSEEN.id, Problem.RELATION_ONE_SIDED.id]
    assert "fieldzoo.Membership" in found[Problem.THROUGH_UNSEEN.id][0]
    assert "'friends' is symmetrical" in found[Problem.RELATION_ONE_SIDED.id][0]


def test_what_is_declared_right_is_told_nothing(declare):
    declare(m2m_fields=["tags"], latest_wins=True, delay=2.5, snapshot="send")

    assert told() == {}


def test_files_are_no_fault_where_one_of_the_methods_carries_them(declare):
    methods = {"created": "POST", "updated": "PUT", "deleted": "DELETE"}
    declare(get_files=answer({}), method=methods)

    assert told() == {}


@pytest.mark.parametrize(
    "attributes",
    [
        {"fields": ["data", "pk"], "sensitive": ["data.iban", "pk"]},
        {"sensitive": ["iban"], "get_payload": answer({})},
        {"sensitive": ["iban"], "serializer_class": dict},
        {"sensitive": ["pk"], "get_path": answer("{pk}")},
    ],
)
def test_sensitive_names_that_may_be_there_are_no_fault(declare, attributes):
    declare(**attributes)

    assert told() == {}


def test_an_endpoint_needs_no_url_where_send_alone_calls_it(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {}, "other": {"URL": URL}, "unused": {}}
    declare(send=answer())
    declare(endpoint="other", name="shop.Other")
    assert told() == {}
    declare(get_endpoint=answer("other"), name="shop.Any", class_name="Any")

    (text,) = told(Problem.URL_MISSING)
    assert text.startswith(f'{ENDPOINTS}["unused"] lacks "URL"')


def test_fault_of_a_class_is_told_once_for_all_its_models(declare):
    declare(Order, Place, endpoint="")

    assert len(told(Problem.ENDPOINT_MISSING)) == 1


def test_each_unknown_lookup_is_told(declare):
    declare(fields=["numbr", "number", "statos"])

    assert len(told(Problem.LOOKUP_UNKNOWN)) == 2


def test_misspelt_names_of_bases_are_told(declare):
    class Base(ModelDispatch):
        handle_reponse = answer()

    class Mixin:
        field = ("number",)

    declare(bases=(Base, Mixin))

    field, handler = told(Problem.ATTRIBUTE_MISSPELT)

    assert "Did you mean 'fields'?" in field
    assert "Did you mean 'handle_response'?" in handler


def test_names_of_the_site_s_own_are_not_told(declare):
    declare(
        on=["recreated", "undeleted", "paid", "uploaded"],
        when_paid=answer(),
        get_customer=answer(),
        _shoud_send=answer(),
        fetch=later,
        model=Order,
    )

    assert told() == {}


def test_empty_lists_of_what_is_not_yet_built_ask_for_nothing(declare):
    declare(m2m_fields=[], latest_wins=False, delay=0.0)

    assert told() == {}


DICTS = {
    "path": {"created": "orders", "updated": "orders/{remote_id}", "deleted": "o/{remote_id}"},
    "method": {"created": "POST", "updated": "PATCH", "deleted": "DELETE"},
}


@pytest.mark.parametrize(
    ("attributes", "events"),
    [
        ({"path": "orders"}, ["updated", "deleted"]),
        ({}, ["updated", "deleted"]),
        ({"path": "orders", "on": ["created", "updated"]}, ["updated"]),
        ({"path": dict.fromkeys(Event, "orders")}, ["updated", "deleted"]),
        ({"path": DICTS["path"] | {"deleted": "orders"}}, ["deleted"]),
        ({"path": "orders", "remote_id": "", "get_remote_id": answer("7")}, ["updated", "deleted"]),
    ],
)
def test_calls_that_name_no_object_are_told_where_ids_are_kept(declare, attributes, events):
    declare(**{"remote_id": "id", "method": DICTS["method"]} | attributes)

    found = told()
    assert list(found) == [Problem.COLLECTION_CALLED.id]
    for text, event in zip(found[Problem.COLLECTION_CALLED.id], events, strict=True):
        assert text.startswith(f"{WHERE}.path sends {event!r} with {DICTS['method'][event]} to ")
        assert "{remote_id}" in text.partition(" | ")[2]


@pytest.mark.parametrize("method", ["POST", "PUT", "patch"])
def test_a_delete_that_is_sent_as_any_change_is_told_where_ids_are_kept(declare, method):
    declare(remote_id="id", path=DICTS["path"], method=method)

    found = told()
    assert list(found) == [Problem.DELETED_AS_CHANGE.id]
    (text,) = found[Problem.DELETED_AS_CHANGE.id]
    assert text.startswith(f"{WHERE}.method sends 'deleted' with {method.upper()}, as ")
    assert 'Event.DELETED: "DELETE"' in text


@pytest.mark.parametrize(
    "attributes",
    [
        # As a webhook has it: what the event was stands in the body, and no id is kept.
        {},
        {"path": "hook"},
        {"method": "PUT"},
        {"remote_id": "id", **DICTS},
        # By a key of our own.
        {"remote_id": "id", "path": "orders/{number}", "method": DICTS["method"]},
        {"remote_id": "id", "path": "orders{?number}", "method": DICTS["method"]},
        # What is computed only the objects know.
        {"remote_id": "id", "get_path": answer("orders"), "method": DICTS["method"]},
        {"remote_id": "id", "path": DICTS["path"], "get_method": answer("POST")},
        # Written for that event, so it is meant.
        {"remote_id": "id", "path": DICTS["path"], "method": dict.fromkeys(Event, "POST")},
        {"remote_id": "id", "path": "{remote_id}", "on": ["deleted"], "method": "POST"},
        {"remote_id": "id", "on": ["created"]},
        {"remote_id": "id", "path": DICTS["path"], "on": ["created", "updated"]},
    ],
)
def test_nothing_is_told_where_calls_name_their_object(declare, attributes):
    declare(**attributes)

    assert told() == {}


def test_remote_id_may_be_the_model_s_own_attribute(declare, monkeypatch):
    monkeypatch.setattr(Order, "remote_id", property(lambda self: self.crm_id), raising=False)
    declare(path="orders/{remote_id}")

    assert told() == {}


def test_remote_id_in_a_path_that_creates_nothing_is_fine(declare):
    declare(path="orders/{remote_id}", on=[Event.UPDATED], remote_id="id")

    assert told() == {}


def test_column_of_a_parent_s_table_can_not_be_tracked(declare):
    declare(PriorityOrder, when_changed=["number"])

    assert "'number' is a column of shop.Order" in told(Problem.TRACKED_INVALID)[0]


def test_column_that_the_database_computes_can_not_be_tracked(declare, monkeypatch):
    monkeypatch.setattr(Animal._meta.get_field("age"), "generated", True, raising=False)
    declare(Animal, track=["age"])

    assert "computed by the database" in told(Problem.TRACKED_INVALID)[0]


def test_name_of_two_classes_is_told(declare):
    declare(class_name="Old")
    declare(Place, class_name="Old", __qualname__="Elsewhere.Old")

    (text,) = told(Problem.NAME_TAKEN)

    assert "tests.test_checks.Elsewhere.Old has the name" in text
    assert "as has tests.test_checks.Old." in text


def test_stored_name_is_taken_even_by_a_class_of_another_name(declare):
    declare(name="shop.ToCRM")
    declare(class_name="New", name="shop.ToCRM")

    assert len(told(Problem.NAME_TAKEN)) == 1


# --- the model and its database


@pytest.mark.parametrize(
    ("model", "words", "cure"),
    [
        (Stamped, "abstract", "Register it for the models that inherit from it."),
        (Legacy, "unmanaged", "Register it for a model whose table Django manages."),
        (Delivery, "belongs to the outbox", "Take it out, and connect to signal_dispatch.signals"),
    ],
)
def test_model_without_a_table_of_its_own_is_refused(declare, model, words, cure):
    declare(model, fields=["no_such_field"])

    found = told()

    assert list(found) == [Problem.MODEL_REFUSED.id]
    assert words in found[Problem.MODEL_REFUSED.id][0]
    assert f" | {cure}" in found[Problem.MODEL_REFUSED.id][0]


def test_swapped_model_is_refused(declare, monkeypatch):
    monkeypatch.setattr(Place._meta, "swapped", "shop.Spot")
    declare(Place)

    assert "swapped for shop.Spot. | Register it for shop.Spot." in told(Problem.MODEL_REFUSED)[0]


@isolate_apps("tests.shop")
def models_with_keys(longest):
    """Return models whose keys are as JSON text as long as that, each in another way."""

    class Plain(models.Model):
        code = models.CharField(primary_key=True, max_length=longest - 2)

        class Meta:
            app_label = "shop"

    class Related(models.Model):
        plain = models.OneToOneField(Plain, models.CASCADE, primary_key=True)

        class Meta:
            app_label = "shop"

    class Composite(models.Model):
        pk = models.CompositePrimaryKey("code", "number", "key")
        code = models.CharField(max_length=longest - len('["",,]') - 20 - 40)
        number = models.BigIntegerField()
        key = models.UUIDField()

        class Meta:
            app_label = "shop"

    return [Plain, Related, Composite]


def test_keys_that_just_fit_the_outbox_are_fine(declare):
    declare(*models_with_keys(255))

    assert told() == {}


def test_keys_that_can_be_too_long_for_the_outbox_are_told(declare):
    declare(*models_with_keys(256))

    plain, related, composite = told(Problem.KEY_TOO_LONG)

    assert plain.startswith(f"{WHERE}: a primary key of shop.Plain (shop.Plain.code) can be longer")
    assert "Let shop.Plain.code be a CharField with a max_length of 253 or less" in plain
    assert "of shop.Related (shop.Plain.code)" in related
    assert "(shop.Composite.code, shop.Composite.number, shop.Composite.key)" in composite
    assert "max_length of its parts" in composite


@pytest.mark.parametrize("column", [models.CharField, models.TextField])
@isolate_apps("tests.shop")
def test_keys_without_a_limit_are_told(declare, column):
    class Endless(models.Model):
        code = column(primary_key=True)

        class Meta:
            app_label = "shop"

    declare(Endless)

    assert list(told()) == [Problem.KEY_TOO_LONG.id]


class ShopElsewhere:
    """Writes the shop to a database that gets no table of this package."""

    def db_for_write(self, model, **hints):
        return "other" if model._meta.app_label == "shop" else None

    def allow_migrate(self, db, app_label, **hints):
        return app_label != "signal_dispatch" or db == "default"


def test_database_without_an_outbox_is_told(declare, settings):
    settings.DATABASE_ROUTERS = [f"{__name__}.ShopElsewhere"]
    declare()

    (text,) = told(Problem.OUTBOX_MISSING)

    assert "shop.Order is written to the database 'other'" in text
    assert "no table for signal_dispatch.Delivery, " in text
    assert "allow_migrate('other', 'signal_dispatch', ...) return True or None, and run " in text
    assert "'manage.py migrate --database other'" in text


def test_models_on_a_database_with_an_outbox_are_fine(declare, settings):
    settings.DATABASE_ROUTERS = [f"{__name__}.ShopElsewhere"]
    declare(User)

    assert told() == {}


@pytest.mark.parametrize("mode", [None, "deferred"])
def test_sqlite_in_its_default_mode_is_warned_of_once(declare, monkeypatch, mode):
    connection = connections["default"]
    monkeypatch.setattr(connection, "vendor", "sqlite")
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "transaction_mode", mode)
    declare(Order, Place)

    (text,) = told(Problem.SQLITE_NOT_IMMEDIATE)

    entry = '"transaction_mode": "IMMEDIATE"'
    assert f'Add {entry} to the "OPTIONS" of DATABASES["default"].' in text
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", {})
    (text,) = told(Problem.SQLITE_NOT_IMMEDIATE)
    assert f'Add "OPTIONS": {{{entry}}} to DATABASES["default"].' in text


def test_other_databases_have_no_such_mode(declare, monkeypatch):
    monkeypatch.setattr(connections["default"], "vendor", "postgresql")
    monkeypatch.setitem(connections["default"].settings_dict, "OPTIONS", {})
    declare()

    assert told() == {}


# --- settings


async def async_vault():
    return {}


CONFIGURED = [
    (Problem.SETTING_INVALID, {ENDPOINTS: []}, "SIGNAL_DISPATCH_ENDPOINTS must be a dict"),
    (Problem.SETTING_INVALID, {BACKENDS: 3}, "SIGNAL_DISPATCH_BACKENDS must be a dict"),
    (Problem.SETTING_INVALID, {"SIGNAL_DISPATCH_LEASE_SECONDS": "60"}, "a number of seconds"),
    (Problem.SETTING_INVALID, {"SIGNAL_DISPATCH_RETENTION": {"x": 1}}, "does not know 'x'"),
    (Problem.SETTING_INVALID, {"SIGNAL_DISPATCH_ENVIRONMENT": 3}, "ENVIRONMENT must be a string"),
    (Problem.SETTING_INVALID, {"SIGNAL_DISPATCH_ENVIRONMENT": "x" * 64}, "longer than 63"),
    (Problem.SETTING_UNKNOWN, {"SIGNAL_DISPATCH_ENVIROMENT": "x"}, "_ENVIRONMENT'?"),
    (Problem.ENDPOINT_INVALID, {ENDPOINTS: {"crm": {"URL": "crm.example.com"}}}, '["crm"]["URL"]'),
    (
        Problem.ENDPOINT_INVALID,
        {ENDPOINTS: {"crm": {"URL": URL, "TIMOUT": 3}}},
        "did you mean TIMEOUT?",
    ),
    (Problem.ENDPOINT_INVALID, {ENDPOINTS: {"crm": {"URL": URL, "VERIFY": ""}}}, '["VERIFY"]'),
    (
        Problem.ENDPOINT_INVALID,
        {ENDPOINTS: {"crm": {"URL": URL, "AUTH": "shop.nowhere.auth"}}},
        '["crm"]["AUTH"] can\'t be imported',
    ),
    (
        Problem.ENDPOINT_INVALID,
        {ENDPOINTS: {"crm": {"URL": URL, "SESSION": "sys.path"}}},
        '["crm"]["SESSION"] names something that is not callable',
    ),
    (
        Problem.ENDPOINT_INVALID,
        {ENDPOINTS: {"crm": {"URL": URL}, "x" * 151: {"URL": URL}}},
        "alias of at most 150",
    ),
    *(
        (Problem.ENDPOINT_INVALID, {ENDPOINTS: {"crm": {"URL": URL, key: value}}}, words)
        for key, value, words in [
            ("HEADERS", "shop.nowhere.headers", '["HEADERS"] can\'t be imported (ModuleNotFound'),
            ("QUERY", "tests.test_checks.nowhere", '["QUERY"] can\'t be imported (ImportError)'),
            ("SECRETS", "sys.path", '["SECRETS"] names something that is not callable'),
            ("AUTH", "sys.path", '["AUTH"] names something that is not callable'),
            ("PROXIES", {"HTTPS": "http://p.example"}, '["PROXIES"] must have names such as'),
            ("PROXIES", {"https": "p.example:3128"}, '["PROXIES"] must hold URLs, as'),
        ]
    ),
    *(
        (Problem.CREDENTIAL_UNASKABLE, {ENDPOINTS: {"crm": {"URL": URL, key: value}}}, words)
        for key, value, words in [
            ("HEADERS", async_vault, '["HEADERS"] is an async function'),
            ("QUERY", "tests.test_checks.async_vault", '["QUERY"] is an async function'),
            ("HEADERS", {"X-Key": async_vault}, '["HEADERS"]["X-Key"] is an async function'),
            ("QUERY", {"key": answer()}, '["QUERY"]["key"] can\'t be called without arguments'),
            ("AUTH", ("user", answer()), '["AUTH"][1] can\'t be called without arguments'),
            ("AUTH", "requests.auth.HTTPDigestAuth", '["AUTH"] can\'t be called without'),
            ("SECRETS", [answer()], '["SECRETS"][0] can\'t be called without arguments'),
        ]
    ),
    *(
        (Problem.CERTIFICATE_UNUSABLE, {ENDPOINTS: {"crm": {"URL": URL, key: value}}}, words)
        for key, value, words in [
            ("CERT", __file__, '["crm"]["CERT"] can\'t be used: '),
            ("CERT", (__file__, __file__), '["crm"]["CERT"] can\'t be used: '),
            ("VERIFY", __file__, '["crm"]["VERIFY"] can\'t be used: '),
        ]
    ),
    (
        Problem.SIGNING_KEY_SHORT,
        {ENDPOINTS: {"crm": {"URL": URL, "SECRETS": ["whsec_" + "A" * 32, "whsec_AAEC"]}}},
        '["crm"]["SECRETS"][1] is shorter than 24 bytes',
    ),
    (
        Problem.SIGNING_KEY_SHORT,
        {ENDPOINTS: {"crm": {"URL": URL, "SECRETS": [str, "whsec_AAEC"]}}},
        '["crm"]["SECRETS"][1] is shorter than 24 bytes',
    ),
    *(
        (Problem.ENDPOINT_INVALID, {ENDPOINTS: {"crm": {"URL": URL, key: value}}}, words)
        for key, value, words in [
            ("VERIFY", "/nowhere/ca.pem", '["crm"]["VERIFY"] is the path of a file that does not'),
            ("CERT", "/nowhere/client.pem", '["crm"]["CERT"] is the path of a file that does not'),
            ("CERT", (__file__, "no.key"), '["crm"]["CERT"][1] is the path of a file that does'),
            ("CERT", (__file__, ""), '["CERT"][1] is the path'),
            ("CERT", "-----BEGIN PRIVATE KEY-----\n" * 500, '["crm"]["CERT"] is the path'),
            ("CERT", "nul\x00", '["crm"]["CERT"] is the path'),
        ]
    ),
    *(
        (
            Problem.BACKEND_INVALID,
            {BACKENDS: {"default": {"BACKEND": THREADS, "OPTIONS": {option: value}}}},
            f'["default"]["OPTIONS"] can\'t be used: {words}',
        )
        for option, value, words in [
            ("max_senders", 0, "max_senders must be a whole number, at least 1."),
            ("max_senders", 2.5, "max_senders must be a whole number"),
            ("queue_size", -1, "queue_size must be a whole number"),
            ("queue_bytes", "64", "queue_bytes must be a whole number"),
            ("idle_seconds", 0, "idle_seconds must be more than 0 seconds"),
            ("drain_seconds", -5, "drain_seconds must be more than 0 seconds"),
            ("sweep_seconds", "15", "sweep_seconds must be a number of seconds"),
            ("senders", 3, "ThreadsBackend takes no option 'senders'. It takes max_senders, "),
            ("keep_errors", True, "ThreadsBackend takes no option 'keep_errors'."),
            ("alias", "x", "ThreadsBackend takes no option 'alias'."),
        ]
    ),
    *(
        (problem, {ENDPOINTS: {"crm": {"URL": URL}, "tenant": {"RESOLVER": PATH, **entry}}}, words)
        for problem, entry, words in [
            (
                Problem.ENDPOINT_INVALID,
                {"RESOLVER": "tests.nowhere.endpoint_of"},
                '["tenant"]["RESOLVER"] can\'t be imported',
            ),
            (Problem.ENDPOINT_INVALID, {"RESOLVER": "here"}, "must be a dotted path"),
            (Problem.RESOLVER_INVALID, {"RESOLVER": "sys.path"}, "sys.path, which is not callable"),
            (
                Problem.RESOLVER_INVALID,
                {"RESOLVER": "tests.tenants.answering_never"},
                "which is async, and nobody would await it",
            ),
            (
                Problem.RESOLVER_INVALID,
                {"RESOLVER": "tests.tenants.of_nobody"},
                "which can't be called with one argument, the key",
            ),
            (
                Problem.RESOLVER_SHARES_SECRETS,
                {"HEADERS": {"X-Api-Key": "s3cret"}},
                '["tenant"]["HEADERS"] is sent to every URL that its RESOLVER names',
            ),
            (Problem.RESOLVER_SHARES_SECRETS, {"AUTH": ("me", "s3cret")}, '["tenant"]["AUTH"]'),
            (Problem.RESOLVER_SHARES_SECRETS, {"QUERY": {"key": "s3cret"}}, '["tenant"]["QUERY"]'),
        ]
    ),
    *(
        (Problem.ENDPOINT_INVALID, {ENDPOINTS: {"crm": {"URL": URL, key: value}}}, words)
        for key, value, words in [
            ("ALLOW_PRIVATE_ADDRESSES", 0, '["ALLOW_PRIVATE_ADDRESSES"] must be True or False.'),
            ("PORTS", 443, '["crm"]["PORTS"] must be a list of ports, and not empty.'),
            ("PORTS", [0], '["crm"]["PORTS"] must hold whole numbers from 1 to 65535.'),
            ("REDACT", "token", '["crm"]["REDACT"] must be a list of names'),
            ("REDACT", [""], '["crm"]["REDACT"] must hold names only'),
            ("DEADLINE", 0, '["crm"]["DEADLINE"] must be more than 0 seconds, and finite.'),
            ("TIMEOUT", (1, 2, 3), '["crm"]["TIMEOUT"] must be a pair of seconds'),
            ("MAX_RESPONSE_BYTES", "64k", '["MAX_RESPONSE_BYTES"] must be a whole number'),
        ]
    ),
    *(
        (problem, {ENDPOINTS: {"crm": {"ALLOW_PRIVATE_ADDRESSES": False, **entry}}}, words)
        for problem, entry, words in [
            (
                Problem.PORT_REFUSED,
                {"URL": "https://crm.example.com:8443/"},
                '["crm"]["PORTS"] = [80, 443, 8443]',
            ),
            (Problem.PORT_REFUSED, {"URL": URL, "PORTS": [8443]}, "has the port 443"),
            (
                Problem.ADDRESS_REFUSED,
                {"URL": "https://169.254.169.254/"},
                '["crm"]["URL"] is an address that is not public',
            ),
            (
                Problem.ADDRESS_REFUSED,
                {"URL": "https://169.254.169.254/"},
                f'Set {ENDPOINTS}["crm"]["ALLOW_PRIVATE_ADDRESSES"] = True',
            ),
            (Problem.ADDRESS_REFUSED, {"URL": "https://[::ffff:7f00:1]/"}, "is not public"),
            (Problem.ADDRESS_REFUSED, {"URL": "http://2130706433/"}, "is not public"),
            (
                Problem.GUARD_BEHIND_PROXY,
                {"URL": URL, "PROXIES": {"https": "http://proxy.example:3128"}},
                '["crm"]["PROXIES"] makes the proxy look names up',
            ),
        ]
    ),
    (
        Problem.PORTS_UNUSED,
        {ENDPOINTS: {"crm": {"URL": URL, "PORTS": [443]}}},
        '["crm"]["PORTS"] does nothing while ALLOW_PRIVATE_ADDRESSES is True',
    ),
    *(
        (
            Problem.HTTP_TO_PUBLIC,
            {ENDPOINTS: {"crm": {"URL": url}}},
            'SIGNAL_DISPATCH_ENDPOINTS["crm"]["URL"] is plain http to a public host',
        )
        for url in ["http://crm.example.com/", "http://CRM.Example.COM.:8080/", "http://1.1.1.1/"]
    ),
    (
        Problem.URL_MISSING,
        {ENDPOINTS: {"crm": {"HEADERS": {}}}},
        f'["crm"] lacks "URL", the address of the API that {WHERE} calls.',
    ),
    (
        Problem.BACKEND_UNKNOWN,
        {ENDPOINTS: {"crm": {"URL": URL, "BACKEND": "defalt"}}},
        "Did you mean 'default'?",
    ),
    (
        Problem.BACKEND_UNKNOWN,
        {BACKENDS: {"main": {"BACKEND": THREADS}}},
        """["crm"]["BACKEND"] names 'default' (its default), which SIGNAL_DISPATCH_BACKENDS does""",
    ),
    (Problem.BACKEND_INVALID, {BACKENDS: {"default": {}}}, '["default"] lacks "BACKEND"'),
    (
        Problem.BACKEND_INVALID,
        {BACKENDS: {"default": {"BACKEND": "shop.nowhere.Backend"}}},
        f"names no backend class: No module named 'shop'. Those of this package are {THREADS}, ",
    ),
    (
        Problem.BACKEND_INVALID,
        {BACKENDS: {"default": {"BACKEND": "signal_dispatch.backends.thread.ThreadsBackend"}}},
        f"named 'signal_dispatch.backends.thread'. Did you mean {THREADS!r}?",
    ),
    (
        Problem.BACKEND_INVALID,
        {BACKENDS: {"default": {"BACKEND": CELERY, "OPTIONS": {"app": "tests.nowhere.app"}}}},
        'BACKENDS["default"]["OPTIONS"] can\'t be used: app No module named \'tests.nowhere\'',
    ),
    (
        Problem.TASKS_UNUSABLE,
        {BACKENDS: {"default": {"BACKEND": TASKS, "OPTIONS": {"tasks": "slow"}}}},
        "can't use TASKS[\"slow\"] and its queue 'default': ",
    ),
    *(
        (
            Problem.TASKS_WITHOUT_WORKERS,
            {
                BACKENDS: {"default": {"BACKEND": TASKS}},
                "TASKS": {"default": {"BACKEND": f"{LIBRARY}.backends.{name}"}},
            },
            sentence,
        )
        for name, sentence in [
            ("immediate.ImmediateBackend", "by a thread of the process that saves"),
            ("dummy.DummyBackend", "they are never made"),
        ]
    ),
    (
        Problem.BACKEND_INVALID,
        {BACKENDS: {"default": {"BACKEND": "builtins.str"}}},
        "is 'builtins.str', which is no subclass of signal_dispatch.backends.BaseBackend",
    ),
    (
        Problem.BACKEND_INVALID,
        {
            BACKENDS: {
                "default": {
                    "BACKEND": "signal_dispatch.backends.deferred.DeferredBackend",
                    "OPTIONS": {"speed": 3},
                }
            }
        },
        '["default"]["OPTIONS"]',
    ),
    (
        Problem.BACKEND_INVALID,
        {
            BACKENDS: {
                "default": {
                    "BACKEND": "signal_dispatch.backends.deferred.DeferredBackend",
                    "OPTION": {},
                }
            }
        },
        '["default"]["OPTION"] is no key of a backend',
    ),
    (
        Problem.ENDPOINT_INVALID,
        {ENDPOINTS: {"crm": {"URL": URL, "BREAKER": {"share": 70}}}},
        '["crm"]["BREAKER"] holds \'share\', which must be a number above 0',
    ),
    (
        Problem.RATE_STORAGE_UNUSABLE,
        {"SIGNAL_DISPATCH_RATE_STORAGE": "carrier-pigeon://roof"},
        "names no storage of the library limits",
    ),
    (Problem.LEASE_TOO_SHORT, {"SIGNAL_DISPATCH_LEASE_SECONDS": 16}, "to 19 or more"),
    (
        Problem.LEASE_TOO_SHORT,
        {ENDPOINTS: {"crm": {"URL": URL, "DEADLINE": 59}}},
        'DEADLINE of SIGNAL_DISPATCH_ENDPOINTS["crm"] (59)',
    ),
    (
        Problem.IMMEDIATE_OUTSIDE_DEBUG,
        {BACKENDS: {"default": {"BACKEND": "signal_dispatch.backends.immediate.ImmediateBackend"}}},
        "is the ImmediateBackend",
    ),
    (
        Problem.BACKEND_INVALID,
        {BACKENDS: {"default": {"BACKEND": 3}}},
        "is 3, which is no subclass of",
    ),
]


@pytest.mark.parametrize(
    "host",
    [
        "localhost:8000",
        "127.0.0.1:8000",
        "10.1.2.3",
        "[::1]",
        "crm",
        "crm.local",
        "crm.internal",
        "crm.internal.",
        "crm.test",
        "crm.example",
        "crm.localhost",
        "crm.home.arpa",
    ],
)
def test_plain_http_to_somewhere_near_is_nobodys_business(declare, settings, host):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": f"http://{host}/"}}
    declare()

    assert told() == {}


def test_a_guarded_endpoint_with_a_public_name_is_sound(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": URL, "ALLOW_PRIVATE_ADDRESSES": False, "PORTS": [443], "REDACT": ["token"]}
    }
    declare(remote_id="data.id", on=[Event.CREATED])

    assert told() == {}


@pytest.mark.parametrize("remote_id", ["access_token", "data.accessToken", "accesstoken.id"])
def test_remote_id_that_is_masked_in_kept_answers_is_told(declare, settings, remote_id):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": URL, "REDACT": ["access_token"]}}
    declare(remote_id=remote_id)

    (message,) = told(Problem.REMOTE_ID_REDACTED)
    assert message.startswith(f"{WHERE}.remote_id reads ")
    assert f'{ENDPOINTS}["crm"]["REDACT"] masks' in message


@pytest.mark.parametrize(("problem", "changed", "words"), CONFIGURED)
def test_faulty_setting_is_told_with_its_path_and_cure(declare, settings, problem, changed, words):
    for name, value in changed.items():
        setattr(settings, name, value)
    declare(get_endpoint=answer("crm"))

    found = told()

    assert list(found) == [problem.id]
    assert any(words in text for text in found[problem.id])
    assert all(text.startswith("SIGNAL_DISPATCH_") for text in found[problem.id])


@pytest.mark.parametrize(
    "name", ["SIGNALDISPATCH_ENDPOINTS", "SIGNALS_DISPATCH_ENDPOINTS", "SIGNAL_DISPATCH_ENDPOINT"]
)
def test_a_setting_whose_name_is_almost_ours_is_told(declare, settings, name):
    declare()
    setattr(settings, name, {})
    settings.SIGNALS_DISPATCHER = settings.DISPATCH_ENDPOINTS = "somebody else's"

    [said] = told(Problem.SETTING_UNKNOWN)
    assert said.startswith(f"{name} is no setting of signal_dispatch, so it does nothing. | ")
    assert "Did you mean 'SIGNAL_DISPATCH_ENDPOINTS'?" in said


def test_no_message_repeats_a_secret(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {
            "URL": "ftp://hooks.example.com/T00/s3cret",
            "HEADERS": {"Authorization": "s3cret\n"},
            "AUTH": ["s3cret"],
            "QUERY": {"key": b"s3cret"},
            "SECRETS": ["s3cret"],
            "RATE": "s3cret",
            "CERT": "s3cret",
            "PROXIES": {"https": "shop:s3cret@proxy.example"},
        },
        "erp": {
            "URL": "https://erp.example.com/",
            "HEADERS": {"Bearer s3cret": "Authorization"},
            "QUERY": "s3cret.s3cret.s3cret",
            "AUTH": "s3cret.s3cret.s3cret",
            "SECRETS": "s3cret",
            "PROXIES": {"s3cret": "http://proxy.example"},
        },
    }
    declare(headers={"X-Token": "s3cret"})

    assert "s3cret" not in repr(checks.check())


def test_nothing_is_asked_for_by_a_check(declare, settings):
    def vault():
        raise AssertionError("It was asked.")

    keys = dict.fromkeys(["HEADERS", "QUERY", "AUTH", "SECRETS"], vault)
    parts = {"HEADERS": {"X": vault}, "QUERY": {"x": vault}, "AUTH": (vault, vault)}
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": URL, **keys},
        "erp": {"URL": URL, **parts, "SECRETS": [vault]},
        "kept": {"URL": URL, "AUTH": "tests.test_credentials.kept_digest"},
    }
    declare()

    assert told() == {}


def test_key_with_a_password_is_refused_without_asking_for_it(
    declare, settings, authority, tmp_path
):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": URL, "CERT": write_client(authority, tmp_path, password=b"s3cret")}
    }
    declare()

    (text,) = told(Problem.CERTIFICATE_UNUSABLE)
    assert '["CERT"] can\'t be used' in text


def test_nameless_installation_is_no_fault_and_no_message_says_so(declare, settings):
    declare()

    settings.SIGNAL_DISPATCH_ENVIRONMENT = ""
    assert told() == {}

    settings.SIGNAL_DISPATCH_ENVIRONMENT = None
    (text,) = told(Problem.SETTING_INVALID)
    assert "not empty" not in text
    assert "ENVIRONMENT must be a string." in text


def test_a_storage_of_rates_needs_its_library(settings, declare, monkeypatch):
    declare()
    settings.SIGNAL_DISPATCH_RATE_STORAGE = "redis://127.0.0.1/0"
    assert told(Problem.RATE_LIBRARY_MISSING) == []
    monkeypatch.setitem(sys.modules, "limits", None)
    monkeypatch.delitem(sys.modules, "signal_dispatch.shared_rates", raising=False)
    monkeypatch.delattr("signal_dispatch.shared_rates", raising=False)

    (text,) = told(Problem.RATE_LIBRARY_MISSING)
    assert "Install django-signal-dispatch[rate]" in text


def test_each_faulty_setting_is_told_although_others_are_faulty(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "x", "CERT": 3}, "erp": {"RATE": "1/x"}}
    settings.SIGNAL_DISPATCH_LEASE_SECONDS = 0
    declare(endpoint="erp")

    found = told()

    assert len(found[Problem.ENDPOINT_INVALID.id]) == 3
    assert len(found[Problem.SETTING_INVALID.id]) == 1
    assert len(found[Problem.URL_MISSING.id]) == 1


@pytest.mark.parametrize(
    "entry",
    [
        {"HEADERS": {"Accept-Language": "de"}},
        {"URL": URL, "HEADERS": {"X-Api-Key": "s3cret"}, "AUTH": ("me", "s3cret")},
        {"RESOLVER": "builtins.str"},  # one of those that tell nothing of what they take
        {"RESOLVER": "builtins.dict"},
    ],
)
def test_resolver_is_sound_with_a_url_of_its_own_or_nothing_secret(declare, settings, entry):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": {"RESOLVER": PATH, **entry}}
    declare(endpoint="tenant:42")

    assert told() == {}


def test_backend_of_a_family_is_used_by_the_dispatch_that_names_one_of_it(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": {"RESOLVER": PATH, "BACKEND": "now"}}
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {"BACKEND": "signal_dispatch.backends.deferred.DeferredBackend"},
        "now": {"BACKEND": "signal_dispatch.backends.immediate.ImmediateBackend"},
    }
    declare(endpoint="tenant:42")

    assert list(told()) == [Problem.IMMEDIATE_OUTSIDE_DEBUG.id]


@pytest.mark.parametrize("alias", ["tenant", "tenant:", "tenant:4\n2"])
def test_family_without_a_key_is_no_endpoint(declare, settings, alias):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": {"RESOLVER": PATH}}
    declare(endpoint=alias)

    (text,) = told(Problem.ENDPOINT_KEY_MISSING)
    assert 'ENDPOINTS["tenant"] has a RESOLVER and stands for many endpoints' in text
    assert 'answer f"tenant:{key}"' in text


def test_key_for_an_entry_without_resolver_is_an_unknown_endpoint(declare):
    declare(endpoint="crm:42")

    assert list(told()) == [Problem.ENDPOINT_UNKNOWN.id]


@pytest.mark.parametrize(
    "others",
    [
        {"slow": {"URL": URL, "BACKEND": "now"}},
        {"crm": {"URL": URL, "BACKEND": "now", "ENABLED": False}},
    ],
    ids=["no dispatch", "not enabled"],
)
def test_backend_that_nobody_uses_is_not_asked(declare, settings, others):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": URL}, **others}
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {"BACKEND": "signal_dispatch.backends.deferred.DeferredBackend"},
        "now": {"BACKEND": "signal_dispatch.backends.immediate.ImmediateBackend"},
    }
    declare()

    assert told() == {}


def test_uwsgi_without_threads_is_warned_of(declare, monkeypatch):
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt={}))
    declare()

    assert list(told()) == [Problem.UWSGI_WITHOUT_THREADS.id]


@pytest.mark.parametrize("backend", [CELERY, TASKS])
def test_an_engine_with_workers_is_in_order(declare, settings, monkeypatch, backend):
    app = Celery(broker="memory://", set_as_current=False)
    current = SimpleNamespace(_get_current_object=lambda: app)
    monkeypatch.setattr(celery_module, "current_app", current)
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": backend}}
    declare()

    assert told() == {}


def test_celery_without_a_broker_is_warned_of(declare, settings, monkeypatch):
    monkeypatch.setattr(celery_module, "current_app", SimpleNamespace(_get_current_object=Celery))
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": CELERY}}
    declare()

    assert "messages go to amqp://localhost" in told(Problem.BROKER_UNKNOWN)[0]


@pytest.mark.parametrize(
    ("backend", "library", "cure"),
    [
        (CELERY, "celery", "pip install 'django-signal-dispatch[celery]'"),
        (TASKS, LIBRARY, "pip install 'django-signal-dispatch[tasks]'"),
    ],
    ids=["celery", "tasks"],
)
def test_a_library_that_is_not_installed_is_told_with_the_cure(
    declare, settings, monkeypatch, backend, library, cure
):
    module = backend.rpartition(".")[0]
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delattr(signal_dispatch.backends, module.rpartition(".")[2], raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": backend}}
    declare()

    [said] = told(Problem.BACKEND_INVALID)
    assert cure in said
    assert said.endswith("| Install it, or name another one.")


@pytest.mark.parametrize(("backend", "library"), [(CELERY, "celery"), (TASKS, LIBRARY)])
def test_a_library_that_is_broken_is_not_said_to_be_missing(
    declare, settings, monkeypatch, backend, library
):
    def broken(name, *args, **kwargs):
        if name == library:
            raise ModuleNotFoundError("No module named 'vine'", name="vine")
        return found(name, *args, **kwargs)

    place, name = (builtins, "__import__") if library == "celery" else (importlib, "import_module")
    found = getattr(place, name)
    module = backend.rpartition(".")[0]
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delattr(signal_dispatch.backends, module.rpartition(".")[2], raising=False)
    monkeypatch.setattr(place, name, broken)
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": backend}}
    declare()

    [message] = told(Problem.BACKEND_INVALID)
    assert "names no backend class: No module named 'vine'. |" in message


def test_checks_start_no_thread_and_make_no_query(declare, django_assert_num_queries, db):
    declare()

    with django_assert_num_queries(0):
        checks.check()

    assert all(backend._worker is None for backend in backends.made())


# --- a dispatch's own checks


def test_messages_of_the_dispatch_s_own_check_are_told(declare):
    declare(check=answer([Info("hello", id="shop.I001")]))

    assert list(told()) == ["shop.I001"]


@pytest.mark.parametrize("raised", [ValueError("no such luck"), Order.DoesNotExist()])
def test_check_that_raises_is_told_and_hides_no_other(declare, raised):
    def check(self):
        raise raised

    declare(check=check, envelope="standrad")

    found = told()

    assert set(found) == {Problem.CHECK_BROKEN.id, Problem.VALUE_INVALID.id}
    assert found[Problem.CHECK_BROKEN.id][0].startswith(f"{WHERE}.check() can't be checked: ")


def test_check_that_answers_nothing_is_told(declare):
    declare(check=answer(None))

    assert "TypeError" in told(Problem.CHECK_BROKEN)[0]


# --- the whole way


def test_models_are_named_once_whose_bulk_operations_make_no_call(declare):
    declare(Order, OrderProxy, Ticket, TicketProxy)
    declare(Order, class_name="Second", name="shop.Second")
    declare(Shipment, class_name="Deletes", on=[Event.DELETED])

    (only,) = told(Problem.BULK_UNSEEN)
    assert only.startswith(
        "bulk_create(), bulk_update() and update() make no call for "
        "shop.Order (objects), shop.OrderProxy (objects). |"
    )
    assert "DispatchManager" in only


def test_a_manager_that_can_not_be_asked_is_no_fault(declare, monkeypatch):
    def refuse(self):
        raise RuntimeError("there is no tenant")

    monkeypatch.setattr(type(Order.objects), "get_queryset", refuse)
    declare(Order)

    assert told(Problem.BULK_UNSEEN) == []


@pytest.mark.django_db(databases=["default", "other"])  # Django 6.1 looks into each
def test_manage_check_refuses_a_user_without_fields(declare):
    declare(User, fields=None)

    with pytest.raises(SystemCheckError, match=r"no password hash of auth\.User ever"):
        call_command("check")


def test_manage_check_runs_them_by_their_tag(declare):
    declare(endpoint="crn")

    with pytest.raises(SystemCheckError, match=r"signal_dispatch\.E021"):
        call_command("check", tags=[checks.TAG])


def test_ids_are_unique_and_of_the_kind_their_letter_says():
    ids = [problem.id for problem in Problem.__members__.values()]
    kinds = {problem.value[0]: type(problem.message("", hint="")) for problem in Problem}

    assert len(set(ids)) == len(ids)
    assert kinds == {"E": Error, "W": Warning, "I": Info}


def test_every_id_is_exercised_here():
    alone = {
        Problem.CHECK_BROKEN,
        Problem.NAME_TAKEN,
        Problem.MODEL_REFUSED,
        Problem.KEY_TOO_LONG,
        Problem.OUTBOX_MISSING,
        Problem.SQLITE_NOT_IMMEDIATE,
        Problem.UWSGI_WITHOUT_THREADS,
        Problem.THROUGH_UNSEEN,
        Problem.BULK_UNSEEN,
        Problem.RELATION_ONE_SIDED,
        Problem.REMOTE_ID_REDACTED,
        Problem.COLLECTION_CALLED,
        Problem.DELETED_AS_CHANGE,
        Problem.ENDPOINT_KEY_MISSING,
        Problem.RATE_LIBRARY_MISSING,
        Problem.BROKER_UNKNOWN,
    }
    in_tables = {problem for problem, *_ in [*DECLARED, *CONFIGURED]}

    assert alone | in_tables == set(Problem)
