with episodes as (
    select * from {{ ref('stg_raw__episodes') }}
),

-- A guid is unique only within a feed: of two episodes the latest published takes it.
guids as (
    select distinct on (episodes.tenant_id, episodes.episode_guid)
        episodes.tenant_id,
        episodes.episode_guid,
        episodes.episode_id,
        episodes.podcast_id
    from episodes
    where episodes.episode_guid is not null
    order by
        episodes.tenant_id asc,
        episodes.episode_guid asc,
        episodes.published_at desc nulls last,
        episodes.episode_id asc
)

select * from guids
