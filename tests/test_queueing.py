"""Jobs in memory: bounded, in turn between endpoints, counted while in flight."""

import pytest

from signal_dispatch.jobs import Job, Place
from signal_dispatch.models import Delivery
from signal_dispatch.queueing import Queue
from signal_dispatch.scopes import Kind
from tests.once import ONCE

pytestmark = ONCE


def job(endpoint="crm", body=b"", since=0.0, using="default", **values):
    return Job(Delivery(endpoint=endpoint, body=body, **values), using, since)


def queue(limit=10, limit_bytes=10**6, unresolved=(), **concurrency):
    return Queue(
        limit,
        limit_bytes,
        lambda endpoint: concurrency.get(endpoint.partition(":")[0], 10),
        may_begin,
        lambda endpoint: endpoint in unresolved,
    )


def may_begin(place, *, probe=False):
    return True


def test_jobs_of_one_endpoint_go_in_the_order_they_came():
    line, jobs = queue(), [job() for _ in range(3)]
    for each in jobs:
        assert line.put(each)

    assert [line.take(), line.take(), line.take(), line.take()] == [*jobs, None]


def test_endpoints_take_turns():
    line = queue()
    for endpoint in ("crm", "crm", "crm", "slack", "slack", "erp"):
        line.put(job(endpoint))

    order = [line.take().delivery.endpoint for _ in range(6)]
    assert order == ["crm", "slack", "erp", "crm", "slack", "crm"]


def test_an_endpoint_that_hangs_leaves_the_others_alone():
    line = queue(crm=2)
    for endpoint in ("crm", "crm", "crm", "slack"):
        line.put(job(endpoint))

    flying = [line.take() for _ in range(3)]
    assert [j.delivery.endpoint for j in flying] == ["crm", "slack", "crm"]
    assert line.take() is None, "two of the CRM's are in flight"
    assert (len(line), line.in_flight) == (1, 3)
    line.done(flying[0])
    assert line.take().delivery.endpoint == "crm"


def test_a_first_attempt_does_not_wait_behind_a_pile_of_retries():
    line, retries = queue(), [job(retried=True) for _ in range(4)]
    first = [job() for _ in range(2)]
    for each in (*retries, *first):
        line.put(each)

    assert [line.take() for _ in range(6)] == [first[0], retries[0], first[1], *retries[1:]]


def test_a_probe_goes_before_all_others_though_nothing_else_may():
    asked = []

    def only_probes(place, *, probe=False):
        asked.append(probe)
        return probe

    line = Queue(10, 10**6, lambda endpoint: 10, only_probes)
    probe = job()
    probe.probe = True
    line.put(job())
    assert line.take() is None
    line.put(job(retried=True))
    line.put(probe)

    assert line.take() is probe
    assert line.take() is None
    assert asked == [False, True, False]


def test_a_place_is_probed_while_its_probe_is_ready_or_in_flight():
    line, probe, here = queue(), job(), Place("default", "crm")
    line.put(job())
    assert not line.probes(here)
    line.take()
    assert not line.probes(here)
    probe.probe = True
    line.put(probe)
    assert line.probes(here)
    line.take()
    assert line.probes(here)
    assert not line.probes(Place("other", "crm"))
    line.done(probe)

    assert not line.probes(here)


def test_a_job_that_is_put_back_is_the_next_of_its_kind_and_frees_its_place():
    line, jobs = queue(crm=1), [job() for _ in range(2)]
    for each in jobs:
        line.put(each)
    line.put_back(line.take())

    assert (line.in_flight, len(line)) == (0, 2)
    assert line.take() is jobs[0]
    assert line.take() is None
    line.done(jobs[0])
    assert line.take() is jobs[1]


def test_outboxes_take_turns_and_share_the_limit_of_an_endpoint():
    line = queue(crm=3)
    for using in ("default", "default", "other", "other"):
        line.put(job(using=using))

    assert [line.take().using for _ in range(3)] == ["default", "other", "default"]
    assert line.take() is None


def test_it_knows_of_what_it_has_many():
    line = queue()
    for each in (job(), job(), job(retried=True), job("slack"), job("slack", using="other")):
        line.put(each)

    assert line.crowded("default", 2) == {Kind("crm", retried=False)}
    assert line.crowded("other", 1) == {Kind("slack", retried=False)}


def test_more_jobs_than_the_limit_are_refused():
    line = queue(limit=2)

    assert [line.put(job()) for _ in range(3)] == [True, True, False]
    assert (len(line), line.room) == (2, 0)
    line.take()
    assert line.room == 1


def test_more_bytes_than_the_limit_are_refused():
    line = queue(limit_bytes=10_000)

    assert line.put(job(body=b"x" * 5_000))
    assert not line.put(job(body=b"x" * 5_000))
    assert line.put(job())
    assert line.bytes == 5_000 + 2 * job().size
    line.take()
    line.take()
    assert line.bytes == 0


def test_one_job_larger_than_the_limit_passes_alone():
    line = queue(limit_bytes=10_000)

    assert line.put(job(body=b"x" * 50_000))
    assert line.room == 0
    assert not line.put(job())


def test_what_is_held_is_ready_or_in_flight():
    line, first, second = queue(), job("crm"), job("slack")
    line.put(first)
    line.put(second)
    line.take()

    assert set(line.held()) == {first, second}
    assert list(line.ready()) == [second]
    line.done(first)
    line.done(first)  # twice is no harm
    assert list(line.held()) == [second]


def test_a_dropped_job_leaves_no_trace():
    line, first, second = queue(), job(), job()
    line.put(first)
    line.put(second)
    line.drop(first)
    line.drop(first)
    line.drop(job("slack"))

    assert (len(line), line.bytes) == (1, second.size)
    line.drop(second)
    assert (len(line), line.bytes, line.take()) == (0, 0, None)


def test_a_job_in_flight_is_not_dropped():
    line, only = queue(), job()
    line.put(only)
    line.take()
    line.drop(only)

    assert line.in_flight == 1


def test_clearing_returns_what_nobody_took():
    line, first, second = queue(), job(), job()
    line.put(first)
    line.put(second)
    line.take()

    assert line.clear() == [second]
    assert (len(line), line.bytes, line.in_flight) == (0, 0, 1)


def test_a_job_counts_its_age_from_the_lease(monkeypatch):
    monkeypatch.setattr("signal_dispatch.jobs.monotonic", lambda: 107.0)

    assert job(since=100.0).age == pytest.approx(7.0)


@pytest.fixture
def clock(monkeypatch):
    """Let the test say what time it is: ``clock[0]``."""
    now = [100.0]
    monkeypatch.setattr("signal_dispatch.queueing.monotonic", lambda: now[0])
    return now


def test_it_knows_whether_one_may_go():
    line = queue(slow=1)
    assert not line.may_go
    line.put(job("slow"))
    line.put(job("slow"))
    assert line.may_go

    line.take()
    assert not line.may_go, "the next one for it may not go yet"
    line.put(job("crm"))
    assert line.may_go


def test_it_knows_when_the_youngest_in_flight_was_begun(clock):
    line, jobs = queue(), []
    assert line.last_begun is None
    for endpoint in ("crm", "crm", "slack"):
        line.put(job(endpoint))
    for _ in range(3):
        clock[0] += 1
        jobs.append(line.take())

    begun = []
    for each in reversed(jobs):
        begun.append(line.last_begun)
        line.done(each)
    assert [*begun, line.last_begun] == [103, 102, 101, None]


def test_it_counts_what_was_begun_without_what_was_put_back():
    line = queue()
    for _ in range(3):
        line.put(job("crm"))
    first = line.take()
    line.put_back(first)
    line.done(line.take())
    line.done(line.take())

    assert line.begun == 2


# --- endpoints that a RESOLVER has to be asked for


def test_one_job_asks_for_its_endpoint_and_the_others_wait_for_the_answer():
    unresolved = {"tenant:42"}
    line = queue(unresolved=unresolved)
    for endpoint in ("tenant:42", "tenant:42", "tenant:7"):
        line.put(job(endpoint))

    asking, other = line.take(), line.take()
    assert [(j.delivery.endpoint, j.asks) for j in (asking, other)] == [
        ("tenant:42", True),
        ("tenant:7", False),
    ]
    assert line.take() is None
    asking.asks = False
    unresolved.clear()
    assert line.take().delivery.endpoint == "tenant:42"


def test_an_answer_that_is_none_lets_the_next_one_ask():
    line = queue(unresolved={"tenant:42"})
    for _ in range(2):
        line.put(job("tenant:42"))
    line.done(line.take())

    assert line.take().asks


def test_a_family_asks_no_more_at_once_than_one_endpoint_may_have_in_flight():
    names = [f"tenant:{number}" for number in range(4)]
    unresolved = set(names)
    line = queue(unresolved=unresolved, tenant=2)
    for endpoint in (*names, "crm"):
        line.put(job(endpoint))

    asking = [line.take(), line.take()]
    assert [j.delivery.endpoint for j in asking] == names[:2]
    assert line.take().delivery.endpoint == "crm", "nobody else waits for their answers"
    assert line.take() is None
    unresolved.discard(names[3])
    assert line.take().delivery.endpoint == names[3], "nor does one that is known"
    asking[0].asks = False
    assert line.take().delivery.endpoint == names[2]


def test_a_family_is_crowded_once_its_unresolved_endpoints_have_enough_together():
    unresolved = {"tenant:1", "tenant:2"}
    line = queue(unresolved=unresolved)
    for endpoint in ("tenant:1", "tenant:2", "tenant:3", "crm", "crm"):
        line.put(job(endpoint))

    assert line.crowded_families(2) == {"tenant"}
    assert line.crowded("default", 2) == {Kind("crm", retried=False)}
    unresolved.clear()
    assert line.crowded_families(2) == set()
