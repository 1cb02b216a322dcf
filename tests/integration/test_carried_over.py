"""A database of the version before the schema was made one set of files: carried over with all that it holds.

``version_before.backup.gz`` is what ``earmark db backup`` wrote there, on plain PostgreSQL 18: eight small files
of one tenant, loaded and built.
"""

import gzip
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from earmark.warehouse import backup
from earmark.warehouse.database import Database
from earmark.warehouse.engine import prepare
from earmark.warehouse.migrations import State, status
from earmark.warehouse.refresh import Refresh

DUMP = Path(__file__).with_name("version_before.backup.gz")
ROOMS = ["raw", "ingest", "tenancy", "timeseries", "counting", "attribution"]
SCHEMA = """
select 'schema', n.nspname::text, obj_description(n.oid, 'pg_namespace')
from pg_namespace as n where n.nspname = any(%(rooms)s)
union all
select
    'relation', c.oid::regclass::text,
    concat_ws(' ', c.relkind, pg_get_viewdef(c.oid), obj_description(c.oid, 'pg_class'))
from pg_class as c where c.relnamespace::regnamespace::text = any(%(rooms)s) and not c.relispartition
union all
select
    'column', c.oid::regclass || '.' || a.attname,
    concat_ws(
        ' ', row_number() over (partition by c.oid order by a.attnum),
        format_type(a.atttypid, a.atttypmod), a.attcollation, a.attnotnull, a.attidentity,
        pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
    )
from pg_class as c
inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
where
    c.relnamespace::regnamespace::text = any(%(rooms)s)
    and c.relkind in ('r', 'p', 'v', 'c') and not c.relispartition
union all
select 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(o.oid)
from pg_constraint as o inner join pg_class as c on c.oid = o.conrelid
where o.connamespace::regnamespace::text = any(%(rooms)s) and o.contype <> 'n' and not c.relispartition
union all
select 'index', i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
from pg_index as i inner join pg_class as c on c.oid = i.indrelid
where c.relnamespace::regnamespace::text = any(%(rooms)s) and not c.relispartition
union all
select
    'function', p.oid::regprocedure::text,
    concat_ws(
        ' ', case when p.prokind <> 'a' then pg_get_functiondef(p.oid) end, obj_description(p.oid, 'pg_proc')
    )
from pg_proc as p where p.pronamespace::regnamespace::text = any(%(rooms)s)
union all
select 'trigger', t.tgrelid::regclass || '.' || t.tgname, pg_get_triggerdef(t.oid)
from pg_trigger as t inner join pg_class as c on c.oid = t.tgrelid
where c.relnamespace::regnamespace::text = any(%(rooms)s) and not t.tgisinternal and not c.relispartition
union all
select 'hypertable', h.table_name, (to_jsonb(h) - 'created_at')::text
from timeseries.hypertables as h where h.schema_name = 'raw'
order by 1, 2
"""
NEW_COLUMNS = ("values_differ",)  # that the version before had not
MARTS = ("fct_downloads", "fct_ad_impressions", "fct_conversions", "fct_attribution_credits", "rpt_campaigns")


@pytest.fixture
def carried(server: Database) -> Iterator[Database]:
    """Return a database that was restored from the dump; it is dropped after the test."""
    database = replace(server, name=f"earmark_test_{uuid.uuid4().hex[:16]}")
    yield database
    with server.connect(autocommit=True) as connection:
        connection.execute(
            sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database.name))
        )


def rows(connection: psycopg.Connection, relation: str) -> list[str]:
    query = sql.SQL("select (jsonb_strip_nulls(to_jsonb(t)) - %s::text[])::text from {} as t order by 1").format(
        sql.Identifier(*relation.split("."))
    )
    return [row for (row,) in connection.execute(query, (list(NEW_COLUMNS),)).fetchall()]


def test_a_database_of_the_version_before_is_carried_over(
    carried: Database, address: Database, tmp_path: Path
) -> None:
    dump = tmp_path / "before.backup"
    dump.write_bytes(gzip.decompress(DUMP.read_bytes()))
    backup.restore(carried, dump)
    kept = (
        "raw.listener_events",
        "raw.episodes",
        "raw.spend",
        "ingest.loads",
        "tenancy.tenants",
    )
    with carried.connect(autocommit=True) as connection:
        assert rows(connection, "marts.fct_downloads")
        # The original line is bytes in that version, text in this one.
        connection.execute(
            "create view pg_temp.rejects as"
            " select load_id, line_number, convert_from(original, 'UTF8') as original from ingest.rejects"
        )
        rejects = rows(connection, "pg_temp.rejects")
        assert rejects
        before = {name: rows(connection, name) for name in (*kept, *(f"marts.{mart}" for mart in MARTS))}

    ran, _ = prepare(carried, "postgres")

    assert ran[0] == "0010_left_over.sql"  # nothing that made a table runs again
    with carried.connect(autocommit=True) as connection, address.connect(autocommit=True) as fresh:
        assert {item.state for item in status(connection)} == {State.APPLIED}
        found = connection.execute(SCHEMA, {"rooms": ROOMS}).fetchall()
        assert found == fresh.execute(SCHEMA, {"rooms": ROOMS}).fetchall()
        assert {name: rows(connection, name) for name in before} == before
        connection.execute(
            "create view pg_temp.rejects as select load_id, line_number, original from ingest.rejects"
        )
        assert rows(connection, "pg_temp.rejects") == rejects
        for _ in Refresh(carried).run():
            pass
        assert {name: rows(connection, name) for name in before} == before
