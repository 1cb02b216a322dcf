with ad_units as (
    select * from {{ ref('stg_raw__ad_units') }}
),

downloads as (
    select * from {{ ref('cagg_downloads_daily') }}
),

impressions as (
    select * from {{ ref('cagg_ad_impressions_daily') }}
),

-- Ads that are baked in could be delivered with every download of their episode.
baked_in as (
    select
        downloads.tenant_id,
        ad_units.ad_unit_id,
        downloads.bucket,
        downloads.downloads
    from downloads
    inner join ad_units
        on downloads.tenant_id = ad_units.tenant_id and downloads.episode_key = ad_units.episode_id
    where ad_units.delivery = 'baked_in'
),

delivery_days as (
    select
        coalesce(baked_in.tenant_id, impressions.tenant_id) as tenant_id,
        coalesce(baked_in.ad_unit_id, impressions.ad_unit_id) as ad_unit_id,
        (coalesce(baked_in.bucket, impressions.bucket) at time zone 'UTC')::date as day,
        baked_in.downloads,
        coalesce(impressions.impressions, 0) as impressions,
        coalesce(impressions.impressions_by_bytes, 0) as impressions_by_bytes,
        coalesce(impressions.impressions_by_download, 0) as impressions_by_download,
        coalesce(impressions.impressions_by_ad_server, 0) as impressions_by_ad_server,
        baked_in.downloads - coalesce(impressions.impressions, 0) as not_delivered
    from baked_in
    full join impressions
        on
            baked_in.tenant_id = impressions.tenant_id
            and baked_in.ad_unit_id = impressions.ad_unit_id
            and baked_in.bucket = impressions.bucket
),

ad_delivery as (
    select
        delivery_days.tenant_id,
        delivery_days.ad_unit_id,
        delivery_days.day,
        ad_units.campaign_id,
        ad_units.episode_id,
        ad_units.position,
        ad_units.delivery,
        delivery_days.downloads,
        delivery_days.impressions,
        delivery_days.impressions_by_bytes,
        delivery_days.impressions_by_download,
        delivery_days.impressions_by_ad_server,
        delivery_days.not_delivered
    from delivery_days
    left join ad_units
        on delivery_days.tenant_id = ad_units.tenant_id and delivery_days.ad_unit_id = ad_units.ad_unit_id
)

select * from ad_delivery
