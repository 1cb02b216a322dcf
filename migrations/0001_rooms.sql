-- The rooms of the database. dbt makes its own rooms (seeds, staging, intermediate, rollups, marts).
create schema if not exists tenancy;
create schema if not exists raw;
create schema if not exists ingest;
create schema if not exists timeseries;
create schema if not exists chunks;
create schema if not exists counting;
create schema if not exists attribution;
create schema if not exists dagster;

comment on schema tenancy is 'Who the rows belong to.';
comment on schema raw is 'Loaded rows, one table a dataset. No tenant reads here.';
comment on schema ingest is 'What was loaded, refused and changed: the ledger of the loads.';
comment on schema timeseries is 'The one place where a hypertable is made and its chunks are kept.';
comment on schema chunks is 'The chunks (partitions) of every hypertable.';
comment on schema counting is 'Functions of the counting rules: bytes delivered, and the windows in which requests are one download.';
comment on schema attribution is 'Credit that is fitted to all journeys together; rewritten by `earmark fit`.';
comment on schema dagster is 'Dagster''s own tables: runs, events, schedules. Not of the warehouse.';
