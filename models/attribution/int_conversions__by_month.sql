with all_conversions as (
    select * from {{ ref('fct_conversions') }}
),

conversions as (
    select
        all_conversions.*,
        date_trunc('month', all_conversions.occurred_at, 'UTC') at time zone 'UTC' as starts_at,
        coalesce(all_conversions.sponsor_id, '') as known_sponsor_id
    from all_conversions
),

-- The currency of most conversions, of equally many the first by name. Currencies are never added up.
currencies as (
    select
        conversions.tenant_id,
        conversions.starts_at,
        conversions.known_sponsor_id,
        mode() within group (order by conversions.currency) as currency
    from conversions
    group by conversions.tenant_id, conversions.starts_at, conversions.known_sponsor_id
),

months as (
    select
        currencies.tenant_id,
        currencies.starts_at::date as month,
        currencies.known_sponsor_id as sponsor_id,
        currencies.currency,
        count(*) as conversions,
        coalesce(sum(conversions.value) filter (where conversions.currency is not distinct from currencies.currency), 0)
            as revenue,
        count(*) filter (where conversions.currency is distinct from currencies.currency) as conversions_other_currency
    from currencies
    inner join conversions
        on
            currencies.tenant_id = conversions.tenant_id
            and currencies.starts_at = conversions.starts_at
            and currencies.known_sponsor_id = conversions.known_sponsor_id
    group by currencies.tenant_id, currencies.starts_at, currencies.known_sponsor_id, currencies.currency
)

select * from months
