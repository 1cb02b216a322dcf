-- What fits and their test tell journeys apart by: an aggregate over rows of int_attribution_journeys, in order of channels.
create or replace function attribution.digest_journey(
    before text, channels text[], conversions bigint, revenue numeric, nulls bigint
)
returns text
language sql
immutable parallel safe
as $$
    select md5(concat_ws(' ', before, array_to_json(channels)::text, conversions, trim_scale(revenue), nulls))
$$;

comment on function attribution.digest_journey(text, text[], bigint, numeric, bigint) is
'The digest of journeys with one more; numbers without trailing zeros.';

create or replace aggregate attribution.journeys_digest(
    channels text[], conversions bigint, revenue numeric, nulls bigint
) (
    sfunc = attribution.digest_journey,
    stype = text,
    initcond = ''
);

comment on aggregate attribution.journeys_digest(text[], bigint, numeric, bigint) is
'The digest of a group of journeys: call it with order by channels collate "C".';
