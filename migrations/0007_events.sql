-- Events: hypertables with one chunk a UTC day. The key holds the time, as a hypertable must; an event is one row of its id
-- and its time. They are made for the engine postgres; while they are empty, timeseries.use_engine() makes them anew for
-- another.

create table if not exists raw.listener_events (
    tenant_id text collate "C" not null,
    event_id uuid not null,
    occurred_at timestamptz not null,
    event_type text not null check (event_type in ('request', 'download', 'play', 'ad_impression')),
    source text not null,
    episode_id text collate "C",
    episode_guid text,
    url text,
    enclosure_key text collate "C",
    ad_unit_id text collate "C",
    method text,
    status smallint,
    bytes_sent bigint check (bytes_sent >= 0),
    object_bytes bigint check (object_bytes >= 0),
    byte_range text,
    household_key bytea,
    listener_key bytea,
    key_id text,
    user_agent text,
    referrer text,
    country_code text,
    region_code text,
    properties jsonb not null default '{}',
    load_id bigint not null,
    network text,
    play_id text,
    quartile smallint check (quartile in (0, 25, 50, 75, 100)),
    primary key (tenant_id, event_id, occurred_at)
) partition by range (occurred_at);
create index if not exists listener_events_by_time on raw.listener_events (tenant_id, occurred_at);
comment on table raw.listener_events is
'One row a request, download, play or ad impression, as the source logged it. Client addresses are keyed hashes.';
comment on column raw.listener_events.enclosure_key is
'The requested URL without scheme, prefix services and query; where its path names no media file, with those parameters of the query that identify an episode.';
comment on column raw.listener_events.household_key is
'First 16 bytes of HMAC-SHA-256 of the address (IPv6 cut to /64) under a key of the tenant.';
comment on column raw.listener_events.listener_key is
'First 16 bytes of HMAC-SHA-256 of address and user agent under a key of the tenant.';
comment on column raw.listener_events.network is
'The kind of network that the address belongs to (data_center, vpn), found before it was hashed; null: none that is listed.';
comment on column raw.listener_events.play_id is 'The play that a player''s beacon belongs to.';
comment on column raw.listener_events.quartile is 'How much of the ad was played when the beacon was sent: 0, 25, 50, 75 or 100 percent.';

create table if not exists raw.attribution_events (
    tenant_id text collate "C" not null,
    event_id uuid not null,
    occurred_at timestamptz not null,
    action text not null check (
        action in ('view', 'signup', 'lead', 'purchase', 'install', 'offline_purchase')
    ),
    type text not null check (type in ('pixel', 'promo_code', 'vanity_url', 'survey', 'offline')),
    source text not null,
    sponsor_id text collate "C",
    campaign_id text collate "C",
    household_key bytea,
    listener_key bytea,
    key_id text,
    cookie_id text,
    hashed_email bytea,
    order_number text,
    value numeric,
    currency text check (currency ~ '^[A-Z]{3}$'),
    discount_code text,
    url text,
    is_new_customer boolean,
    user_agent text,
    properties jsonb not null default '{}',
    load_id bigint not null,
    primary key (tenant_id, event_id, occurred_at)
) partition by range (occurred_at);
create index if not exists attribution_events_by_time on raw.attribution_events (tenant_id, occurred_at);
create index if not exists attribution_events_by_order on raw.attribution_events (tenant_id, order_number)
where order_number is not null;
comment on table raw.attribution_events is
'One row a response or conversion that an advertiser reports. Client addresses are keyed hashes; e-mail is a sha256.';

create table if not exists raw.listener_metrics (
    tenant_id text collate "C" not null,
    episode_id text collate "C" not null,
    metric_date date not null,
    metric_name text not null,
    value double precision not null,
    source text not null,
    properties jsonb not null default '{}',
    load_id bigint not null,
    primary key (tenant_id, episode_id, metric_date, metric_name, source)
) partition by range (metric_date);
comment on table raw.listener_metrics is
'One row an episode, UTC day, figure and partner: what a host or app reports. A newer load replaces the figure.';

-- Listener events are kept two years; after a month, when hardly a row comes late, they go into the columnstore.
insert into timeseries.hypertables
(schema_name, table_name, time_column, chunk_interval, columnstore_after, segment_by, order_by, retain_for)
values
('raw', 'listener_events', 'occurred_at', '1 day', '30 days', '{tenant_id}', 'occurred_at desc', '2 years'),
('raw', 'attribution_events', 'occurred_at', '1 day', '90 days', '{tenant_id}', 'occurred_at desc', null),
('raw', 'listener_metrics', 'metric_date', '1 day', null, '{}', null, null)
on conflict do nothing;
