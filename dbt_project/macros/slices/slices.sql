{#-
    Which slices, a tenant and a UTC day each, a run refreshes.

    Each model refreshes the slices that are news to it (builds.sql), or the days of all tenants that a run is asked for in one
    of two ways, as half-open spans of time:
      --vars '{days: [["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"], ...]}'
      --event-time-start 2026-01-01 --event-time-end 2026-01-03      (dbt's own flags, always UTC)
    The whole is built with --full-refresh, where the model's relation is missing or a model that it reads was built whole, and
    for the models that the variable rebuild names (--vars '{rebuild: [fct_downloads]}').

    Every span is widened to whole UTC days: duplicates, rollups and reports are all by UTC day.
-#}

{#- The days that were asked for, as a list of [first day, day after the last]; else none. -#}
{% macro given_days() %}
    {%- set given = var('days', none) -%}
    {%- set starts_at = invocation_args_dict.get('event_time_start') -%}
    {%- set ends_at = invocation_args_dict.get('event_time_end') -%}
    {%- if given is not none and (starts_at or ends_at) -%}
        {{ exceptions.raise_compiler_error(
            'Days are given twice: by the variable days and by --event-time-start/--event-time-end. Leave one out.'
        ) }}
    {%- elif given is not none -%}
        {{ return(parse_days(given)) }}
    {%- elif starts_at and ends_at -%}
        {{ return(parse_days([[as_utc(starts_at), as_utc(ends_at)]])) }}
    {%- elif starts_at or ends_at -%}
        {{ exceptions.raise_compiler_error(
            'A span of days has two ends: give --event-time-start and --event-time-end, or neither.'
        ) }}
    {%- endif -%}
    {{ return(none) }}
{% endmacro %}

{#- dbt reads its event-time flags as UTC and hands them on without saying so. -#}
{% macro as_utc(at) %}
    {%- if at is string or at.tzinfo is not none -%}
        {{ return(at) }}
    {%- endif -%}
    {{ return(at.isoformat() ~ '+00:00') }}
{% endmacro %}

{#- A list of [start, end] (ISO 8601 with an offset) as whole UTC days; every mistake is an error. -#}
{% macro parse_days(given) %}
    {%- if given is string or given is mapping or given is not sequence -%}
        {{ exceptions.raise_compiler_error(
            'The variable days is a list of [start, end], for example '
            ~ '[["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"]]; it is: ' ~ given
        ) }}
    {%- elif given | length == 0 -%}
        {{ exceptions.raise_compiler_error(
            'The variable days is empty. Leave it out to build the whole; do not run dbt when nothing has changed.'
        ) }}
    {%- endif -%}
    {%- set spans = [] -%}
    {%- for span in given -%}
        {%- if span is string or span is mapping or span is not sequence or span | length != 2 -%}
            {{ exceptions.raise_compiler_error('A span of days is [start, end]; this one is: ' ~ span) }}
        {%- endif -%}
        {%- set starts_at = parse_instant(span[0]) -%}
        {%- set ends_at = parse_instant(span[1]) -%}
        {%- if starts_at >= ends_at -%}
            {{ exceptions.raise_compiler_error(
                'A span of days must end after it starts; this one is [' ~ span[0] ~ ', ' ~ span[1] ~ ').'
            ) }}
        {%- endif -%}
        {%- set one_day = modules.datetime.timedelta(days=1) -%}
        {%- set last_instant = ends_at - modules.datetime.timedelta(microseconds=1) -%}
        {%- do spans.append([starts_at.date().isoformat(), (last_instant.date() + one_day).isoformat()]) -%}
    {%- endfor -%}
    {{ return(spans) }}
{% endmacro %}

{#- An ISO 8601 time with an offset as a datetime in UTC. YAML may have read it already. -#}
{% macro parse_instant(given) %}
    {%- set text = given if given is string else given.isoformat() if given.isoformat is defined else given | string -%}
    {%- set text = text | trim -%}
    {%- set shape = '^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?$' -%}
    {%- set match = modules.re.match(shape, text) -%}
    {%- if match is none -%}
        {{ exceptions.raise_compiler_error(
            'Not a time: ' ~ text ~ '. Write it with date, time and offset: 2026-01-01T00:00:00Z.'
        ) }}
    {%- elif match.group(3) is none -%}
        {{ exceptions.raise_compiler_error(
            'A time needs an offset: ' ~ text ~ ' could be anywhere. Write ' ~ text ~ 'Z for UTC.'
        ) }}
    {%- endif -%}
    {{ return(modules.datetime.datetime.fromisoformat(text).astimezone(modules.pytz.utc)) }}
{% endmacro %}

{#-
    The condition that rows lie in the slices, their days widened: a column of time, timestamptz or date, and the column of the
    tenant, none where there is none. The bounds are literals, so that chunks are pruned.
-#}
{% macro slices_predicate(slices, column, column_type='timestamptz', tenant_column='tenant_id', before_days=0, after_days=0) %}
    {%- if column_type not in ['timestamptz', 'date'] -%}
        {{ exceptions.raise_compiler_error(
            'in_slices(' ~ column ~ '): column_type is timestamptz or date, not ' ~ column_type ~ '.'
        ) }}
    {%- endif -%}
    {%- set groups = [] -%}
    {%- for slice in slices -%}
        {%- set ranges = [] -%}
        {%- for first, after in slice.days -%}
            {%- do ranges.append(
                (column ~ ' >= ' ~ day_literal(first, -before_days, column_type) if first else '')
                ~ (' and ' if first and after else '')
                ~ (column ~ ' < ' ~ day_literal(after, after_days, column_type) if after else '')
            ) -%}
        {%- endfor -%}
        {%- set conditions = [] -%}
        {%- if slice.tenants and tenant_column -%}
            {%- set names = [] -%}
            {%- for tenant in slice.tenants -%}{%- do names.append("'" ~ tenant | replace("'", "''") ~ "'") -%}{%- endfor -%}
            {%- do conditions.append(tenant_column ~ ' in (' ~ names | join(', ') ~ ')') -%}
        {%- endif -%}
        {%- if '' not in ranges -%}
            {%- do conditions.append(ranges[0] if ranges | length == 1 else '((' ~ ranges | join(') or (') ~ '))') -%}
        {%- endif -%}
        {%- do groups.append(conditions | join(' and ') or 'true') -%}
    {%- endfor -%}
    {%- if groups | length == 1 -%}
        {{ return('(' ~ groups[0] ~ ')') }}
    {%- endif -%}
    {{ return('((' ~ groups | join(') or (') ~ '))' if groups else 'false') }}
{% endmacro %}

{#- A day (ISO 8601) moved by some days, as a literal. -#}
{% macro day_literal(day, by_days, column_type) %}
    {%- set moved = modules.datetime.date.fromisoformat(day) + modules.datetime.timedelta(days=by_days) -%}
    {{ return(column_type ~ " '" ~ moved.isoformat() ~ (" 00:00:00+00'" if column_type == 'timestamptz' else "'")) }}
{% endmacro %}

{#-
    Where the slices apply: renders a condition on a column of time and the tenant beside it, or true when the whole is
    built. tenant_column names the tenant where it is no tenant_id beside the column, or where that is an expression; false
    where there is none.

    In a model they are as wide as the model's config declares (before_days, after_days):
    the same that its materialization replaces. before_days and after_days widen one reading further, for
    example for exposures that lie before the conversions of the slices. column_type is timestamptz or date.
    In a continuous aggregate it only marks the place: the engine knows which buckets it brings up to date.
-#}
{% macro in_slices(column, before_days=0, after_days=0, column_type='timestamptz', tenant_column=none) %}
    {%- if not execute -%}
        {{ return('true') }}
    {%- endif -%}
    {%- if model.resource_type == 'model' -%}
        {%- if model.config.materialized == 'continuous_aggregate' -%}
            {%- do sliced_config() -%}
            {%- if before_days or after_days -%}
                {%- do model_error("a continuous aggregate reads exactly the days that it replaces. Take before_days and after_days out of in_slices(), or make it a hypertable.") -%}
            {%- endif -%}
            {{ return('/*window:' ~ column ~ ':' ~ column_type ~ '*/ true /*:window*/') }}
        {%- elif model.config.materialized == 'hypertable' -%}
            {%- do sliced_config() -%}
        {%- elif model.config.materialized != 'incremental' -%}
            {%- do model_error("a " ~ model.config.materialized ~ " has no slices: those of this run would be baked into it. Take in_slices() out, or make it a hypertable.") -%}
        {%- endif -%}
    {%- endif -%}
    {%- set slices = slices_at_hand() -%}
    {%- if slices is none -%}
        {{ return('true') }}
    {%- endif -%}
    {%- set widening = own_widening(model) -%}
    {%- set match = modules.re.match('^(\w+\.)?\w+$', column) -%}
    {%- set beside = (match.group(1) or '') ~ 'tenant_id' if match else none -%}
    {{ return(slices_predicate(
        slices, column, column_type,
        (beside if tenant_column is none else tenant_column) if config.get('by_tenant', true) else none,
        widening.before + before_days, widening.after + after_days,
    )) }}
{% endmacro %}

{#- Whether the model or test at hand is built, or tested, over all of time. -#}
{% macro builds_whole() %}
    {{ return(slices_at_hand() is none) }}
{% endmacro %}

{#- The slices of the model or test at hand, not widened: none is the whole, an empty list nothing at all. -#}
{% macro slices_at_hand() %}
    {%- if not execute or model.resource_type == 'unit_test' -%}
        {{ return(none) }}
    {%- elif flags.WHICH not in ['build', 'run', 'retry', 'test'] -%}
        {{ return(given_slices()) }}
    {%- elif model.resource_type == 'model' -%}
        {{ return(build_at_hand().slices) }}
    {%- endif -%}
    {{ return(slices_of_test()) }}
{% endmacro %}

{#-
    A test looks at what the models that it reads have looked at in this invocation; at all where one was built whole. Asked
    once, then kept with the test.
-#}
{% macro slices_of_test() %}
    {%- if 'looks_at' not in model -%}
        {%- set tested = graph.nodes.get(model.attached_node) or model -%}
        {%- set names = [] -%}
        {%- for producer in ([tested] if is_sliced(tested) else producers_of(tested)) -%}
            {%- do names.append("'" ~ producer.name ~ "'") -%}
        {%- endfor -%}
        {%- set row = run_query(
            "select ingest.looked_at(array[" ~ names | join(', ') ~ "]::text[], '" ~ invocation_id ~ "')::text as slices,"
            ~ " exists (select from ingest.builds where invocation_id = '" ~ invocation_id ~ "') as is_build"
        )[0] -%}
        {%- do model.update({'looks_at': (
            fromjson(row['slices']) if row['slices'] is not none else none if row['is_build'] else given_slices()
        )}) -%}
    {%- endif -%}
    {{ return(model.looks_at) }}
{% endmacro %}

{#- The days that were asked for, of all tenants; none where there are none. -#}
{% macro given_slices() %}
    {%- set given = given_days() -%}
    {{ return([{'tenants': none, 'days': given}] if given is not none else none) }}
{% endmacro %}

{#- The widening that a model's config declares; nothing for every other node. -#}
{% macro own_widening(node) %}
    {%- if node.resource_type == 'model' and node.config.materialized in sliced_materializations() -%}
        {{ return({
            'before': node.config.get('before_days', 0),
            'after': node.config.get('after_days', 0),
        }) }}
    {%- endif -%}
    {{ return({'before': 0, 'after': 0}) }}
{% endmacro %}
