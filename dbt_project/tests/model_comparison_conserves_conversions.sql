-- Credited and unattributed conversions of a tenant, month, sponsor and model are those of fct_conversions, and revenue
-- in the month's currency likewise: to the last digit, for modelled credit to a millionth. Every model that needs no
-- fit is there for every month.
-- Only the comparison is a ref: it stands as of the last fit, so it is held against the facts when it is built, and not
-- whenever one of them is.
{{ config(tags=['fit'], meta={'dagster': {'ref': {'name': 'rpt_model_comparison'}}}) }}
{% set comparison = ref('rpt_model_comparison') %}
with by_currency as (
    select
        tenant_id,
        (date_trunc('month', occurred_at, 'UTC') at time zone 'UTC')::date as month,
        coalesce(sponsor_id, '') as sponsor_id,
        coalesce(currency, '') as currency,
        count(*) as conversions,
        sum(value) as revenue
    from {{ comparison.incorporate(path={'identifier': 'fct_conversions'}) }}
    group by
        tenant_id,
        (date_trunc('month', occurred_at, 'UTC') at time zone 'UTC')::date,
        coalesce(sponsor_id, ''),
        coalesce(currency, '')
),

facts as (
    select
        tenant_id,
        month,
        sponsor_id,
        sum(conversions) as conversions,
        jsonb_object_agg(currency, revenue) as revenue,
        jsonb_object_agg(currency, conversions) as conversions_by_currency
    from by_currency
    group by tenant_id, month, sponsor_id
),

models as (
    select * from {{ comparison.incorporate(path={'schema': 'seeds', 'identifier': 'attribution_models'}) }}
),

expected as (
    select
        facts.tenant_id,
        facts.month,
        facts.sponsor_id,
        models.model
    from facts
    cross join models
    where models.method <> 'markov'
),

compared as (
    select
        tenant_id,
        month,
        coalesce(sponsor_id, '') as sponsor_id,
        model,
        case when bool_or(is_modelled) then 0.000001 else 0 end as tolerance,
        min(coalesce(currency, '')) as currency,
        count(distinct coalesce(currency, '')) as currencies,
        sum(conversions) as conversions,
        sum(conversions_other_currency) as conversions_other_currency,
        sum(revenue) as revenue,
        count(*) filter (where channel is null) as unattributed_rows
    from {{ comparison }}
    group by tenant_id, month, coalesce(sponsor_id, ''), model
),

found as (
    select
        tenant_id,
        month,
        sponsor_id,
        model,
        facts.conversions as in_facts,
        compared.conversions as in_comparison,
        (facts.revenue ->> compared.currency)::numeric as revenue_in_facts,
        compared.revenue as revenue_in_comparison,
        facts.conversions
        - coalesce((facts.conversions_by_currency ->> compared.currency)::numeric, 0) as other_in_facts,
        compared.conversions_other_currency as other_in_comparison,
        compared.tolerance,
        compared.currencies,
        compared.unattributed_rows
    from compared
    full join expected using (tenant_id, month, sponsor_id, model)
    left join facts using (tenant_id, month, sponsor_id)
)

select *
from found
where
    in_facts is null
    or in_comparison is null
    or currencies <> 1
    or unattributed_rows <> 1
    or abs(in_comparison - in_facts) > tolerance * in_facts
    or abs(other_in_comparison - other_in_facts) > tolerance * in_facts
    or abs(revenue_in_comparison - coalesce(revenue_in_facts, 0))
    > tolerance * greatest(1, abs(coalesce(revenue_in_facts, 0)))
