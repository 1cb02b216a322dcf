-- time_bucket(): the start of the bucket that holds a time. The same answers and refusals as TimescaleDB's time_bucket(), on
-- every engine: the extension is never called.
--
-- A width of weeks, days, hours or less is a fixed length, laid from Monday 2000-01-03; a width of months or years counts
-- calendar months from 2000-01-01. Days and months are those of UTC.
--
-- The functions are one expression and are not marked STRICT although a null gives a null: so PostgreSQL writes them into
-- the query, and with a constant width nothing but date_bin() is left of them.
--
-- On purpose different from TimescaleDB, none of it near the times of any data: widths of months are refused for times
-- after 294276 and for buckets that would start before 4714 BC (TimescaleDB answers a date that is none), and a bucket that
-- starts in a February before 1 BC starts on the 1st (TimescaleDB: 29 or 30 January).

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

-- The start of the bucket of so many months, whole months from January 2000.
create or replace function timeseries.month_bucket(months double precision, at timestamp)
returns timestamp
language sql immutable parallel safe
as $$
    select timestamp '2000-01-01' + make_interval(
        months => (months * floor((timeseries.month_number(at) - 23988) / months))::integer
    );
$$;

-- What there is to say where no bucket is found: infinity is its own bucket, any other width is refused.
create or replace function timeseries.no_bucket(bucket_width interval, ts timestamp)
returns timestamp
language plpgsql immutable strict parallel safe
as $$
begin
    if not isfinite(ts) then
        return ts;
    end if;
    if isfinite(bucket_width) and bucket_width <= interval '0' and date_trunc('month', bucket_width) in (bucket_width, interval '0') then
        raise exception 'period must be greater than 0' using errcode = 'invalid_parameter_value';
    end if;
    raise exception 'month intervals cannot have day or time component' using errcode = 'feature_not_supported';
end;
$$;

-- The same for dates, where the width is not of whole days.
create or replace function timeseries.no_bucket(bucket_width interval, ts date)
returns date
language plpgsql immutable strict parallel safe
as $$
begin
    if bucket_width < interval '1 day' then
        raise exception 'interval must not have sub-day precision' using errcode = 'feature_not_supported';
    end if;
    raise exception 'interval must be a multiple of a day' using errcode = 'feature_not_supported';
end;
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts timestamp)
returns timestamp
language sql immutable parallel safe
as $$
    select case
        when timeseries.is_fixed_width(bucket_width) then date_bin(bucket_width, ts, timestamp '2000-01-03')
        when timeseries.is_month_width(bucket_width) and isfinite(ts)
            then timeseries.month_bucket(
                12 * date_part('year', bucket_width) + date_part('month', bucket_width), ts
            )
        else timeseries.no_bucket(bucket_width, ts)
    end;
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts timestamptz)
returns timestamptz
language sql immutable parallel safe
as $$
    select case
        when timeseries.is_fixed_width(bucket_width)
            then date_bin(bucket_width, ts, timestamptz '2000-01-03 00:00:00+00')
        else timeseries.time_bucket(bucket_width, ts at time zone 'UTC') at time zone 'UTC'
    end;
$$;

create or replace function timeseries.time_bucket(bucket_width interval, ts date)
returns date
language sql immutable parallel safe
as $$
    select case
        when timeseries.is_day_width(bucket_width)
            then date_bin(bucket_width, ts::timestamp, timestamp '2000-01-03')::date
        when date_trunc('month', bucket_width) <> interval '0' or not isfinite(ts)
            then timeseries.time_bucket(bucket_width, ts::timestamp)::date
        else timeseries.no_bucket(bucket_width, ts)
    end;
$$;
