"""What PostgreSQL has written so far, how large the outbox is, and what processes have used."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.benchmarks import taking

TABLES = ("signal_dispatch_delivery", "signal_dispatch_attempt")

_ROWS = """
    SELECT sum(n_tup_ins), sum(n_tup_upd + n_tup_del),
        sum((n_tup_ins + n_tup_upd - n_tup_hot_upd)
            * (SELECT count(*) FROM pg_index WHERE indrelid = relid))
    FROM pg_stat_user_tables WHERE relname LIKE 'signal_dispatch_%'
"""
_OTHERS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
        AND pid <> pg_backend_pid()
"""


def written() -> dict[str, int]:
    """Return what the server has written; other connections to this database are closed by then.

    ``wal`` in bytes and ``images`` of whole pages within; ``transactions`` that got a number;
    rows of our tables that were ``inserted``, and of which a version is ``dead``; ``entries`` of
    their indexes. The first three are of the whole server: nobody else should write.
    """
    from django.db import connection

    connection.close()  # what a connection counted is seen when it is closed, or in a while
    taking.wait_until(lambda: not _query(_OTHERS))
    ((wal, images, transactions),) = _query(
        "SELECT pg_current_wal_lsn() - '0/0', (SELECT wal_fpi FROM pg_stat_wal),"
        " pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
    )
    ((inserted, dead, entries),) = _query(_ROWS)
    return {
        "wal": int(wal),
        "images": int(images),
        "transactions": int(transactions),
        "inserted": int(inserted),
        "dead": int(dead),
        "entries": int(entries),
    }


def difference(later: dict[str, int], earlier: dict[str, int], calls: int) -> dict[str, float]:
    """Return what was written between, for each call."""
    return {name: (later[name] - earlier[name]) / calls for name in later}


def sizes() -> dict[str, int]:
    """Return the bytes of the outbox: heap (with what is kept out of line) and indexes."""
    told = {}
    for table in TABLES:
        ((heap, indexes),) = _query(f"SELECT pg_table_size('{table}'), pg_indexes_size('{table}')")
        name = table.rpartition("_")[2]
        told |= {f"{name}_heap": heap, f"{name}_indexes": indexes}
    return told


def checkpoint() -> None:
    """Write all that is dirty: each page that is touched from now on is logged once as a whole."""
    _do("CHECKPOINT")


def pack() -> None:
    """Write the tables anew, without gaps."""
    for table in TABLES:
        _do(f"VACUUM FULL {table}")


def keep_dead_rows(*, keep: bool) -> None:
    """Keep the server from tidying up by itself while something is measured."""
    for table in TABLES:
        _do(f"ALTER TABLE {table} SET (autovacuum_enabled = {'off' if keep else 'on'})")


def fill(count: int) -> None:
    """Let so many deliveries have been made before, of which no two are alike."""
    from signal_dispatch.models import Delivery

    columns = [f.column for f in Delivery._meta.concrete_fields if f.column != "id"]
    anew = {
        "uid": "gen_random_uuid()",
        "lane": "md5(random()::text)",
        "object_pk": "number::text",
        "state": "'delivered'",
        "available_at": "NULL",
        "finished_at": "statement_timestamp()",
    }
    values = ", ".join(anew.get(column, column) for column in columns)
    _do(
        f"INSERT INTO {TABLES[0]} ({', '.join(columns)}) SELECT {values} FROM {TABLES[0]},"  # noqa: S608 - ours
        f" generate_series(1, {count}) AS number WHERE id = (SELECT max(id) FROM {TABLES[0]})"
    )
    _do("VACUUM ANALYZE")


def cpu_of(pids: Iterable[int]) -> dict[int, float]:
    """Return for each process that lives what it has used of the processors, in seconds."""
    used = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        used[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def cpu_of_server(work: Callable[[], object]) -> float:
    """Return the seconds that PostgreSQL spends on what this thread's connection asks for."""
    ((pid,),) = _query("SELECT pg_backend_pid()")
    before = cpu_of([pid])[pid]
    work()
    return cpu_of([pid])[pid] - before


def servers() -> list[int]:
    """Return the processes of PostgreSQL that work for others than this one."""
    return [pid for (pid,) in _query(_OTHERS)]


def _query(sql: str) -> list[tuple[int, ...]]:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def _do(sql: str) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql)
