"""The URL of the health check: for machines, and fit to be seen by anybody."""

import json

import pytest
from django.db import OperationalError, connections
from django.urls import include, path, reverse

from signal_dispatch import bars, views
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.limits import Limits
from tests.deliveries import delivery
from tests.shop.models import Order
from tests.test_heartbeats import worker_process
from tests.test_status import finished, held, waiting

urlpatterns = [
    path("dispatch/", include("signal_dispatch.urls")),
    path("patient/", views.health, {"limits": Limits(max_age=None, max_failed=5)}),
    path("workers/", views.health, {"limits": Limits(need_worker=True)}),
]
pytestmark = [
    pytest.mark.django_db(databases=["default", "other"]),
    pytest.mark.urls("tests.test_views"),
]


def ask(client, url="/dispatch/health/"):
    answer = client.get(url)
    return answer.status_code, answer.json()


def test_an_empty_outbox_is_healthy(client):
    assert reverse("signal_dispatch:health") == "/dispatch/health/"
    code, said = ask(client)

    assert (code, said["healthy"], set(said["databases"])) == (200, True, {"default", "other"})
    assert said["databases"]["default"] == {
        "healthy": True,
        "problems": [],
        "states": dict.fromkeys(["pending", "waiting", "delivered", "failed", "cancelled"], 0),
        "failed_lately": 0,
        "oldest_due_seconds": 0,
        "oldest_stranded_seconds": 0,
        "backlogs": {},
        "barred": {"breaker": [], "paused": []},
        "unresolved": 0,
        "stranded": 0,
        "workers": {"alive": 0, "dead": 0},
    }


def test_what_is_not_well_is_said_with_503(client):
    finished("failed")
    delivery(endpoint="hubspot")
    bars.open_breaker("default", "hubspot", Breaker(), attempts=10, failed=9)
    code, said = ask(client)

    assert (code, said["healthy"]) == (503, False)
    assert said["databases"]["other"]["healthy"]
    assert said["databases"]["default"]["problems"] == [
        "1 FAILED within an hour (limit 0).",
        "The breaker of the endpoint 'hubspot' is open: most calls to it failed.",
    ]
    assert said["databases"]["default"]["barred"] == {"breaker": ["hubspot"], "paused": []}


def test_the_site_sets_the_limits(client, declare):
    declare(Order)
    finished("failed")
    delivery(available_at=DatabaseNow(-5000))

    assert [ask(client, url)[0] for url in ("/dispatch/health/", "/patient/")] == [503, 200]
    sentences = ask(client, "/workers/")[1]["databases"]["default"]["problems"]
    assert sentences[-1] == "No dispatch_worker is alive."


def test_a_pause_that_somebody_forgot_is_said_without_a_name(client):
    delivery()
    bars.pause("default", "crm", by="ada", reason="secret")
    bars.state_of("default", "crm").update(paused_at=DatabaseNow(-100_000))
    code, said = ask(client)

    assert code == 503
    (sentence,) = said["databases"]["default"]["problems"]
    assert sentence.startswith("The endpoint 'crm' has been paused for ")
    assert sentence.endswith("(limit 1 d 0 h), and 1 delivery waits for it.")


def test_it_counts_the_endpoints_of_tenants_as_one(client, tenant, declare):
    declare(Order, endpoint="tenant:42")
    delivery(endpoint="tenant:42", available_at=DatabaseNow(-20))
    delivery(endpoint="tenant:43", available_at=DatabaseNow(-50))
    held("web:7:abcd", 30, endpoint="tenant:43")
    waiting("lane", endpoint="tenant:43")
    delivery(available_at=DatabaseNow(60))
    for key in (42, 43):
        bars.open_breaker("default", f"tenant:{key}", Breaker(), attempts=10, failed=9)
    _code, said = ask(client)

    found = said["databases"]["default"]
    assert set(found["backlogs"]) == {"crm", "tenant"}
    assert found["backlogs"]["tenant"] == {
        "due": 2,
        "oldest_due_seconds": pytest.approx(50, abs=5),
        "scheduled": 0,
        "held": 1,
        "waiting": 1,
        "waiting_lanes": 1,
    }
    assert found["oldest_due_seconds"] == 0, "nobody is to be waited for by them"
    assert found["barred"]["breaker"] == ["tenant"]
    assert len(found["problems"]) == 1


def test_nothing_is_told_of_persons_hosts_objects_tenants_or_errors(
    client, tenant, declare, settings, monkeypatch
):
    declare(Order)
    worker_process(name="SECRET-host:7", host="SECRET-host")
    worker_process(name="SECRET-late:7", host="SECRET-late", seen_at=DatabaseNow(-100))
    held("SECRET-holder", 30)
    bars.pause("default", "crm", by="SECRET-ada", reason="SECRET-reason")
    bars.open_breaker("default", "tenant:SECRET", Breaker(), attempts=10, failed=9)
    late = {"available_at": DatabaseNow(500), "error_class": "gone", "reason": "SECRET-resolver"}
    delivery(endpoint="tenant:SECRET", **late)
    delivery(dispatch="SECRET.Gone", environment="SECRET-environment", object_pk="SECRET-object")
    finished("failed", reason="SECRET-failure", path="SECRET-path", body=b"SECRET-body")

    def refuse(alias):
        raise OperationalError("password of SECRET-user refused")

    before = json.dumps(ask(client)[1])
    monkeypatch.setattr("signal_dispatch.reports.has_outbox", refuse)
    code, said = ask(client)

    assert "SECRET" not in before + json.dumps(said)
    facts = json.loads(before)["databases"]["default"]
    assert (facts["stranded"], facts["unresolved"]) == (1, 1)
    assert facts["workers"] == {"alive": 1, "dead": 1}
    assert facts["barred"] == {"breaker": ["tenant"], "paused": ["crm"]}
    assert code == 503
    unreachable = {"healthy": False, "problems": ["It can't be reached."]}
    assert said["databases"] == {"default": unreachable, "other": unreachable}


def test_without_any_outbox_it_says_so(client, monkeypatch):
    monkeypatch.setattr("signal_dispatch.reports.has_outbox", lambda alias: False)
    code, said = ask(client)

    assert code == 503
    without = ["It has no outbox: run 'migrate' on it."]
    assert said["databases"]["default"]["problems"] == without


def test_faulty_settings_are_unhealthy(client, settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = 7
    code, said = ask(client)

    assert (code, said["healthy"], said["databases"]) == (503, False, {})
    assert said["problems"] == ["The settings are faulty: 'manage.py check' says what is."]


def test_nobody_keeps_the_answer_and_it_is_for_reading_only(client):
    answer = client.get("/dispatch/health/")

    assert "no-store" in answer["Cache-Control"]
    assert "private" in answer["Cache-Control"]
    assert answer["Content-Type"] == "application/json"
    assert client.head("/dispatch/health/").status_code == 200
    assert client.post("/dispatch/health/").status_code == 405


def test_a_site_with_atomic_requests_gets_an_answer_without_its_database(client, monkeypatch):
    def gone(alias):
        raise OperationalError("gone")

    monkeypatch.setattr("signal_dispatch.reports.has_outbox", gone)
    atomic = connections.settings["default"] | {"ATOMIC_REQUESTS": True}
    monkeypatch.setitem(connections.settings, "default", atomic)
    opened = []
    monkeypatch.setattr("django.core.handlers.base.transaction.atomic", opened.append)

    assert ask(client)[0] == 503
    assert opened == []
