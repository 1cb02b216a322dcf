-- Who the rows belong to. The settings of a tenant are columns of its row: each has a default, a change recounts that tenant
-- and no other (`earmark tenant set`).

create table if not exists tenancy.tenants (
    tenant_id text collate "C" primary key check (tenant_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    name text not null,
    created_at timestamptz not null default now(),
    download_window text not null default 'calendar_day'
    check (download_window in ('calendar_day', 'rolling_first', 'rolling_last')),
    counts_unknown_threshold boolean not null default true,
    assumed_bitrate_bps bigint check (assumed_bitrate_bps between 8000 and 2000000),
    max_daily_downloads_per_address integer not null default 1000 check (max_daily_downloads_per_address > 0),
    discards_data_centers boolean not null default true,
    discards_vpns boolean not null default true,
    counted_sources text [] check (cardinality(counted_sources) > 0)
);
comment on table tenancy.tenants is
'One row a tenant: a network, agency or advertiser, and how its downloads are counted. Its id is the name of its folder in the landing folder.';
comment on column tenancy.tenants.download_window is
'Requests of one listener for one episode are one download within: calendar_day (UTC), rolling_first (24 hours from the last counted request) or rolling_last (24 hours from the last request).';
comment on column tenancy.tenants.counts_unknown_threshold is
'Whether a request counts whose source cannot tell if 60 seconds were delivered (prefix services, unknown sizes).';
comment on column tenancy.tenants.assumed_bitrate_bps is
'Bits a second of episodes whose bitrate is neither declared nor follows from size and duration; null: do not assume one.';
comment on column tenancy.tenants.max_daily_downloads_per_address is
'Pairs of listener and episode that one address may ask for in a UTC day; all requests of an address with more are discarded.';
comment on column tenancy.tenants.counted_sources is
'The sources whose requests count; null: all. The others are kept for reconciliation.';

create table if not exists tenancy.safe_addresses (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    household_key bytea not null,
    reason text not null check (reason <> ''),
    expires_on date not null,
    added_at timestamptz not null default now(),
    primary key (tenant_id, household_key)
);
comment on table tenancy.safe_addresses is
'One row an address (its keyed hash) that is known to be many people, such as an office: its volume and its network discard nothing until expires_on.';
