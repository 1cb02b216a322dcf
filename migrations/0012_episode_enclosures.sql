-- The files that episodes have or had: a feed that moves replaces an episode's enclosure, and requests for the file of before
-- are still its own. Filled by a trigger on raw.episodes (functions/enclosures.sql), whoever writes there.

create table if not exists raw.episode_enclosures (
    tenant_id text collate "C" not null references tenancy.tenants (tenant_id) on delete cascade,
    episode_id text collate "C" not null,
    enclosure_key text collate "C" not null,
    first_seen_at timestamptz not null default now(),
    primary key (tenant_id, episode_id, enclosure_key)
);
create index if not exists episode_enclosures_by_key on raw.episode_enclosures (tenant_id, enclosure_key);
comment on table raw.episode_enclosures is
'One row an episode and a file that it has or had: its enclosures, those before them and other formats.';
comment on column raw.episode_enclosures.enclosure_key is 'As raw.episodes.enclosure_key.';
comment on column raw.episode_enclosures.first_seen_at is 'When the first load that named it began.';

insert into raw.episode_enclosures (tenant_id, episode_id, enclosure_key)
select e.tenant_id, e.episode_id, e.enclosure_key
from raw.episodes as e
where e.enclosure_key is not null
on conflict do nothing;
