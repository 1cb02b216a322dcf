with insertion_orders as (
    select * from {{ ref('stg_raw__insertion_orders') }}
),

campaigns as (
    select * from {{ ref('stg_raw__campaigns') }}
),

flights as (
    select
        insertion_orders.tenant_id,
        insertion_orders.campaign_id,
        insertion_orders.insertion_order_id,
        campaigns.sponsor_id,
        nullif(upper(trim(insertion_orders.promo_code)), '') as promo_code,
        nullif({{ plain_url('insertion_orders.vanity_url') }}, '') as vanity_url,
        coalesce(insertion_orders.starts_on::timestamp at time zone 'UTC', campaigns.flight_starts_at) as starts_at,
        coalesce((insertion_orders.ends_on + 1)::timestamp at time zone 'UTC', campaigns.flight_ends_at) as ends_at
    from insertion_orders
    inner join campaigns
        on insertion_orders.tenant_id = campaigns.tenant_id and insertion_orders.campaign_id = campaigns.campaign_id
),

-- An order line may have several codes.
codes as (
    select distinct
        flights.tenant_id,
        flights.campaign_id,
        flights.insertion_order_id,
        flights.sponsor_id,
        flights.starts_at,
        flights.ends_at,
        trim(code) as promo_code
    from flights
    cross join lateral regexp_split_to_table(flights.promo_code, '[,;|]+') as code
),

-- What a buyer can show: the code or the URL of an order line, while its flight lasts and some time after.
claims as (
    select
        codes.tenant_id,
        'promo_code' as claim_type,
        codes.promo_code as claim_key,
        codes.campaign_id,
        codes.insertion_order_id,
        codes.sponsor_id,
        codes.starts_at,
        codes.ends_at,
        codes.ends_at + make_interval(hours => 24 * {{ var('claim_grace_days') }}) as honoured_until
    from codes
    where codes.promo_code <> ''

    union all

    select
        flights.tenant_id,
        'vanity_url' as claim_type,
        flights.vanity_url as claim_key,
        flights.campaign_id,
        flights.insertion_order_id,
        flights.sponsor_id,
        flights.starts_at,
        flights.ends_at,
        flights.ends_at + make_interval(hours => 24 * {{ var('claim_grace_days') }}) as honoured_until
    from flights
    where flights.vanity_url is not null
)

select * from claims
