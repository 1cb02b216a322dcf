{#- The materializations whose table is refreshed by slices. -#}
{% macro sliced_materializations() %}
    {{ return(['hypertable', 'continuous_aggregate']) }}
{% endmacro %}

{#- Whether a node is a model that is refreshed by slices, and so takes part in the change log. -#}
{% macro is_sliced(node) %}
    {{ return(node.resource_type == 'model' and node.config.materialized in sliced_materializations() + ['incremental']) }}
{% endmacro %}

{#-
    The checked config of the sliced model at hand: time_column, chunk_interval, before_days, after_days, by_tenant, keys, unit,
    bucket, options, refresh_every, columnstore, retention. A mistake is a compile error that names the model and the fix.
-#}
{% macro sliced_config() %}
    {%- set kind = model.config.materialized -%}
    {%- set known = ['time_column', 'chunk_interval', 'columnstore', 'retention'] + (
        ['bucket', 'real_time', 'refresh_every'] if kind == 'continuous_aggregate'
        else ['before_days', 'after_days', 'by_tenant', 'keys', 'unit']
    ) -%}
    {%- set time_column = config.get('time_column') -%}
    {%- set chunk_interval = config.get('chunk_interval', '7 days') -%}
    {%- if not time_column -%}
        {%- do model_error("a " ~ kind ~ " needs a time_column. Add time_column='...' to its config: the column that its days are found by.") -%}
    {%- endif -%}
    {%- if chunk_interval is not string or modules.re.match('^[1-9]\d* days?$', chunk_interval) is none -%}
        {%- do model_error("chunk_interval is whole days, such as '7 days', not '" ~ chunk_interval ~ "'.") -%}
    {%- endif -%}
    {%- for name in ['before_days', 'after_days'] -%}
        {%- set days = config.get(name, 0) -%}
        {%- if days is not integer or days is boolean or days < 0 -%}
            {%- do model_error(name ~ " is a whole number of days, 0 or more, not '" ~ days ~ "'.") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if config.get('by_tenant', true) is not boolean -%}
        {%- do model_error("by_tenant is true (its rows have a tenant_id) or false, not '" ~ config.get('by_tenant') ~ "'.") -%}
    {%- endif -%}
    {%- set keys = config.get('keys', []) -%}
    {%- if keys is string or keys is mapping or keys is not sequence -%}
        {%- do model_error("keys is a list of columns, such as ['household_key'], not '" ~ keys ~ "'.") -%}
    {%- elif config.get('unit') is not none and config.get('unit') not in keys -%}
        {%- do model_error("its unit " ~ config.get('unit') ~ " is none of its keys: the models that read it would not learn which of them changed. Add it to keys.") -%}
    {%- elif keys and not config.get('by_tenant', true) -%}
        {%- do model_error("keys need a tenant_id: take by_tenant=false out, or keys.") -%}
    {%- endif -%}
    {%- for name in model.config.keys() -%}
        {%- if name not in known + standard_configs() -%}
            {%- do model_error("there is no config '" ~ name ~ "' for a " ~ kind ~ ". It takes " ~ known | join(', ') ~ " and dbt's own.") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- if kind == 'continuous_aggregate' -%}
        {%- do check_bucket(config.get('bucket')) -%}
        {%- if config.get('contract').enforced -%}
            {%- do model_error("a continuous aggregate has no constraints that a contract could enforce. Enforce the contract on a view that reads it.") -%}
        {%- endif -%}
    {%- endif -%}
    {%- if config.get('on_schema_change') not in [none, 'ignore', 'fail', 'append_new_columns', 'sync_all_columns'] -%}
        {%- do model_error("on_schema_change is ignore, fail, append_new_columns or sync_all_columns, not '" ~ config.get('on_schema_change') ~ "'.") -%}
    {%- endif -%}
    {%- for index in config.get('indexes') or [] -%}
        {%- if index.unique and time_column not in index.columns -%}
            {%- do model_error("the unique index on (" ~ index.columns | join(', ') ~ ") must hold the time column " ~ time_column ~ ": a hypertable can only keep a key unique within a time.") -%}
        {%- elif index.unique and kind == 'continuous_aggregate' -%}
            {%- do model_error("a continuous aggregate takes no unique index: TimescaleDB has none, and its groups are unique as they are. Take 'unique' out.") -%}
        {%- endif -%}
    {%- endfor -%}
    {%- set chunk_name = this.schema ~ '__' ~ this.identifier ~ '__new__YYYYMMDD' -%}
    {%- if chunk_name | length > 63 -%}
        {%- do model_error("its chunks would be named " ~ chunk_name ~ ", longer than the 63 characters that PostgreSQL keeps. Take a shorter name.") -%}
    {%- endif -%}
    {{ return({
        'time_column': time_column,
        'chunk_interval': chunk_interval,
        'before_days': config.get('before_days', 0),
        'after_days': config.get('after_days', 0),
        'by_tenant': config.get('by_tenant', true),
        'keys': config.get('keys', []),
        'unit': config.get('unit'),
        'bucket': config.get('bucket'),
        'options': {'real_time': config.get('real_time', false), 'refresh_every': config.get('refresh_every')},
        'columnstore': checked_columnstore(config.get('columnstore')),
        'retention': checked_interval('retention', config.get('retention')),
    }) }}
{% endmacro %}

{#- columnstore={'after': '60 days', 'segment_by': ['tenant_id'], 'order_by': 'occurred_at desc'} -#}
{% macro checked_columnstore(given) %}
    {%- if given is none -%}
        {{ return({}) }}
    {%- elif given is not mapping or 'after' not in given
        or given.keys() | reject('in', ['after', 'segment_by', 'order_by']) | list -%}
        {%- do model_error("columnstore is {'after': '60 days', 'segment_by': [...], 'order_by': '...'}, not '" ~ given ~ "'.") -%}
    {%- endif -%}
    {{ return({
        'after': checked_interval('columnstore.after', given.after),
        'segment_by': given.get('segment_by', []),
        'order_by': given.get('order_by'),
    }) }}
{% endmacro %}

{% macro checked_interval(name, given) %}
    {%- if given is not none
        and (given is not string or modules.re.match('^[1-9]\d* (day|week|month|year)s?$', given) is none) -%}
        {%- do model_error(name ~ " is a number of days, weeks, months or years, such as '2 years', not '" ~ given ~ "'.") -%}
    {%- endif -%}
    {{ return(given) }}
{% endmacro %}

{% macro model_error(message) %}
    {{ exceptions.raise_compiler_error('Model ' ~ model.name ~ ': ' ~ message) }}
{% endmacro %}

{#- What dbt itself puts into a model's config; anything else is ours or a slip of the pen. -#}
{% macro standard_configs() %}
    {{ return([
        'access', 'alias', 'batch_size', 'begin', 'column_types', 'concurrent_batches', 'contract', 'database', 'docs',
        'enabled', 'event_time', 'freshness', 'full_refresh', 'grants', 'group', 'incremental_strategy', 'indexes',
        'lookback', 'materialized', 'meta', 'on_configuration_change', 'on_schema_change', 'packages', 'persist_docs',
        'post-hook', 'pre-hook', 'quoting', 'schema', 'sql_header', 'static_analysis', 'submission_method', 'tags',
        'unique_key', 'unlogged',
    ]) }}
{% endmacro %}
