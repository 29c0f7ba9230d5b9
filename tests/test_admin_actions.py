"""What people do about deliveries in the admin: asked once more, allowed or not, and noted."""

import dataclasses
import re
import threading
from datetime import timedelta
from functools import partial
from html import unescape

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from signal_dispatch import signals
from signal_dispatch.admin import actions, copies
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.horizons import Horizon
from signal_dispatch.models import Delivery, Repair
from signal_dispatch.repair_steps import step
from tests.deliveries import delivery
from tests.once import ONCE
from tests.shop.models import Order, Ticket
from tests.test_admin_list import URL, text_of

pytestmark = pytest.mark.django_db(databases=["default", "other"])

FAILED = {"state": "failed", "available_at": None, "finished_at": DatabaseNow(-60)}
PERMISSIONS = {
    "retry": "can_retry",
    "cancel": "can_cancel",
    "skip": "can_cancel",
    "resend": "can_resend",
    "rebuild": "can_rebuild",
    "repoint": "can_repoint",
}


def post(client, action, *made, query="", **data):
    chosen = {"_selected_action": [each.pk for each in made], "action": action}
    return client.post(URL + query, chosen | data)


def confirm(client, action, *made, query="", **data):
    asked = post(client, action, *made, query=query, **data)
    return post(client, action, *made, query=query, horizon=horizon_of(asked), **data)


def earlier(asked, action):
    """Return the horizon of a page as if it had been shown half a minute ago."""
    horizon = Horizon.from_text(horizon_of(asked), action, "default")
    moment = horizon.moment - timedelta(seconds=30)
    return dataclasses.replace(horizon, moment=moment).as_text(action, "default")


def horizon_of(asked):
    return re.search('name="horizon" value="([^"]+)"', asked.text)[1]


def states():
    return list(Delivery.objects.order_by("pk").values_list("state", flat=True))


def log():
    return [(e.object_id, e.change_message, e.user.username) for e in LogEntry.objects.all()]


def test_what_was_searched_for_is_called_so(person):
    made, query = delivery(**FAILED), "?q=shop.order:1"
    client = person("can_retry")

    asked = text_of(post(client, "retry", made, query=query, select_across="1"))
    confirm(client, "retry", made, query=query, select_across="1")
    overview = text_of(client.get(f"{URL}overview/"))

    assert "search shop.order:1" in asked
    assert "search: shop.order:1" in overview


def test_retry_asks_first_and_says_how_many(person):
    made = [delivery(**FAILED), delivery(**FAILED), delivery(state="delivered", available_at=None)]
    client = person("can_retry")

    answer = post(client, "retry", *made)

    text = text_of(answer)
    assert "2 of the 3 chosen deliveries will be affected." in text
    assert f"{made[0].pk}: shop.Told, updated shop.order 1, failed" in text
    assert states() == ["failed", "failed", "delivered"]
    assert log() == []

    answer = confirm(client, "retry", *made)

    assert (answer.status_code, answer.url) == (302, URL)
    assert states() == ["pending", "pending", "delivered"]
    assert "Retry now: 2 deliveries." in text_of(client.get(URL))
    noted = {(str(each.pk), "Made due at once.", "ann") for each in made[:2]}
    assert set(log()) == noted


@pytest.mark.parametrize(
    ("action", "values", "state", "note"),
    [
        ("cancel", {}, "cancelled", "Cancelled."),
        ("resend", FAILED, "failed", "Sent again, as a new delivery."),
        ("rebuild", FAILED, "failed", "Rebuilt from the object."),
    ],
)
def test_each_action_does_what_it_says(person, action, values, state, note):
    made = delivery(attempts=3, **values)

    confirm(person(PERMISSIONS[action]), action, made)

    assert states()[0] == state
    assert len(states()) == (1 if action == "cancel" else 2)
    assert log() == [(str(made.pk), note, "ann")]


@pytest.mark.parametrize("action", ["resend", "rebuild"])
def test_the_new_delivery_is_linked_where_one_is_sent_again(person, action):
    made, other = delivery(attempts=3, **FAILED), delivery(attempts=3, **FAILED)
    client = person(PERMISSIONS[action])
    back = f"{URL}{made.pk}/change/"
    answer = confirm(client, action, made, back=back)
    new = Delivery.objects.latest("pk")

    assert (answer.url, new.pk > other.pk) == (back, True)
    linked = f'<a href="{URL}{new.pk}/change/">It is the new delivery {new.pk}.</a>'
    assert linked in client.get(URL).text
    confirm(client, action, made, other)
    assert "It is the new delivery" not in client.get(URL).text


def test_what_others_record_meanwhile_is_not_taken_for_the_new_one():
    with copies.recorded_here() as numbers:
        for number in (1, 2):
            tell = partial(signals.delivery_enqueued.send, Delivery, delivery=Delivery(pk=number))
            other = threading.Thread(target=tell)
            other.start()
            other.join(10)
        signals.delivery_enqueued.send(Delivery, delivery=Delivery(pk=3))
    signals.delivery_enqueued.send(Delivery, delivery=Delivery(pk=4))

    assert numbers == [3]


def test_nothing_new_is_linked_where_the_same_delivery_goes_out_again(person):
    made = delivery(**FAILED)
    client = person("can_retry")
    confirm(client, "retry", made)

    assert "It is the new delivery" not in client.get(URL).text


def test_a_cancelled_one_tells_by_whom(person):
    made = delivery()
    confirm(person("can_cancel"), "cancel", made)

    assert Delivery.objects.get(pk=made.pk).reason == "Cancelled by ann."


def test_skip_cancels_the_head_of_the_lane(person, django_capture_on_commit_callbacks):
    head = delivery(lane="a", available_at=DatabaseNow(3600))
    waiting = delivery(lane="a", state="waiting", available_at=None)
    client = person("can_cancel")
    assert "1 of the 1 chosen" in text_of(post(client, "skip", waiting))

    with django_capture_on_commit_callbacks(execute=True):
        confirm(client, "skip", waiting)

    assert states() == ["cancelled", "pending"]
    assert log() == [(str(head.pk), "Skipped what blocked its lane.", "ann")]


def test_repoint_asks_for_a_target_and_refuses_none(person, declare):
    declare(Order)
    made = delivery(dispatch="shop.Old", endpoint="gone")
    client = person("can_repoint")

    assert "shop.Told (shop.order)" in text_of(post(client, "repoint", made))
    answer = confirm(client, "repoint", made)
    assert "Choose a dispatch, an endpoint, or both." in text_of(answer)
    answer = confirm(client, "repoint", made, dispatch="shop.Wrong\x1fshop.order")
    assert "Select a valid choice" in text_of(answer)
    assert log() == []

    confirm(client, "repoint", made, dispatch="shop.Told\x1fshop.order", endpoint="hubspot")

    row = Delivery.objects.get()
    assert (row.dispatch, row.endpoint) == ("shop.Told", "hubspot")
    assert log() == [(str(made.pk), "Given to hubspot, shop.Told, shop.order.", "ann")]


@pytest.mark.parametrize("across", ["0", "1"])
def test_repoint_warns_where_the_dispatch_is_declared_for_another_model(person, declare, across):
    declare(Order, Ticket)
    other, one = delivery(model="shop.oldticket", dispatch="shop.Old"), delivery()
    client = person("can_repoint")
    chosen = {"dispatch": "shop.Told\x1fshop.ticket", "select_across": across}

    text = text_of(confirm(client, "repoint", one, other, **chosen))

    assert "shop.Told is declared for shop.ticket, and some of these tell of shop.order" in text
    assert [row.model for row in Delivery.objects.order_by("pk")] == [other.model, "shop.order"]
    assert Repair.objects.count() == 0

    Delivery.objects.filter(pk=one.pk).update(model="shop.ticket")
    text = text_of(confirm(client, "repoint", one, other, **chosen))
    assert "some of these tell of shop.oldticket" in text

    confirm(client, "repoint", one, other, renamed="on", **chosen)

    if across == "1":
        assert Repair.objects.get().options == {"dispatch": "shop.Told", "model": "shop.ticket"}
    else:
        assert {row.model for row in Delivery.objects.all()} == {"shop.ticket"}


def test_repoint_to_another_endpoint_or_within_a_model_warns_of_nothing(person, declare):
    declare(Order)
    made = delivery(dispatch="shop.Old"), delivery(held_by="alive", available_at=DatabaseNow(60))
    Delivery.objects.filter(pk=made[1].pk).update(model="shop.tag")
    client = person("can_repoint")

    assert confirm(client, "repoint", *made, endpoint="hubspot").status_code == 302
    chosen = {"dispatch": "shop.Told\x1fshop.order"}
    assert confirm(client, "repoint", *made, **chosen).status_code == 302
    rows = Delivery.objects.order_by("pk").values_list("dispatch", "endpoint", "model")
    assert list(rows) == [
        ("shop.Told", "hubspot", "shop.order"),
        ("shop.Told", "crm", "shop.tag"),
    ]


def test_another_model_among_more_than_are_looked_at_is_left_as_it_is(person, declare, monkeypatch):
    """Nobody reads through all that match while somebody waits for a page."""
    declare(Order)
    monkeypatch.setattr("signal_dispatch.admin.target_form.COUNTED", 2)
    for model in ("shop.oldticket", "shop.order", "shop.order"):
        delivery(model=model, dispatch="shop.Old")
    chosen = {"dispatch": "shop.Told\x1fshop.order", "select_across": "1"}

    assert confirm(person("can_repoint"), "repoint", delivery(), **chosen).status_code == 302
    while step("default"):
        pass

    rows = Delivery.objects.order_by("pk").values_list("dispatch", "model")
    assert list(rows) == [("shop.Old", "shop.oldticket")] + [("shop.Told", "shop.order")] * 3


def test_what_is_recorded_after_the_question_is_no_reason_to_refuse(person, declare):
    declare(Order)
    made = delivery(dispatch="shop.Old")
    client = person("can_repoint")
    chosen = {"dispatch": "shop.Told\x1fshop.order", "select_across": "1"}

    horizon = horizon_of(post(client, "repoint", made, **chosen))
    delivery(model="shop.oldticket", dispatch="shop.Old")

    assert post(client, "repoint", made, horizon=horizon, **chosen).status_code == 302


HELD = {"held_by": "alive", "available_at": DatabaseNow(60)}
IN_HAND, DONE = "in the hand of a sender", "finished"
LATER = "the remote has a later state, or is about to get it"


@pytest.mark.parametrize(
    ("action", "values", "why"),
    [
        ("retry", HELD, IN_HAND),
        ("retry", {}, "due, or behind another one"),
        ("retry", FAILED | {"state": "delivered"}, "delivered"),
        ("retry", FAILED | {"event": "deleted", "method": ""}, "a deletion, whose call was never"),
        ("cancel", HELD, IN_HAND),
        ("cancel", FAILED, DONE),
        ("resend", HELD, IN_HAND),
        ("resend", {}, "not finished"),
        ("resend", FAILED | {"method": ""}, "its call was never built"),
        ("rebuild", {}, "not finished"),
        ("rebuild", FAILED | {"event": "deleted"}, "it tells of a deletion"),
        ("repoint", HELD, IN_HAND),
        ("skip", FAILED, DONE),
        ("skip", {}, "in no lane"),
        ("skip", HELD | {"lane": "a"}, "its lane has nothing in front that may be skipped"),
    ],
)
def test_what_is_left_as_it_is_says_why(person, action, values, why):
    client = person(PERMISSIONS[action])
    made = delivery(**values)

    confirm(client, action, made, endpoint="hubspot")

    text = text_of(client.get(URL))
    assert "nothing was changed. Left as they are: 1 (" + why in text
    assert log() == []


def test_what_was_replaced_says_so(person):
    newer = delivery(**FAILED)
    made = delivery(**FAILED, replaced_by=newer)
    client = person("can_retry")

    confirm(client, "retry", newer, made)

    text = text_of(client.get(URL))
    assert "Retry now: 1 delivery. Left as they are: 1 (replaced by another one)." in text


@pytest.mark.parametrize(("action", "attempts"), [("retry", 1), ("rebuild", 0)])
def test_what_was_outrun_says_so(person, action, attempts):
    made = delivery(**FAILED, lane="a", attempts=attempts)
    delivery(**FAILED | {"state": "delivered"}, lane="a")
    client = person(PERMISSIONS[action])
    assert "1 of the 1 chosen" in text_of(post(client, action, made))

    confirm(client, action, made)

    assert f"nothing was changed. Left as they are: 1 ({LATER})." in text_of(client.get(URL))
    assert log() == []


def test_where_not_all_were_changed_the_log_does_not_say_of_each_that_it_was(person):
    """Which of them were is not known here."""
    made = [delivery(**FAILED, lane=lane, attempts=1) for lane in ("a", "b", "")]
    for lane in ("a", "b"):
        delivery(**FAILED | {"state": "delivered"}, lane=lane)

    confirm(person("can_retry"), "retry", *made)

    note = "Retry now: asked for, and done to 1 of 3 deliveries."
    assert set(log()) == {(str(each.pk), note, "ann") for each in made}


def test_what_was_masked_says_so(person, declare):
    declare(Order, sensitive=["number"])
    json = {"headers": {"Content-Type": "application/json"}}
    made = delivery(**FAILED, **json, body=b'{"number":"[redacted]"}')
    client = person("can_resend")

    confirm(client, "resend", made)

    text = text_of(client.get(URL))
    assert "nothing was changed. Left as they are: 1 (its sensitive values were masked)." in text


@pytest.mark.parametrize("action", ["cancel", "skip", "repoint"])
def test_what_a_sender_took_meanwhile_says_so(person, monkeypatch, action):
    made = [delivery(lane="a"), delivery(lane="a", state="waiting", available_at=None)]
    client = person(PERMISSIONS[action])
    chosen = made if action == "skip" else made[:1]
    intervention = actions.INTERVENTIONS[action]

    def taken_before(rows, by, options):
        Delivery.objects.filter(pk=made[0].pk).update(**HELD)
        return intervention.run(rows, by, options)

    late = dataclasses.replace(intervention, run=taken_before)
    monkeypatch.setattr(actions, "INTERVENTIONS", {action: late})
    confirm(client, action, *chosen, endpoint="hubspot")

    text = text_of(client.get(URL))
    assert "nothing was changed. Left as they are: 1 (taken by a sender meanwhile)." in text


def test_several_reasons_are_counted_apart(person):
    made = [delivery(), delivery(**HELD), delivery(**FAILED), delivery(**FAILED)]
    client = person("can_cancel")

    confirm(client, "cancel", *made)

    told = "Cancel: 1 delivery. Left as they are: 1 (in the hand of a sender), 2 (finished)."
    assert told in text_of(client.get(URL))
    assert [pk for pk, _note, _who in log()] == [str(made[0].pk)]


def test_many_are_named_by_the_newest(person, monkeypatch):
    monkeypatch.setattr(actions, "_NAMED", 2)
    made = [delivery(**FAILED) for _ in range(3)]

    text = text_of(post(person("can_retry"), "retry", *made))

    assert f"{made[2].pk}: shop" in text
    assert f" {made[0].pk}: shop" not in text
    assert "The newest of them." in text


@ONCE
@pytest.mark.parametrize("action", PERMISSIONS)
def test_each_action_has_a_permission_of_its_own(person, action):
    made = delivery(lane="a")
    delivery(lane="a", state="waiting", available_at=None)
    others = {name for name in PERMISSIONS.values() if name != PERMISSIONS[action]}
    client = person(*others)
    before = states()

    assert f'value="{action}"' not in client.get(URL).text
    post(client, action, made, horizon=Horizon.of("default").as_text(action, "default"))
    assert states() == before
    assert f'value="{action}"' in person(PERMISSIONS[action]).get(URL).text


@ONCE
def test_a_viewer_is_offered_nothing(person):
    made = delivery()
    client = person()

    assert 'name="action"' not in client.get(URL).text
    assert 'name="action"' not in client.get(f"{URL}{made.pk}/change/").text


@ONCE
def test_whoever_may_not_view_may_not_act(client):
    user = User.objects.create_user("bob", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="can_retry"))
    client.force_login(user)

    assert post(client, "retry", delivery(**FAILED)).status_code == 403
    assert states() == ["failed"]


@ONCE
@pytest.mark.parametrize(
    ("values", "offered"),
    [
        ({}, ["cancel", "repoint"]),
        ({"available_at": DatabaseNow(300)}, ["retry", "cancel", "repoint"]),
        ({"available_at": DatabaseNow(300), "held_by": "alive"}, []),
        ({"state": "waiting", "available_at": None}, ["skip", "cancel", "repoint"]),
        (FAILED, ["retry", "resend", "rebuild", "repoint"]),
        (FAILED | {"method": ""}, ["retry", "rebuild", "repoint"]),
        (FAILED | {"event": "deleted"}, ["retry", "resend", "repoint"]),
        (FAILED | {"state": "delivered"}, ["resend", "rebuild", "repoint"]),
    ],
)
def test_one_delivery_is_offered_what_fits_its_state(person, values, offered):
    Order.objects.create(pk=1)
    made = delivery(**values)

    text = person(*PERMISSIONS.values()).get(f"{URL}{made.pk}/change/").text

    assert re.findall(r'name="action" value="(\w+)"', text) == offered


@ONCE
@pytest.mark.parametrize("values", [{"object_pk": 77}, {"model": "shop.gone"}])
def test_nothing_is_to_be_rebuilt_from_an_object_that_is_gone(person, values):
    made = delivery(**FAILED, **values)

    text = person(*PERMISSIONS.values()).get(f"{URL}{made.pk}/change/").text

    assert re.findall(r'name="action" value="(\w+)"', text) == ["retry", "resend", "repoint"]


@ONCE
def test_from_its_page_one_is_led_back_there(person):
    made = delivery(**FAILED)
    here = f"{URL}{made.pk}/change/"
    client = person("can_retry")

    asked = post(client, "retry", made, back=here)
    assert f'href="{here}"' in asked.text
    assert confirm(client, "retry", made, back=here).url == here
    assert "Made due at once." in text_of(client.get(here))


@ONCE
@pytest.mark.parametrize("chosen", ["x", "", "\u00b2", "\u0663", "-1", "9" * 30, "1 OR 1=1"])
def test_a_choice_that_is_no_number_is_refused(person, chosen):
    delivery(**FAILED)
    client = person("can_retry")

    for confirmed in ({}, {"confirmed": "yes"}):
        data = {"_selected_action": ["1", chosen], "action": "retry", "select_across": "0"}
        assert client.post(URL, data | confirmed).status_code == 400
    assert states() == ["failed"]


@ONCE
@pytest.mark.parametrize("back", ["https://evil.example/", "//evil.example", "javascript:alert(1)"])
def test_nobody_is_led_elsewhere(person, back):
    made = delivery(**FAILED)
    client = person("can_retry")

    assert "evil" not in post(client, "retry", made, back=back).text
    assert confirm(client, "retry", made, back=back).url == URL


def test_all_that_match_are_left_to_the_background(person):
    for _ in range(3):
        delivery(**FAILED)
    delivery(**FAILED, endpoint="hubspot")
    one = delivery()
    client = person("can_retry")
    query = "?state=failed&endpoint=crm"

    asked = post(client, "retry", one, query=query, select_across="1")

    assert "3 of all 3 deliveries that match will be affected." in text_of(asked)
    assert "state failed endpoint crm" in text_of(asked)
    assert Repair.objects.count() == 0

    confirm(client, "retry", one, query=query, select_across="1")

    repair = Repair.objects.get()
    assert repair.selection == {"state": "failed", "endpoint": "crm"}
    assert (repair.what, repair.by, repair.expected) == ("retry", "ann", "3")
    assert states().count("failed") == 4
    assert log() == [(str(repair.pk), "Retry now: 3", "ann")]
    assert "begun for all that match" in text_of(client.get(URL))


@pytest.mark.parametrize("across", ["0", "1"])
def test_what_is_finished_after_the_question_is_not_meant(person, across):
    made = [delivery(**FAILED, method="PUT"), delivery(method="PUT")]
    client = person("can_resend")

    asked = post(client, "resend", *made, select_across=across)
    horizon = earlier(asked, "resend")
    Delivery.objects.filter(pk=made[1].pk).update(
        state="delivered", available_at=None, finished_at=DatabaseNow(-10)
    )
    post(client, "resend", *made, select_across=across, horizon=horizon)
    assert [repair.expected for repair in Repair.objects.all()] == ["1"] * int(across)
    while step("default"):
        pass

    assert "1 of" in text_of(asked)
    assert states() == ["failed", "delivered", "pending"]
    left = "Send again: 1 delivery. Left as they are: 1 (changed after you were asked)."
    assert (left in text_of(client.get(URL))) == (across == "0")


@pytest.mark.parametrize("across", ["0", "1"])
def test_a_head_that_nobody_was_asked_about_is_not_skipped(person, across):
    head = delivery(lane="a")
    waits = [delivery(lane="a", state="waiting", available_at=None) for _ in range(2)]
    other = [delivery(lane="b"), delivery(lane="b", state="waiting", available_at=None)]
    client = person("can_cancel")

    asked = post(client, "skip", waits[1], other[1], select_across=across)
    horizon = earlier(asked, "skip")
    finished = {"state": "cancelled", "available_at": None, "finished_at": DatabaseNow(-10)}
    Delivery.objects.filter(pk=head.pk).update(**finished)
    Delivery.objects.filter(pk=waits[0].pk).update(state="pending", available_at=DatabaseNow())
    post(client, "skip", waits[1], other[1], select_across=across, horizon=horizon)
    while step("default"):
        pass

    assert states() == ["cancelled", "pending", "waiting", "cancelled", "waiting"]
    left = "Skip what blocks the lane: 1 delivery. Left as they are: 1 (changed after you were"
    assert (left in text_of(client.get(URL))) == (across == "0")


@pytest.mark.parametrize("across", ["0", "1"])
def test_a_page_that_is_confirmed_twice_does_it_once(person, across):
    made = delivery(**FAILED, method="PUT")
    client = person("can_resend")
    horizon = horizon_of(post(client, "resend", made, select_across=across))

    for _ in range(2):
        post(client, "resend", made, select_across=across, horizon=horizon)
    while step("default"):
        pass

    assert states() == ["failed", "pending"]
    assert "confirmed before, and is not done once more" in text_of(client.get(URL))
    confirm(client, "resend", made)
    assert states() == ["failed", "pending", "pending"], "asked anew, it is done anew"


def test_a_page_about_something_else_confirms_nothing(person):
    made = delivery(**FAILED, method="PUT")
    client = person("can_resend", "can_retry")
    retry = horizon_of(post(client, "retry", made))
    elsewhere = horizon_of(post(client, "resend", made, query="?using=other"))

    for horizon in (retry, elsewhere):
        assert horizon_of(post(client, "resend", made, horizon=horizon))
    assert states() == ["failed"]


@pytest.mark.parametrize("horizon", ["", "yes", "[1, 2]"])
def test_who_was_not_asked_is_asked(person, horizon):
    made = delivery(**FAILED)

    answer = post(person("can_retry"), "retry", made, horizon=horizon)

    assert horizon_of(answer)
    assert states() == ["failed"]


@ONCE
def test_cancelling_all_says_that_calls_go_out_meanwhile_and_how_to_stop_them(person):
    made = delivery()
    client = person("can_cancel", "can_retry")
    warning = "what is due meanwhile is sent. Pause the endpoint first to stop that."

    assert warning in text_of(post(client, "cancel", made, select_across="1"))
    assert "meanwhile" not in text_of(post(client, "cancel", made))
    assert "meanwhile" not in text_of(post(client, "retry", made, select_across="1"))


def test_all_are_counted_up_to_a_bound_and_no_id_is_loaded(person, monkeypatch):
    monkeypatch.setattr(actions, "COUNTED", 2)
    monkeypatch.setattr("signal_dispatch.status.COUNTED", 2)
    made = [delivery(**FAILED) for _ in range(4)]
    client = person("can_retry")

    with CaptureQueriesContext(connection) as queries:
        asked = post(client, "retry", made[0], query="?state=failed", select_across="1")

    assert "more than 2 of all more than 2" in text_of(asked)
    assert "no filter" not in text_of(asked)
    assert all("LIMIT" in q["sql"] for q in queries if "COUNT(" in q["sql"])


@ONCE
def test_everything_there_is_may_be_meant(person):
    made = delivery(**FAILED)

    asked = post(person("can_retry"), "retry", made, select_across="1")

    assert "none: every delivery there is" in text_of(asked)


def test_an_action_in_another_outbox_stays_there(person):
    here = delivery(**FAILED)
    there = delivery(using="other", **FAILED)
    Delivery.objects.using("other").filter(pk=there.pk).update(id=here.pk)

    client = person("can_retry", "view_delivery")
    confirm(client, "retry", here, query="?using=other")

    assert states() == ["failed"]
    assert Delivery.objects.using("other").get().state == "pending"
    told = LogEntry.objects.get().change_message
    assert told.startswith("other: ")
    assert told in text_of(client.get(f"{URL}{here.pk}/change/?using=other"))
    assert told not in text_of(client.get(f"{URL}{here.pk}/change/"))
    confirm(client, "retry", here)
    mine = LogEntry.objects.latest("pk").change_message
    assert f"ann: {mine}" in text_of(client.get(f"{URL}{here.pk}/change/"))
    assert f"ann: {mine}" not in text_of(client.get(f"{URL}{here.pk}/change/?using=other"))


@ONCE
def test_markup_is_shown_as_text(person):
    evil = "<img src=x>"
    made = delivery(**FAILED | dict.fromkeys(["dispatch", "event", "model", "object_pk"], evil))
    client = person("can_retry")
    for answer in (
        post(client, "retry", made),
        post(client, "retry", made, query=f"?endpoint={evil}", select_across="1"),
    ):
        assert "<img" not in answer.text
        assert evil in unescape(answer.text)
