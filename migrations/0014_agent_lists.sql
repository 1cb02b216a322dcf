-- Public lists of user agents, each fetched version kept: every day is classified by the list in effect on it, and a
-- rebuild from nothing gives the same. Before the first list, and for what a list does not know, the seeds decide.

create table if not exists ingest.agent_lists (
    agent_list text collate "C" primary key check (agent_list <> 'earmark'),
    effective_from date not null unique check (isfinite(effective_from)),
    source text not null,
    digest bytea not null,
    fetched_at timestamptz not null default now(),
    counts jsonb not null
);
comment on table ingest.agent_lists is
'One row a version of a public list of user agents. It is in effect from its UTC day on, until that of the next.';
comment on column ingest.agent_lists.digest is 'sha256 of what classifies: the kinds, names, categories and patterns in their order.';
comment on column ingest.agent_lists.counts is 'Entries by kind.';

create table if not exists ingest.agent_patterns (
    agent_list text collate "C" not null references ingest.agent_lists (agent_list) on delete cascade,
    kind text collate "C" not null check (kind in ('bots', 'apps', 'libraries', 'browsers', 'devices', 'referrers')),
    match_order integer not null,
    name text not null,
    category text,
    pattern text not null,
    discard_as text,
    primary key (agent_list, kind, match_order)
);
comment on table ingest.agent_patterns is
'One row an entry of a public list. The first entry whose pattern matches is the one, in the order bots, apps, libraries, browsers.';
comment on column ingest.agent_patterns.category is 'bot, app, library or browser; the kind of a device; app or host of a referrer.';
comment on column ingest.agent_patterns.pattern is 'As PostgreSQL reads it: the list is written for Python and JavaScript.';
comment on column ingest.agent_patterns.discard_as is 'Why requests of the agent are discarded; null: the entry does not say so.';

-- A list that comes or goes changes how the days are classified on which it is in effect.
create or replace function ingest.note_agent_list_change()
returns trigger
language plpgsql
as $$
declare
    first_day date := case tg_op when 'DELETE' then old.effective_from else new.effective_from end;
    next_list date := (select min(l.effective_from) from ingest.agent_lists as l where l.effective_from > first_day);
begin
    update ingest.changes as c set changed_by = pg_current_xact_id(), changed_at = now()
    where
        c.dataset = 'listener_events' and c.changed_by <> pg_current_xact_id()
        and c.day >= first_day and c.day < coalesce(next_list, 'infinity');
    return null;
end;
$$;
create or replace trigger note_change after insert or delete on ingest.agent_lists for each row
execute function ingest.note_agent_list_change();
