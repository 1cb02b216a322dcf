-- Modelled credit is of all journeys of a month together: no slices of it are refreshed, the stage `fit` builds it.
-- The hooks are those of rpt_campaign_lift, for the same reasons.
{{ config(
    materialized='table',
    tags=['fit'],
    pre_hook=[
        'select timeseries.read_columnstore_safely()',
        'set local enable_nestloop = off',
    ],
    indexes=[{'columns': ['tenant_id', 'month']}],
) }}

with months as (
    select * from {{ ref('int_conversions__by_month') }}
),

all_conversions as (
    select * from {{ ref('fct_conversions') }}
),

paths as (
    select * from {{ ref('fct_attribution_paths') }}
),

all_credits as (
    select * from {{ ref('fct_attribution_credits') }}
),

models as (
    select * from {{ ref('attribution_models') }}
),

fits as (
    select * from {{ source('attribution', 'fits') }}
),

channel_credits as (
    select * from {{ source('attribution', 'channel_credits') }}
),

conversions as (
    select
        all_conversions.*,
        (date_trunc('month', all_conversions.occurred_at, 'UTC') at time zone 'UTC')::date as month,
        coalesce(all_conversions.sponsor_id, '') as known_sponsor_id
    from all_conversions
),

converting as (
    select distinct
        paths.tenant_id,
        paths.conversion_id,
        paths.occurred_at
    from paths
    where paths.position is not null
),

credits as (
    select
        all_credits.*,
        (date_trunc('month', all_credits.occurred_at, 'UTC') at time zone 'UTC')::date as month,
        coalesce(all_credits.sponsor_id, '') as known_sponsor_id
    from all_credits
),

-- What there is to credit: the conversions that have a path.
with_path as (
    select
        months.tenant_id,
        months.month,
        months.sponsor_id,
        count(*) as conversions,
        coalesce(sum(conversions.value) filter (where conversions.currency is not distinct from months.currency), 0)
            as revenue,
        count(*) filter (where conversions.currency is distinct from months.currency) as conversions_other_currency
    from conversions
    inner join months
        on
            conversions.tenant_id = months.tenant_id
            and conversions.month = months.month
            and conversions.known_sponsor_id = months.sponsor_id
    inner join converting
        on
            conversions.tenant_id = converting.tenant_id
            and conversions.conversion_id = converting.conversion_id
            and conversions.occurred_at = converting.occurred_at
    group by months.tenant_id, months.month, months.sponsor_id
),

by_path as (
    select
        months.tenant_id,
        months.month,
        months.sponsor_id,
        credits.model,
        credits.channel,
        sum(credits.credit) as conversions,
        coalesce(sum(credits.revenue) filter (where credits.currency is not distinct from months.currency), 0)
            as revenue,
        coalesce(sum(credits.credit) filter (where credits.currency is distinct from months.currency), 0)
            as conversions_other_currency
    from credits
    inner join months
        on
            credits.tenant_id = months.tenant_id
            and credits.month = months.month
            and credits.known_sponsor_id = months.sponsor_id
    group by months.tenant_id, months.month, months.sponsor_id, credits.model, credits.channel
),

-- A fit of before the last rows came says how to share today's conversions, so that nothing is lost or made up.
fitted as (
    select
        channel_credits.tenant_id,
        channel_credits.month,
        channel_credits.sponsor_id,
        channel_credits.model,
        channel_credits.channel,
        channel_credits.share_of_conversions::numeric * with_path.conversions as conversions,
        channel_credits.low * with_path.conversions / fits.conversions as low,
        channel_credits.high * with_path.conversions / fits.conversions as high,
        channel_credits.removal_effect,
        channel_credits.share_of_revenue::numeric * with_path.revenue as revenue,
        channel_credits.share_of_conversions::numeric * with_path.conversions_other_currency
            as conversions_other_currency,
        fits.fitted_at
    from channel_credits
    inner join fits
        on
            channel_credits.tenant_id = fits.tenant_id
            and channel_credits.month = fits.month
            and channel_credits.sponsor_id = fits.sponsor_id
            and channel_credits.model = fits.model
    inner join with_path
        on
            channel_credits.tenant_id = with_path.tenant_id
            and channel_credits.month = with_path.month
            and channel_credits.sponsor_id = with_path.sponsor_id
),

fitted_models as (
    select distinct
        fitted.tenant_id,
        fitted.month,
        fitted.sponsor_id,
        fitted.model
    from fitted
),

-- A model that could not be fitted has no rows, unless there was nothing to fit.
modelled as (
    select
        fitted.tenant_id,
        fitted.month,
        fitted.sponsor_id,
        fitted.model,
        fitted.channel,
        fitted.conversions,
        fitted.revenue,
        fitted.conversions_other_currency
    from fitted
    inner join models on fitted.model = models.model
    where models.method = 'markov'

    union all

    select
        months.tenant_id,
        months.month,
        months.sponsor_id,
        models.model,
        null as channel,
        months.conversions - coalesce(with_path.conversions, 0) as conversions,
        months.revenue - coalesce(with_path.revenue, 0) as revenue,
        months.conversions_other_currency - coalesce(with_path.conversions_other_currency, 0)
            as conversions_other_currency
    from months
    inner join models on models.method = 'markov'
    left join with_path
        on
            months.tenant_id = with_path.tenant_id
            and months.month = with_path.month
            and months.sponsor_id = with_path.sponsor_id
    left join fitted_models
        on
            months.tenant_id = fitted_models.tenant_id
            and months.month = fitted_models.month
            and months.sponsor_id = fitted_models.sponsor_id
            and models.model = fitted_models.model
    where with_path.conversions is null or fitted_models.model is not null
),

credited as (
    select * from by_path

    union all

    -- The unattributed are a row also where there are none.
    select
        months.tenant_id,
        months.month,
        months.sponsor_id,
        models.model,
        null as channel,
        0 as conversions,
        0 as revenue,
        0 as conversions_other_currency
    from months
    inner join models on models.method <> 'markov'
    left join by_path
        on
            by_path.channel is null
            and months.tenant_id = by_path.tenant_id
            and months.month = by_path.month
            and months.sponsor_id = by_path.sponsor_id
            and models.model = by_path.model
    where by_path.model is null

    union all

    select * from modelled
),

comparison as (
    select
        credited.tenant_id,
        credited.month,
        nullif(credited.sponsor_id, '') as sponsor_id,
        credited.model,
        models.method,
        models.method = 'markov' as is_modelled,
        credited.channel,
        {% if var('attribution_dimension') == 'campaign' -%} nullif(credited.channel, '(none)')
        {%- else -%} null::text
        {%- endif %} as campaign_id,
        trim_scale(credited.conversions) as conversions,
        fitted.low,
        fitted.high,
        fitted.removal_effect,
        months.currency,
        trim_scale(credited.revenue) as revenue,
        trim_scale(credited.conversions_other_currency) as conversions_other_currency,
        fitted.fitted_at
    from credited
    inner join models on credited.model = models.model
    inner join months
        on
            credited.tenant_id = months.tenant_id
            and credited.month = months.month
            and credited.sponsor_id = months.sponsor_id
    left join fitted
        on
            credited.tenant_id = fitted.tenant_id
            and credited.month = fitted.month
            and credited.sponsor_id = fitted.sponsor_id
            and credited.model = fitted.model
            and credited.channel = fitted.channel
)

select * from comparison
