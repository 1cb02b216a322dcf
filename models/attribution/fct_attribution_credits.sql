{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='28 days',
    keys=['conversion_id'],
    unit='conversion_id',
    indexes=[{'columns': ['occurred_at']}, {'columns': ['tenant_id', 'campaign_id', 'occurred_at']}],
) }}
{% call looks_at() -%}
    select
        tenant_id,
        day,
        value::uuid as conversion_id
    from {{ news() }}
    where key = 'conversion_id'

    {% for relation in [ref('fct_conversions'), this] %}
        union

        select
            tenant_id,
            (occurred_at at time zone 'UTC')::date as day,
            conversion_id
        from {{ relation }}
        where {{ in_news('occurred_at') }}
    {% endfor %}
{% endcall %}

with conversions as (
    select * from {{ ref('fct_conversions') }}
    where {{ in_slices('occurred_at') }} and {{ in_units() }}
),

paths as (
    select * from {{ ref('fct_attribution_paths') }}
    where {{ in_slices('occurred_at') }} and {{ in_units() }}
),

models as (
    select * from {{ ref('attribution_models') }}
    where method <> 'markov'
),

-- The signals that claim the order: what it shows itself, and the touches that came near enough.
claiming as (
    select
        claims.tenant_id,
        claims.conversion_id,
        claims.occurred_at,
        array_agg(claims.signal order by claims.signal) as signals
    from (
        select
            conversions.tenant_id,
            conversions.conversion_id,
            conversions.occurred_at,
            unnest(string_to_array(nullif(conversions.claims, ''), ',')) as signal
        from conversions
        union
        select
            paths.tenant_id,
            paths.conversion_id,
            paths.occurred_at,
            paths.signal
        from paths
        where paths.position is not null
    ) as claims
    group by claims.tenant_id, claims.conversion_id, claims.occurred_at
),

-- Beside each conversion before it is credited: the planner cannot tell that hundreds of thousands of credits come out
-- of a join, and would compare each of them with every conversion.
converted as materialized (
    select
        conversions.*,
        claiming.signals as claiming_signals
    from conversions
    left join claiming
        on
            conversions.tenant_id = claiming.tenant_id
            and conversions.conversion_id = claiming.conversion_id
            and conversions.occurred_at = claiming.occurred_at
),

in_path as (
    select * from paths
    where position is not null
),

credited as (
    {{ credited('in_path', 'models', 'tenant_id, conversion_id, occurred_at') }}
),

-- A conversion without a path is a row of its own under every model.
unattributed as (
    select
        conversions.*,
        models.model
    from conversions
    cross join models
    where not exists (
        select 1
        from in_path
        where
            conversions.tenant_id = in_path.tenant_id
            and conversions.conversion_id = in_path.conversion_id
            and conversions.occurred_at = in_path.occurred_at
    )
),

credits as (
    select
        credited.tenant_id,
        credited.conversion_id,
        credited.occurred_at,
        credited.model,
        credited.touch_id,
        credited.touch_type,
        credited.touch_at,
        credited.age_seconds,
        credited.window_seconds,
        credited.position,
        credited.touches,
        credited.channel,
        credited.campaign_id,
        credited.insertion_order_id,
        credited.ad_unit_id,
        credited.podcast_id,
        credited.episode_key,
        credited.sponsor_id,
        credited.match_type,
        credited.evidence,
        array_to_string(array_remove(converted.claiming_signals, credited.signal), ',') as other_signals,
        converted.action,
        converted.is_new_customer,
        trim_scale(credited.credited_to - credited.credited_from) as credit,
        trim_scale(
            round(converted.value * credited.credited_to, 12) - round(converted.value * credited.credited_from, 12)
        ) as revenue,
        converted.currency
    from credited
    inner join converted
        on
            credited.tenant_id = converted.tenant_id
            and credited.conversion_id = converted.conversion_id
            and credited.occurred_at = converted.occurred_at

    union all

    select
        unattributed.tenant_id,
        unattributed.conversion_id,
        unattributed.occurred_at,
        unattributed.model,
        null as touch_id,
        null as touch_type,
        null as touch_at,
        null as age_seconds,
        null as window_seconds,
        null as position,
        null as touches,
        null as channel,
        null as campaign_id,
        null as insertion_order_id,
        null as ad_unit_id,
        null as podcast_id,
        null as episode_key,
        unattributed.sponsor_id,
        'unattributed' as match_type,
        case
            when
                num_nonnulls(unattributed.household_key, unattributed.cookie_id, unattributed.hashed_email) = 0
                then 'no_identity'
            else 'no_touch'
        end as evidence,
        '' as other_signals,
        unattributed.action,
        unattributed.is_new_customer,
        1 as credit,
        unattributed.value as revenue,
        unattributed.currency
    from unattributed
)

select * from credits
