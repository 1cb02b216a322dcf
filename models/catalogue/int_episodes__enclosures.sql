with episodes as (
    select * from {{ ref('stg_raw__episodes') }}
),

-- An episode is found by its enclosure, and by the path alone where a log does not say its host.
candidates as (
    select
        episodes.tenant_id,
        episodes.enclosure_key,
        episodes.episode_id,
        episodes.podcast_id,
        episodes.published_at,
        episodes.enclosure_key as full_key
    from episodes
    where episodes.enclosure_key is not null

    union all

    select
        episodes.tenant_id,
        substr(episodes.enclosure_key, strpos(episodes.enclosure_key, '/')) as enclosure_key,
        episodes.episode_id,
        episodes.podcast_id,
        episodes.published_at,
        episodes.enclosure_key as full_key
    from episodes
    where strpos(episodes.enclosure_key, '/') > 1
),

ranked as (
    select
        candidates.*,
        row_number() over (
            partition by candidates.tenant_id, candidates.enclosure_key
            order by candidates.published_at desc nulls last, candidates.episode_id asc
        ) as precedence,
        min(candidates.full_key) over (partition by candidates.tenant_id, candidates.enclosure_key) as first_full_key,
        max(candidates.full_key) over (partition by candidates.tenant_id, candidates.enclosure_key) as last_full_key
    from candidates
),

-- Two episodes may share an enclosure: the latest published takes it. A path on two hosts is nobody's. Inside coalesce
-- the planner takes the conditions for half of the rows; bare it expects one, and looks through all for every event.
enclosures as (
    select
        ranked.tenant_id,
        ranked.enclosure_key,
        ranked.episode_id,
        ranked.podcast_id
    from ranked
    where coalesce(ranked.precedence = 1 and ranked.first_full_key = ranked.last_full_key, false)
)

select * from enclosures
