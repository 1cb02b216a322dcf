"""A PostgreSQL database: how to reach it, in each form that psycopg, SQLAlchemy and dbt ask for.

What lives here: the address and connecting. Which database is meant says ``server``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, LiteralString
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from earmark import database_url as address
from earmark.errors import EarmarkError

SSL_OPTIONS: Final = ("sslmode", "sslrootcert", "sslcert", "sslkey")

# A session whose client is gone holds locks that others wait for. A killed process closes its connection, and
# the server looks for that every 10 seconds while a statement runs; a network that is cut closes nothing, so both
# ends ask each other, and know after 40 seconds. A session that only holds a lock is idle: no reason to end it.
LIVENESS: Final = (
    "-c client_connection_check_interval=10s -c idle_session_timeout=0"
    " -c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4"
)
_KEEPALIVES: Final = {"keepalives_idle": 20, "keepalives_interval": 5, "keepalives_count": 4}


class DatabaseUnavailableError(EarmarkError):
    """The database cannot be reached. The text says where it was looked for, without a password."""


@dataclass(frozen=True, slots=True)
class Database:
    """The address of one database. ``options`` are further libpq options (SSL and the like)."""

    host: str
    port: int
    name: str
    user: str
    password: str | None = field(default=None, repr=False)
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def from_url(cls, url: str) -> "Database":
        """Read a libpq URL or connection string.

        Raises:
            AddressError: it is none.

        """
        parts = address.parse(url)
        user = parts.pop("user", "postgres")
        return cls(
            host=parts.pop("host", "localhost"),
            port=int(parts.pop("port", "5432")),
            name=parts.pop("dbname", user),
            user=user,
            password=parts.pop("password", None) or None,
            options=tuple(sorted(parts.items())),
        )

    def __str__(self) -> str:
        """Say where the database is; the password stays out."""
        return f"{self.name} on {self.host}:{self.port} as {self.user}"

    def conninfo(self, **more: str | int) -> str:
        """Return the libpq connection string, password included."""
        return make_conninfo(
            host=self.host,
            port=self.port,
            dbname=self.name,
            user=self.user,
            password=self.password,
            **{**dict(self.options), **{key: str(value) for key, value in more.items()}},
        )

    def session(self, application: str) -> str:
        """Return the connection string of a session of ours: in UTC, and over soon where its client is gone."""
        options = f"{dict(self.options).get('options', '')} -c TimeZone=UTC {LIVENESS}".strip()
        return self.conninfo(application_name=application, connect_timeout=10, options=options, **_KEEPALIVES)

    def url(self, **session: str) -> str:
        """Return the URL that SQLAlchemy and Dagster's storage take, password included.

        ``session`` are settings of the server's for whoever connects by it, such as ``search_path``.
        """
        password = f":{quote(self.password, safe='')}" if self.password else ""
        user = f"{quote(self.user, safe='')}{password}"
        query = {key: value for key, value in self.options if key in SSL_OPTIONS}
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        if self.host.startswith("/"):
            where = ""
            query = {"host": self.host, "port": str(self.port), **query}
        if session:
            query["options"] = " ".join(f"-c{name}={value}" for name, value in session.items())
        return f"postgresql://{user}@{where}/{quote(self.name, safe='')}" + (
            f"?{urlencode(query, quote_via=quote)}" if query else ""
        )

    def environment(self) -> dict[str, str]:
        """Return the variables that ``dbt_project/profiles.yml`` reads, and libpq's own."""
        options = dict(self.options)
        return {
            "POSTGRES_HOST": self.host,
            "POSTGRES_PORT": str(self.port),
            "POSTGRES_DATABASE": self.name,
            "POSTGRES_USER": self.user,
            "POSTGRES_PASSWORD": self.password or "",
            "POSTGRES_SSLMODE": options.get("sslmode", "prefer"),
            "POSTGRES_SSLROOTCERT": options.get("sslrootcert", ""),
            "POSTGRES_SSLCERT": options.get("sslcert", ""),
            "POSTGRES_SSLKEY": options.get("sslkey", ""),
            "PGOPTIONS": LIVENESS,
        }

    def connect(
        self,
        application: LiteralString = "earmark",
        *,
        autocommit: bool = False,
        read_only: bool = False,
    ) -> psycopg.Connection:
        """Open a connection in UTC.

        Raises:
            DatabaseUnavailableError: there is no server, no such database, or the password is wrong.

        """
        try:
            connection = psycopg.connect(self.session(application), autocommit=autocommit)
        except (psycopg.Error, OSError, UnicodeError) as error:
            raise DatabaseUnavailableError(f"Cannot reach database {self}: {self.scrub(error)}") from None
        connection.read_only = read_only
        return connection

    def scrub(self, error: object) -> str:
        """Return what a driver says of this database, in one line and without the password."""
        return " ".join(address.scrub(str(error), self.password).split())

    def ensure_exists(self) -> None:
        """Create the database where it is missing; does nothing where it is there.

        Raises:
            DatabaseUnavailableError: the server is not there, or the role may not create databases.

        """
        try:
            self.connect().close()
        except DatabaseUnavailableError as error:
            if "does not exist" not in str(error):
                raise
            with replace(self, name="postgres").connect(autocommit=True) as connection:
                try:
                    connection.execute(
                        sql.SQL("create database {} encoding 'UTF8' template template0").format(
                            sql.Identifier(self.name)
                        )
                    )
                except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
                    return  # another process was faster: before its commit, or while ours was at it
                except psycopg.errors.InsufficientPrivilege:
                    raise DatabaseUnavailableError(
                        f"Database {self} does not exist and the role may not create it: "
                        f"have it created with: create database {self.name} owner {self.user};"
                    ) from None


@contextmanager
def advisory_lock(connection: psycopg.Connection, name: LiteralString) -> Iterator[None]:
    """Hold a session-level advisory lock; waits for whoever holds it."""
    connection.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (f"earmark {name}",))
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (f"earmark {name}",))
