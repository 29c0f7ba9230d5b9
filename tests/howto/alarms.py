"""Mail ADMINS when the calls to a remote need a person."""

from django.core.mail import mail_admins
from django.dispatch import receiver

from signal_dispatch.signals import alarm_raised


@receiver(alarm_raised)
def mail_admins_of(alarm, **kwargs):
    """Send what the alarm says in its sentence."""
    mail_admins(f"{alarm.endpoint}: {alarm.kind.label}", alarm.text)
