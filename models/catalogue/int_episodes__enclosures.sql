with episodes as (
    select * from {{ ref('stg_raw__episodes') }}
),

seen_enclosures as (
    select * from {{ ref('stg_raw__episode_enclosures') }}
),

-- The enclosure that an episode has, those that it had, and its other formats.
known as (
    select
        episodes.tenant_id,
        episodes.enclosure_key,
        episodes.episode_id,
        episodes.podcast_id,
        episodes.published_at,
        true as is_current
    from episodes
    where episodes.enclosure_key is not null

    union all

    select
        seen_enclosures.tenant_id,
        seen_enclosures.enclosure_key,
        episodes.episode_id,
        episodes.podcast_id,
        episodes.published_at,
        false as is_current
    from seen_enclosures
    inner join episodes
        on
            seen_enclosures.tenant_id = episodes.tenant_id
            and seen_enclosures.episode_id = episodes.episode_id
            and seen_enclosures.enclosure_key is distinct from episodes.enclosure_key
),

-- An episode is found by its enclosure, and by the path alone where a log does not say its host.
candidates as (
    select
        known.tenant_id,
        known.enclosure_key,
        known.episode_id,
        known.podcast_id,
        known.published_at,
        known.is_current,
        known.enclosure_key as full_key
    from known

    union all

    select
        known.tenant_id,
        substr(known.enclosure_key, strpos(known.enclosure_key, '/')) as enclosure_key,
        known.episode_id,
        known.podcast_id,
        known.published_at,
        known.is_current,
        known.enclosure_key as full_key
    from known
    where strpos(known.enclosure_key, '/') > 1
),

ranked as (
    select
        candidates.*,
        row_number() over (
            partition by candidates.tenant_id, candidates.enclosure_key
            order by
                candidates.is_current desc,
                candidates.published_at desc nulls last,
                candidates.episode_id asc
        ) as precedence,
        min(candidates.full_key) over (partition by candidates.tenant_id, candidates.enclosure_key) as first_full_key,
        max(candidates.full_key) over (partition by candidates.tenant_id, candidates.enclosure_key) as last_full_key,
        min(candidates.episode_id) over (partition by candidates.tenant_id, candidates.enclosure_key) as first_episode,
        max(candidates.episode_id) over (partition by candidates.tenant_id, candidates.enclosure_key) as last_episode
    from candidates
),

-- Episodes may share an enclosure: who has it now takes it, the latest published first. A path on two hosts is
-- nobody's, unless one episode moved from one to the other. Inside coalesce
-- the planner takes the conditions for half of the rows; bare it expects one, and looks through all for every event.
enclosures as (
    select
        ranked.tenant_id,
        ranked.enclosure_key,
        ranked.episode_id,
        ranked.podcast_id
    from ranked
    where
        coalesce(
            ranked.precedence = 1
            and (ranked.first_full_key = ranked.last_full_key or ranked.first_episode = ranked.last_episode),
            false
        )
)

select * from enclosures
