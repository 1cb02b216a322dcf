with podcasts as (
    select
        tenant_id,
        podcast_id,
        title,
        author,
        language,
        feed_url,
        podcast_guid
    from {{ ref('stg_raw__podcasts') }}
)

select * from podcasts
