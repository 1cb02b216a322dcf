-- A campaign's lookback decides which touches a conversion's path holds, and nothing else. So a change of it marks no day
-- of raw rows: it asks fct_attribution_paths alone to look at its days again, and that model hands on those that differ.

create or replace function ingest.note_lookback_change(tenant text)
returns void
language sql
as $$
    select ingest.widen(
        array['fct_attribution_paths'],
        array(select c.day from ingest.changes as c where c.tenant_id = tenant and c.dataset = 'attribution_events'),
        'lookback ' || pg_current_xact_id()  -- of its own, or a run that is under way would take it for done
    );
$$;

create or replace function ingest.note_campaign_change()
returns trigger
language plpgsql
as $$
begin
    if to_jsonb(old) - 'lookback_days' - 'load_id' = to_jsonb(new) - 'lookback_days' - 'load_id' then
        perform ingest.note_lookback_change(new.tenant_id);
    else
        update ingest.changes as c set changed_by = pg_current_xact_id(), changed_at = now()
        where c.tenant_id in (old.tenant_id, new.tenant_id) and c.changed_by <> pg_current_xact_id();
    end if;
    return null;
end;
$$;
create or replace trigger note_change after insert or delete on raw.campaigns for each row
when (coalesce(current_setting('earmark.marks_days', true), '') <> 'yes')
execute function ingest.note_reference_change();
create or replace trigger note_update after update on raw.campaigns for each row
when (coalesce(current_setting('earmark.marks_days', true), '') <> 'yes')
execute function ingest.note_campaign_change();

-- As in 0013_widened_days.sql, but a day that waits may hold rows of any dataset.
create or replace view ingest.pending_refresh as
select distinct
    d.tenant_id,
    d.dataset,
    d.day,
    d.changed_by,
    d.changed_at
from (
    select distinct b.seen::text as seen
    from ingest.model_builds as b
    where b.seen is not null and b.cluster = ingest.cluster()
    union all
    select '1:1:'
    where not exists (
        select from ingest.model_builds as b where b.seen is not null and b.cluster = ingest.cluster()
    )
) as s
cross join lateral ingest.pending_days(s.seen::pg_snapshot) as d
where d.day >= coalesce(
    (select max(h.dropped_before) at time zone 'UTC' from timeseries.hypertables as h where h.schema_name = 'raw'),
    '-infinity'
)
union
select
    c.tenant_id,
    c.dataset,
    c.day,
    w.changed_by,
    w.changed_at
from ingest.widened_days as w
inner join ingest.model_builds as b on b.model = w.model
inner join ingest.changes as c on c.day = w.day;
