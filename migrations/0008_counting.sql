-- Where a listener stands with an episode after a request: what became of the request, how long the window lasts that
-- it lies in, and, while the threshold is not reached, the bytes collected in it (placed, and those whose place the
-- log does not say, which are added up).
do $$
begin
    if to_regtype('counting.standing') is null then
        create type counting.standing as (
            outcome text, until timestamptz, placed int8multirange, unplaced bigint
        );
    end if;
end;
$$;
