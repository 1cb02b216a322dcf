{#- The bytes of the file that hold an ad (ad_units) of an episode (episodes), at that bitrate. -#}
{% macro bytes_of_ad(bitrate_bps) -%}
    {%- set first = 'coalesce(episodes.id3_bytes, 0) + floor(ad_units.starts_at_second * ' ~ bitrate_bps ~ ' / 8)::bigint' -%}
    int8range(
        {{ first }},
        -- Size and duration are rounded: the last ad ends where the file does.
        least(
            {{ first }} + ceil(ad_units.duration_seconds * {{ bitrate_bps }} / 8)::bigint,
            case when episodes.enclosure_bytes > 0 then greatest(episodes.enclosure_bytes, {{ first }} + 1) end
        )
    )
{%- endmacro %}
