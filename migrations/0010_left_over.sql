-- What databases still have that were made by the files before these (0001_schemas.sql to 0022_change_log.sql).
drop function if exists timeseries.no_bucket(interval, date, date);
drop function if exists timeseries.month_bucket(double precision, timestamp, double precision);
drop function if exists timeseries.time_bucket(interval, timestamp, timestamp);
drop function if exists timeseries.time_bucket(interval, timestamptz, timestamptz);
drop function if exists timeseries.time_bucket(interval, date, date);
drop function if exists timeseries.time_bucket(interval, timestamp, interval);
drop function if exists timeseries.time_bucket(interval, timestamptz, interval);
drop function if exists timeseries.time_bucket(interval, date, interval);
drop function if exists timeseries.time_bucket(interval, timestamptz, text, timestamptz, interval);
drop function if exists timeseries.no_bucket(interval, timestamp, timestamp);
alter index if exists ingest.model_versions_pkey rename to model_builds_pkey;
comment on column ingest.model_builds.cluster is
'Where it was built: a snapshot means something only there, and not where a dump was restored.';
comment on column timeseries.hypertables.dropped_before is
'Retention has dropped what is older; nothing older is ever refreshed again.';
