"""Where the database servers of the tests are, and whether they let the tests in.

Addresses and accounts come from the variables that the servers' own clients read.
"""

import os

POSTGRES = {
    "HOST": os.environ.get("PGHOST", "127.0.0.1"),
    "PORT": os.environ.get("PGPORT", "5432"),
    "USER": os.environ.get("PGUSER", "postgres"),
    "PASSWORD": os.environ.get("PGPASSWORD", ""),
}
MARIADB = {
    "HOST": os.environ.get("MYSQL_HOST", "127.0.0.1"),
    "PORT": os.environ.get("MYSQL_TCP_PORT", "3306"),
    "USER": os.environ.get("MYSQL_USER", "root"),
    "PASSWORD": os.environ.get("MYSQL_PASSWORD", ""),
}
AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//")
CONNECT_SECONDS = 5


def required() -> bool:
    """Say whether whatever the tests need has to be there."""
    return os.environ.get("REQUIRE_SERVICES", "") not in ("", "0")


def refusal(database: str) -> str:
    """Return why ``postgres`` or ``mariadb`` can't be used, empty when it can."""
    connect = {"postgres": _connect_postgres, "mariadb": _connect_mariadb}[database]
    try:
        connect()
    except Exception as error:  # noqa: BLE001 - each driver has its own, and they all mean no
        return " ".join(str(error).split()) or type(error).__name__
    return ""


def _connect_postgres() -> None:
    import psycopg

    psycopg.connect(
        host=POSTGRES["HOST"],
        port=POSTGRES["PORT"],
        user=POSTGRES["USER"],
        password=POSTGRES["PASSWORD"],
        dbname="postgres",
        connect_timeout=CONNECT_SECONDS,
    ).close()


def _connect_mariadb() -> None:
    import pymysql

    pymysql.connect(
        host=MARIADB["HOST"],
        port=int(MARIADB["PORT"]),
        user=MARIADB["USER"],
        password=MARIADB["PASSWORD"],
        connect_timeout=CONNECT_SECONDS,
    ).close()
