-- A missing currency is the campaign's, which may be loaded later: so it stays empty until it is read.
alter table raw.spend alter column currency drop not null, alter column currency drop default;
alter table raw.insertion_orders alter column currency drop not null, alter column currency drop default;
comment on column raw.spend.currency is 'ISO 4217; null: the campaign''s.';
comment on column raw.insertion_orders.currency is 'ISO 4217; null: the campaign''s.';

-- The original line is read by people.
create or replace function pg_temp.as_text(original bytea) returns text language plpgsql as $$
begin
    return convert_from(original, 'UTF8');
exception when others then
    return encode(original, 'escape');
end
$$;
do $$
begin
    if (select atttypid from pg_attribute where attrelid = 'ingest.rejects'::regclass and attname = 'original')
        = 'bytea'::regtype then
        alter table ingest.rejects alter column original type text using pg_temp.as_text(original);
    end if;
end
$$;
drop function pg_temp.as_text(bytea);
comment on column ingest.rejects.original is
'The line, of rows that were compared with others their fields as JSON; addresses are hashed, bytes that are no text written \xff.';

-- #1001, 1001.0 and 1001 are one order: as files are read from now on.
update raw.attribution_events
set order_number = regexp_replace(regexp_replace(trim(order_number), '^#\s*', ''), '^(-?[0-9]+)[.]0+$', '\1')
where order_number ~ '^\s|\s$|^#|^-?[0-9]+[.]0+$';
