-- Bring the hourly and daily aggregates of listener events up to date without dbt or Dagster: for cron, pg_cron, or a
-- person. Reads the days that have changed since each was last refreshed, and no others.
--     call timeseries.refresh_metrics_daily();
-- Call it outside a transaction. On TimescaleDB the engine's own policies do the same every hour.
create or replace procedure timeseries.refresh_metrics_daily()
language plpgsql
as $$
declare
    aggregate text;
    below pg_snapshot;
    build ingest.model_builds;
    now_seen pg_snapshot;
    days date[];
    day_of date;
begin
    -- The days are made of the hours.
    foreach aggregate in array array['cagg_listener_events_hourly', 'cagg_listener_events_daily'] loop
        select b.* into build
        from ingest.model_builds as b
        where b.model = aggregate and b.seen is not null and b.cluster = ingest.cluster();
        if not found or to_regclass('rollups.' || aggregate) is null then
            raise exception 'rollups.% has never been built here', aggregate
            using hint = 'Build it once: earmark build';
        end if;
        select pg_current_snapshot(), coalesce(array_agg(distinct p.day order by p.day), '{}')
        into now_seen, days
        from ingest.pending_days(build.seen) as p
        where p.day >= coalesce(
            (select max(h.dropped_before) at time zone 'UTC' from timeseries.hypertables as h where h.schema_name = 'raw'),
            '-infinity'
        );
        foreach day_of in array days loop
            call timeseries.refresh_continuous_aggregate(
                to_regclass('rollups.' || aggregate),
                day_of::timestamp at time zone 'UTC', (day_of + 1)::timestamp at time zone 'UTC'
            );
        end loop;
        if aggregate <> 'cagg_listener_events_hourly' then
            now_seen := ingest.earlier(now_seen, below);
        end if;
        update ingest.model_builds as b set seen = now_seen where b.model = aggregate;
        below := now_seen;
        commit;
    end loop;
end;
$$;
