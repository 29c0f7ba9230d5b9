"""The brokers of the tests: a queue that no other run meets, in RabbitMQ or in Redis."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from kombu import Connection

from tests.redis_server import redis_url
from tests.services import AMQP_URL, required
from tests.settings import RUN


@dataclass(frozen=True)
class Broker:
    """Where messages go. ``queue`` is this test's own, and with Redis part of all keys."""

    url: str
    queue: str

    @property
    def address(self) -> tuple[str, int]:
        """Return host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or {"redis": 6379}.get(parts.scheme, 5672)

    def through(self, port: int) -> str:
        """Return the URL that leads there through a port of this machine."""
        parts = urlsplit(self.url)
        account, at, _host = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{account}{at}127.0.0.1:{port}").geturl()

    def empty(self) -> None:
        """Lose all messages."""
        if self.url.startswith("redis"):
            import redis

            with redis.Redis.from_url(self.url) as client:
                for key in client.scan_iter(f"*{self.queue}*"):
                    client.delete(key)
            return
        with Connection(self.url, connect_timeout=5) as connection:
            connection.default_channel.queue_delete(self.queue)


@contextmanager
def broker(kind: str) -> Iterator[Broker]:
    """Yield one of ``amqp`` or ``redis``; skip the test where it does not answer.

    Where services are required, that fails.
    """
    queue = f"signal_dispatch-{RUN}-{uuid.uuid4().hex[:8]}"
    if kind == "redis":
        with redis_url() as url:
            made = Broker(url, queue)
            yield made
            made.empty()
        return
    try:
        with Connection(AMQP_URL, connect_timeout=5) as connection:
            connection.connect()
    except Exception as error:  # noqa: BLE001 - a refusal has many forms
        (pytest.fail if required() else pytest.skip)(f"No RabbitMQ at {_host()}: {error}")
    made = Broker(AMQP_URL, queue)
    yield made
    made.empty()


def _host() -> str:
    """Return host and port, without the account."""
    return AMQP_URL.rpartition("@")[2]
