"""Secrets of signatures are exchanged while calls go out, and the receiver refuses none."""

import threading
from collections import Counter, defaultdict

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from signal_dispatch.models import Attempt, Delivery
from tests.acceptance import soak
from tests.once import ONCE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
    ONCE,
]

OLD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NEW = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
NAMES = {OLD: "old", NEW: "new"}

#: Calls that each step of the rotation sees at least.
CALLS = 100


class StrictReceiver:
    """Take what one secret verifies, fail every tenth call that it takes, and keep count."""

    def __init__(self):
        self.secret = OLD
        self.lock = threading.Lock()
        self.signed_by = Counter()
        self.refused = []
        self.stamps = defaultdict(list)

    def __call__(self, request):
        signed_by = tuple(name for secret, name in NAMES.items() if fits(secret, request))
        with self.lock:
            self.signed_by[signed_by] += 1
            total = self.signed_by.total()
            self.stamps[request.headers["webhook-id"]].append(
                int(request.headers["webhook-timestamp"])
            )
            if NAMES[self.secret] not in signed_by:
                self.refused.append(signed_by)
                return 401, {}, b""
        return (503 if total % 10 == 0 else 200), {}, b"{}"


def fits(secret, request):
    try:
        Webhook(secret).verify(request.body, request.headers)
    except WebhookVerificationError:
        return False
    return True


def test_rotation_in_mid_burst_leaves_no_call_without_a_signature_that_holds(
    receiver, settings, declare
):
    strict = receiver.script = StrictReceiver()
    declare(Order, fields=["number", "notes"])
    saved = 0

    def use(*secrets):
        settings.SIGNAL_DISPATCH_ENDPOINTS = {
            "crm": {
                "URL": receiver.url,
                "SECRETS": list(secrets),
                "RETRY": {"delays": [0] + [1.1] * 9, "jitter": 0},
            }
        }

    def save_until(condition):
        nonlocal saved

        def save_and_look():
            nonlocal saved
            for _ in range(5):
                saved += 1
                Order.objects.create(number=f"A-{saved}", notes="Zoë €", status="paid")
            return condition()

        eventually(save_and_look, 60)

    def count(*names):
        with strict.lock:
            return strict.signed_by[names]

    use(OLD)
    save_until(lambda: count("old") >= CALLS)
    use(NEW, OLD)
    save_until(lambda: count("old", "new") >= CALLS)
    strict.secret = NEW
    save_until(lambda: count("old", "new") >= 2 * CALLS)
    use(NEW)
    save_until(lambda: count("new") >= CALLS)
    eventually(lambda: not Delivery.objects.unfinished().exists(), 60)

    calls = len(receiver.requests)
    assert strict.refused == []
    assert set(strict.signed_by) == {("old",), ("old", "new"), ("new",)}
    assert Delivery.objects.filter(state="delivered").count() == saved
    assert set(Attempt.objects.values_list("status_code", flat=True)) == {200, 503}
    repeated = [stamps for stamps in strict.stamps.values() if len(stamps) > 1]
    assert len(repeated) >= calls // 20
    # One id for all attempts of a delivery, and a time for each, in whole seconds: one that comes
    # forward because another call succeeded may go within the same.
    assert len(strict.stamps) == saved
    assert all(stamps == sorted(stamps) for stamps in repeated)
    assert any(len(set(stamps)) > 1 for stamps in repeated)
    soak.report(
        "rotation of secrets",
        calls=calls,
        verified=calls - len(strict.refused),
        signed_anew=len(repeated),
    )
