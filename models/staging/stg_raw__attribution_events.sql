with source as (
    select * from {{ source('raw', 'attribution_events') }}
),

renamed as (
    select
        tenant_id,
        event_id,
        occurred_at,
        action,
        type as signal,
        source,
        sponsor_id,
        campaign_id,
        household_key,
        listener_key,
        key_id,
        cookie_id,
        hashed_email,
        order_number,
        value,
        currency,
        discount_code,
        url,
        is_new_customer,
        user_agent,
        properties,
        load_id
    from source
)

select * from renamed
