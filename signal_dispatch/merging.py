"""Remember what a transaction did to an object so far, so that it makes one delivery."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import connections, transaction

from signal_dispatch.events import Change, Event
from signal_dispatch.queueing import Recorded

#: Which dispatch for which object: its name, the model's label, the key as text.
Key = tuple[str, str, str]


_TRANSACTION = "transaction"


@dataclass(slots=True)
class Entry:
    """What became of one object, as one dispatch sees it, since the transaction began."""

    created: bool = False
    # Perhaps: a savepoint may have taken it back, and then the object is still the same.
    deleted: bool = False
    old: Mapping[str, Any] = field(default_factory=dict)
    # By endpoint. One that a savepoint took back stays here; writing to it changes no row.
    recorded: dict[str, Recorded] = field(default_factory=dict)

    def net(self, change: Change[Any]) -> Change[Any] | None:
        """Return the change since the transaction began; None for created and deleted again."""
        if change.event == Event.DELETED:
            return None if self.created else self._since_beginning(change, Event.DELETED)
        if change.event == Event.CREATED and not change.old:
            return change
        if self.created or change.event == Event.CREATED:
            return replace(change, event=Event.CREATED, old={})
        return self._since_beginning(change, Event.UPDATED)

    def _since_beginning(self, change: Change[Any], event: str) -> Change[Any]:
        return replace(change, event=event, old={**change.old, **self.old})


@dataclass(slots=True)
class Memory:
    """The entries of one transaction on one connection."""

    block: Any
    position: int
    entries: dict[Key, Entry] = field(default_factory=dict)

    def marker(self) -> None:
        """Stand among the commit hooks: when this is gone, the transaction is over."""
        self.entries.clear()


def memory_of(using: str) -> Memory | None:
    """Return the memory of the open transaction; None outside of one.

    A test case's own transaction does not count: there each outermost block of the test's code
    is taken for a transaction.
    """
    connection = connections[using]
    block = _outermost_block(connection)
    if block is None:
        return None
    memory: Memory | None = getattr(connection, "signal_dispatch_memory", None)
    if memory is None or memory.block != block or not _stands(memory, connection):
        memory = Memory(block, len(connection.run_on_commit))
        if block == _TRANSACTION:
            transaction.on_commit(memory.marker, using=using)
        connection.signal_dispatch_memory = memory  # type: ignore[attr-defined]
    return memory


def _stands(memory: Memory, connection: Any) -> bool:
    # A hook can only be dropped together with all that came after it, so the marker is at the
    # place where it was put, or gone with everything that the memory tells of.
    if memory.block != _TRANSACTION:
        return True
    hooks = connection.run_on_commit
    if len(hooks) <= memory.position:
        return False
    hook = hooks[memory.position][1]
    return getattr(hook, "__self__", None) is memory


def _outermost_block(connection: Any) -> Any:
    # TestCase marks its own blocks in no other way than by this private attribute, and savepoint
    # names tell the test's blocks apart, whose transaction never ends; where a block has none it
    # stands for itself (its id() is soon another's). tests/test_merging.py notices if they change.
    for depth, block in enumerate(connection.atomic_blocks):
        if not block._from_testcase:  # noqa: SLF001 - see above
            return connection.savepoint_ids[depth - 1] or block if depth else _TRANSACTION
    return None
