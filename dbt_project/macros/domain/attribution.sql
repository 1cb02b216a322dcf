{#-
    Settings of attribution (the vars attribution_* and signal_precedence), checked where they are read, and the steps
    that the models have in common. `earmark` checks the same before it runs dbt and says more.

    How paths are shortened and credited stands a second time in earmark/journeys, in memory, for `earmark attribute`, which
    needs no database. tests/integration/test_paths_agree.py holds the two against each other.
-#}

{#- The column of a touch that each dimension of credit stands in. -#}
{% macro dimension_columns() %}
    {{ return({
        'campaign': 'campaign_id', 'podcast': 'podcast_id', 'episode': 'episode_key', 'ad_unit': 'ad_unit_id',
        'sponsor': 'campaign_sponsor_id', 'touch_type': 'touch_type',
    }) }}
{% endmacro %}

{#- What a touch has in the dimension that a column names, such as the one of the seed attribution_channels. -#}
{% macro value_of_dimension(dimension, touches) -%}
    case {{ dimension }}
        {%- for name, column in dimension_columns().items() %}
        when '{{ name }}' then {{ touches }}.{{ column }}
        {%- endfor %}
    end
{%- endmacro %}

{#- The dimension that earns the credit, as SQL over a relation with a touch's columns: never null. -#}
{% macro attribution_channel(touches) -%}
    {%- set columns = dimension_columns() -%}
    {%- set dimension = var('attribution_dimension') -%}
    {%- if execute and dimension not in columns -%}
        {{ exceptions.raise_compiler_error(
            'The variable attribution_dimension is ' ~ columns.keys() | join(', ') ~ ', not ' ~ dimension ~ '.'
        ) }}
    {%- endif -%}
    coalesce({{ touches }}.{{ columns.get(dimension) }}, '(none)')
{%- endmacro %}

{#- The signals in order of precedence, the strongest first. pixel stands for exposures that an identity connects. -#}
{% macro signal_precedence() %}
    {%- set signals = var('signal_precedence') -%}
    {%- if execute and signals | sort != ['campaign_id', 'pixel', 'promo_code', 'survey', 'vanity_url'] -%}
        {{ exceptions.raise_compiler_error(
            'The variable signal_precedence lists campaign_id, promo_code, vanity_url, pixel and survey, each once, the '
            ~ 'strongest first; it is: ' ~ signals
        ) }}
    {%- endif -%}
    {{ return(signals) }}
{% endmacro %}

{#- The place of a signal in that order, from 1; what is not in it comes after. -#}
{% macro signal_rank(column) -%}
    array_position(array['{{ signal_precedence() | join("', '") }}', 'offline'], {{ column }})
{%- endmacro %}

{#- The longest age in days that a touch may have: that of any campaign, or of the windows side by side. -#}
{% macro longest_window_days() %}
    {%- set windows = var('attribution_windows_days') -%}
    {%- set most = var('attribution_max_lookback_days') -%}
    {%- for days in windows if execute -%}
        {%- if days is not integer or days < 1 or days > most -%}
            {{ exceptions.raise_compiler_error(
                'The variable attribution_windows_days lists whole days from 1 to attribution_max_lookback_days ('
                ~ most ~ '), not ' ~ days ~ '.'
            ) }}
        {%- endif -%}
    {%- endfor -%}
    {{ return(windows | max) }}
{% endmacro %}

{#-
    The touches of paths with their place: adds left_out_as, position and touches (both null where it is left out).

    touches: a relation with columns touch_id, touch_type, signal, touch_at, match_type, channel, ad_unit_id and
    set_aside (why a touch is no candidate, null where it is one). path: the columns that tell one path from another.
    The order is that of time; at the same time by channel, then touch_id, and what the conversion itself shows comes
    last. After the transform `distinct` it is that of the channel's name.
-#}
{% macro positioned(touches, path) -%}
    {%- set transforms = var('attribution_path_transforms') -%}
    {%- set last = 'out_' ~ transforms | length -%}
    {%- set order_by = 'in_path.channel' if 'distinct' in transforms else in_time_order('in_path') -%}
    select
        in_path.*,
        in_path.{{ last }} as left_out_as,
        case when in_path.{{ last }} is null then
            row_number() over (partition by {{ path }}, in_path.{{ last }} order by {{ order_by }})
        end::integer as position,
        case when in_path.{{ last }} is null then
            count(*) over (partition by {{ path }}, in_path.{{ last }})
        end::integer as touches
    from ({{ transformed(touches, path, transforms) }}) as in_path
{%- endmacro %}

{% macro in_time_order(touches) -%}
    {{ touches }}.touch_at, {{ touches }}.match_type = 'order', {{ touches }}.channel, {{ touches }}.touch_id
{%- endmacro %}

{#-
    Touches with out_<n>: why a touch is out after n transforms. Before the first: a play is no second touch beside the
    exposure of the same ad that it confirms, and a claim by a signal that ranks below pixel is believed only where no
    exposure is in the path.
-#}
{% macro transformed(touches, path, transforms) -%}
    {%- set before = 'out_' ~ (transforms | length - 1) -%}
    {%- set stays = 'partition by ' ~ path ~ ', touched.' ~ before -%}
    {%- set transform = transforms | last -%}
    {%- if not transforms -%}
        select
            touched.*,
            coalesce(touched.set_aside, case
                when
                    touched.touch_type = 'play'
                    and bool_or(touched.touch_type in ('baked_in', 'dai')) over (
                        partition by {{ path }}, touched.set_aside, touched.ad_unit_id order by touched.touch_at
                    )
                    then 'confirms_impression'
                when
                    {{ signal_rank('touched.signal') }} > {{ signal_rank("'pixel'") }}
                    and bool_or(touched.signal = 'pixel') over (partition by {{ path }}, touched.set_aside)
                    then 'outranked'
            end) as out_0
        from {{ touches }} as touched
    {%- else -%}
        select
            touched.*,
            coalesce(touched.{{ before }}, case
                {%- if transform == 'collapse' %}
                when
                    touched.channel = lag(touched.channel) over ({{ stays }} order by {{ in_time_order('touched') }})
                    then 'collapsed'
                {%- elif transform in ['first', 'distinct'] %}
                when row_number() over ({{ stays }}, touched.channel order by {{ in_time_order('touched') }}) > 1
                    then 'repeated'
                {%- elif transform is string and transform.startswith('drop:') and transform != 'drop:' %}
                {%- set channel = dbt.string_literal(dbt.escape_single_quotes(transform[5:])) %}
                when touched.channel = {{ channel }} and not bool_and(touched.channel = {{ channel }}) over ({{ stays }})
                    then 'dropped'
                {%- elif execute %}
                {{ exceptions.raise_compiler_error(
                    'The variable attribution_path_transforms lists collapse, first, distinct or drop:CHANNEL, not '
                    ~ transform ~ '.'
                ) }}
                {%- endif %}
            end) as out_{{ transforms | length }}
        from ({{ transformed(touches, path, transforms[:-1]) }}) as touched
    {%- endif -%}
{%- endmacro %}

{#-
    The credit of each touch by each model: adds model and credited_from, credited_to, the part of the conversion from
    0 to 1 that it takes. Running sums are rounded, so that the parts of a conversion always add up to exactly 1.

    touches: a relation as `positioned` makes it, without what is left out, with is_direct. models: one as the seed
    attribution_models. Models of method markov are none of a single path: the stage `fit` has them.
    A channel's part by Shapley (equal parts to the distinct channels) stands at its first touch.
-#}
{% macro credited(touches, models, path) -%}
    select
        weighted.*,
        round(
            (sum(weighted.weight) over (of_path order by weighted.position) - weighted.weight)
            / sum(weighted.weight) over of_path, 12
        ) as credited_from,
        round(
            sum(weighted.weight) over (of_path order by weighted.position) / sum(weighted.weight) over of_path, 12
        ) as credited_to
    from (
        select
            placed.*,
            models.model,
            case models.method
                when 'first_touch' then (placed.position = 1)::integer
                when 'last_touch' then (placed.position = placed.touches)::integer
                when 'last_non_direct' then (placed.position = placed.last_non_direct)::integer
                when 'linear' then 1
                when 'position_based' then
                    case
                        when placed.touches = 1 or placed.touches = 2 and models.first_weight + models.last_weight = 0
                            then 1
                        when placed.position = 1 then models.first_weight
                        when placed.position = placed.touches then models.last_weight
                        else models.middle_weight / (placed.touches - 2)
                    end
                when 'time_decay' then round(
                    power(2, (placed.youngest - placed.age_seconds) / (86400 * models.half_life_days))::numeric, 18
                )
                when 'shapley' then placed.is_first_of_channel::integer
            end as weight
        from (
            select
                touched.*,
                coalesce(
                    max(touched.position) filter (where not touched.is_direct) over (partition by {{ path }}),
                    touched.touches
                ) as last_non_direct,
                min(touched.age_seconds) over (partition by {{ path }}) as youngest,
                row_number() over (partition by {{ path }}, touched.channel order by touched.position) = 1
                    as is_first_of_channel
            from {{ touches }} as touched
        ) as placed
        cross join {{ models }} as models
    ) as weighted
    where weighted.weight > 0
    window of_path as (partition by {{ path }}, weighted.model)
{%- endmacro %}

{#- The days of the news, and those of all events of the orders that they name: what a model of orders looks at. -#}
{% macro days_of_orders() %}
    select tenant_id, day from {{ news() }} as news

    union

    select responses.tenant_id, (responses.occurred_at at time zone 'UTC')::date as day
    from {{ news() }} as news
    inner join {{ ref('int_responses__claimed') }} as responses
        on news.tenant_id = responses.tenant_id and news.value = responses.order_number and news.key = 'order_number'
{% endmacro %}
