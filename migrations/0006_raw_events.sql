-- Events: hypertables with one chunk a UTC day. The key holds the time, as a hypertable must; an event is one
-- row of its id and its time.

select timeseries.create_hypertable('raw', 'listener_events', 'occurred_at', interval '1 day', $definition$
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
    primary key (tenant_id, event_id, occurred_at)
$definition$);
create index if not exists listener_events_by_time on raw.listener_events (tenant_id, occurred_at);
comment on table raw.listener_events is
'One row a request, download, play or ad impression, as the source logged it. Client addresses are keyed hashes.';
comment on column raw.listener_events.enclosure_key is
'The requested URL without scheme, prefix services and query.';
comment on column raw.listener_events.household_key is
'First 16 bytes of HMAC-SHA-256 of the address (IPv6 cut to /64) under a key of the tenant.';
comment on column raw.listener_events.listener_key is
'First 16 bytes of HMAC-SHA-256 of address and user agent under a key of the tenant.';

select timeseries.create_hypertable('raw', 'attribution_events', 'occurred_at', interval '1 day', $definition$
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
$definition$);
create index if not exists attribution_events_by_time on raw.attribution_events (tenant_id, occurred_at);
create index if not exists attribution_events_by_order on raw.attribution_events (tenant_id, order_number)
where order_number is not null;
comment on table raw.attribution_events is
'One row a response or conversion that an advertiser reports. Client addresses are keyed hashes; e-mail is a sha256.';

select timeseries.create_hypertable('raw', 'listener_metrics', 'metric_date', interval '1 day', $definition$
    tenant_id text collate "C" not null,
    episode_id text collate "C" not null,
    metric_date date not null,
    metric_name text not null,
    value double precision not null,
    source text not null,
    properties jsonb not null default '{}',
    load_id bigint not null,
    primary key (tenant_id, episode_id, metric_date, metric_name, source)
$definition$);
comment on table raw.listener_metrics is
'One row an episode, UTC day, figure and partner: what a host or app reports. A newer load replaces the figure.';
