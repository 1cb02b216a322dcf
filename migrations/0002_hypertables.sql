-- Hypertables: tables cut into chunks by event time, raw tables and dbt models alike. On the engine timescaledb they are the
-- extension's own, on the engine postgres range-partitioned tables, a chunk is a partition in schema chunks. Here is what is
-- known of them; functions/ makes and extends them, and nobody who calls these asks which engine it is.

create table if not exists timeseries.engine (
    only_row boolean primary key default true check (only_row),
    name text not null check (name in ('postgres', 'timescaledb')),
    function_schema text not null,
    version text not null,
    chosen_at timestamptz not null default now()
);
comment on table timeseries.engine is
'One row: the engine that the hypertables of this database are made with, its version, and the schema of its time_bucket.';
insert into timeseries.engine (name, function_schema, version)
values ('postgres', 'timeseries', current_setting('server_version'))
on conflict do nothing;

create table if not exists timeseries.hypertables (
    schema_name text not null,
    table_name text not null,
    time_column text not null,
    chunk_interval interval not null check (chunk_interval >= interval '1 day'),
    created_at timestamptz not null default now(),
    columnstore_after interval,
    segment_by text [] not null default '{}',
    order_by text,
    retain_for interval,
    dropped_before timestamptz,
    is_parked boolean not null default false,
    primary key (schema_name, table_name)
);
comment on table timeseries.hypertables is 'One row a hypertable: its time column and the length of a chunk.';
comment on column timeseries.hypertables.columnstore_after is
'Chunks older than this go into the columnstore. On plain PostgreSQL there is none: the setting waits for TimescaleDB.';
comment on column timeseries.hypertables.retain_for is 'Chunks whose rows are all older than this are dropped.';
comment on column timeseries.hypertables.dropped_before is
'Retention has dropped what is older; nothing older is ever refreshed again.';
comment on column timeseries.hypertables.is_parked is
'It was replaced, and stays for the continuous aggregates that still stand on it.';

create table if not exists timeseries.continuous_aggregates (
    schema_name text not null,
    table_name text not null,
    bucket interval not null,
    query text not null,
    options jsonb not null default '{}',
    primary key (schema_name, table_name)
);
comment on table timeseries.continuous_aggregates is
'One row a continuous aggregate: the length of its buckets and its query, whose window is marked by comments.';

-- A relation that is dropped takes the views on it along. What was set on them waits here until they are made again.
create table if not exists timeseries.kept_properties (
    schema_name text not null,
    relation_name text not null,
    properties jsonb not null,
    kept_at timestamptz not null default now(),
    primary key (schema_name, relation_name)
);
comment on table timeseries.kept_properties is
'One row a relation that was dropped to be made again: its owner, grants, comments, policies, until it is there again.';
