with source as (
    select * from {{ source('raw', 'episodes') }}
),

renamed as (
    select
        tenant_id,
        episode_id,
        podcast_id,
        guid as episode_guid,
        title,
        published_at,
        duration_seconds,
        enclosure_url,
        enclosure_key,
        enclosure_bytes,
        enclosure_type,
        bitrate_bps,
        id3_bytes,
        properties,
        load_id
    from source
)

select * from renamed
