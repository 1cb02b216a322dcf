"""Dagster's tables on an instance as `dagster.yaml` makes it: what is kept, and what is not waited for."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import sqlalchemy
from dagster_postgres import PostgresEventLogStorage

from earmark.settings import load_settings
from earmark.warehouse.database import Database
from orchestration.command_line import dagster_environment
from orchestration.defs.storage import RememberingEventLogStorage

ASSET = dg.AssetKey(["marts", "fct_downloads"])


@pytest.fixture
def instance(address: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    for name, value in dagster_environment(load_settings(), address).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as opened:
        yield opened


def _report(instance: dg.DagsterInstance, number: int) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, metadata={"number": number}))
    instance.report_runless_asset_event(dg.AssetCheckEvaluation(passed=True, check_name="c", asset_key=ASSET))


def _last(instance: dg.DagsterInstance) -> object:
    event = instance.get_latest_materialization_event(ASSET)
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization.metadata["number"].value


def _storage(instance: dg.DagsterInstance) -> RememberingEventLogStorage:
    storage = instance.event_log_storage
    assert isinstance(storage, RememberingEventLogStorage)
    return storage


def test_events_ask_the_catalog_once_and_share_connections(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    ask = PostgresEventLogStorage.has_table

    def has_table(self: PostgresEventLogStorage, name: str) -> bool:
        asked[name] += 1
        return ask(self, name)

    monkeypatch.setattr(PostgresEventLogStorage, "has_table", has_table)
    opened: list[object] = []
    sqlalchemy.event.listen(_storage(instance)._engine, "connect", lambda connection, _: opened.append(connection))
    for number in range(5):
        _report(instance, number)
    assert asked
    assert set(asked.values()) == {1}
    assert len(opened) <= 3
    assert _last(instance) == 4


def test_a_connection_that_the_server_has_dropped_is_replaced(
    instance: dg.DagsterInstance, address: Database
) -> None:
    _report(instance, 1)
    with address.connect(autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    _report(instance, 2)
    assert _last(instance) == 2


def test_only_dagster_goes_on_before_its_rows_are_on_the_disk(instance: dg.DagsterInstance) -> None:
    with _storage(instance)._connect() as connection:
        assert connection.exec_driver_sql("show synchronous_commit").scalar_one() == "off"
        assert connection.exec_driver_sql("show search_path").scalar_one() == "dagster"
    with psycopg.connect(Database.from_url(os.environ["DAGSTER_POSTGRES_URL"]).url()) as connection:
        assert connection.execute("show synchronous_commit").fetchone() == ("on",)
