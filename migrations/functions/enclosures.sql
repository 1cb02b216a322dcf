-- What an episode's files are and were: its table is made by 0012_episode_enclosures.sql.

-- Keep the files of episodes that are written. Other formats are in the property other_enclosures, keys parted by a space.
create or replace function ingest.keep_enclosures()
returns trigger
language plpgsql
as $$
begin
    insert into raw.episode_enclosures (tenant_id, episode_id, enclosure_key)
    select distinct w.tenant_id, w.episode_id, k.enclosure_key
    from written as w
    cross join lateral (
        select w.enclosure_key
        union all
        select t.enclosure_key from string_to_table(w.properties ->> 'other_enclosures', ' ') as t (enclosure_key)
    ) as k
    where k.enclosure_key <> ''
    order by 1, 2, 3
    on conflict do nothing;
    return null;
end;
$$;
create or replace trigger keep_inserted_enclosures after insert on raw.episodes referencing new table as written
for each statement execute function ingest.keep_enclosures();
create or replace trigger keep_updated_enclosures after update on raw.episodes referencing new table as written
for each statement execute function ingest.keep_enclosures();
