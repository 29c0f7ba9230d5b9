"""What the command prints, and its exit code."""

import json
import re
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections

from signal_dispatch import bars, reports, status
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.shop.models import Order
from tests.test_heartbeats import worker_process
from tests.test_status import finished, held, waiting

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def run(*arguments):
    out, code = StringIO(), 0
    try:
        call_command("dispatch_status", *arguments, stdout=out)
    except SystemExit as ended:
        code = ended.code
    return code, out.getvalue()


def lines(*arguments):
    code, text = run("--database", "default", *arguments)
    return code, text.splitlines()


def test_an_empty_outbox_is_healthy():
    assert lines() == (
        0,
        [
            "Database 'default'",
            "",
            "STATE                  DELIVERIES",
            "pending                0",
            "waiting                0",
            "delivered              0",
            "failed                 0",
            "cancelled              0",
            "failed within an hour  0",
            "",
            "Healthy.",
        ],
    )


def test_all_that_stands_is_shown_aligned(declare, settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "blue"
    declare(Order)
    mine = {"environment": "blue"}
    delivery(available_at=DatabaseNow(-100), **mine)
    held("web:1:ab", 6000, **mine)
    waiting("a", **mine)
    delivery(endpoint="erp", available_at=DatabaseNow(600), **mine)
    delivery(environment="green")
    gone = {"error_class": "gone", "reason": "No such tenant."}
    delivery(available_at=DatabaseNow(600), **gone, **mine)
    delivery(dispatch="shop.Gone", available_at=DatabaseNow(600), **mine)
    delivery(model="shop.tag", available_at=DatabaseNow(600), **mine)
    worker_process(seen_at=DatabaseNow(-1), endpoints=["crm", "erp"], **mine)
    worker_process(name="web:8:abcd", seen_at=DatabaseNow(-600), **mine)
    code, shown = lines("--max-age", "1000")
    rows = [line.split() for line in shown]

    assert code == 0
    assert shown[0] == "Database 'default', environment 'blue'"
    assert ["ENDPOINT", "DUE", "SINCE", "SCHEDULED", "HELD", "WAITING", "LANES"] in rows
    crm = next(row for row in rows if row[:1] == ["crm"])
    assert (crm[1], crm[3:]) == ("1", ["s", "3", "1", "1", "1"])
    assert 100 <= int(crm[2]) < 900
    assert ["erp", "0", "-", "1", "0", "0", "0"] in rows
    assert ["crm", "1", "No", "such", "tenant."] in rows
    assert next(row for row in rows if row[:1] == ["web:1:ab"])[1] == "1"
    for line in (
        "another environment         'green'                    1",
        "unknown dispatch            'shop.Gone'                1",
        "unknown endpoint            'erp'                      1",
        "dispatch not for shop.tag   'shop.Told'                1",
    ):
        assert line.split() in rows
    assert any(row[:2] == ["web:7:abcd", "alive"] and row[-2:] == ["crm,", "erp"] for row in rows)
    assert any(row[:2] == ["web:8:abcd", "dead"] for row in rows)
    workers = [line for line in shown if line.startswith("web:") and "ago" in line]
    starts = {line.index(word) for line, word in zip(workers, ("alive", "dead"), strict=True)}
    assert len(starts) == 1, "columns are aligned"


def test_of_what_nobody_here_may_take_it_says_what_to_do(declare, settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "blue"
    declare(Order)
    delivery(environment="green")
    for values in ({"dispatch": "shop.Gone"}, {"model": "shop.tag"}, {"endpoint": "erp"}):
        delivery(environment="blue", **values)
    _code, shown = lines("--max-age", "8000")

    advice = shown[shown.index("What to do:") + 1 :][:4]
    assert [line.partition(":")[0].strip() for line in advice] == [
        "unknown dispatch 'shop.Gone'",
        "unknown endpoint 'erp'",
        "another environment 'green'",
        "dispatch not for shop.tag 'shop.Told'",
    ]
    for line, words in zip(
        advice,
        (
            "deploy the code that declares it; if its class was renamed, set its name to this one.",
            'SIGNAL_DISPATCH_ENDPOINTS["erp"] is missing or faulty here',
            "SIGNAL_DISPATCH_ENVIRONMENT is 'blue' here",
            "register it for that model, too",
        ),
        strict=True,
    ):
        assert words in line
    cure = "cancel them, or give them to another dispatch or endpoint, in the admin's list of "
    assert f"  What will not come back: {cure}deliveries." in shown


def test_what_belongs_to_another_environment_is_not_for_this_admin_to_cure(declare):
    declare(Order)
    delivery(environment="green")

    text = "\n".join(lines()[1])
    assert "What to do:" in text
    assert "cancel them" not in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "A delivery has been due for "),
        (["--max-age", "8000"], "2 FAILED within an hour (limit 0)."),
        (
            ["--max-age", "8000", "--max-failed", "2", "--need-worker"],
            "No dispatch_worker is alive.",
        ),
    ],
)
def test_beyond_a_limit_it_ends_with_1_and_says_why(declare, arguments, sentence):
    declare(Order)
    delivery(available_at=DatabaseNow(-4000))
    finished("failed")
    finished("failed")
    code, shown = lines(*arguments)

    assert code == 1
    assert "Unhealthy:" in shown
    assert f"  default: {sentence}" in "\n".join(shown)


def test_within_other_limits_it_ends_with_0(declare):
    declare(Order)
    delivery(available_at=DatabaseNow(-4000))
    finished("failed")
    worker_process()

    assert run("--max-age", "8000", "--max-failed", "1", "--database", "default")[0] == 0
    arguments = ["--max-age", "8000", "--max-failed", "1", "--need-worker"]
    assert run(*arguments, "--database", "default")[0] == 0
    assert run(*arguments)[0] == 1, "the other database has no worker"


def test_json_says_the_same_for_machines(declare):
    declare(Order)
    delivery("other", dispatch="shop.Gone")
    delivery("other", available_at=DatabaseNow(-4000))
    worker_process()
    code, text = run("--json")
    said = json.loads(text)

    assert code == 1
    assert said["healthy"] is False
    default, other = said["databases"]["default"], said["databases"]["other"]
    assert (default["healthy"], default["problems"]) == (True, [])
    assert other["healthy"] is False
    assert other["problems"][0].startswith("A delivery has been due for ")
    assert other["oldest_due_seconds"] == other["backlogs"][0]["oldest_due_seconds"]
    assert 4000 <= other["oldest_due_seconds"] < 8000
    assert other["states"]["pending"] == 2
    (stranded,) = other["stranded"]
    assert stranded.pop("advice").startswith("No dispatch has the name 'shop.Gone' here:")
    told = {"because": "dispatch", "name": "shop.Gone", "model": "", "deliveries": 1}
    assert stranded == told
    assert default["workers"][0]["alive"] is True


def test_a_database_that_is_away_is_a_sentence_and_the_others_are_shown():
    def refuse(execute, *rest):
        raise OperationalError("server\n  gone")

    with connections["other"].execute_wrapper(refuse):
        code, text = run()
        json_code, said = run("--json")

    assert (code, json_code) == (1, 1)
    assert "  other: It can't be reached: server gone" in text
    assert "Database 'default'" in text
    assert json.loads(said)["databases"]["other"] == {
        "healthy": False,
        "problems": ["It can't be reached: server gone"],
    }


def test_a_database_without_an_outbox_counts_only_where_it_is_named(monkeypatch):
    monkeypatch.setattr(reports, "has_outbox", lambda alias: alias == "default")
    code, text = run()
    assert (code, "other" in text) == (0, False)
    code, text = run("--database", "other")
    assert code == 1
    assert "  other: It has no outbox: run 'migrate' on it." in text
    monkeypatch.setattr(reports, "has_outbox", lambda alias: False)
    code, text = run()
    assert (code, text.count("It has no outbox")) == (1, 2)


def test_what_makes_no_sense_is_refused(settings):
    with pytest.raises(CommandError, match="--database 'third' is not known"):
        run("--database", "third")
    for options, sentence in (
        (["--max-failed", "-3"], "--max-failed must not be negative: 0 tolerates none"),
        (["--max-age", "-0.5"], "--max-age must be a number of seconds, 0 or more"),
        (["--max-age", "nan"], "--max-age must be a number of seconds, 0 or more"),
    ):
        with pytest.raises(CommandError, match=sentence):
            run(*options)
    settings.SIGNAL_DISPATCH_ENVIRONMENT = 7
    with pytest.raises(CommandError, match="Correct it in your settings"):
        run()


def test_a_bounded_count_says_that_there_is_more(monkeypatch):
    monkeypatch.setattr(status, "COUNTED", 1)
    for _ in range(3):
        finished("delivered")

    assert ["delivered", "more", "than", "1"] in [line.split() for line in lines()[1]]


def test_looking_changes_nothing():
    made = delivery()
    before = Delivery.objects.values().get()
    run()

    assert Delivery.objects.values().get(pk=made.pk) == before


def test_what_nobody_calls_is_shown_with_its_reason():
    bars.pause("default", "crm", by="ada", reason="They are moving house.")
    bars.open_breaker("default", "hubspot", Breaker(), attempts=10, failed=9)
    for _ in range(2):
        delivery()
    assert run("--database", "default")[0] == 0, "nothing waits for what is open; a pause is meant"
    delivery(endpoint="hubspot")
    code, text = run("--database", "default")

    assert code == 1, "an open breaker that something waits for is not well"
    paused = r"^crm +paused by ada +\d+ s +2 +They are moving house\.$"
    assert re.search(paused, text, re.MULTILINE)
    opened = r"^hubspot +breaker open +\d+ s +1 +next try in \d+ s$"
    assert re.search(opened, text, re.MULTILINE)


def test_a_pause_that_somebody_forgot_is_not_well():
    delivery()
    bars.pause("default", "crm", by="ada", reason="")
    bars.state_of("default", "crm").update(paused_at=DatabaseNow(-5000))
    assert lines()[0] == 0
    code, shown = lines("--max-pause", "4000")

    assert code == 1
    assert re.match(r"  default: The endpoint 'crm' has been paused for 1 h \d\d min ", shown[-1])
    assert shown[-1].endswith("(limit 1 h 6 min), and 1 delivery waits for it.")
    assert lines("--max-pause", "9000")[0] == 0
    with pytest.raises(CommandError, match="--max-pause must be a number of seconds, 0 or more"):
        run("--max-pause", "-1")


def test_what_a_person_typed_does_nothing_to_the_terminal(declare):
    declare(Order)
    delivery(endpoint="gone\x1b[1m")
    bars.pause("default", "crm", by="ada\x9b1m", reason="\x1b]0;owned\x07\r\nHealthy.\u202e")
    _code, text = run("--database", "default")

    assert "ada\\x9b1m" in text
    assert "\\x1b]0;owned\\x07\\r\\nHealthy.\\u202e" in text
    assert "gone\\x1b[1m" in text
    assert not set("\x1b\x9b\x07\r\u202e").intersection(text)
    said = run("--json", "--database", "default")[1]
    assert not set("\x1b\x9b\x07\r\u202e").intersection(said)
