"""The options that say which deliveries are meant, and what is said of wrong ones."""

import re
from argparse import ArgumentParser
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections

from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.management import outboxes
from signal_dispatch.management.filters import add_filters, counted, filters_of, summary
from signal_dispatch.models import Delivery, State
from tests.deliveries import delivery
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def filters(*arguments):
    parser = ArgumentParser()
    add_filters(parser, State, "all")
    return filters_of(vars(parser.parse_args(arguments)))


def meant(*arguments):
    return list(filters(*arguments).rows("default").order_by("pk"))


def test_each_option_narrows_what_is_meant(declare):
    declare(Order)
    delivery()
    for option, name, value in (
        ("--endpoint", "endpoint", "hubspot"),
        ("--dispatch", "dispatch", "shop.Gone"),
        ("--event", "event", "deleted"),
        ("--state", "state", "failed"),
        ("--error-class", "error_class", "dns"),
        ("--object", "object_pk", 4711),
        ("--uid", "uid", uuid4()),
    ):
        made = delivery(**{name: value})
        text = f"shop.order:{value}" if name == "object_pk" else str(value)
        assert meant(option, text) == [made], option


def test_options_narrow_together():
    delivery(object_pk=7)
    both = delivery(object_pk=7, endpoint="hubspot")
    delivery(object_pk=8, endpoint="hubspot")

    assert meant("--object", "shop.order:7", "--endpoint", "hubspot") == [both]
    assert meant("--object", "shop.order:7", "--uid", str(both.uid)) == [both]
    assert meant("--object", "shop.order:8", "--uid", str(both.uid)) == []


def test_only_the_own_environment_is_meant(settings):
    delivery(environment="production")
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    mine = delivery(environment="staging")

    assert meant() == [mine]


def test_databases_are_those_with_an_outbox_or_those_named():
    assert filters().aliases == ["default", "other"]
    assert filters("--database", "other").aliases == ["other"]


def test_a_database_without_an_outbox_counts_only_where_it_is_named(monkeypatch):
    monkeypatch.setattr(outboxes, "has_outbox", lambda alias: alias == "default")
    assert filters().aliases == ["default"]
    with pytest.raises(CommandError, match=r"no outbox in other: run .manage\.py migrate --d"):
        filters("--database", "other", "--database", "default")
    monkeypatch.setattr(outboxes, "has_outbox", lambda alias: False)
    with pytest.raises(CommandError, match=r"no outbox in default, other"):
        filters()


def test_a_database_that_is_away_is_a_sentence():
    def refuse(execute, *rest):
        raise OperationalError("server\n gone")

    with (
        connections["other"].execute_wrapper(refuse),
        pytest.raises(CommandError, match=r"'other' can't be reached: server gone"),
    ):
        filters()


def test_what_is_gone_from_code_and_settings_may_be_named_while_rows_name_it():
    gone = delivery(endpoint="old", dispatch="shop.Old", event="refunded", model="shop.oldorder")
    for arguments in (
        ("--endpoint", "old"),
        ("--dispatch", "shop.Old"),
        ("--event", "refunded"),
        ("--object", "shop.OldOrder:1"),
    ):
        assert meant(*arguments) == [gone]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--endpoint", "crn"), r"--endpoint 'crn' is not known\. Known: crm, erp, hubspot\."),
        (("--dispatch", "shop.Tld"), r"--dispatch 'shop\.Tld' is not known\. Known: shop\.Told\."),
        (("--event", "update"), r"'update' is not known\. Known: created, deleted, shout, updated"),
        (
            ("--error-class", "dsn"),
            r"--error-class 'dsn' is not known\. Known: .*connect, .*, odd, .*timeout",
        ),
        (("--database", "third"), r"--database 'third' is not known\. Known: default, other\."),
        (("--object", "shop.order"), r"--object 'shop\.order' names no object.*shop\.Order\."),
        (("--object", "shop.ordr:7"), r"names no object"),
        (("--object", "order:7"), r"names no object"),
        (("--uid", "7"), r"--uid '7' is no UUID\. Write the Idempotency-Key"),
        (("--since", "yesterday"), r"--since, --until .* take a day or a moment.*yesterday"),
        (("--until", "2026-13-01"), r"--finished-since take a day or a moment"),
        (("--since", "9999-12-31"), r"'9999-12-31' is out of range\.$"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_known_ones(declare, arguments, said):
    declare(Order, on=["updated", "shout"])
    delivery(endpoint="erp", error_class="odd")
    with pytest.raises(CommandError, match=said):
        filters(*arguments)


@pytest.mark.parametrize("command", ["dispatch_retry", "dispatch_prune"])
def test_an_error_class_that_nothing_failed_with_matches_nothing(command):
    delivery(error_class="dns", state="failed", available_at=None, finished_at=DatabaseNow(-60))
    out = StringIO()
    call_command(command, "--error-class", "timeout", stdout=out)

    assert re.match(r"No deliveries of .*error-class timeout are .*: nothing to", out.getvalue())
    assert Delivery.objects.get().state == "failed"


def test_known_names_that_a_person_typed_do_nothing_to_the_terminal():
    delivery(endpoint="tenant:\x1b[1m")
    with pytest.raises(CommandError) as raised:
        filters("--endpoint", "crn")

    assert "Known: crm, hubspot, tenant:\\x1b[1m." in str(raised.value)


@pytest.mark.parametrize("command", ["dispatch_retry", "dispatch_prune"])
def test_a_wrong_option_is_an_error_that_names_the_known_ones(command):
    with pytest.raises(CommandError, match=r"--endpiont crm\. Known are: .*--endpoint.*--until"):
        call_command(command, "--endpiont", "crm")
    with pytest.raises(CommandError, match=r"invalid choice: 'waiting'.*'failed'"):
        call_command(command, "--state", "waiting")


def test_they_are_told_in_words():
    assert str(filters()) == "at all"
    assert str(filters("--endpoint", "crm", "--object", "shop.order:1")) == (
        "of endpoint crm, object shop.order:1"
    )
    uid = uuid4()
    given = ("--uid", str(uid), "--error-class", "dns", "--finished-since", "2026-01-31")
    assert str(filters(*given)) == f"of error-class dns, finished-since 2026-01-31, uid {uid}"
    both = ("--object", "shop.order:1", "--uid", str(uid))
    assert str(filters(*both)) == f"of object shop.order:1, uid {uid}"


def test_a_summary_counts_by_endpoint_dispatch_and_state():
    for _ in range(2):
        delivery(state="failed")
    delivery(endpoint="hubspot")

    assert summary(counted(Delivery.objects.none())) == []
    assert summary(counted(Delivery.objects.all())) == [
        "ENDPOINT  DISPATCH   STATE    DELIVERIES",
        "crm       shop.Told  failed   2",
        "hubspot   shop.Told  pending  1",
    ]
