"""Give what was not begun back to the table, where others find it."""

from collections.abc import Sequence
from functools import partial

from signal_dispatch import claims
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job
from signal_dispatch.outboxes import do_all


def return_jobs(hand: Hand, jobs: Sequence[Job]) -> None:
    """Make these due at once for anybody. What the database refuses stays in the hand."""
    left = list(jobs)

    def give(using: str) -> None:
        mine = [job for job in jobs if job.using == using]
        claims.hand_back(using, claims.holder(), [job.claim for job in mine])
        left[:] = [job for job in left if job.using != using]

    try:
        do_all([partial(give, using) for using in {job.using for job in jobs}])
    finally:
        with hand.lock:
            for job in left:
                if not hand.queue.put(job):  # saves took its room: its lease is kept all the same
                    hand.stale.append(job)
