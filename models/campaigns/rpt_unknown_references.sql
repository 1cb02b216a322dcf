-- Requests of a log are not asked here: those without an episode are in rpt_unmatched_urls.
with spend as (
    select * from {{ ref('stg_raw__spend') }}
),

attribution_events as (
    select * from {{ ref('stg_raw__attribution_events') }}
),

insertion_orders as (
    select * from {{ ref('stg_raw__insertion_orders') }}
),

ad_units as (
    select * from {{ ref('stg_raw__ad_units') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

episodes as (
    select * from {{ ref('stg_raw__episodes') }}
),

podcasts as (
    select * from {{ ref('stg_raw__podcasts') }}
),

sponsors as (
    select * from {{ ref('stg_raw__sponsors') }}
),

listener_metrics as (
    select * from {{ ref('stg_raw__listener_metrics') }}
),

named as (
    {%- for dataset, field, target in [
        ('spend', 'campaign_id', 'campaigns'),
        ('spend', 'podcast_id', 'podcasts'),
        ('attribution_events', 'campaign_id', 'campaigns'),
        ('attribution_events', 'sponsor_id', 'sponsors'),
        ('insertion_orders', 'campaign_id', 'campaigns'),
        ('insertion_orders', 'podcast_id', 'podcasts'),
        ('ad_units', 'campaign_id', 'campaigns'),
        ('ad_units', 'insertion_order_id', 'insertion_orders'),
        ('ad_units', 'episode_id', 'episodes'),
        ('campaigns', 'sponsor_id', 'sponsors'),
        ('episodes', 'podcast_id', 'podcasts'),
        ('listener_metrics', 'episode_id', 'episodes'),
    ] %}
        select
            tenant_id,
            '{{ dataset }}' as dataset,
            '{{ field }}' as field,
            '{{ target }}' as refers_to,
            {{ field }} as value,
            count(*) as row_count
        from {{ dataset }}
        where {{ field }} is not null
        group by tenant_id, {{ field }}
        {{ 'union all' if not loop.last }}
    {%- endfor %}
),

known as (
    {%- for dataset, field in [
        ('campaigns', 'campaign_id'),
        ('podcasts', 'podcast_id'),
        ('sponsors', 'sponsor_id'),
        ('insertion_orders', 'insertion_order_id'),
        ('episodes', 'episode_id'),
    ] %}
        select
            tenant_id,
            '{{ dataset }}' as refers_to,
            {{ field }} as value
        from {{ dataset }}
        {{ 'union all' if not loop.last }}
    {%- endfor %}
    union all
    -- Exports name an episode by the guid of its feed too.
    select
        tenant_id,
        'episodes' as refers_to,
        episode_guid as value
    from episodes
    where episode_guid is not null
),

-- What differs in case, spaces or punctuation alone.
alike as (
    select
        known.tenant_id,
        known.refers_to,
        lower(regexp_replace(known.value, '[^[:alnum:]]', '', 'g')) as plain,
        min(known.value) as near_miss
    from known
    group by known.tenant_id, known.refers_to, lower(regexp_replace(known.value, '[^[:alnum:]]', '', 'g'))
),

unknown_references as (
    select
        named.tenant_id,
        named.dataset,
        named.field,
        named.value,
        named.refers_to,
        named.row_count,
        alike.near_miss
    from named
    left join known
        on
            named.tenant_id = known.tenant_id
            and named.refers_to = known.refers_to
            and named.value = known.value
    left join alike
        on
            named.tenant_id = alike.tenant_id
            and named.refers_to = alike.refers_to
            and lower(regexp_replace(named.value, '[^[:alnum:]]', '', 'g')) = alike.plain
            and alike.plain <> ''
    where known.value is null
)

select * from unknown_references
