-- The ledger of the loads. Every file that was looked at is in ingest.files, every file that was read has a
-- row a dataset in ingest.loads, every row that was refused is in ingest.rejects, and every day that a load
-- changed is in ingest.changed_days until the models have been refreshed for it.

create table if not exists ingest.files (
    uri text collate "C" primary key,
    bytes bigint not null,
    modified_at timestamptz,
    status text not null check (status in ('loaded', 'refused')),
    message text,
    seen_at timestamptz not null default now()
);
comment on table ingest.files is
'One row a file of the landing folder, as it was when last tried. refused: nothing of it was loaded; message says why.';

create table if not exists ingest.loads (
    load_id bigint generated always as identity primary key,
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    dataset text collate "C" not null,
    source text collate "C" not null,
    uri text not null,
    digest bytea not null,
    file_bytes bigint not null,
    rows_read bigint not null,
    rows_loaded bigint not null,
    rows_duplicate bigint not null,
    rows_rejected bigint not null,
    first_event_at timestamptz,
    last_event_at timestamptz,
    started_at timestamptz not null,
    loaded_at timestamptz not null default now(),
    constraint rows_are_conserved check (rows_read = rows_loaded + rows_duplicate + rows_rejected)
);
create index if not exists loads_by_digest on ingest.loads (digest, tenant_id);
comment on table ingest.loads is
'One row a load: one file into one dataset. read = loaded + duplicate + rejected, always. digest: sha256 of the file.';

create table if not exists ingest.rejects (
    load_id bigint not null references ingest.loads (load_id),
    line_number bigint not null,
    field text,
    reason text not null,
    detail text not null,
    original bytea not null,
    primary key (load_id, line_number)
);
comment on table ingest.rejects is
'One row a refused row: where it stands, which field, why, and the line itself with client addresses hashed.';
comment on column ingest.rejects.line_number is 'Line of the file, from 1; in Parquet and JSON arrays the row, from 1.';

create sequence if not exists ingest.change_number;

create table if not exists ingest.changed_days (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    dataset text collate "C" not null,
    day date not null,
    change bigint not null default nextval('ingest.change_number'),
    changed_at timestamptz not null default now(),
    taken_change bigint not null default 0,
    built_change bigint not null default 0,
    primary key (tenant_id, dataset, day)
);
create index if not exists changed_days_pending on ingest.changed_days (day) where change > built_change;
comment on table ingest.changed_days is
'One row a tenant, dataset and UTC day that holds rows. A load raises change, a refresh takes it and, when done, has built it.';

-- Say that days of a dataset have changed. Rows are taken in key order, so that two loads never deadlock.
create or replace function ingest.mark_changed(tenant text, of_dataset text, days date[])
returns integer
language sql
as $$
    with marked as (
        insert into ingest.changed_days as c (tenant_id, dataset, day)
        select mark_changed.tenant, mark_changed.of_dataset, d.day
        from (select distinct unnest(mark_changed.days) as day) as d
        order by d.day
        on conflict (tenant_id, dataset, day)
        do update set change = nextval('ingest.change_number'), changed_at = now()
        returning 1
    )
    select count(*)::integer from marked;
$$;

create table if not exists ingest.hash_keys (
    key_id text collate "C" primary key,
    fingerprint bytea not null,
    first_used_at timestamptz not null default now()
);
comment on table ingest.hash_keys is
'One row a key that addresses were hashed under: its fingerprint, never the key. Another key under the same id is refused.';

create table if not exists ingest.model_versions (
    model text primary key,
    version text not null,
    built_at timestamptz not null default now()
);
comment on table ingest.model_versions is
'One row a dbt model: the version of its SQL and of all that it stands on, when it was last built whole.';
