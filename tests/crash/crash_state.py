"""Databases as they are cloned, and what is in them: told in a way that two runs can be compared by."""

from typing import Final

import psycopg
from psycopg import sql

from earmark.warehouse.database import Database

# What differs from one run to the next without meaning anything.
_VOLATILE: Final = ["load_id", "reject_id", "changed_by", "started_at", "modified_at", "network_list"]
# Of the change log what waits is a result (ingest.pending_refresh); what all have seen is forgotten in time.
_NO_RESULT: Final = (
    "ingest.changes", "ingest.builds", "ingest.model_builds", "ingest.hash_keys", "timeseries.kept_properties",
)  # fmt: skip
_TABLES: Final = """
    select n.nspname, c.relname
    from pg_class as c
    inner join pg_namespace as n on c.relnamespace = n.oid
    where (
        (c.relkind in ('r', 'p') and not c.relispartition)
        or c.oid = 'ingest.pending_refresh'::regclass
        or exists (
            select from timeseries.continuous_aggregates as a
            where (a.schema_name, a.table_name) = (n.nspname, c.relname)
        )
    ) and n.nspname !~ '^(pg_|_?timescaledb|information_schema|dagster|public)'
    order by 1, 2
"""
_WRITTEN_AT: Final = """
    select distinct a.attname::text
    from pg_attrdef as d
    inner join pg_attribute as a on a.attrelid = d.adrelid and a.attnum = d.adnum
    where pg_get_expr(d.adbin, d.adrelid) ~ '(now|clock_timestamp)\\(\\)'
"""
_CATALOG: Final = """
    select 'migration', m.file_name, m.checksum, ''
    from ingest.migrations as m
    union all
    select 'column', c.oid::regclass::text, a.attname::text, format_type(a.atttypid, a.atttypmod)
    from pg_class as c
    inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0
    where c.relnamespace::regnamespace::text = any(%(schemas)s) and c.relkind in ('r', 'p', 'v')
    union all
    select 'function', p.oid::regprocedure::text, md5(p.prosrc), ''
    from pg_proc as p
    where p.pronamespace::regnamespace::text = any(%(schemas)s)
    union all
    select 'constraint', c.conrelid::regclass::text, c.conname::text, pg_get_constraintdef(c.oid)
    from pg_constraint as c
    where c.connamespace::regnamespace::text = any(%(schemas)s)
    union all
    select 'index', i.indrelid::regclass::text, i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
    from pg_index as i
    inner join pg_class as c on c.oid = i.indrelid
    where c.relnamespace::regnamespace::text = any(%(schemas)s)
    union all
    select 'trigger', t.tgrelid::regclass::text, t.tgname::text, pg_get_triggerdef(t.oid)
    from pg_trigger as t
    inner join pg_class as c on c.oid = t.tgrelid
    where c.relnamespace::regnamespace::text = any(%(schemas)s) and not t.tgisinternal
    order by 1, 2, 3, 4
"""
_SCHEMAS: Final = ["raw", "ingest", "tenancy", "timeseries", "attribution"]


def clone(server: Database, template: Database, database: Database) -> None:
    """Make a database anew, as another is; who is still in that one, such as a worker of the server, is ended."""
    drop(server, database)
    with server.connect(autocommit=True) as connection:
        _end_sessions(connection, template)
        connection.execute(
            sql.SQL("create database {} encoding 'UTF8' template {}").format(
                sql.Identifier(database.name), sql.Identifier(template.name)
            )
        )


def disconnect(server: Database, database: Database) -> None:
    """Let nobody in any more: a database is cloned only while nobody is connected."""
    with server.connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("alter database {} allow_connections false").format(sql.Identifier(database.name))
        )
        _end_sessions(connection, database)


def _end_sessions(connection: psycopg.Connection, database: Database) -> None:
    connection.execute(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", (database.name,)
    )


def drop(server: Database, database: Database) -> None:
    """Drop a database, whoever is in it."""
    with server.connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database.name))
        )


def contents(database: Database) -> dict[str, tuple[int, int]]:
    """Return, for every table, how many rows it has and what they come to, whenever and by which load written."""
    with database.connect() as connection:
        volatile = _VOLATILE + [row[0] for row in connection.execute(_WRITTEN_AT)]
        return {
            f"{schema}.{table}": _sum(connection, sql.Identifier(schema, table), volatile)
            for schema, table in connection.execute(_TABLES).fetchall()
            if f"{schema}.{table}" not in _NO_RESULT
        }


def _sum(connection: psycopg.Connection, table: sql.Identifier, without: list[str]) -> tuple[int, int]:
    row = connection.execute(
        sql.SQL(
            "select count(*), coalesce(sum(hashtextextended((to_jsonb(t) - %s::text[])::text, 0)::numeric), 0)"
            " from {} as t"
        ).format(table),
        (without,),
    ).fetchone()
    assert row is not None
    return row[0], int(row[1])


def catalog(database: Database) -> list[tuple[str, ...]]:
    """Return the migrations that ran, and what they have made."""
    with database.connect() as connection:
        return connection.execute(_CATALOG, {"schemas": _SCHEMAS}).fetchall()


def half_made(database: Database) -> list[str]:
    """Return the relations of builds that were never finished."""
    with database.connect() as connection:
        rows = connection.execute(
            "select oid::regclass::text from pg_class"
            " where relname ~ '__(new|staged|shape|dbt_tmp|dbt_backup)' and relkind in ('r', 'p', 'v', 'm')"
        )
        return [row[0] for row in rows]
