-- The days on which an order has events. The events of one order are one conversion, wherever in time they lie: this
-- finds them without a look into every chunk, for loads, triggers and models alike.
create table if not exists ingest.order_days (
    tenant_id text collate "C" not null,
    order_number text not null,
    day date not null,
    primary key (tenant_id, order_number, day)
);
comment on table ingest.order_days is
'One row an order and UTC day that has, or had, events of it. Triggers and the loader write it.';
insert into ingest.order_days (tenant_id, order_number, day)
select distinct e.tenant_id, e.order_number, (e.occurred_at at time zone 'UTC')::date
from raw.attribution_events as e
where e.order_number is not null
on conflict do nothing;

create or replace function ingest.note_change()
returns trigger
language plpgsql
as $$
declare
    touched record;
    day_of date;
    row_key text;
begin
    foreach touched in array case tg_op when 'INSERT' then array[new] when 'DELETE' then array[old] else array[old, new] end
    loop
        if tg_argv[0] = 'listener_metrics' then
            day_of := touched.metric_date;
        elsif tg_argv[0] = 'spend' then
            day_of := touched.spend_date;
        else
            day_of := (touched.occurred_at at time zone 'UTC')::date;
        end if;
        -- Rows of one day mostly come together: the last mark of this transaction is remembered.
        row_key := concat_ws(' ', pg_current_xact_id(), tg_argv[0], touched.tenant_id, day_of);
        if current_setting('earmark.last_mark', true) is distinct from row_key then
            perform ingest.mark_changed(touched.tenant_id, tg_argv[0], array[day_of]);
            perform set_config('earmark.last_mark', row_key, true);
        end if;
        -- Models keep one row an order: the other rows of the order may now count otherwise.
        if tg_argv[0] = 'attribution_events' then
            if touched.order_number is not null then
                insert into ingest.order_days (tenant_id, order_number, day)
                values (touched.tenant_id, touched.order_number, day_of)
                on conflict do nothing;
                perform ingest.mark_changed(
                    touched.tenant_id, tg_argv[0],
                    array(
                        select o.day
                        from ingest.order_days as o
                        where o.tenant_id = touched.tenant_id and o.order_number = touched.order_number
                    )
                );
            end if;
        end if;
    end loop;
    return null;
end;
$$;
