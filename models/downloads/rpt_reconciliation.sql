with daily as (
    select * from {{ ref('rpt_reconciliation_daily') }}
),

months as (
    select
        daily.tenant_id,
        daily.source,
        date_trunc('month', daily.day::timestamp)::date as month,
        sum(daily.theirs) as theirs,
        sum(daily.ours)::bigint as ours,
        count(*) as episode_days,
        count(*) filter (where daily.is_flagged) as episode_days_flagged
    from daily
    group by daily.tenant_id, daily.source, date_trunc('month', daily.day::timestamp)::date
),

explained as (
    select
        daily.tenant_id,
        daily.source,
        date_trunc('month', daily.day::timestamp)::date as month,
        daily.explained_by,
        sum(daily.explained)::bigint as explained
    from daily
    where daily.explained_by is not null
    group by daily.tenant_id, daily.source, date_trunc('month', daily.day::timestamp)::date, daily.explained_by
),

top_explanations as (
    select distinct on (explained.tenant_id, explained.source, explained.month) explained.*
    from explained
    order by
        explained.tenant_id asc,
        explained.source asc,
        explained.month asc,
        explained.explained desc,
        explained.explained_by asc
),

reconciliation as (
    select
        months.tenant_id,
        months.source,
        months.month,
        months.theirs,
        months.ours,
        months.ours - months.theirs as difference,
        (months.ours - months.theirs) / nullif(months.theirs, 0) as relative_difference,
        months.episode_days,
        months.episode_days_flagged / months.episode_days::double precision as share_flagged,
        top_explanations.explained_by,
        top_explanations.explained
    from months
    left join top_explanations
        on
            months.tenant_id = top_explanations.tenant_id
            and months.source = top_explanations.source
            and months.month = top_explanations.month
)

select * from reconciliation
