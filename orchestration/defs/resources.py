"""Resources: the warehouse and the landing folder, as the settings mean them."""

import dagster as dg
import psycopg

from orchestration.lib.ingestion.privacy import HashKey
from orchestration.lib.warehouse.database import Database, resolve
from orchestration.runtime import hash_key
from orchestration.settings import load_settings


class Warehouse(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The database. ``url`` names another one than the settings do, as the tests need it."""

    url: str | None = None

    def database(self) -> Database:
        """Return the database's address."""
        return Database.from_url(self.url) if self.url else resolve(load_settings())

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection:
        """Open a connection.

        Raises:
            DatabaseUnavailableError: the database cannot be reached.

        """
        return self.database().connect("earmark dagster", autocommit=autocommit)


class Landing(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The landing folder. ``root`` names another one than the settings do."""

    root: str | None = None

    def location(self) -> str:
        """Return the folder or URL where files land."""
        return self.root or load_settings().landing_root

    def key(self) -> HashKey:
        """Return the secret under which client addresses are hashed."""
        return hash_key(load_settings())
