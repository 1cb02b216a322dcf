-- One change log, by producer: a raw table, or a model. Whoever changes rows notes their slices (tenant and UTC day) in the
-- transaction that changes them; a model takes as news the slices of what it directly reads and has not seen, replaces
-- exactly those, and notes the ones that came out otherwise. So equal results stop the wave, and a model that was not
-- built publishes nothing. Whoever knows which rows of a slice changed names them by key, a column and its value: a reader
-- that can find by it what hangs on these rows looks at that alone, to all others the slice is news.
--
-- A change is known by its transaction, what a model has seen by a snapshot (pg_snapshot): what that does not show is news,
-- however late its transaction commits. No clock and no sequence is compared.

create table if not exists ingest.changes (
    producer text collate "C" not null,
    tenant_id text collate "C" not null,
    day date not null,
    key text collate "C" not null default '',
    changed_by xid8 not null default pg_current_xact_id(),
    changed_at timestamptz not null default now(),
    primary key (producer, tenant_id, day, key)
);
create index if not exists changes_by_transaction on ingest.changes (changed_by);
comment on table ingest.changes is
'The change log. One row a producer (a raw table, schema included, or a model), tenant, UTC day and key: the transaction that last changed it. What every reader has seen is forgotten.';
comment on column ingest.changes.tenant_id is 'Empty: every tenant.';
comment on column ingest.changes.day is '-infinity: any day; so changes reference data, and a model that was built whole.';
comment on column ingest.changes.key is
'Which rows: column=value, those that had or have this value there, nothing after = for null. Empty: any of the slice.';

create table if not exists ingest.model_builds (
    model text primary key,
    version text,
    built_at timestamptz not null default now(),
    seen pg_snapshot,
    cluster bigint,
    inputs text [] not null default '{}'
);
comment on table ingest.model_builds is
'One row a reader of the change log: the changes that it has seen, and the version of its SQL when it was last built whole.';
comment on column ingest.model_builds.cluster is
'Where it was built: a snapshot means something only there, and not where a dump was restored.';
comment on column ingest.model_builds.inputs is 'The producers that it reads, directly or through views.';

create table if not exists ingest.builds (
    model text not null,
    invocation_id text not null,
    taken pg_snapshot not null,
    slices jsonb,
    is_complete boolean not null,
    horizon date,
    begun_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    changed jsonb,
    primary key (model, invocation_id)
);
comment on table ingest.builds is
'One row a model and dbt invocation of the last days: what it started from, the slices that it looked at and those that it changed.';
comment on column ingest.builds.taken is 'The changes that it has seen once it has ended.';
comment on column ingest.builds.slices is
'Groups of tenants with their days: [{"tenants": [...] or null for all, "days": [[first or null, day after the last or null], ...]}, ...]. Null: it is built whole.';
comment on column ingest.builds.is_complete is 'Whether the slices hold all that was news to the model; they may not where windows were asked for.';
comment on column ingest.builds.horizon is 'The day before which retention has dropped raw rows: nothing older is built again.';
