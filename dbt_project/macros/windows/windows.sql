{#-
    Windows: which part of time a run refreshes.

    A run is given half-open windows of event time in one of two ways, or none at all:
      --vars '{windows: [["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"], ...]}'
      --event-time-start 2026-01-01 --event-time-end 2026-01-03      (dbt's own flags, always UTC)
    Without either, each model refreshes the days that have changed since it was last built (builds.sql).
    The whole is built with --full-refresh, where the model's relation is missing or a table that it stands on was
    replaced, and for the models that the variable rebuild names (--vars '{rebuild: [fct_downloads]}').

    Every window is widened to whole UTC days first: duplicates, rollups and reports are all by UTC day, and a
    model must refresh at least what its parents refreshed.
-#}

{#- The windows that were asked for, as a list of [first day, day after the last], sorted and disjoint; else none. -#}
{% macro given_windows() %}
    {%- set given = var('windows', none) -%}
    {%- set starts_at = invocation_args_dict.get('event_time_start') -%}
    {%- set ends_at = invocation_args_dict.get('event_time_end') -%}
    {%- if given is not none and (starts_at or ends_at) -%}
        {{ exceptions.raise_compiler_error(
            'Windows are given twice: by the variable windows and by --event-time-start/--event-time-end. Leave one out.'
        ) }}
    {%- elif given is not none -%}
        {{ return(parse_windows(given)) }}
    {%- elif starts_at and ends_at -%}
        {{ return(parse_windows([[as_utc(starts_at), as_utc(ends_at)]])) }}
    {%- elif starts_at or ends_at -%}
        {{ exceptions.raise_compiler_error(
            'A window has two ends: give --event-time-start and --event-time-end, or neither.'
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
{% macro parse_windows(given) %}
    {%- if given is string or given is mapping or given is not sequence -%}
        {{ exceptions.raise_compiler_error(
            'The variable windows is a list of [start, end], for example '
            ~ '[["2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z"]]; it is: ' ~ given
        ) }}
    {%- elif given | length == 0 -%}
        {{ exceptions.raise_compiler_error(
            'The variable windows is empty. Leave it out to build the whole; do not run dbt when nothing has changed.'
        ) }}
    {%- endif -%}
    {%- set windows = [] -%}
    {%- for window in given -%}
        {%- if window is string or window is mapping or window is not sequence or window | length != 2 -%}
            {{ exceptions.raise_compiler_error('A window is [start, end]; this one is: ' ~ window) }}
        {%- endif -%}
        {%- set starts_at = parse_instant(window[0]) -%}
        {%- set ends_at = parse_instant(window[1]) -%}
        {%- if starts_at >= ends_at -%}
            {{ exceptions.raise_compiler_error(
                'A window must end after it starts; this one is [' ~ window[0] ~ ', ' ~ window[1] ~ ').'
            ) }}
        {%- endif -%}
        {%- set one_day = modules.datetime.timedelta(days=1) -%}
        {%- set last_instant = ends_at - modules.datetime.timedelta(microseconds=1) -%}
        {%- do windows.append([starts_at.date(), last_instant.date() + one_day]) -%}
    {%- endfor -%}
    {{ return(merge_windows(windows)) }}
{% endmacro %}

{#- An ISO 8601 time with an offset as a datetime in UTC. YAML may have read it already. -#}
{% macro parse_instant(given) %}
    {%- set text = given if given is string else given.isoformat() if given.isoformat is defined else given | string -%}
    {%- set text = text | trim -%}
    {%- set shape = '^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?$' -%}
    {%- set match = modules.re.match(shape, text) -%}
    {%- if match is none -%}
        {{ exceptions.raise_compiler_error(
            'Not a time of a window: ' ~ text ~ '. Write it with date, time and offset: 2026-01-01T00:00:00Z.'
        ) }}
    {%- elif match.group(3) is none -%}
        {{ exceptions.raise_compiler_error(
            'A time of a window needs an offset: ' ~ text ~ ' could be anywhere. Write ' ~ text ~ 'Z for UTC.'
        ) }}
    {%- endif -%}
    {{ return(modules.datetime.datetime.fromisoformat(text).astimezone(modules.pytz.utc)) }}
{% endmacro %}

{#- Windows of days, sorted; those that overlap or touch made one. -#}
{% macro merge_windows(windows) %}
    {%- set merged = [] -%}
    {%- for window in windows | sort -%}
        {%- if merged and window[0] <= merged[-1][1] -%}
            {%- set last = merged.pop() -%}
            {%- do merged.append([last[0], [last[1], window[1]] | max]) -%}
        {%- else -%}
            {%- do merged.append([window[0], window[1]]) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(merged) }}
{% endmacro %}

{#- Windows of days made longer at their ends, then merged again. -#}
{% macro widen_windows(windows, before_days=0, after_days=0) %}
    {%- set widened = [] -%}
    {%- for window in windows -%}
        {%- do widened.append([
            window[0] - modules.datetime.timedelta(days=before_days),
            window[1] + modules.datetime.timedelta(days=after_days),
        ]) -%}
    {%- endfor -%}
    {{ return(merge_windows(widened)) }}
{% endmacro %}

{#- The condition that a column lies in one of the windows. The bounds are literals, so that chunks are pruned. -#}
{% macro window_predicate(column, windows, column_type='timestamptz') %}
    {%- if column_type not in ['timestamptz', 'date'] -%}
        {{ exceptions.raise_compiler_error(
            'in_window(' ~ column ~ '): column_type is timestamptz or date, not ' ~ column_type ~ '.'
        ) }}
    {%- endif -%}
    {%- set midnight = ' 00:00:00+00' if column_type == 'timestamptz' else '' -%}
    {%- set ranges = [] -%}
    {%- for window in windows -%}
        {%- do ranges.append(
            column ~ " >= " ~ column_type ~ " '" ~ window[0].isoformat() ~ midnight ~ "'"
            ~ " and " ~ column ~ " < " ~ column_type ~ " '" ~ window[1].isoformat() ~ midnight ~ "'"
        ) -%}
    {%- endfor -%}
    {%- if ranges | length == 1 -%}
        {{ return('(' ~ ranges[0] ~ ')') }}
    {%- endif -%}
    {{ return('((' ~ ranges | join(') or (') ~ '))' if ranges else 'false') }}
{% endmacro %}

{#-
    Where the window applies: renders a condition on a column of time, or true when the whole is built.

    In a model the window is the one that the model's config declares (window_before_days, window_after_days):
    the same that its materialization replaces. before_days and after_days widen one reading further, for
    example for exposures that lie before the conversions of the window. column_type is timestamptz or date.
    In a continuous aggregate it only marks the place: the engine knows which buckets it brings up to date.
-#}
{% macro in_window(column, before_days=0, after_days=0, column_type='timestamptz') %}
    {%- if not execute -%}
        {{ return('true') }}
    {%- endif -%}
    {%- if model.resource_type == 'model' -%}
        {%- if model.config.materialized == 'continuous_aggregate' -%}
            {%- do windowed_config() -%}
            {%- if before_days or after_days -%}
                {%- do windowed_error("a continuous aggregate reads exactly the window that it replaces. Take before_days and after_days out of in_window(), or make it a hypertable.") -%}
            {%- endif -%}
            {{ return('/*window:' ~ column ~ ':' ~ column_type ~ '*/ true /*:window*/') }}
        {%- elif model.config.materialized == 'hypertable' -%}
            {%- do windowed_config() -%}
        {%- elif model.config.materialized != 'incremental' -%}
            {%- do windowed_error("a " ~ model.config.materialized ~ " has no window: the one of this run would be baked into it. Take in_window() out, or make it a hypertable.") -%}
        {%- endif -%}
    {%- endif -%}
    {%- set windows = windows_at_hand() -%}
    {%- if windows is none -%}
        {{ return('true') }}
    {%- elif windows | length == 0 -%}
        {{ return('false') }}
    {%- endif -%}
    {%- set widening = own_widening(model) -%}
    {{ return(window_predicate(
        column,
        widen_windows(windows, widening.before + before_days, widening.after + after_days),
        column_type,
    )) }}
{% endmacro %}

{#- Whether the model or test at hand is built, or tested, over all of time. -#}
{% macro builds_whole() %}
    {{ return(windows_at_hand() is none) }}
{% endmacro %}

{#- The windows of the model or test at hand, not widened: none is the whole, an empty list nothing at all. -#}
{% macro windows_at_hand() %}
    {%- if not execute or model.resource_type == 'unit_test' or flags.FULL_REFRESH -%}
        {{ return(none) }}
    {%- elif model.resource_type == 'model' -%}
        {{ return(windows_of_model()) }}
    {%- endif -%}
    {{ return(windows_of_test()) }}
{% endmacro %}

{#- Of the windows of the model at hand those that it must replace: given or news. The others may have changed. -#}
{% macro news_at_hand() %}
    {%- set given = given_windows() -%}
    {%- set state = build_state(model.name) -%}
    {{ return(since(given, state.horizon) if given is not none else state.news) }}
{% endmacro %}

{% macro windows_of_model() %}
    {%- if model.name in var('rebuild', []) or should_full_refresh() -%}
        {{ return(none) }}
    {%- endif -%}
    {%- set existing = load_cached_relation(this) -%}
    {%- set given = given_windows() -%}
    {%- set state = build_state(model.name) -%}
    {%- if existing is none or state.was_replaced
        or model.config.materialized not in windowed_materializations() + ['incremental'] -%}
        {{ return(none) }}
    {%- elif given is not none -%}
        {{ return(merge_windows(since(given, state.horizon) + state.widened)) }}
    {%- endif -%}
    {{ return(state.windows) }}
{% endmacro %}

{#- A test looks at what its model, or any model if it belongs to none, refreshed in this invocation. -#}
{% macro windows_of_test() %}
    {%- set given = given_windows() -%}
    {%- set tested = graph.nodes.get(model.attached_node) -%}
    {%- set query -%}
        select b.was_whole, r.days ->> b.model as days, r.horizon
        from ingest.model_builds as b
        inner join ingest.runs as r on b.invocation_id = r.invocation_id
        where b.invocation_id = '{{ invocation_id }}' {% if tested %}and b.model = '{{ tested.name }}'{% endif %}
    {%- endset -%}
    {%- set builds = run_query(query) -%}
    {%- if given is not none and (builds | length == 0 or tested is none) and builds | selectattr('was_whole') | list | length == 0 -%}
        {{ return(given) }}
    {%- elif builds | length == 0 or builds | selectattr('was_whole') | list | length > 0 -%}
        {{ return(none) }}
    {%- elif given is not none -%}
        {{ return(since(given, builds[0]['horizon'])) }}
    {%- endif -%}
    {%- set days = [] -%}
    {%- for build in builds -%}
        {%- do days.extend(fromjson(build['days']) if build['days'] else []) -%}
    {%- endfor -%}
    {{ return(windows_of_days(days)) }}
{% endmacro %}

{#- Days (ISO 8601) as disjoint windows. -#}
{% macro windows_of_days(days) %}
    {%- set windows = [] -%}
    {%- for day in days | unique -%}
        {%- set first = modules.datetime.date.fromisoformat(day) -%}
        {%- do windows.append([first, first + modules.datetime.timedelta(days=1)]) -%}
    {%- endfor -%}
    {{ return(merge_windows(windows)) }}
{% endmacro %}

{#- Windows without what retention has dropped: there is nothing to build it from any more. -#}
{% macro since(windows, horizon) %}
    {%- if not horizon -%}
        {{ return(windows) }}
    {%- endif -%}
    {%- set kept = [] -%}
    {%- for window in windows -%}
        {%- if window[1] > horizon -%}
            {%- do kept.append([[window[0], horizon] | max, window[1]]) -%}
        {%- endif -%}
    {%- endfor -%}
    {{ return(kept) }}
{% endmacro %}

{#- The widening that a model's config declares; nothing for every other node. -#}
{% macro own_widening(node) %}
    {%- if node.resource_type == 'model' and node.config.materialized in windowed_materializations() -%}
        {{ return({
            'before': node.config.get('window_before_days', 0),
            'after': node.config.get('window_after_days', 0),
        }) }}
    {%- endif -%}
    {{ return({'before': 0, 'after': 0}) }}
{% endmacro %}
