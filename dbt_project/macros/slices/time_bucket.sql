{#-
    Buckets of time: fixed ones of minutes, hours, days and weeks, and months and years, all in UTC.
-#}

{#- The bucket that a time lies in; bucket is by default the one of the model's config. The engine's own function. -#}
{% macro time_bucket(column, bucket=none) %}
    {%- set bucket = bucket or (config.get('bucket') if config is defined else none) or '1 day' -%}
    {%- if not execute -%}
        {{ return("time_bucket(interval '" ~ bucket ~ "', " ~ column ~ ")") }}
    {%- endif -%}
    {%- if parse_bucket(bucket) is none -%}
        {%- do model_error("bucket is a number of minutes, hours, days, weeks, months or years, such as '1 day', not '" ~ bucket ~ "'.") -%}
    {%- endif -%}
    {%- if 'function_schema' not in model -%}
        {%- do model.update(run_query('select function_schema from timeseries.engine')[0]) -%}
    {%- endif -%}
    {{ return(model.function_schema ~ ".time_bucket(interval '" ~ bucket ~ "', " ~ column ~ ")") }}
{% endmacro %}

{#- {'minutes': ...} or {'months': ...}; none where it is no bucket. -#}
{% macro parse_bucket(bucket) %}
    {%- set match = modules.re.match('^([1-9]\d*) (minute|hour|day|week|month|year)s?$', bucket) if bucket is string else none -%}
    {%- if match is none -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set length = match.group(1) | int -%}
    {%- set units = {'minute': 1, 'hour': 60, 'day': 1440, 'week': 10080} -%}
    {%- if match.group(2) in units -%}
        {{ return({'minutes': length * units[match.group(2)]}) }}
    {%- endif -%}
    {{ return({'months': length * (12 if match.group(2) == 'year' else 1)}) }}
{% endmacro %}

{#- Whether every bucket is made of whole buckets of the parent. -#}
{% macro is_multiple(bucket, parent) %}
    {%- if 'minutes' in bucket and 'minutes' in parent -%}
        {{ return(bucket.minutes % parent.minutes == 0) }}
    {%- elif 'months' in bucket and 'months' in parent -%}
        {{ return(bucket.months % parent.months == 0) }}
    {%- endif -%}
    {{ return('months' in bucket and 1440 % parent.minutes == 0) }}
{% endmacro %}

{#- The continuous aggregates that the model at hand reads must have buckets that its own are made of. -#}
{% macro check_bucket(bucket) %}
    {%- set own = parse_bucket(bucket) -%}
    {%- if own is none -%}
        {%- do model_error("bucket is a number of minutes, hours, days, weeks, months or years, such as '1 day', not '" ~ bucket ~ "'. Add bucket='1 day' to its config and group by {{ time_bucket(...) }}.") -%}
    {%- elif own.minutes is defined and own.minutes % 1440 and 1440 % own.minutes -%}
        {%- do model_error("a bucket of " ~ bucket ~ " crosses midnight: what is refreshed are whole UTC days. Take a bucket that divides a day, or whole days.") -%}
    {%- endif -%}
    {%- for id in model.depends_on.nodes -%}
        {%- set parent = graph.nodes.get(id) if execute else none -%}
        {%- if parent and parent.config.materialized == 'continuous_aggregate' -%}
            {%- set theirs = parse_bucket(parent.config.get('bucket')) -%}
            {%- if theirs is not none and not is_multiple(own, theirs) -%}
                {%- do model_error("its bucket of " ~ bucket ~ " is not a multiple of the " ~ parent.config.bucket ~ " of " ~ parent.name ~ ", which it reads. Change one of the two, or read " ~ parent.name ~ "'s own source.") -%}
            {%- endif -%}
        {%- endif -%}
    {%- endfor -%}
{% endmacro %}
