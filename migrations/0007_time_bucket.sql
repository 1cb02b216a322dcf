-- time_bucket(): the start of the bucket that holds a time. The same functions, with the same answers and
-- refusals as TimescaleDB 2.28's time_bucket(), on every engine: the extension is never called.
--
-- A width of weeks, days, hours or less is a fixed length, laid from Monday 2000-01-03 unless an origin is given;
-- a width of months or years counts calendar months from 2000-01-01 or from the month of the origin.
-- Without a time zone a day and a month are those of UTC.
--
-- Most functions are one expression and are not marked STRICT although a null gives a null: so PostgreSQL writes
-- them into the query, and with a constant width nothing but date_bin() is left of them.
--
-- Where TimescaleDB answers differently, on purpose, none of it near the times of any data:
--   - an infinite origin is refused (TimescaleDB counts from the largest number that a timestamp holds), as are
--     fixed widths where the time and the origin are more than 292,000 years apart, months of a date after 294276
--     and buckets that would start before 4714 BC (TimescaleDB answers a date that is none);
--   - a bucket of months that starts in a February before 1 BC starts on the 1st (TimescaleDB: 29 or 30 January).
-- date_bin() of PostgreSQL before 15.7 and 16.3 puts a time that lies before the origin and exactly on the start
-- of a bucket into the bucket before.

-- Whether an interval is a fixed length of time: above zero and without months.
create or replace function timeseries.is_fixed_width(width interval)
returns boolean
language sql immutable parallel safe
as $$
    select width > interval '0' and date_trunc('month', width) = interval '0';
$$;

-- Whether an interval is months and years and nothing else. Neither days nor hours may make up for the other.
create or replace function timeseries.is_month_width(width interval)
returns boolean
language sql immutable parallel safe
as $$
    select isfinite(width) and width > interval '0'
        and date_trunc('month', width) = width and extract(day from width) = 0;
$$;

-- Whether an interval is a number of whole days, in days or in hours.
create or replace function timeseries.is_day_width(width interval)
returns boolean
language sql immutable parallel safe
as $$
    select timeseries.is_fixed_width(width) and mod(extract(epoch from width), 86400) = 0;
$$;

-- Months from January of the year 1 to the month of a time. There is no year 0: before the year 1 comes 1 BC, -1.
create or replace function timeseries.month_number(at timestamp)
returns double precision
language sql immutable parallel safe
as $$
    select 12 * date_part('year', at) + date_part('month', at)
        - case when at < timestamp '0001-01-01' then 1 else 13 end;
$$;

-- The start of the bucket of so many months, whole months from the month of the origin.
create or replace function timeseries.month_bucket(
    months double precision, at timestamp, origin_month double precision
)
returns timestamp
language sql immutable parallel safe
as $$
    select timestamp '0001-01-01' + make_interval(
        months => (origin_month + months * floor((timeseries.month_number(at) - origin_month) / months))::integer
    );
$$;

-- What there is to say where no bucket is found: infinity is its own bucket, anything else is refused.
create or replace function timeseries.no_bucket(bucket_width interval, ts timestamp, origin timestamp)
returns timestamp
language plpgsql immutable strict parallel safe
as $$
begin
    if not isfinite(ts) then
        return ts;
    end if;
    if date_trunc('month', bucket_width) <> interval '0'
        and (
            not isfinite(bucket_width)
            or date_trunc('month', bucket_width) <> bucket_width
            or extract(day from bucket_width) <> 0
        )
    then
        raise exception 'month intervals cannot have day or time component' using errcode = 'feature_not_supported';
    end if;
    if bucket_width <= interval '0' then
        raise exception 'period must be greater than 0' using errcode = 'invalid_parameter_value';
    end if;
    raise exception 'origin out of range' using errcode = 'datetime_field_overflow';
end;
$$;

-- The same for dates, where no width of days was given. That ts and origin are given is what is asked of them.
create or replace function timeseries.no_bucket(bucket_width interval, ts date, origin date)
returns date
language plpgsql immutable strict parallel safe
as $$
begin
    if date_trunc('month', bucket_width) <> interval '0' then
        raise exception 'interval defined in terms of month, year, century etc. not supported'
            using errcode = 'feature_not_supported';
    end if;
    if bucket_width < interval '1 day' then
        raise exception 'interval must not have sub-day precision' using errcode = 'feature_not_supported';
    end if;
    raise exception 'interval must be a multiple of a day' using errcode = 'feature_not_supported';
end;
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts timestamp, origin timestamp)
returns timestamp
language sql immutable parallel safe
as $$
    select case
        when timeseries.is_fixed_width(bucket_width) then date_bin(bucket_width, ts, origin)
        when timeseries.is_month_width(bucket_width) and isfinite(ts) and isfinite(origin)
            then timeseries.month_bucket(
                12 * date_part('year', bucket_width) + date_part('month', bucket_width),
                ts,
                timeseries.month_number(origin)
            )
        else timeseries.no_bucket(bucket_width, ts, origin)
    end;
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts timestamp)
returns timestamp
language sql immutable parallel safe
as $$
    select timeseries.time_bucket(bucket_width, ts, timestamp '2000-01-03');
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts timestamptz, origin timestamptz)
returns timestamptz
language sql immutable parallel safe
as $$
    select case
        when timeseries.is_fixed_width(bucket_width) then date_bin(bucket_width, ts, origin)
        else timeseries.time_bucket(bucket_width, ts at time zone 'UTC', origin at time zone 'UTC') at time zone 'UTC'
    end;
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts timestamptz)
returns timestamptz
language sql immutable parallel safe
as $$
    select timeseries.time_bucket(bucket_width, ts, timestamptz '2000-01-03 00:00:00+00');
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts date, origin date)
returns date
language sql immutable parallel safe
as $$
    select case
        when timeseries.is_day_width(bucket_width)
            then date_bin(bucket_width, ts::timestamp, origin::timestamp)::date
        when date_trunc('month', bucket_width) <> interval '0' or not isfinite(ts)
            then timeseries.time_bucket(bucket_width, ts::timestamp, origin::timestamp)::date
        else timeseries.no_bucket(bucket_width, ts, origin)
    end;
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts date)
returns date
language sql immutable parallel safe
as $$
    select timeseries.time_bucket(bucket_width, ts, date '2000-01-03');
$$;

-- An offset moves every bucket: the time is bucketed as if it were that much earlier.
create or replace function timeseries.time_bucket(bucket_width interval, ts timestamp, "offset" interval)
returns timestamp
language sql immutable parallel safe
as $$
    select timeseries.time_bucket(bucket_width, ts - "offset") + "offset";
$$;

-- Days of an offset are days of the session's time zone, as they are to TimescaleDB.
create or replace function timeseries.time_bucket(bucket_width interval, ts timestamptz, "offset" interval)
returns timestamptz
language plpgsql immutable strict parallel safe
as $$
begin
    return timeseries.time_bucket(bucket_width, ts - "offset") + "offset";
end;
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts date, "offset" interval)
returns date
language sql immutable parallel safe
as $$
    select case
        when bucket_width is null then null
        when timeseries.is_day_width("offset")
            then (timeseries.time_bucket(bucket_width, (ts - "offset")::date) + "offset")::date
        else timeseries.no_bucket("offset", ts, ts)
    end;
$$;

-- Buckets of the local time of a time zone. Only here may origin and offset be null: they are then not given.
create or replace function timeseries.time_bucket(
    bucket_width interval, ts timestamptz, timezone text,
    origin timestamptz default null, "offset" interval default null
)
returns timestamptz
language plpgsql immutable parallel safe
as $$
declare
    moved timestamptz := ts;
    local_time timestamp;
    local_origin timestamp;
    bucket timestamptz;
begin
    if bucket_width is null or ts is null or timezone is null then
        return null;
    end if;
    if "offset" is not null then
        moved := ts - "offset";
    end if;
    local_time := moved at time zone timezone;
    if origin is null then
        bucket := timeseries.time_bucket(bucket_width, local_time) at time zone timezone;
    else
        local_origin := origin at time zone timezone;
        bucket := timeseries.time_bucket(bucket_width, local_time, local_origin) at time zone timezone;
    end if;
    -- A local time that comes twice when the clocks go back is taken for the later one: that may be too late.
    if bucket > moved and date_trunc('day', bucket_width) = interval '0' then
        bucket := date_bin(bucket_width, moved, bucket);
    end if;
    while bucket > moved loop
        bucket := bucket - bucket_width;
    end loop;
    return case when "offset" is null then bucket else bucket + "offset" end;
end;
$$;
