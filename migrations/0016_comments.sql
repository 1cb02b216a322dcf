-- What enclosure_key holds since URLs that name no file are known by their query.

comment on column raw.listener_events.enclosure_key is
'The requested URL without scheme, prefix services and query; where its path names no media file, with those parameters of the query that identify an episode.';
comment on column raw.episodes.enclosure_key is
'The enclosure URL in the same form as raw.listener_events.enclosure_key: what a logged request is matched by.';
