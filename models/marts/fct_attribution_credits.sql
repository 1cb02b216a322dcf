-- A late exposure can change the credit of a conversion up to the longest lookback after it: hence the widening.
{{ config(
    materialized='hypertable',
    time_column='occurred_at',
    chunk_interval='28 days',
    window_after_days=90,
    indexes=[{'columns': ['occurred_at']}, {'columns': ['tenant_id', 'campaign_id', 'occurred_at']}],
) }}

with conversions as (
    select * from {{ ref('fct_conversions') }}
),

ad_impressions as (
    select * from {{ ref('fct_ad_impressions') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

-- A claim holds where the claimed campaign counts the action. It is a touch at the conversion's own time, so as
-- the last touch it wins over every exposure.
converted as (
    select
        conversions.*,
        claimed.campaign_id as holding_campaign_id
    from conversions
    left join campaigns as claimed
        on
            conversions.tenant_id = claimed.tenant_id
            and conversions.claimed_campaign_id = claimed.campaign_id
            and conversions.action = any(claimed.conversion_actions)
    where {{ in_window('conversions.occurred_at') }}
),

-- The last exposure of the household to a campaign that counts the action, within that campaign's lookback to the
-- second. The bound that is the same for all campaigns is no rule of its own: it keeps the search short.
credited as (
    select
        converted.*,
        last_touch.impression_id,
        last_touch.occurred_at as exposed_at,
        last_touch.campaign_id as exposed_campaign_id,
        last_touch.insertion_order_id as exposed_insertion_order_id,
        last_touch.ad_unit_id,
        last_touch.podcast_id,
        last_touch.episode_key
    from converted
    left join
        lateral (
            select
                ad_impressions.impression_id,
                ad_impressions.occurred_at,
                ad_impressions.campaign_id,
                ad_impressions.insertion_order_id,
                ad_impressions.ad_unit_id,
                ad_impressions.podcast_id,
                ad_impressions.episode_key
            from ad_impressions
            inner join campaigns
                on ad_impressions.tenant_id = campaigns.tenant_id and ad_impressions.campaign_id = campaigns.campaign_id
            where
                {{ in_window('ad_impressions.occurred_at', before_days=var('attribution_max_lookback_days')) }}
                and ad_impressions.household_key = converted.household_key
                and ad_impressions.tenant_id = converted.tenant_id
                and ad_impressions.occurred_at <= converted.occurred_at
                and ad_impressions.occurred_at
                >= converted.occurred_at - make_interval(hours => 24 * {{ var('attribution_max_lookback_days') }})
                and ad_impressions.occurred_at
                >= converted.occurred_at - make_interval(secs => 86400 * campaigns.lookback_days)
                and converted.action = any(campaigns.conversion_actions)
                and (converted.sponsor_id is null or converted.sponsor_id = campaigns.sponsor_id)
            order by ad_impressions.occurred_at desc, ad_impressions.impression_id asc
            limit 1
        ) as last_touch
        on converted.holding_campaign_id is null
),

credits as (
    select
        credited.tenant_id,
        credited.conversion_id,
        credited.occurred_at,
        'last_touch' as model,
        coalesce(credited.holding_campaign_id, credited.exposed_campaign_id) as campaign_id,
        case
            when credited.holding_campaign_id is not null then credited.claim_type
            when credited.impression_id is not null then 'household'
            else 'unattributed'
        end as match_type,
        case
            when credited.holding_campaign_id is not null then credited.conversion_id
            else credited.impression_id
        end as touch_id,
        case
            when credited.holding_campaign_id is not null then credited.occurred_at
            else credited.exposed_at
        end as touch_at,
        case
            when credited.holding_campaign_id is not null then 0
            else extract(epoch from credited.occurred_at - credited.exposed_at)::double precision
        end as age_seconds,
        case
            when credited.holding_campaign_id is not null then credited.claimed_insertion_order_id
            else credited.exposed_insertion_order_id
        end as insertion_order_id,
        credited.ad_unit_id,
        credited.podcast_id,
        credited.episode_key,
        credited.sponsor_id,
        credited.action,
        credited.is_new_customer,
        1::numeric as credit,
        credited.value as revenue,
        credited.currency
    from credited
)

select * from credits
