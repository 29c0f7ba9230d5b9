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

#: Something that a person is to know, once an incident: an endpoint begins to fail, is paused by
#: its breaker, is well again, or a delivery is failed for good. Argument: ``alarm``, an
#: ``Alarm`` of ``signal_dispatch.alarms``.
alarm_raised = Signal()

#: The breaker of an endpoint opened: it is left alone for a while. Arguments: ``endpoint``,
#: ``using``, ``attempts``, ``failed``.
breaker_opened = Signal()

#: A probe succeeded: the endpoint is called again. Arguments: ``endpoint``, ``using``.
breaker_closed = Signal()

#: A person paused an endpoint. Arguments: ``endpoint``, ``using``, ``by``, ``reason``.
endpoint_paused = Signal()

#: A person let an endpoint be called again. Arguments: ``endpoint``, ``using``, ``by``.
endpoint_resumed = Signal()
