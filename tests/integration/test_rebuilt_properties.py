"""What a rebuild keeps: all that people and tools have set on a relation that is made anew."""

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from earmark.warehouse.database import Database
from earmark.warehouse.engine import Engine, recorded

Dbt = Any  # the class of conftest.py, which tests cannot import
SCHEMAS = ["seeds", "staging", "intermediate", "rollups", "marts"]
RELATIONS = """
    select n.nspname, c.relname, c.relkind::text,
        exists (
            select from timeseries.hypertables as h
            where (h.schema_name, h.table_name) = (n.nspname, c.relname) and h.columnstore_after is not null
        ) as has_columnstore
    from pg_class as c
    inner join pg_namespace as n on c.relnamespace = n.oid
    where n.nspname = any(%s) and c.relkind in ('r', 'p', 'v')
    order by 1, 2
"""


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    with any_engine.connect(autocommit=True) as opened:
        yield opened


@pytest.fixture
def roles(warehouse: psycopg.Connection) -> Iterator[tuple[sql.Identifier, sql.Identifier]]:
    """Return a reader and an owner, roles that are gone after the test."""
    names = [f"test_{kind}_{uuid.uuid4().hex[:8]}" for kind in ("reader", "owner")]
    reader, owner = (sql.Identifier(name) for name in names)
    warehouse.execute(sql.SQL("create role {}; create role {}").format(reader, owner))
    yield reader, owner
    warehouse.execute(
        sql.SQL("reassign owned by {1} to current_user; drop owned by {0}, {1}; drop role {0}, {1}").format(
            reader, owner
        )
    )


def _relations(warehouse: psycopg.Connection) -> list[tuple[str, str, str, bool]]:
    return warehouse.execute(RELATIONS, (SCHEMAS,)).fetchall()


def _properties(warehouse: psycopg.Connection) -> dict[str, Any]:
    rows = warehouse.execute(
        "select format('%%I.%%I', r.schema_name, r.name),"
        " timeseries.properties(timeseries.find_relation(r.schema_name, r.name))"
        " from unnest(%s::text[], %s::text[]) as r (schema_name, name)",
        [list(column) for column in zip(*[row[:2] for row in _relations(warehouse)], strict=True)],
    ).fetchall()
    return dict(rows)


def test_what_is_set_on_any_relation_outlives_its_rebuild(
    dbt_on_any_engine: Dbt, warehouse: psycopg.Connection, roles: tuple[sql.Identifier, sql.Identifier]
) -> None:
    reader, owner = roles
    dbt_on_any_engine.build()
    on_timescaledb = recorded(warehouse).engine is Engine.TIMESCALEDB
    of_all = (
        "grant select on {relation} to {reader} with grant option;grant select ({column}) on {relation} to public;"
    )
    of_tables = (
        "alter table {relation} alter column {column} set statistics 321;"
        "alter table {relation} replica identity full;"
    )
    # TimescaleDB takes no row policies together with its columnstore or with aggregates on the table.
    of_guarded = (
        "alter table {relation} enable row level security;"
        "create policy mine on {relation} as restrictive for select to {reader} using ({column} is not null);"
    )
    for schema, name, kind, has_columnstore in _relations(warehouse):
        relation = sql.Identifier(schema, name)
        row = warehouse.execute(
            "select attname from pg_attribute where attrelid = timeseries.find_relation(%s, %s) and attnum = 1",
            (schema, name),
        ).fetchone()
        assert row is not None
        takes_policies = kind != "v" and not (on_timescaledb and (has_columnstore or schema != "seeds"))
        statements = [of_all, of_tables if kind != "v" else "", of_guarded if takes_policies else ""]
        warehouse.execute(
            sql.SQL("".join(statements)).format(relation=relation, reader=reader, column=sql.Identifier(row[0]))
        )
        if kind != "v":
            warehouse.execute(sql.SQL("alter table {} owner to {}").format(relation, owner))
    before = _properties(warehouse)
    assert {row[2] for row in _relations(warehouse)} >= {"r", "v"}
    ids = dict(
        warehouse.execute("select oid::regclass::text, oid from pg_class where relkind in ('r', 'p')").fetchall()
    )

    dbt_on_any_engine.build("--full-refresh")
    assert _properties(warehouse) == before
    later = dict(warehouse.execute("select oid::regclass::text, oid from pg_class").fetchall())
    for replaced in ("seeds.attribution_models", "marts.fct_downloads", "marts.rpt_campaign_lift"):
        assert later[replaced] != ids[replaced], f"{replaced} was not made anew: nothing is shown"


def test_a_view_that_changes_its_columns_keeps_its_grants(
    dbt_on_any_engine: Dbt, warehouse: psycopg.Connection, roles: tuple[sql.Identifier, sql.Identifier]
) -> None:
    dbt_on_any_engine.build("--select", "stg_raw__podcasts")
    warehouse.execute(
        "drop view staging.stg_raw__podcasts cascade; create view staging.stg_raw__podcasts as select 1 as other"
    )
    warehouse.execute(sql.SQL("grant select on staging.stg_raw__podcasts to {}").format(roles[0]))
    before = _properties(warehouse)["staging.stg_raw__podcasts"]["grants"]
    dbt_on_any_engine.build("--select", "stg_raw__podcasts")
    assert _properties(warehouse)["staging.stg_raw__podcasts"]["grants"] == before


def test_a_grant_of_default_privileges_that_was_revoked_stays_revoked(
    dbt_on_any_engine: Dbt, warehouse: psycopg.Connection, roles: tuple[sql.Identifier, sql.Identifier]
) -> None:
    warehouse.execute("create schema marts")
    warehouse.execute(
        sql.SQL("alter default privileges in schema marts grant select on tables to {}").format(roles[0])
    )
    dbt_on_any_engine.build()
    warehouse.execute(sql.SQL("revoke select on marts.fct_downloads from {}").format(roles[0]))
    dbt_on_any_engine.build("--full-refresh", "--select", "fct_downloads")
    properties = _properties(warehouse)
    assert properties["marts.fct_downloads"]["grants"] == []
    assert [grant["privilege"] for grant in properties["marts.fct_conversions"]["grants"]] == ["SELECT"]


def test_a_policy_that_no_longer_fits_stops_the_rebuild(address: Database, dbt: Dbt) -> None:
    with address.connect(autocommit=True) as connection:
        dbt.build("--select", "+fct_downloads")
        connection.execute(
            "alter table marts.fct_downloads add column secret text;"
            "create policy mine on marts.fct_downloads using (secret is null)"
        )
        result = dbt(
            "build", "--select", "fct_downloads", "--full-refresh", "--exclude-resource-types", "test", "unit_test"
        )
        assert not result.success
        assert 'column "secret" does not exist' in dbt.messages(result)
        policies = connection.execute("select polname from pg_policy").fetchall()
        assert policies == [("mine",)], "the table of before stands, and is guarded"
