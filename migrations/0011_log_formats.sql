-- Which format a log was read by: what was loaded by another one may be loaded again.
alter table ingest.loads add column if not exists log_format text;
comment on column ingest.loads.log_format is
'The server''s format of an access log, as it was given; null where the layout was found over its lines.';
