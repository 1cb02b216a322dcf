"""Changed days: what was changed and some model has not seen yet; and which models are older than their SQL.

Triggers note each day that anybody changes, in the transaction that changes it. A model notes the snapshot that it
was built with (``ingest.model_builds``); what that does not show is pending. The bookkeeping is in SQL
(``migrations/0009_changes.sql``) and done by dbt itself, so that any way of running dbt keeps it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any, Final

import psycopg
from jinja2 import Environment
from psycopg.rows import class_row

from orchestration.lib.warehouse.windows import Window, merge_days

FIT_TAG: Final = "fit"  # of models that no refresh builds but the stage of this name (``fit``)
_BUILT_TYPES: Final = ("model", "seed")
_UNDER_WAY: Final = ""  # the version of a model while it is built whole: no version is empty
_JINJA: Final = Environment(autoescape=True)  # to read templates by, not to render any


@dataclass(frozen=True, slots=True)
class ChangedDay:
    """A day of a tenant's dataset that transaction ``change`` changed, and some model has not seen."""

    tenant_id: str
    dataset: str
    day: date
    change: int


def pending_days(connection: psycopg.Connection) -> list[ChangedDay]:
    """Return the days that wait for a refresh. The cost follows their number, not the history."""
    with connection.cursor(row_factory=class_row(ChangedDay)) as cursor:
        cursor.execute(
            """
            select tenant_id, dataset, day, changed_by::text::bigint as change
            from ingest.pending_refresh
            order by day, tenant_id, dataset
            """
        )
        return cursor.fetchall()


def windows_of(days: Iterable[ChangedDay]) -> list[Window]:
    """Return the fewest windows that hold exactly these days."""
    return merge_days(item.day for item in days)


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

    They are missing, older than their version, or stand on a table that was replaced. Models of the stage ``fit``
    are none of them.
    """
    relations = {
        node["name"]: (node["schema"], node["alias"])
        for node in manifest["nodes"].values()
        if node["resource_type"] in _BUILT_TYPES
        and node["config"]["materialized"] != "ephemeral"
        and FIT_TAG not in node["tags"]
    }
    existing = set(
        connection.execute(
            """
            select n.nspname, c.relname
            from pg_class as c
            inner join pg_namespace as n on n.oid = c.relnamespace
            where n.nspname = any(%s)
            """,
            (sorted({schema for schema, _ in relations.values()}),),
        ).fetchall()
    )
    built: dict[str, str] = dict(connection.execute("select model, version from ingest.model_builds").fetchall())
    unfounded = {row[0] for row in connection.execute("select ingest.unfounded_models()")}
    return sorted(
        name
        for name, relation in relations.items()
        if relation not in existing or built.get(name) != versions[name] or name in unfounded
    )


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


def record_versions(connection: psycopg.Connection, versions: Mapping[str, str], models: Iterable[str]) -> None:
    """Note the versions at which these models were built whole, and forget models that are no more."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """
            insert into ingest.model_builds (model, version)
            values (%s, %s)
            on conflict (model) do update set version = excluded.version, built_at = now()
            """,
            [(name, versions[name]) for name in models],
        )
        cursor.execute("delete from ingest.model_builds where model <> all(%s)", (sorted(versions),))
