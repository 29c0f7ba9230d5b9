"""Where measurements run: the sink, a database of their own, and the brokers that answer."""

import json
import os
import platform
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.benchmarks.sink import Sink
from tests.redis_server import redis_url
from tests.services import AMQP_URL, POSTGRES, refusal

_NAME = f"signal_dispatch_bench_{os.getpid()}"
#: What each contender needs, beside PostgreSQL: libraries, and a broker.
_NEEDS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "bare": ((), ""),
    "ours": ((), ""),
    "pool": ((), ""),
    "thread": ((), ""),
    "celery-redis": (("celery", "redis"), "redis"),
    "celery-amqp": (("celery",), "amqp"),
    "dramatiq": (("dramatiq", "redis"), "redis"),
    "huey": (("huey", "redis"), "redis"),
    "tasks-db": (("django_tasks_db",), ""),
    "django-q2": (("django_q",), ""),
    "procrastinate": (("procrastinate",), ""),
}


class Bench:
    """Run measured processes one after the other, each with empty tables."""

    def __init__(self, sink: Sink, brokers: Mapping[str, str]) -> None:
        self._sink = sink
        self._brokers = brokers
        #: Why a contender is left out.
        self.left_out: dict[str, str] = {}

    def has(self, contender: str) -> bool:
        """Say whether a contender can run here; note why not."""
        libraries, broker = _NEEDS[contender]
        missing = [name for name in libraries if find_spec(name) is None]
        if missing:
            self.left_out[contender] = f"{' and '.join(missing)} not installed"
        elif broker and broker not in self._brokers:
            self.left_out[contender] = f"{broker} does not answer"
        return contender not in self.left_out

    def run(
        self, module: str, *arguments: str | float, broker: str = "", **more: str
    ) -> dict[str, Any]:
        """Run a module of this package as a process, and return the figures it prints."""
        self._empty()
        done = subprocess.run(
            [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, arguments)],
            env={
                **os.environ,
                **_environment(self._sink.url, self._brokers.get(broker, "")),
                **more,
            },
            stdout=subprocess.PIPE,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{module} {arguments} ended with {done.returncode}.")
        figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return figures

    def run_contender(self, module: str, contender: str, *arguments: str | float) -> dict[str, Any]:
        """Run a module for one contender, with the broker that it needs."""
        # What is recorded for a worker is not for the threads of the process that records it.
        backend = {"backlog": "deferred.DeferredBackend"}.get(module, "threads.ThreadsBackend")
        broker = _NEEDS[contender][1]
        return self.run(module, contender, *arguments, broker=broker, BENCH_BACKEND=backend)

    def _empty(self) -> None:
        with psycopg.connect(**_account(_NAME), autocommit=True) as connection:
            rows = connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
                " AND tablename NOT IN ('django_migrations', 'django_content_type')"
            ).fetchall()
            tables = sql.SQL(", ").join(sql.Identifier(name) for (name,) in rows)
            connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY CASCADE").format(tables))


@contextmanager
def bench() -> Iterator[Bench]:
    """Yield a bench; raise ``RuntimeError`` where PostgreSQL does not answer."""
    if reason := refusal("postgres"):
        raise RuntimeError(f"PostgreSQL is needed: {reason}")
    with ExitStack() as stack:
        brokers = {}
        with suppress(pytest.skip.Exception, pytest.fail.Exception):
            brokers["redis"] = stack.enter_context(redis_url())
        if _amqp_answers():
            brokers["amqp"] = AMQP_URL
        sink = stack.enter_context(Sink())
        stack.enter_context(_database())
        _manage("migrate", "--verbosity", "0", "--run-syncdb")
        yield Bench(sink, brokers)


def machine() -> dict[str, Any]:
    """Tell on what the figures were taken."""
    with psycopg.connect(**_account("postgres")) as connection:
        version = connection.info.server_version
    return {
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "postgresql": version // 10000,
    }


def _environment(sink: str = "", broker: str = "") -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "tests.benchmarks.settings",
        "BENCH_DATABASE": _NAME,
        "BENCH_SINK": sink,
        "BENCH_BROKER": broker,
        # What a run that broke off has left is nobody's.
        "BENCH_QUEUE": f"signal_dispatch_bench_{os.getpid()}_{random.getrandbits(32):x}",
        "PYTHONWARNINGS": "ignore",
    }


def _account(database: str) -> dict[str, Any]:
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
    return {"dbname": database, **{names[key]: value for key, value in POSTGRES.items()}}


@contextmanager
def _database() -> Iterator[None]:
    name = sql.Identifier(_NAME)
    with psycopg.connect(**_account("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    try:
        yield
    finally:
        with psycopg.connect(**_account("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _manage(*arguments: str) -> None:
    command = [sys.executable, "-m", "django", *arguments]
    subprocess.run(command, env=os.environ | _environment(), check=True)


def _amqp_answers() -> bool:
    from kombu import Connection

    try:
        with Connection(AMQP_URL, connect_timeout=5) as connection:
            connection.connect()
    except OSError:
        return False
    return True
