{#- A URL as people mean it: lower case, without scheme, www., query, fragment and last slash. -#}
{% macro plain_url(column) -%}
    regexp_replace(regexp_replace(lower({{ column }}), '^\s*(https?://)?(www\.)?', ''), '/*([?#].*)?\s*$', '')
{%- endmacro %}

{#- Whether a path or URL without query names an audio or video file. -#}
{% macro is_media(column) -%}
    {{ column }} ~* '\.({{ var("media_extensions") | join("|") }})$'
{%- endmacro %}

{#- A text that fits into an index, whatever was requested: the whole, or its beginning and its md5. -#}
{% macro shortened(column) -%}
    case
        when length({{ column }}) <= 500 then {{ column }}
        else left({{ column }}, 460) || '...' || md5({{ column }})
    end
{%- endmacro %}

{#- The host of a URL, lower case, without user, www. and port; null for anything that is no URL. -#}
{% macro referrer_host(column) -%}
    lower(substring(
        {{ column }} from '(?i)^\s*[a-z][a-z0-9+.-]*://(?:[^/?#@\\\s]*@)?(?:www\.)?(\[[0-9a-f:.]+\]|[^]/?#:@\\\s[]+)'
    ))
{%- endmacro %}
