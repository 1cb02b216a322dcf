with episodes as (
    select
        tenant_id,
        episode_id,
        podcast_id,
        title,
        published_at,
        duration_seconds,
        episode_guid,
        enclosure_url,
        enclosure_bytes
    from {{ ref('stg_raw__episodes') }}
)

select * from episodes
