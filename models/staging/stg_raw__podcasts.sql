with source as (
    select * from {{ source('raw', 'podcasts') }}
),

renamed as (
    select
        tenant_id,
        podcast_id,
        title,
        feed_url,
        podcast_guid,
        author,
        language,
        properties,
        load_id
    from source
)

select * from renamed
