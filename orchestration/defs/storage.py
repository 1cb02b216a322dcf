"""Dagster's own tables, without a connection for every statement and without asking the catalog at every event.

Dagster's storage on PostgreSQL opens a connection for each statement: a refresh of 32 models opened 530 of them,
a third of its time. Its web server keeps them (``optimize_for_webserver``); here every process does. And Dagster's
event log asks before each event of an asset or a check whether tables and columns are there that a migration of
its own once added, 700 times in that refresh. Once there they stay there (Dagster's migrations only add), so each
process asks until the answer is yes.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

from dagster._serdes import ConfigurableClassData
from dagster_postgres import (
    DagsterPostgresStorage,
    PostgresEventLogStorage,
    PostgresRunStorage,
    PostgresScheduleStorage,
)
from dagster_postgres.utils import create_pg_engine, pg_url_from_config
from sqlalchemy.engine import Connection


class RememberingEventLogStorage(PostgresEventLogStorage):
    """Dagster's event log on PostgreSQL, which remembers what it has found in the catalog."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._found: set[str] = set()
        super().__init__(postgres_url, inst_data=inst_data)
        _keep_connections(self)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Make it from ``dagster.yaml``."""
        return cls(pg_url_from_config(config_value), inst_data)

    def has_table(self, table_name: str) -> bool:
        """Whether a table of Dagster's is there."""
        ask = super().has_table
        return self._once(f"table {table_name}", lambda: ask(table_name))

    def has_secondary_index(self, name: str) -> bool:
        """Whether a migration of Dagster's data is done."""
        ask = super().has_secondary_index
        return self._once(f"index {name}", lambda: ask(name))

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        ask = super()._has_asset_key_col_on_connection
        return self._once(f"column {column_name}", lambda: ask(conn, column_name))

    def _once(self, name: str, ask: Callable[[], bool]) -> bool:
        if name not in self._found and ask():
            self._found.add(name)
        return name in self._found


class RememberingStorage(DagsterPostgresStorage):
    """Dagster's storage on PostgreSQL, with the event log above and connections that are kept."""

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, inst_data=inst_data)
        self._event_log_storage = RememberingEventLogStorage(postgres_url)
        _keep_connections(self._run_storage)
        _keep_connections(self._schedule_storage)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:
        """Make it from ``dagster.yaml``."""
        return cls(pg_url_from_config(config_value), inst_data)

    @property
    def event_storage_data(self) -> ConfigurableClassData | None:
        """How another process makes the same event log."""
        if self.inst_data is None:
            return None
        return ConfigurableClassData(__name__, RememberingEventLogStorage.__name__, self.inst_data.config_yaml)


def _keep_connections(storage: PostgresEventLogStorage | PostgresRunStorage | PostgresScheduleStorage) -> None:
    """Have a storage keep the connections that it uses at once in a thread, and open more for other threads.

    One that the server has dropped is replaced before it is used.
    """
    storage._engine = create_pg_engine(
        storage.postgres_url,
        storage._token_provider,
        isolation_level="AUTOCOMMIT",
        pool_size=3,
        max_overflow=-1,
        pool_pre_ping=True,
    )
