"""Signals for users: logging and metrics hang on them. A receiver that raises hurts nobody."""

from django.dispatch import Signal

#: A delivery was written to the outbox; its transaction may still be open.
#: Arguments: ``delivery``, ``using``.
delivery_enqueued = Signal()

#: One try of a delivery ended and is recorded. Arguments: ``delivery``, ``attempt``, ``using``.
attempt_finished = Signal()

#: A delivery is delivered, failed or cancelled, and this is recorded.
#: Arguments: ``delivery``, ``using``.
delivery_finished = Signal()
