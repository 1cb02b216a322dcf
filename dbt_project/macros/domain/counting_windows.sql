{#-
    The windows of the counting rules. Which request of a listener and episode counts is found by counting.standing
    (migrations/functions/counting.sql), request by request; here stands how int_requests__outcomes uses it, in its SQL and
    for the days after what was refreshed.
-#}

{#- The standing after a request that is not counted anew. -#}
{% macro known_standing(window) -%}
    row({{ window }}, {{ window }}_until, null, null)::counting.standing
{%- endmacro %}

{#-
    The standing after each request in a window (calendar_day, rolling_first, rolling_last); `suffices` is whether the
    request makes a download by itself, `known` a column with the standings that were found before. Bytes of which the
    log does not say where they lie are added up. Without a listener nothing is a duplicate.
-#}
{% macro standing(window, known='null') -%}
    counting.standing(
        '{{ window }}', occurred_at, suffices, placed_bytes, case when placed_bytes is null then bytes_sent end,
        needed_bytes, {{ known }}
    ) over (
        partition by tenant_id, coalesce(listener_key, uuid_send(event_id)), episode_key order by occurred_at, event_id
    )
{%- endmacro %}

{#-
    A post-hook: the rolling windows of the days after those that were refreshed.

    A request that came late, or went, can move the windows after it, for as many days as its listener does not pause
    for 24 hours. From the end of what has changed of a tenant on, day by day, the listeners whose standing may be another
    now are counted again, and what differs is written; until nothing does. The models that read this one are told
    the slices. A whole build starts from the day before which rows have been dropped.
-#}
{% macro settle_windows() -%}
    {%- if execute and not builds_whole() and build_at_hand().slices -%}
        {%- set ends -%}
            select tenant_id, day + 1 from {{ changed_slices() }}
            except
            select tenant_id, day from {{ changed_slices() }}
        {%- endset -%}
        {{ settle_after(ends) }}
    {%- elif execute and builds_whole() and build_at_hand().horizon -%}
        {{ settle_after("select distinct tenant_id, date '" ~ build_at_hand().horizon ~ "' from " ~ this) }}
    {%- endif -%}
{%- endmacro %}

{#- ends: a query of tenants and the first days after what has changed. -#}
{% macro settle_after(ends) -%}
    do $settle$
    declare
        at_day date;
        tenants text[];
        starts_at timestamptz;
        ends_at timestamptz;
    begin
        create temporary table window_ends (tenant_id, day) on commit drop as {{ ends }};
        at_day := (select min(e.day) from window_ends as e);
        create temporary table unsettled (
            tenant_id text collate "C", listener_key bytea, episode_key text
        ) on commit drop;
        create temporary table resettled (
            tenant_id text collate "C", event_id uuid, occurred_at timestamptz, listener_key bytea, episode_key text,
            first_standing counting.standing, last_standing counting.standing
        ) on commit drop;
        while at_day is not null loop
            starts_at := at_day::timestamp at time zone 'UTC';
            ends_at := starts_at + interval '24 hours';
            tenants := array(select e.tenant_id from window_ends as e where e.day = at_day);
            if cardinality(tenants) > 0 then
                -- Listeners with requests on both sides of the end, and those counted as if they had been.
                execute format($sql$
                    with today as (
                        select * from {{ this }}
                        where
                            tenant_id = any(%4$L) and occurred_at >= %1$L and occurred_at < %2$L
                            and calendar_day is not null
                    )
                    insert into unsettled
                    select tenant_id, listener_key, episode_key from today
                    where
                        'duplicate' in (rolling_first, rolling_last)
                        or least(rolling_first_until, rolling_last_until) < occurred_at + interval '24 hours'
                    union
                    select tenant_id, listener_key, episode_key from today
                    where (tenant_id, listener_key, episode_key) in (
                        select yesterday.tenant_id, yesterday.listener_key, yesterday.episode_key
                        from {{ this }} as yesterday
                        where
                            yesterday.tenant_id = any(%4$L)
                            and yesterday.occurred_at >= %3$L and yesterday.occurred_at < %1$L
                            and yesterday.calendar_day is not null
                    )
                $sql$, starts_at, ends_at, starts_at - interval '24 hours', tenants);
            end if;
            execute format($sql$
                with requests as (
                    select
                        *,
                        coalesce(
                            coalesce(counting.bytes_in(placed_bytes), bytes_sent) >= needed_bytes, true
                        ) as suffices,
                        case when occurred_at < %1$L then {{ known_standing('rolling_first') }} end as known_first,
                        case when occurred_at < %1$L then {{ known_standing('rolling_last') }} end as known_last
                    from {{ this }}
                    where
                        occurred_at >= %3$L and occurred_at < %2$L and calendar_day is not null
                        and (tenant_id, listener_key, episode_key) in (select * from unsettled)
                ),

                standings as (
                    select
                        requests.*,
                        {{ standing('rolling_first', 'known_first') }} as first_standing,
                        {{ standing('rolling_last', 'known_last') }} as last_standing
                    from requests
                )

                insert into resettled
                select tenant_id, event_id, occurred_at, listener_key, episode_key, first_standing, last_standing
                from standings
                where
                    occurred_at >= %1$L
                    and (
                        (first_standing).outcome, (first_standing).until, (last_standing).outcome, (last_standing).until
                    ) is distinct from (rolling_first, rolling_first_until, rolling_last, rolling_last_until)
            $sql$, starts_at, ends_at, starts_at - interval '24 hours');
            execute format($sql$
                update {{ this }} as live
                set
                    rolling_first = (r.first_standing).outcome,
                    rolling_first_until = (r.first_standing).until,
                    rolling_last = (r.last_standing).outcome,
                    rolling_last_until = (r.last_standing).until,
                    outcome = case live.download_window
                        when 'rolling_first' then (r.first_standing).outcome
                        when 'rolling_last' then (r.last_standing).outcome
                        else live.outcome
                    end
                from resettled as r
                where
                    live.occurred_at >= %1$L and live.occurred_at < %2$L
                    and live.tenant_id = r.tenant_id and live.event_id = r.event_id and live.occurred_at = r.occurred_at
            $sql$, starts_at, ends_at);
            delete from unsettled;
            insert into unsettled select distinct r.tenant_id, r.listener_key, r.episode_key from resettled as r;
            perform ingest.note('{{ model.name }}', array_agg(r.tenant_id), array_agg(at_day))
            from (select distinct u.tenant_id from unsettled as u) as r;
            delete from resettled;
            if exists (select from unsettled) then
                at_day := at_day + 1;
            else
                at_day := (select min(e.day) from window_ends as e where e.day > at_day);
            end if;
        end loop;
    end
    $settle$
{%- endmacro %}
