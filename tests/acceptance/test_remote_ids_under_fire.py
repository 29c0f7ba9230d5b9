"""Remote ids: no call goes to a wrong address, whatever becomes of the one that brings the id."""

import json
import threading

import pytest

from signal_dispatch.models import Delivery, RemoteObject
from tests.acceptance.fleet import Fleet, await_calm, over_processes
from tests.acceptance.soak import report, scaled
from tests.shop.models import Order

pytestmark = over_processes


class Contacts:
    """A remote that gives out ids and heeds idempotency keys.

    ``fault`` is what becomes of the first call for each contact: ``hangs``, ``fails``,
    ``refused`` or nothing.
    """

    def __init__(self, receiver, fault=""):
        self._receiver = receiver
        self._fault = fault
        self._lock = threading.Lock()
        self._seen = set()
        self._answers = {}
        #: Number of the order by the id that it got.
        self.known = {}
        #: Calls for what is not there, or would be there twice.
        self.wrong = []
        receiver.script = self

    def __call__(self, request):
        number = request.headers["X-Number"]
        with self._lock:
            first = number not in self._seen
            self._seen.add(number)
            faulty = first and self._fault
            if faulty in ("fails", "refused"):
                return {"fails": 500, "refused": 400}[faulty], {}, b""
            answer = self._answer(request, number)
        if faulty == "hangs":  # longer than the deadline: the answer, with the id, is lost
            self._receiver.wait(1.5)
        return answer

    def _answer(self, request, number):
        key = request.headers["Idempotency-Key"]
        if key not in self._answers:
            self._answers[key] = self._act(request, number)
        status, answer = self._answers[key]
        return status, {}, json.dumps(answer).encode() if status != 204 else b""

    def _act(self, request, number):
        match request.method, request.path.split("/")[1:]:
            case "POST", ["contacts"] if number not in self.known.values():
                made = f"c {len(self._answers)}/"  # has to be quoted
                self.known[made] = number
                return 201, {"id": made}
            case "PATCH", ["contacts", quoted] if self._means(quoted, number):
                return 200, {}
            case "DELETE", ["contacts", quoted] if self._means(quoted, number):
                del self.known[unquoted(quoted)]
                return 204, None
        self.wrong.append((request.method, request.path, number))
        return 404, {}

    def _means(self, quoted, number):
        return self.known.get(unquoted(quoted)) == number


def unquoted(text):
    from urllib.parse import unquote

    return unquote(text)


def check(what, contacts, fleet, *, expected=None):
    numbers = dict(Order.objects.values_list("number", "pk"))
    kept = dict(RemoteObject.objects.values_list("object_pk", "remote_id"))
    report(
        f"remote ids, {what}",
        objects=len(numbers),
        known=len(contacts.known),
        wrong=len(contacts.wrong),
        kills=fleet.kills,
        stuck=Delivery.objects.unfinished().count(),
    )
    assert contacts.wrong == []
    assert kept == {numbers[number]: remote_id for remote_id, number in contacts.known.items()}
    assert set(contacts.known.values()) == set(numbers if expected is None else expected)
    assert not RemoteObject.objects.exclude(dispatch="shop.Known").exists()


@pytest.mark.parametrize("fault", ["hangs", "fails", "refused"])
def test_updates_and_deletes_meet_what_became_of_the_create(fault, receiver, tmp_path):
    contacts = Contacts(receiver, fault)
    with Fleet(receiver.url, tmp_path, DECLARED="known_remotely", RETRY_SECONDS="0.1") as fleet:
        saver = fleet.start("live", str(scaled(16, 300)), "s")
        worker = fleet.worker()
        assert not fleet.join(saver)
        await_calm(60)
        fleet.end(worker)

    # A refused one is created by its next update.
    orders = Order.objects.filter(total__gt=0) if fault == "refused" else Order.objects.all()
    check(fault, contacts, fleet, expected=orders.values_list("number", flat=True))
    failed = set(Delivery.objects.filter(state="failed").values_list("error_class", flat=True))
    assert failed == ({"status"} if fault == "refused" else set())


@pytest.mark.parametrize("point", ["mid_request", "after_answer", "before_settling", "after_mark"])
def test_a_kill_at_this_point_leaves_the_right_ids(point, receiver, tmp_path):
    contacts = Contacts(receiver)
    settings = {"DECLARED": "known_remotely", "LEASE_SECONDS": "2", "REPAIR_SECONDS": "1"}
    with Fleet(receiver.url, tmp_path, RETRY_SECONDS="0.1", **settings) as fleet:
        for life in range(scaled(2, 20)):
            assert fleet.join(fleet.start("live", "12", f"s{life}", crash=f"{point}:{life + 1}"))
        last, worker = fleet.start("live", "6", "last"), fleet.worker()
        assert not fleet.join(last)
        await_calm(60)
        fleet.end(worker)

    check(f"killed {point}", contacts, fleet)
