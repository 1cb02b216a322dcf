-- A late touch can change the path of a conversion up to the longest lookback after it, where an identity leads from
-- one to the other: only such conversions are searched again, and replaced where their path really changed.
{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='28 days',
    keys=['conversion_id'],
    unit='conversion_id',
    indexes=[{'columns': ['occurred_at']}, {'columns': ['tenant_id', 'conversion_id']}, {'columns': ['touch_id']}],
) }}
{% set reach = var('attribution_max_lookback_days') %}
{% set deterministic = [('cookie', 'cookie_id'), ('hashed_email', 'hashed_email')] %}
{% set searches = [
    ('households', 'households.match_type', 'household_key'),
    ('conversions', "'cookie'", 'cookie_id'),
    ('conversions', "'hashed_email'", 'hashed_email'),
] %}
{% call looks_at() -%}
    with news as (
        select * from {{ news() }}
    ),

    all_conversions as not materialized (
        select * from {{ ref('fct_conversions') }}
    ),

    responses as not materialized (
        select * from {{ ref('int_responses__claimed') }}
    ),

    -- A household leads also to conversions with a cookie or an e-mail address that was seen in it.
    identities as (
        select
            tenant_id,
            day,
            key,
            value
        from news

        {% for _, identity in deterministic %}
            union

            select
                news.tenant_id,
                news.day,
                '{{ identity }}' as key,
                responses.{{ identity }}::text as value
            from news
            inner join responses
                on
                    news.tenant_id = responses.tenant_id
                    and case news.key when 'household_key' then news.value::bytea end = responses.household_key
                    and responses.{{ identity }} is not null
                    and responses.occurred_at >= (news.day - {{ reach }})::timestamp at time zone 'UTC'
                    and responses.occurred_at < (news.day + {{ reach + 1 }})::timestamp at time zone 'UTC'
        {% endfor %}
    )

    select
        news.tenant_id,
        news.day,
        case news.key when 'conversion_id' then news.value::uuid end as conversion_id
    from news
    where news.key = 'conversion_id'

    {% for identity, type in [('household_key', 'bytea'), ('cookie_id', 'text'), ('hashed_email', 'bytea')] %}
        union

        select
            all_conversions.tenant_id,
            (all_conversions.occurred_at at time zone 'UTC')::date as day,
            all_conversions.conversion_id
        from identities
        inner join all_conversions
            on
                identities.tenant_id = all_conversions.tenant_id
                and case identities.key when '{{ identity }}' then identities.value::{{ type }} end
                = all_conversions.{{ identity }}
                and all_conversions.occurred_at >= identities.day::timestamp at time zone 'UTC'
                and all_conversions.occurred_at < (identities.day + {{ reach + 1 }})::timestamp at time zone 'UTC'
    {% endfor %}

    {% for relation in ['all_conversions', this] %}
        union

        select
            tenant_id,
            (occurred_at at time zone 'UTC')::date as day,
            conversion_id
        from {{ relation }}
        where {{ in_news('occurred_at', after_days=reach) }}
    {% endfor %}
{% endcall %}

with all_conversions as not materialized (
    select * from {{ ref('fct_conversions') }}
),

responses as not materialized (
    select * from {{ ref('int_responses__claimed') }}
),

touchpoints as not materialized (
    select * from {{ ref('int_touchpoints') }}
),

campaigns as (
    select
        *,
        86400 * lookback_days as lookback_seconds
    from {{ ref('stg_raw__campaigns') }}
),

channels as (
    select * from {{ ref('attribution_channels') }}
),

conversions as (
    select * from all_conversions
    where {{ in_slices('occurred_at') }} and {{ in_units() }}
),

-- The households that a cookie or an e-mail address of the conversion was seen in, at the same advertiser, before it.
seen as (
    {% for match_type, identity in deterministic %}
        {% if not loop.first %}
            union all

        {% endif %}
        select distinct
            conversions.tenant_id,
            conversions.conversion_id,
            conversions.occurred_at,
            conversions.action,
            conversions.sponsor_id,
            conversions.listener_key,
            responses.household_key,
            '{{ match_type }}' as match_type
        from conversions
        inner join responses
            on
                conversions.{{ identity }} = responses.{{ identity }}
                and conversions.tenant_id = responses.tenant_id
                and coalesce(conversions.sponsor_id, '') = coalesce(responses.sponsor_id, '')
                and conversions.household_key is distinct from responses.household_key
                and conversions.occurred_at >= responses.occurred_at
                and conversions.occurred_at - make_interval(hours => 24 * {{ reach }}) <= responses.occurred_at
        where {{ in_slices('responses.occurred_at', before_days=reach) }} and responses.household_key is not null
    {% endfor %}
),

-- One that was seen in very many is no person's.
linked as (
    select
        seen.*,
        count(*) over (
            partition by seen.tenant_id, seen.conversion_id, seen.occurred_at, seen.match_type
        ) as households
    from seen
),

households as (
    select
        conversions.tenant_id,
        conversions.conversion_id,
        conversions.occurred_at,
        conversions.action,
        conversions.sponsor_id,
        conversions.listener_key,
        conversions.household_key,
        'household' as match_type
    from conversions
    where conversions.household_key is not null

    union all

    select
        linked.tenant_id,
        linked.conversion_id,
        linked.occurred_at,
        linked.action,
        linked.sponsor_id,
        linked.listener_key,
        linked.household_key,
        linked.match_type
    from linked
    where linked.households <= {{ var('identity_max_households') }}
),

-- A join for each identity: one with an OR between them never ends. The bound of time is the same for all campaigns
-- and keeps each search short; a campaign's own lookback comes after.
-- Searched once, and for each conversion by the index (offset 0): days that are not analysed yet look empty to the
-- planner, as does a union of TimescaleDB's tables, and it would compare every conversion with every touch. What is
-- needed of the conversion goes along: to find it again would do just that.
found as materialized (
    {% for of, match_type, identity in searches %}
        select
            {{ of }}.conversion_id,
            {{ of }}.occurred_at as converted_at,
            {{ of }}.action,
            {{ of }}.sponsor_id,
            {{ of }}.listener_key as converted_listener_key,
            {{ match_type }},
            near.*
        from {{ of }}
        cross join
            lateral (
                select *
                from touchpoints
                where
                    {{ in_slices('touchpoints.occurred_at', before_days=reach) }}
                    and touchpoints.{{ identity }} = {{ of }}.{{ identity }}
                    and touchpoints.tenant_id = {{ of }}.tenant_id
                    and touchpoints.occurred_at <= {{ of }}.occurred_at
                    and touchpoints.occurred_at >= {{ of }}.occurred_at - make_interval(hours => 24 * {{ reach }})
                offset 0  -- noqa: AM09
            ) as near

        union all

    {% endfor %}
    -- What the conversion itself shows: its order, by code, URL, answer or name.
    select
        conversions.conversion_id,
        conversions.occurred_at as converted_at,
        conversions.action,
        conversions.sponsor_id,
        conversions.listener_key as converted_listener_key,
        'order' as match_type,
        conversions.tenant_id,
        conversions.conversion_id as touch_id,
        conversions.occurred_at,
        conversions.claim_type as touch_type,
        conversions.claim_type as signal,
        conversions.signal as evidence,
        conversions.claimed_campaign_id as campaign_id,
        conversions.claimed_insertion_order_id as insertion_order_id,
        null as ad_unit_id,
        null as podcast_id,
        null as episode_key,
        conversions.household_key,
        conversions.listener_key,
        conversions.cookie_id,
        conversions.hashed_email
    from conversions
    where conversions.claimed_campaign_id is not null
),

-- The conversion before, of the same household at the same advertiser, where paths are cut there.
cuts as (
    select
        conversions.tenant_id,
        conversions.conversion_id,
        conversions.occurred_at,
        max(earlier.occurred_at) as cut_at
    from conversions
    inner join all_conversions as earlier
        on
            conversions.household_key = earlier.household_key
            and conversions.tenant_id = earlier.tenant_id
            and coalesce(conversions.sponsor_id, '') = coalesce(earlier.sponsor_id, '')
            and conversions.occurred_at > earlier.occurred_at
            and conversions.occurred_at - make_interval(hours => 24 * {{ reach }}) <= earlier.occurred_at
    where
        {{ in_slices('earlier.occurred_at', before_days=reach) }}
        and {{ 'true' if var('attribution_cut_at_conversion') else 'false' }}
    group by conversions.tenant_id, conversions.conversion_id, conversions.occurred_at
),

-- Once each, by the strongest identity; only campaigns of the advertiser that count the action.
matched as (
    select distinct on (found.tenant_id, found.conversion_id, found.converted_at, found.touch_id, found.occurred_at)
        found.tenant_id,
        found.conversion_id,
        found.converted_at as occurred_at,
        found.touch_id,
        found.touch_type,
        found.signal,
        found.occurred_at as touch_at,
        extract(epoch from found.converted_at - found.occurred_at)::double precision as age_seconds,
        found.campaign_id,
        found.insertion_order_id,
        found.ad_unit_id,
        found.podcast_id,
        found.episode_key,
        found.sponsor_id,
        campaigns.sponsor_id as campaign_sponsor_id,
        case
            when found.match_type <> 'order' and found.listener_key = found.converted_listener_key then 'listener'
            else found.match_type
        end as match_type,
        found.evidence,
        campaigns.lookback_seconds as window_seconds,
        cuts.cut_at
    from found
    inner join campaigns
        on
            found.tenant_id = campaigns.tenant_id
            and found.campaign_id = campaigns.campaign_id
            and found.action = any(campaigns.conversion_actions)
    left join cuts
        on
            found.tenant_id = cuts.tenant_id
            and found.conversion_id = cuts.conversion_id
            and found.converted_at = cuts.occurred_at
    where
        (
            found.sponsor_id is null
            or found.sponsor_id = campaigns.sponsor_id
            or found.match_type = 'order'
        )
        and found.occurred_at >= found.converted_at - make_interval(
            secs => greatest(campaigns.lookback_seconds, 86400 * {{ longest_window_days() }})
        )
    order by
        found.tenant_id,
        found.conversion_id,
        found.converted_at,
        found.touch_id,
        found.occurred_at,
        array_position(array['order', 'cookie', 'hashed_email', 'household'], found.match_type)
),

channelled as (
    select
        matched.*,
        {{ attribution_channel('matched') }} as channel
    from matched
),

-- What the seed says of the touch's campaign, show and so on; to leave out is stronger.
candidates as (
    select
        channelled.*,
        coalesce(told.is_direct, false) as is_direct,
        case
            when told.is_excluded then 'excluded'
            when channelled.touch_at <= channelled.cut_at and channelled.match_type <> 'order' then 'before_conversion'
            when channelled.age_seconds > channelled.window_seconds then 'beyond_lookback'
        end as set_aside
    from channelled
    left join
        lateral (
            select
                bool_or(channels.treat_as = 'direct') as is_direct,
                bool_or(channels.treat_as = 'excluded') as is_excluded
            from channels
            where
                coalesce(channels.tenant_id, channelled.tenant_id) = channelled.tenant_id
                and channels.value = {{ value_of_dimension('channels.dimension', 'channelled') }}
        ) as told
        on true
),

positioned as (
    {{ positioned('candidates', 'tenant_id, conversion_id, occurred_at') }}
),

paths as (
    select
        positioned.tenant_id,
        positioned.conversion_id,
        positioned.occurred_at,
        positioned.touch_id,
        positioned.touch_type,
        positioned.signal,
        positioned.touch_at,
        positioned.age_seconds,
        positioned.position,
        positioned.touches,
        positioned.left_out_as,
        positioned.channel,
        positioned.is_direct,
        positioned.campaign_id,
        positioned.insertion_order_id,
        positioned.ad_unit_id,
        positioned.podcast_id,
        positioned.episode_key,
        positioned.sponsor_id,
        positioned.match_type,
        positioned.evidence,
        positioned.window_seconds
    from positioned
)

select * from paths
