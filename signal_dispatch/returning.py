"""Give what was not begun back to the table, where others find it."""

from collections.abc import Sequence

from signal_dispatch import claims
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job


def return_jobs(hand: Hand, jobs: Sequence[Job]) -> None:
    """Make these due at once for anybody. What the database refuses stays in the hand."""
    left = list(jobs)
    try:
        for using in {job.using for job in jobs}:
            mine = [job.claim for job in left if job.using == using]
            claims.hand_back(using, claims.holder(), mine)
            left = [job for job in left if job.using != using]
    finally:
        with hand.lock:
            for job in left:
                if not hand.queue.put(job):  # saves took its room: its lease is kept all the same
                    hand.stale.append(job)
