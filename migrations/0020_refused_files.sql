-- A file that was refused is tried again when it has changed. Some are tried again without: where our own code was at
-- fault, or what was wrong lay outside of the file.

alter table ingest.files add column if not exists refused_by text;
comment on column ingest.files.refused_by is
'Refused for a reason of ours: the code that did, and any other code tries again. Empty: always tried again. Null: only when the file changes.';
