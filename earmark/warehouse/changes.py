"""Changed slices: what was changed and some model has not seen yet; and which models are older than their SQL.

A slice is a tenant and a UTC day. Whoever changes rows notes their slices, in the transaction that changes them,
under the producer: a raw table or a model. A model notes the snapshot that it was built with; what that does not
show is news to it. The bookkeeping is in SQL (``migrations/functions/change_log.sql``) and done by dbt itself, so
that any way of running dbt keeps it.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any, Final

import psycopg
from jinja2 import Environment
from psycopg.rows import class_row

from earmark.warehouse.days import Days

FIT_TAG: Final = "fit"  # of models that no refresh builds but the stage of this name (``fit``)
# A refresh touches these slice by slice; the rest are views and seeds, built when their text changes.
SLICED: Final = frozenset({"hypertable", "continuous_aggregate", "incremental"})
_BUILT_TYPES: Final = ("model", "seed")
_UNDER_WAY: Final = ""  # the version of a model while it is built whole: no version is empty
_JINJA: Final = Environment(autoescape=True)  # to read templates by, not to render any
_MOST_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice of a producer that transaction ``change`` changed and some model that reads it has not seen.

    An empty ``tenant_id`` is every tenant, ``day`` None any day.
    """

    producer: str
    tenant_id: str
    day: date | None
    change: int


@dataclass(frozen=True, slots=True)
class Build:
    """What a model looked at in a dbt invocation and what of it came out otherwise, as people read them."""

    slices: str
    changed: str


def pending_slices(connection: psycopg.Connection) -> list[Slice]:
    """Return the slices that wait for a refresh. The cost follows their number, not the history."""
    with connection.cursor(row_factory=class_row(Slice)) as cursor:
        cursor.execute(
            """
            select producer, tenant_id, nullif(day, '-infinity') as day, changed_by::text::bigint as change
            from ingest.pending_refresh
            order by producer, tenant_id, day
            """
        )
        return cursor.fetchall()


def models_to_refresh(connection: psycopg.Connection) -> set[str]:
    """Return the readers of the log to which something is news that they read themselves."""
    return {row[0] for row in connection.execute("select ingest.models_to_refresh()")}


def build_of(connection: psycopg.Connection, model: str, invocation_id: str) -> Build | None:
    """Return what a model did in a dbt invocation; None where it is no sliced model or was not built."""
    row = connection.execute(
        "select slices, changed from ingest.builds"
        " where model = %s and invocation_id = %s and ended_at is not null",
        (model, invocation_id),
    ).fetchone()
    return Build(describe(row[0]), describe(row[1])) if row else None


def describe(groups: Sequence[Mapping[str, Any]] | None) -> str:
    """Return groups of tenants and days (``ingest.builds.slices``) as people read them, the first few."""
    if groups is None:
        return "whole"
    texts = [
        f"{_list(group['tenants'] or ['every tenant'])}: {_list([_days(*days) for days in group['days']])}"
        for group in groups[:_MOST_SHOWN]
    ]
    more = [f"{len(groups) - _MOST_SHOWN} more groups"] if len(groups) > _MOST_SHOWN else []
    return "; ".join(texts + more) or "none"


def _days(first: str | None, after: str | None) -> str:
    if first is None and after is None:
        return "any day"
    if first is None or after is None:
        return f"from {first} on" if first else f"before {after}"
    return str(Days.of_days(date.fromisoformat(first), date.fromisoformat(after) - timedelta(days=1)))


def _list(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MOST_SHOWN} more" if len(texts) > _MOST_SHOWN else ""
    return ", ".join(texts[:_MOST_SHOWN]) + more


def is_sliced(node: Mapping[str, Any]) -> bool:
    """Whether a node of dbt's manifest is a model that takes part in the change log."""
    return node["resource_type"] == "model" and node["config"]["materialized"] in SLICED


def producers(manifest: Mapping[str, Any], models: Iterable[str]) -> list[str]:
    """Return the producers that these models read, directly or through others that take no part in the log."""
    nodes = {**manifest["nodes"], **manifest["sources"]}
    found: set[str] = set()
    seen: set[str] = set()
    names = set(models)
    waiting = [parent for node in nodes.values() if node["name"] in names for parent in _parents(node)]
    while waiting:
        key = waiting.pop()
        node = nodes.get(key)
        if key in seen or node is None:
            continue
        seen.add(key)
        if node["resource_type"] == "source":
            found.add(f"{node['schema']}.{node['identifier']}")
        elif is_sliced(node):
            found.add(node["name"])
        else:
            waiting.extend(_parents(node))
    return sorted(found)


def readers(manifest: Mapping[str, Any], models: Iterable[str]) -> set[str]:
    """Return these models and all that stand on them, of those that a refresh builds slice by slice."""
    names = set(models)
    waiting = [key for key, node in manifest["nodes"].items() if node["name"] in names]
    seen: set[str] = set()
    while waiting:
        key = waiting.pop()
        if key not in seen and key in manifest["nodes"]:
            seen.add(key)
            waiting.extend(manifest["child_map"].get(key, []))
    found = (manifest["nodes"][key] for key in seen)
    return {node["name"] for node in found if is_sliced(node) and FIT_TAG not in node["tags"]}


def _parents(node: Mapping[str, Any]) -> list[str]:
    parents: list[str] = node.get("depends_on", {}).get("nodes", [])
    return parents


def model_versions(manifest: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, str]:
    """Return a version for each model and seed: it changes with its SQL and with all that it stands on.

    ``manifest`` is dbt's manifest, ``variables`` the ``vars`` of the project. A version covers the node's own
    text, its configuration and column types, the project's macros it calls, the variables that these name and the
    versions of its parents; not its descriptions and tests. Where a variable's name is computed, it covers all.
    """
    nodes = {key: node for key, node in manifest["nodes"].items() if node["resource_type"] in _BUILT_TYPES}
    macros = manifest["macros"]
    versions: dict[str, str] = {}

    def version(key: str) -> str:
        if key not in versions:
            node = nodes[key]
            called = [macros[name]["macro_sql"] for name in _project_macros(node, macros)]
            templates = [node["raw_code"], *_texts(node["unrendered_config"]), *called]
            parts = [
                json.dumps(_values(templates, variables, node["package_name"]), sort_keys=True, default=str),
                node["checksum"]["checksum"],
                json.dumps(node["unrendered_config"], sort_keys=True, default=str),
                json.dumps([(c["name"], c.get("data_type")) for c in node["columns"].values()]),
                *called,
                *(version(parent) for parent in sorted(node["depends_on"].get("nodes", [])) if parent in nodes),
            ]
            versions[key] = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
        return versions[key]

    return {nodes[key]["name"]: version(key) for key in sorted(nodes)}


def _project_macros(node: Mapping[str, Any], macros: Mapping[str, Any]) -> list[str]:
    found: set[str] = set()
    waiting = list(node["depends_on"].get("macros", []))
    while waiting:
        name = waiting.pop()
        if name in found or name not in macros or macros[name]["package_name"] != node["package_name"]:
            continue
        found.add(name)
        waiting.extend(macros[name]["depends_on"]["macros"])
    return sorted(found)


def _values(templates: Iterable[str], variables: Mapping[str, Any], package: str) -> dict[str, Any]:
    scoped = variables.get(package)
    values = {**variables, **scoped} if isinstance(scoped, Mapping) else dict(variables)
    named: set[str] = set()
    for template in templates:
        names = _named_variables(template)
        if names is None:
            return values
        named |= names
    return {name: value for name, value in values.items() if name in named}


@cache
def _named_variables(template: str) -> frozenset[str] | None:
    """Return the variables that a template takes by ``var('name')``; None where it takes one by another name."""
    tokens = [(kind, text) for _, kind, text in _JINJA.lex(template) if kind != "whitespace"]
    named = set()
    for n, token in enumerate(tokens):
        if token == ("name", "var"):
            match tokens[n + 1 : n + 4]:
                case [("operator", "("), ("string", name), ("operator", "," | ")")]:
                    named.add(name[1:-1])
                case _:
                    return None
    return frozenset(named)


def _texts(config: object) -> list[str]:
    if isinstance(config, Mapping):
        return [text for value in config.values() for text in _texts(value)]
    if isinstance(config, list):
        return [text for value in config for text in _texts(value)]
    return [config] if isinstance(config, str) else []


def stale_models(
    connection: psycopg.Connection, manifest: Mapping[str, Any], versions: Mapping[str, str]
) -> list[str]:
    """Return the models and seeds to build whole, in name order.

    They are missing, older than their version, or, of those that read the change log, were not built in this
    cluster. Models of the stage ``fit`` are none of them.
    """
    nodes = [
        node
        for node in manifest["nodes"].values()
        if node["resource_type"] in _BUILT_TYPES
        and node["config"]["materialized"] != "ephemeral"
        and FIT_TAG not in node["tags"]
    ]
    existing = set(
        connection.execute(
            """
            select n.nspname, c.relname
            from pg_class as c
            inner join pg_namespace as n on n.oid = c.relnamespace
            where n.nspname = any(%s)
            """,
            (sorted({node["schema"] for node in nodes}),),
        ).fetchall()
    )
    built = {
        name: (version, is_of_here)
        for name, version, is_of_here in connection.execute(
            "select model, version, cluster is not distinct from ingest.cluster() from ingest.model_builds"
        )
    }

    def is_current(node: Mapping[str, Any]) -> bool:
        version, is_of_here = built.get(node["name"], (None, False))
        return (
            (node["schema"], node["alias"]) in existing
            and version == versions[node["name"]]
            and (is_of_here or not is_sliced(node))
        )

    return sorted(node["name"] for node in nodes if not is_current(node))


def begin_whole(connection: psycopg.Connection, models: Iterable[str]) -> None:
    """Note that these models are about to be built whole: if that is cut off, no day waits that would say so."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into ingest.model_builds (model, version)
            values (%s, %s)
            on conflict (model) do update set version = excluded.version
            """,
            [(name, _UNDER_WAY) for name in models],
        )


def begun_models(connection: psycopg.Connection) -> list[str]:
    """Return the models whose whole build has begun and not ended, in name order."""
    query = "select model from ingest.model_builds where version = %s order by model"
    return [row[0] for row in connection.execute(query, (_UNDER_WAY,))]


def founded(manifest: Mapping[str, Any], models: Iterable[str], outdated: Collection[str]) -> list[str]:
    """Return those of the models that stand on none of ``outdated``: only these are now what their SQL says."""
    nodes = {key: node for key, node in manifest["nodes"].items() if node["resource_type"] in _BUILT_TYPES}

    @cache
    def stands_on_outdated(key: str) -> bool:
        parents = [parent for parent in _parents(nodes[key]) if parent in nodes]
        return any(nodes[parent]["name"] in outdated or stands_on_outdated(parent) for parent in parents)

    keys = {node["name"]: key for key, node in nodes.items()}
    return [name for name in models if not stands_on_outdated(keys[name])]


def record_versions(connection: psycopg.Connection, versions: Mapping[str, str], models: Iterable[str]) -> None:
    """Note the versions at which these models were built whole."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into ingest.model_builds (model, version)
            values (%s, %s)
            on conflict (model) do update set version = excluded.version, built_at = now()
            """,
            [(name, versions[name]) for name in models],
        )


def forget_removed(connection: psycopg.Connection, manifest: Mapping[str, Any]) -> list[str]:
    """Forget the models that the project has no more, and return the tables and views that they left behind.

    Nothing reads the log for them any longer. What they left is named until somebody drops it.
    """
    nodes = [node for node in manifest["nodes"].values() if node["resource_type"] in _BUILT_TYPES]
    found = connection.execute(
        """
        update ingest.model_builds as b set version = null, seen = null, inputs = '{}'
        where b.model <> all(%(names)s)
        returning b.model, (
            select format('%%I.%%I', n.nspname, c.relname)
            from pg_class as c
            inner join pg_namespace as n on n.oid = c.relnamespace
            where c.relname = b.model and n.nspname = any(%(schemas)s)
            limit 1
        )
        """,
        {
            "names": [FIT_TAG, *(node["name"] for node in nodes)],
            "schemas": sorted({node["schema"] for node in nodes}),
        },
    ).fetchall()
    gone = [model for model, relation in found if relation is None]
    connection.execute("delete from ingest.model_builds where model = any(%s)", (gone,))
    return sorted(relation for _, relation in found if relation is not None)
