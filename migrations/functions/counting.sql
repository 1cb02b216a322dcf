-- The parts of the counting rules that are arithmetic on bytes and windows. Which rule comes when is in the models
-- (models/requests/int_requests__outcomes.sql).
-- Source: IAB Tech Lab Podcast Technical Measurement Guidelines v2.3.

-- What was delivered of a Range header (RFC 9110, 14.1.2) when so many bytes were sent: of one part no more than
-- that, of several each as it was asked for. null where the header cannot be read, or its end not be known.
create or replace function counting.delivered_part(byte_range text, bytes_sent bigint, object_bytes bigint)
returns int8multirange
language sql immutable parallel safe
as $$
    select range_agg(int8range(part.first_byte, greatest(part.first_byte, part.last_byte + 1)))
    from (
        select
            spec.first_byte,
            least(
                spec.last_byte, object_bytes - 1, case when spec.parts = 1 then spec.first_byte + bytes_sent - 1 end
            ) as last_byte
        from (
            select
                count(*) over () as parts,
                case
                    when bounds[1] <> '' then bounds[1]::bigint
                    when object_bytes is not null then greatest(object_bytes - bounds[2]::bigint, 0)
                end as first_byte,
                case when bounds[1] <> '' and bounds[2] <> '' then bounds[2]::bigint end as last_byte
            from regexp_matches(lower(byte_range), '(?:^\s*bytes\s*=|,)\s*(\d{0,18})\s*-\s*(\d{0,18})', 'g') as bounds
            where bounds <> '{"",""}'
        ) as spec
    ) as part
    having bool_and(part.first_byte is not null and part.last_byte is not null)
$$;

-- The bytes of the file that a request delivered, in their places; null where the log does not say which they were.
-- A 200 begins at the first byte, whatever was asked for. A log without bytes sent shows requests, not deliveries.
create or replace function counting.placed_bytes(byte_range text, status smallint, bytes_sent bigint, object_bytes bigint)
returns int8multirange
language sql immutable parallel safe
as $$
    select case
        when bytes_sent = 0 then '{}'::int8multirange
        when status = 200 then int8multirange(int8range(0, bytes_sent))
        when bytes_sent is null or byte_range is null then null
        -- The common form, for speed.
        when byte_range ~ '^bytes=\d{1,18}-\d{0,18}$' then int8multirange(int8range(
            split_part(substr(byte_range, 7), '-', 1)::bigint,
            greatest(
                split_part(substr(byte_range, 7), '-', 1)::bigint,
                least(
                    split_part(substr(byte_range, 7), '-', 1)::bigint + bytes_sent,
                    nullif(split_part(byte_range, '-', 2), '')::bigint + 1,
                    object_bytes
                )
            )
        ))
        else counting.delivered_part(byte_range, bytes_sent, object_bytes)
    end
$$;

-- How many bytes a multirange holds; null of null.
create or replace function counting.bytes_in(ranges int8multirange)
returns bigint
language sql immutable parallel safe
as $$
    select case
        when ranges is not null
            then (select coalesce(sum(upper(r.range) - lower(r.range)), 0)::bigint from unnest(ranges) as r (range))
    end
$$;

-- One request more. kind: calendar_day (a window is a UTC day), rolling_first (24 hours from the counted request) or
-- rolling_last (24 hours from the last request). suffices: the request makes a download by itself; if it does not, its
-- bytes are put together with those of the requests before it, of the UTC day or of 24 hours from the first, until
-- they are as many as needed. known: the standing after this request where that was found before (a request of an
-- earlier day that is not counted anew).
create or replace function counting.advance(
    standing counting.standing, kind text, at timestamptz, suffices boolean, placed int8multirange, unplaced bigint,
    needed bigint, known counting.standing
)
returns counting.standing
language plpgsql immutable parallel safe
as $$
declare
    is_open boolean := coalesce(at < standing.until, false);
begin
    if known.outcome is not null then
        if known.outcome = 'below_threshold' then
            if not is_open or standing.outcome <> 'below_threshold' then
                standing.placed := null;
                standing.unplaced := 0;
            end if;
            standing.placed := coalesce(standing.placed + placed, standing.placed, placed);
            standing.unplaced := standing.unplaced + coalesce(unplaced, 0);
        end if;
        standing.outcome := known.outcome;
        standing.until := known.until;
        return standing;
    end if;
    if is_open and standing.outcome <> 'below_threshold' then
        standing.outcome := 'duplicate';
        if kind = 'rolling_last' then
            standing.until := at + interval '24 hours';
        end if;
        return standing;
    end if;
    if not suffices then
        if is_open then
            standing.placed := coalesce(standing.placed + placed, standing.placed, placed);
            standing.unplaced := standing.unplaced + coalesce(unplaced, 0);
            -- From the first byte to the last there may be gaps: only if that is enough are they looked for.
            suffices := coalesce(upper(standing.placed) - lower(standing.placed), 0) + standing.unplaced >= needed
                and coalesce(counting.bytes_in(standing.placed), 0) + standing.unplaced >= needed;
        else
            standing.placed := placed;
            standing.unplaced := coalesce(unplaced, 0);
        end if;
        if not suffices then
            standing.outcome := 'below_threshold';
            if is_open then
                return standing;
            end if;
        end if;
    end if;
    if suffices then
        standing.outcome := 'counted';
    end if;
    standing.until := case
        when kind = 'calendar_day' then date_trunc('day', at, 'UTC') + interval '24 hours'
        else at + interval '24 hours'
    end;
    return standing;
end;
$$;

create or replace aggregate counting.standing(
    kind text, at timestamptz, suffices boolean, placed int8multirange, unplaced bigint, needed bigint,
    known counting.standing
) (
    sfunc = counting.advance,
    stype = counting.standing,
    parallel = safe
);
