"""Resources: the warehouse and the landing folder, as the settings mean them."""

import atexit
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import dagster as dg
import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from earmark.addresses.privacy import HashKey
from earmark.addresses.site import Lookups, hash_key, lookups
from earmark.settings import load_settings
from earmark.warehouse.database import Database, DatabaseUnavailableError
from earmark.warehouse.server import resolve


class Warehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The database. ``url`` names another one than the settings do, as the tests need it."""

    url: str | None = None

    def database(self) -> Database:
        """Return the database's address."""
        return Database.from_url(self.url) if self.url else resolve(load_settings())

    @contextmanager
    def connect(self) -> Iterator[psycopg.Connection]:
        """Lend a connection; it is committed, or rolled back on an error.

        Raises:
            DatabaseUnavailableError: the database cannot be reached.

        """
        database = self.database()
        if self.url:
            with database.connect("earmark dagster") as connection:
                yield connection
        else:
            with ExitStack() as stack:
                try:
                    connection = stack.enter_context(_pool(database).connection())
                except PoolTimeout as error:
                    raise DatabaseUnavailableError(
                        f"Cannot reach database {database}: {database.scrub(error)}"
                    ) from None
                yield connection


class Landing(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The landing folder. ``root`` names another one than the settings do."""

    root: str | None = None

    def location(self) -> str:
        """Return the folder or URL where files land."""
        return self.root or load_settings().landing_root

    def key(self) -> HashKey:
        """Return the secret under which client addresses are hashed."""
        return hash_key(load_settings())

    def lookups(self) -> Lookups:
        """Return what client addresses are looked up in before they are hashed."""
        return lookups(load_settings())


@lru_cache(maxsize=1)
def _pool(database: Database) -> ConnectionPool:
    """Return the pool of this process: the sensors look every few seconds."""
    database.connect().close()  # says at once, and in words, where the database cannot be reached
    settings = load_settings()
    pool = ConnectionPool(
        database.session("earmark dagster"),
        min_size=settings.pool_min_size,
        max_size=settings.pool_max_size,
        check=ConnectionPool.check_connection,
        open=True,
    )
    atexit.register(pool.close)
    return pool
