with compared as (
    select * from {{ ref('int_downloads__compared') }}
),

effects as (
    select * from {{ ref('int_downloads__rule_effects') }}
),

rules as (
    select * from {{ ref('counting_rules') }}
),

-- Without which rule we would come nearest to them, by at least half of the way; of equals the first of the chain, and
-- after the rules another window.
explanations as (
    select distinct on (compared.tenant_id, compared.source, compared.episode_key, compared.day)
        compared.tenant_id,
        compared.source,
        compared.episode_key,
        compared.day,
        effects.rule,
        abs(effects.effect) as downloads
    from compared
    inner join effects
        on
            compared.tenant_id = effects.tenant_id
            and compared.source = effects.source
            and compared.episode_key = effects.episode_key
            and compared.day = effects.day
    left join rules on effects.rule = rules.code
    where
        compared.is_flagged
        and abs(compared.ours + effects.effect - compared.theirs) <= abs(compared.ours - compared.theirs) / 2
    order by
        compared.tenant_id asc,
        compared.source asc,
        compared.episode_key asc,
        compared.day asc,
        abs(compared.ours + effects.effect - compared.theirs) asc,
        rules.rule_order asc nulls last,
        effects.rule asc
),

reconciliation as (
    select
        compared.tenant_id,
        compared.episode_key,
        compared.day,
        compared.source,
        compared.podcast_id,
        compared.reported_as,
        compared.compared_with,
        compared.theirs,
        compared.ours,
        compared.ours - compared.theirs as difference,
        (compared.ours - compared.theirs) / nullif(compared.theirs, 0) as relative_difference,
        compared.is_flagged,
        explanations.rule as explained_by,
        explanations.downloads as explained
    from compared
    left join explanations
        on
            compared.tenant_id = explanations.tenant_id
            and compared.source = explanations.source
            and compared.episode_key = explanations.episode_key
            and compared.day = explanations.day
)

select * from reconciliation
