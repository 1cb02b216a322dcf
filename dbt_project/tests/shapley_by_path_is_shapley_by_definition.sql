-- The Shapley credit of the SQL (equal parts to the distinct channels of a path) is that of the definition, which the
-- stage `fit` computes up to twelve channels. Looked at are fits of the journeys that are there now. Only the
-- comparison is a ref: it stands as of the last fit, and is held against the rest when it is built.
{{ config(tags=['fit'], meta={'dagster': {'ref': {'name': 'rpt_model_comparison'}}}) }}
{% set built = ref('rpt_model_comparison') %}
with journeys as (
    select
        tenant_id,
        month,
        sponsor_id,
        attribution.journeys_digest(channels, conversions, revenue, nulls order by channels collate "C")
            as journeys_digest
    from {{ built.incorporate(path={'schema': 'intermediate', 'identifier': 'int_attribution_journeys'}) }}
    group by tenant_id, month, sponsor_id
),

fits as (
    select * from {{ source('attribution', 'fits') }}
),

credits as (
    select * from {{ source('attribution', 'channel_credits') }}
),

models as (
    select * from {{ built.incorporate(path={'schema': 'seeds', 'identifier': 'attribution_models'}) }}
),

comparison as (
    select * from {{ built }}
),

fitted as (
    select
        fits.tenant_id,
        fits.month,
        fits.sponsor_id,
        fits.model,
        credits.channel,
        credits.conversions
    from fits
    inner join journeys using (tenant_id, month, sponsor_id, journeys_digest)
    inner join models on fits.model = models.model and models.method = 'shapley'
    inner join credits
        on
            fits.tenant_id = credits.tenant_id
            and fits.month = credits.month
            and fits.sponsor_id = credits.sponsor_id
            and fits.model = credits.model
),

by_path as (
    select
        comparison.tenant_id,
        comparison.month,
        coalesce(comparison.sponsor_id, '') as sponsor_id,
        comparison.model,
        comparison.channel,
        comparison.conversions
    from comparison
    where
        comparison.channel is not null
        and exists (
            select 1
            from fitted
            where
                comparison.tenant_id = fitted.tenant_id
                and comparison.month = fitted.month
                and coalesce(comparison.sponsor_id, '') = fitted.sponsor_id
                and comparison.model = fitted.model
        )
)

select
    tenant_id,
    month,
    sponsor_id,
    model,
    channel,
    by_path.conversions as by_path,
    fitted.conversions as by_definition
from by_path
full join fitted using (tenant_id, month, sponsor_id, model, channel)
where
    abs(coalesce(by_path.conversions, 0) - coalesce(fitted.conversions, 0))
    > 0.000001 * greatest(1, coalesce(by_path.conversions, 0))
