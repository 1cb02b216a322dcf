-- Reference data: what the events are about. Keyed by tenant and natural id; a newer load replaces a row.

create table if not exists raw.podcasts (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    podcast_id text collate "C" not null,
    title text not null,
    feed_url text,
    podcast_guid text,
    author text,
    language text,
    properties jsonb not null default '{}',
    load_id bigint not null,
    primary key (tenant_id, podcast_id)
);
comment on table raw.podcasts is 'One row a podcast (show) of a tenant.';

create table if not exists raw.episodes (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    episode_id text collate "C" not null,
    podcast_id text collate "C" not null,
    guid text,
    title text,
    published_at timestamptz,
    duration_seconds double precision check (duration_seconds >= 0),
    enclosure_url text,
    enclosure_key text collate "C",
    enclosure_bytes bigint check (enclosure_bytes >= 0),
    enclosure_type text,
    properties jsonb not null default '{}',
    load_id bigint not null,
    bitrate_bps bigint check (bitrate_bps > 0),
    id3_bytes bigint check (id3_bytes >= 0),
    primary key (tenant_id, episode_id)
);
create index if not exists episodes_by_enclosure on raw.episodes (tenant_id, enclosure_key);
comment on table raw.episodes is 'One row an episode of a podcast.';
comment on column raw.episodes.enclosure_key is
'The enclosure URL in the same form as raw.listener_events.enclosure_key: what a logged request is matched by.';
comment on column raw.episodes.bitrate_bps is 'Bits a second, as declared; null: it follows from size and duration.';
comment on column raw.episodes.id3_bytes is 'Bytes of the header before the first audio, as declared; null: not known.';

create table if not exists raw.sponsors (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    sponsor_id text collate "C" not null,
    name text not null,
    domain text,
    properties jsonb not null default '{}',
    load_id bigint not null,
    primary key (tenant_id, sponsor_id)
);
comment on table raw.sponsors is 'One row an advertiser.';

create table if not exists raw.campaigns (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    campaign_id text collate "C" not null,
    sponsor_id text collate "C" not null,
    name text not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    conversion_actions text [] not null default '{purchase}',
    lookback_days double precision not null default 30 check (lookback_days > 0 and lookback_days <= 90),
    currency text not null default 'USD' check (currency ~ '^[A-Z]{3}$'),
    properties jsonb not null default '{}',
    load_id bigint not null,
    primary key (tenant_id, campaign_id),
    check (ends_at > starts_at)
);
comment on table raw.campaigns is 'One row a campaign. Its flight is half-open: [starts_at, ends_at).';
comment on column raw.campaigns.lookback_days is
'How long before a conversion an exposure may lie, to the second; 90 days at most.';

create table if not exists raw.insertion_orders (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    insertion_order_id text collate "C" not null,
    campaign_id text collate "C" not null,
    podcast_id text collate "C",
    promo_code text,
    vanity_url text,
    booked_impressions bigint check (booked_impressions >= 0),
    cpm numeric check (cpm >= 0),
    currency text not null default 'USD' check (currency ~ '^[A-Z]{3}$'),
    starts_on date,
    ends_on date,
    properties jsonb not null default '{}',
    load_id bigint not null,
    primary key (tenant_id, insertion_order_id)
);
comment on table raw.insertion_orders is
'One row an order line of a campaign, mostly one a show: promo code, vanity URL, what was booked, rate and flight (days, both included).';

create table if not exists raw.ad_units (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    ad_unit_id text collate "C" not null,
    campaign_id text collate "C" not null,
    insertion_order_id text collate "C",
    episode_id text collate "C",
    position text not null check (position in ('pre', 'mid', 'post')),
    delivery text not null check (delivery in ('baked_in', 'dai')),
    starts_at_second double precision check (starts_at_second >= 0),
    duration_seconds double precision check (duration_seconds > 0),
    properties jsonb not null default '{}',
    load_id bigint not null,
    primary key (tenant_id, ad_unit_id),
    check (delivery <> 'baked_in' or episode_id is not null)
);
comment on table raw.ad_units is
'One row an ad in a place: baked into one episode, or inserted dynamically (DAI), then with or without an episode.';

create table if not exists raw.spend (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id),
    campaign_id text collate "C" not null,
    podcast_id text collate "C" not null default '',
    spend_date date not null,
    amount numeric not null,
    currency text not null default 'USD' check (currency ~ '^[A-Z]{3}$'),
    properties jsonb not null default '{}',
    load_id bigint not null,
    primary key (tenant_id, campaign_id, podcast_id, spend_date)
);
comment on table raw.spend is
'One row a campaign, show and UTC day: money spent. podcast_id is empty where the money was not spent on one show.';
