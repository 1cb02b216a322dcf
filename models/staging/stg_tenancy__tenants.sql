with source as (
    select * from {{ source('tenancy', 'tenants') }}
),

renamed as (
    select
        tenant_id,
        name,
        created_at,
        download_window,
        counts_unknown_threshold,
        assumed_bitrate_bps,
        max_daily_downloads_per_address,
        discards_data_centers,
        discards_vpns,
        array_to_string(counted_sources, ',') as counted_sources
    from source
)

select * from renamed
