{{ config(
    materialized='continuous_aggregate',
    time_column='bucket',
    bucket='1 day',
    chunk_interval='28 days',
    indexes=[{'columns': ['bucket']}, {'columns': ['tenant_id', 'ad_unit_id', 'bucket']}],
) }}

select
    tenant_id,
    {{ time_bucket('occurred_at') }} as bucket,
    ad_unit_id,
    count(*) as impressions,
    count(*) filter (where evidence = 'bytes') as impressions_by_bytes,
    count(*) filter (where evidence = 'download') as impressions_by_download,
    count(*) filter (where evidence = 'ad_server') as impressions_by_ad_server
from {{ ref('fct_ad_impressions') }}
where {{ in_slices('occurred_at') }}
group by tenant_id, {{ time_bucket('occurred_at') }}, ad_unit_id
