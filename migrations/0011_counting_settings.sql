-- How a tenant's downloads are counted, and what loaded rows say for it.
--
-- The settings of a tenant are columns of its row: each has a default, a change recounts that tenant and no other
-- (`earmark tenant set`).

alter table tenancy.tenants add column if not exists download_window text not null default 'calendar_day'
check (download_window in ('calendar_day', 'rolling_first', 'rolling_last'));
alter table tenancy.tenants add column if not exists counts_unknown_threshold boolean not null default true;
alter table tenancy.tenants add column if not exists assumed_bitrate_bps bigint
check (assumed_bitrate_bps between 8000 and 2000000);
alter table tenancy.tenants add column if not exists max_daily_downloads_per_address integer not null default 1000
check (max_daily_downloads_per_address > 0);
alter table tenancy.tenants add column if not exists discards_data_centers boolean not null default true;
alter table tenancy.tenants add column if not exists discards_vpns boolean not null default true;
alter table tenancy.tenants add column if not exists counted_sources text []
check (cardinality(counted_sources) > 0);
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

create or replace function ingest.note_setting_change()
returns trigger
language plpgsql
as $$
declare
    tenant text := case tg_op when 'DELETE' then old.tenant_id else new.tenant_id end;
begin
    update ingest.changes as c set changed_by = pg_current_xact_id(), changed_at = now()
    where c.tenant_id = tenant and c.dataset = 'listener_events' and c.changed_by <> pg_current_xact_id();
    return null;
end;
$$;
create or replace trigger note_change after update on tenancy.tenants for each row
when ((to_jsonb(old) - 'name') is distinct from (to_jsonb(new) - 'name'))
execute function ingest.note_setting_change();
create or replace trigger note_change after insert or update or delete on tenancy.safe_addresses for each row
execute function ingest.note_setting_change();

-- What the byte threshold and ad delivery stand on.
alter table raw.episodes add column if not exists bitrate_bps bigint check (bitrate_bps > 0);
alter table raw.episodes add column if not exists id3_bytes bigint check (id3_bytes >= 0);
comment on column raw.episodes.bitrate_bps is 'Bits a second, as declared; null: it follows from size and duration.';
comment on column raw.episodes.id3_bytes is 'Bytes of the header before the first audio, as declared; null: not known.';

alter table raw.listener_events add column if not exists network text;
alter table raw.listener_events add column if not exists play_id text;
alter table raw.listener_events add column if not exists quartile smallint
check (quartile in (0, 25, 50, 75, 100));
comment on column raw.listener_events.network is
'The kind of network that the address belongs to (data_center, vpn), found before it was hashed; null: none that is listed.';
comment on column raw.listener_events.play_id is 'The play that a player''s beacon belongs to.';
comment on column raw.listener_events.quartile is 'How much of the ad was played when the beacon was sent: 0, 25, 50, 75 or 100 percent.';

alter table ingest.loads add column if not exists network_list text;
comment on column ingest.loads.network_list is 'The version of the network lists that the addresses of the load were looked up in.';
