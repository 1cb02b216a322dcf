"""The asset of the public list of user agents: materialized when somebody wants a new version, never by a sensor.

A new version changes what is counted: it takes effect when a person says so.
"""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Final

import dagster as dg
from pydantic import Field

from earmark.counting import agent_lists
from earmark.counting.agent_lists import AgentListError, UnreachableListError
from orchestration.defs.assets import OWNER
from orchestration.defs.resources import Warehouse

_LISTS: Final = dg.AssetKey(["ingest", "agent_lists"])
_PATTERNS: Final = dg.AssetKey(["ingest", "agent_patterns"])


class AgentListConfig(dg.Config):
    """Where the list is (``folder`` instead of ``url``), and the UTC day from which it classifies (today)."""

    url: str = agent_lists.PUBLIC_LIST
    folder: str = Field(default="", description="A folder with the documents, instead of the URL.")
    effective_from: str = Field(default="", description="YYYY-MM-DD; empty: today.")


def _spec(key: dg.AssetKey, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        group_name="ingest",
        kinds={"postgres"},
        owners=[OWNER],
        description=description,
        metadata={"dagster/table_name": ".".join(key.path)},
    )


@dg.multi_asset(
    specs=[
        _spec(_LISTS, "One row a version of opawg's list of user agents, in effect from its UTC day on."),
        _spec(_PATTERNS, "One row an entry of a version, with its pattern as PostgreSQL reads it."),
    ],
    name="public_agent_list",
    pool="load",
    retry_policy=dg.RetryPolicy(max_retries=2, delay=5, backoff=dg.Backoff.EXPONENTIAL),
)
def public_agent_list(
    context: dg.AssetExecutionContext, config: AgentListConfig, warehouse: Warehouse
) -> Iterator[dg.MaterializeResult[None]]:
    """Fetch the list and install it, whole or not at all; the freshness sensor sees the days that change."""
    try:
        start = _day(config.effective_from)
        folder = Path(config.folder) if config.folder else None
        entries = agent_lists.parse(agent_lists.read_folder(folder) if folder else agent_lists.fetch(config.url))
        with warehouse.connect() as connection:
            installed = agent_lists.install(connection, entries, source=str(folder or config.url), start=start)
    except UnreachableListError:
        raise
    except AgentListError as error:  # the same again would fail again
        raise dg.Failure(str(error), allow_retries=False) from error
    context.log.info(f"{installed.agent_list} {'installed' if installed.is_new else 'was there already'}")
    metadata: dict[str, Any] = {
        "agent_list": installed.agent_list,
        "is_new": installed.is_new,
        "days_changed": installed.days,
    }
    yield dg.MaterializeResult(asset_key=_LISTS, metadata=metadata)
    yield dg.MaterializeResult(asset_key=_PATTERNS, metadata={**metadata, **installed.counts})


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text) if text else agent_lists.today()
    except ValueError as error:
        raise AgentListError(f"effective_from: {text!r} is no day, such as 2026-01-31") from error
