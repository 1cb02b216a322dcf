-- A holdout names a campaign that there is, and an ad unit or show that can stand for being kept from it. Each row
-- that comes back says in `problem` what to change in seeds/attribution_holdouts.csv.
{{ config(meta={'dagster': {'ref': {'name': 'attribution_holdouts'}}}) }}
with holdouts as (
    select * from {{ ref('attribution_holdouts') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

ad_units as (
    select * from {{ ref('stg_raw__ad_units') }}
),

podcasts as (
    select * from {{ ref('stg_raw__podcasts') }}
),

checked as (
    select
        holdouts.*,
        case
            when campaigns.campaign_id is null
                then 'the tenant has no such campaign: write a campaign_id of dim_campaigns, or load the campaign first'
            when holdouts.kind not in ('ad_unit', 'podcast')
                then 'no such kind: write ad_unit or podcast'
            when holdouts.kind = 'ad_unit' and ad_units.ad_unit_id is null
                then 'the tenant has no such ad unit: write an ad_unit_id of dim_ad_units, or load the ad unit first'
            when ad_units.campaign_id = holdouts.campaign_id
                then 'the ad unit is one of the campaign itself: name the placebo'
            when advertised.sponsor_id = campaigns.sponsor_id
                then 'the ad unit advertises the same sponsor, so it is no placebo: name one of another advertiser'
            when holdouts.kind = 'podcast' and podcasts.podcast_id is null
                then 'the tenant has no such podcast: write a podcast_id of dim_podcasts, or load the podcast first'
            when
                count(*) over (
                    partition by holdouts.tenant_id, holdouts.campaign_id, holdouts.kind, holdouts.value
                ) > 1
                then 'the row stands there twice: take one out'
        end as problem
    from holdouts
    left join campaigns
        on holdouts.tenant_id = campaigns.tenant_id and holdouts.campaign_id = campaigns.campaign_id
    left join ad_units
        on
            holdouts.tenant_id = ad_units.tenant_id
            and holdouts.kind = 'ad_unit'
            and holdouts.value = ad_units.ad_unit_id
    left join campaigns as advertised
        on ad_units.tenant_id = advertised.tenant_id and ad_units.campaign_id = advertised.campaign_id
    left join podcasts
        on
            holdouts.tenant_id = podcasts.tenant_id
            and holdouts.kind = 'podcast'
            and holdouts.value = podcasts.podcast_id
)

select
    tenant_id,
    campaign_id,
    kind,
    value,
    problem
from checked
where problem is not null
