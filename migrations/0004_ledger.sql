-- The ledger of the loads. Every file that was looked at is in ingest.files, every file that was read has a row a dataset in
-- ingest.loads, every row that was refused is in ingest.rejects.

create table if not exists ingest.files (
    uri text collate "C" primary key,
    bytes bigint not null,
    modified_at timestamptz,
    status text not null check (status in ('loaded', 'refused')),
    message text,
    seen_at timestamptz not null default now(),
    refused_by text
);
comment on table ingest.files is
'One row a file of the landing folder, as it was when last tried. refused: nothing of it was loaded; message says why.';
comment on column ingest.files.refused_by is
'Refused for a reason of ours: the code that did, and any other code tries again. Empty: always tried again. Null: only when the file changes.';

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
    network_list text,
    constraint rows_are_conserved check (rows_read = rows_loaded + rows_duplicate + rows_rejected)
);
create index if not exists loads_by_digest on ingest.loads (digest, tenant_id);
comment on table ingest.loads is
'One row a load: one file into one dataset. read = loaded + duplicate + rejected, always. digest: sha256 of the file.';
comment on column ingest.loads.network_list is 'The version of the network lists that the addresses of the load were looked up in.';

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

create table if not exists ingest.hash_keys (
    key_id text collate "C" primary key,
    fingerprint bytea not null,
    first_used_at timestamptz not null default now()
);
comment on table ingest.hash_keys is
'One row a key that addresses were hashed under: its fingerprint, never the key. Another key under the same id is refused.';

-- Public lists of user agents, each fetched version kept: every day is classified by the list in effect on it, and a
-- rebuild from nothing gives the same. Before the first list, and for what a list does not know, the seeds decide.
create table if not exists ingest.agent_lists (
    agent_list text collate "C" primary key check (agent_list <> 'earmark'),
    effective_from date not null unique check (isfinite(effective_from)),
    source text not null,
    digest bytea not null,
    fetched_at timestamptz not null default now(),
    counts jsonb not null
);
comment on table ingest.agent_lists is
'One row a version of a public list of user agents. It is in effect from its UTC day on, until that of the next.';
comment on column ingest.agent_lists.digest is 'sha256 of what classifies: the kinds, names, categories and patterns in their order.';
comment on column ingest.agent_lists.counts is 'Entries by kind.';

create table if not exists ingest.agent_patterns (
    agent_list text collate "C" not null references ingest.agent_lists (agent_list) on delete cascade,
    kind text collate "C" not null check (kind in ('bots', 'apps', 'libraries', 'browsers', 'devices', 'referrers')),
    match_order integer not null,
    name text not null,
    category text,
    pattern text not null,
    discard_as text,
    primary key (agent_list, kind, match_order)
);
comment on table ingest.agent_patterns is
'One row an entry of a public list. The first entry whose pattern matches is the one, in the order bots, apps, libraries, browsers.';
comment on column ingest.agent_patterns.category is 'bot, app, library or browser; the kind of a device; app or host of a referrer.';
comment on column ingest.agent_patterns.pattern is 'As PostgreSQL reads it: the list is written for Python and JavaScript.';
comment on column ingest.agent_patterns.discard_as is 'Why requests of the agent are discarded; null: the entry does not say so.';
