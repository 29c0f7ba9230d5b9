"""What happened: the events and the change that hooks are told about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from django.db.models import Model, TextChoices
from django.utils.translation import gettext_lazy as _

ModelT = TypeVar("ModelT", bound=Model)


class Event(TextChoices):
    """The events that Django's own signals tell. A dispatch may name others beside them."""

    # A row came into being.
    CREATED = "created", _("created")
    # A row, or a many-to-many relation that counts as part of it, was changed.
    UPDATED = "updated", _("updated")
    # A row is about to go.
    DELETED = "deleted", _("deleted")


@dataclass(frozen=True, slots=True)
class Change(Generic[ModelT]):
    """What happened to one object.

    ``old`` maps each field named in ``when_changed`` or ``track`` to its value as it stood in the
    database before; it is empty where nothing stood there, and in hooks called when it is sent.
    ``new`` maps the same names to the values that stand there now.
    """

    event: str
    instance: ModelT
    using: str
    old: Mapping[str, Any] = field(default_factory=dict)
    new: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def changed(self, name: str) -> bool:
        """Say whether the field differs from what stood in the database; always on CREATED.

        Raises ``ValueError`` for a field that is not tracked.
        """
        if self.event == Event.CREATED:
            return True
        if name not in self.old:
            raise ValueError(
                f"The old value of {name!r} is not known. Name it in the dispatch's "
                f"'track' (or 'when_changed'); known here: {', '.join(self.old) or 'none'}."
            )
        return bool(self.old[name] != self._current(name))

    def became(self, name: str, value: Any) -> bool:
        """Say whether the field changed and is ``value`` now."""
        return self.changed(name) and bool(self._current(name) == value)

    def _current(self, name: str) -> Any:
        return self.new[name] if name in self.new else getattr(self.instance, name)
