"""The figures of the methodology document: read from the marts, the ledger and the settings. Reads only.

Figures that do not add up are never handed out: ``gather`` compares them with the loaded rows and with each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from psycopg.rows import class_row

from earmark.counting import agent_lists
from earmark.counting.agent_lists import Version
from earmark.counting.methodology.rules import COUNTED, rules
from earmark.counting.tenants import Value, read_settings
from earmark.errors import EarmarkError
from earmark.warehouse.engine import recorded
from earmark.warehouse.refresh import project_variables

Row = TypeVar("Row")
OWN_PATTERNS: Final = "earmark"  # stands in place of a list where no public one is in effect


class MethodologyError(EarmarkError):
    """There is nothing to write about, or the figures do not add up. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant and its settings in force."""

    tenant_id: str
    name: str
    settings: dict[str, Value]


@dataclass(frozen=True, slots=True)
class SourceDay:
    """The outcomes of a source and UTC day: ``requests`` is the sum of all."""

    tenant_id: str
    source: str
    day: date
    requests: int


@dataclass(frozen=True, slots=True)
class LoadedDay:
    """The loaded rows of a source and UTC day: how many of its ``rows`` hold each field."""

    tenant_id: str
    source: str
    day: date
    rows: int
    downloads: int
    with_address: int
    with_user_agent: int
    with_method: int
    with_status: int
    with_bytes_sent: int
    with_object_bytes: int
    with_byte_range: int


@dataclass(frozen=True, slots=True)
class Outcomes:
    """The requests of a tenant that ended in one outcome, judged on one basis and by one agent list."""

    tenant_id: str
    outcome: str
    threshold_basis: str
    agent_list: str
    requests: int


@dataclass(frozen=True, slots=True)
class Windows:
    """A tenant's downloads as it counts them, and as each of the three windows would."""

    tenant_id: str
    downloads: int
    calendar_day: int
    rolling_first: int
    rolling_last: int


@dataclass(frozen=True, slots=True)
class NetworkLists:
    """Loads whose addresses were looked up in the same versions of the lists; None: in none."""

    network_list: str | None
    loads: int
    first_day: date
    last_day: date


@dataclass(frozen=True, slots=True)
class SafeAddresses:
    """How many addresses of a tenant are safe on the days before ``expires_on``."""

    tenant_id: str
    expires_on: date
    addresses: int


@dataclass(frozen=True, slots=True)
class HashKeyUse:
    """A key that addresses were hashed under, by its id."""

    key_id: str
    first_used_at: datetime


@dataclass(frozen=True, slots=True)
class AdDelivery:
    """Impressions of a kind of ad by what shows that they were delivered."""

    delivery: str
    impressions: int
    by_bytes: int
    by_download: int
    by_ad_server: int


@dataclass(frozen=True, slots=True)
class AdPlays:
    """Ad plays that players' beacons confirm, by the furthest quartile."""

    starts: int
    first_quartile: int
    midpoint: int
    third_quartile: int
    complete: int


@dataclass(frozen=True, slots=True)
class Consumers:
    """Distinct listeners and households of a tenant and whole UTC month."""

    tenant_id: str
    month: date
    downloads: int
    listeners: int
    households: int


@dataclass(frozen=True, slots=True)
class Versions:
    """What made the figures. ``rules`` is a hash of the SQL of the rules and all that it stands on."""

    earmark: str
    server: str
    engine: str
    migration: str
    rules: str | None
    rules_built_at: datetime | None


@dataclass(frozen=True, slots=True)
class Figures:
    """All that the document says of the UTC days from ``first`` to ``last``, both within."""

    tenants: list[Tenant]
    first: date
    last: date
    made_at: datetime
    variables: dict[str, Any]
    trusted_proxies: int
    outcomes: list[Outcomes]
    source_days: list[SourceDay]
    loaded_days: list[LoadedDay]
    kept_from: date | None
    pending: list[tuple[str, date]]
    windows: list[Windows]
    agents: list[Version]
    own_patterns: int
    unknown_agents: int
    networks: list[NetworkLists]
    safe_addresses: list[SafeAddresses]
    hash_keys: list[HashKeyUse]
    delivery: list[AdDelivery]
    not_delivered: int
    plays: AdPlays
    consumers: list[Consumers]
    versions: Versions

    def requests(self, tenant_id: str | None = None, *, outcome: str | None = None) -> int:
        """Return the requests of a tenant (or of all) that ended in an outcome (or in any)."""
        return sum(
            item.requests
            for item in self.outcomes
            if tenant_id in (None, item.tenant_id) and outcome in (None, item.outcome)
        )


def gather(
    connection: psycopg.Connection,
    tenant_ids: Sequence[str] = (),
    *,
    first: date | None = None,
    last: date | None = None,
    trusted_proxies: int = 0,
) -> Figures:
    """Read the figures of tenants (without any: of all) and UTC days (without: of all that were counted).

    The statements must see one state of the database: give a connection in ``repeatable read``.

    Raises:
        UnknownTenantError: there is no such tenant.
        MethodologyError: nothing is built, or nothing of the period; or the figures do not add up.

    """
    tenants = _tenants(connection, tenant_ids)
    names = [tenant.tenant_id for tenant in tenants]
    first_day, last_day = _period(connection, names, first, last)
    scope = {
        "tenants": names,
        "first": first_day,
        "last": last_day,
        "starts_at": datetime(first_day.year, first_day.month, first_day.day, tzinfo=UTC),
        "ends_at": datetime(last_day.year, last_day.month, last_day.day, tzinfo=UTC) + timedelta(days=1),
        # Days behind the last one that was counted are news that an open period would hold.
        "pending_from": first or date.min,
        "pending_to": last or date.max,
    }
    try:
        figures = _read(connection, tenants, scope, trusted_proxies)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise MethodologyError(
            f"{error.diag.message_primary}: not all models are built as they are now; run: earmark build"
        ) from error
    check(figures)
    return figures


def _read(
    connection: psycopg.Connection, tenants: list[Tenant], scope: dict[str, Any], trusted_proxies: int
) -> Figures:
    (kept_from,) = _one(
        connection,
        "select (max(dropped_before) at time zone 'UTC')::date from timeseries.hypertables"
        " where schema_name = 'raw' and table_name = 'listener_events'",
    )
    return Figures(
        tenants=tenants,
        first=scope["first"],
        last=scope["last"],
        made_at=datetime.now(UTC),
        variables=project_variables(),
        trusted_proxies=trusted_proxies,
        outcomes=_all(connection, Outcomes, _OUTCOMES, scope),
        source_days=_all(connection, SourceDay, _SOURCE_DAYS, scope),
        loaded_days=_all(connection, LoadedDay, _LOADED_DAYS, scope),
        kept_from=kept_from,
        pending=connection.execute(_PENDING, scope).fetchall(),
        windows=_all(connection, Windows, _WINDOWS, scope),
        agents=agent_lists.versions(connection),
        own_patterns=_one(connection, "select count(*) from seeds.user_agent_patterns")[0],
        unknown_agents=_one(connection, _UNKNOWN_AGENTS, scope)[0],
        networks=_all(connection, NetworkLists, _NETWORKS, scope),
        safe_addresses=_all(connection, SafeAddresses, _SAFE_ADDRESSES, scope),
        hash_keys=_all(
            connection, HashKeyUse, "select key_id, first_used_at from ingest.hash_keys order by 2", {}
        ),
        delivery=_all(connection, AdDelivery, _DELIVERY, scope),
        not_delivered=_one(connection, _NOT_DELIVERED, scope)[0],
        plays=_all(connection, AdPlays, _PLAYS, scope)[0],
        consumers=_all(connection, Consumers, _CONSUMERS, scope),
        versions=_versions(connection),
    )


def check(figures: Figures) -> None:
    """Compare the figures with each other and with the loaded rows.

    Days that wait for a refresh, and days whose rows are dropped, cannot be compared with the loaded rows.

    Raises:
        MethodologyError: they do not add up.

    """
    codes = {rule.code for rule in rules()} | {COUNTED}
    unknown = sorted({item.outcome for item in figures.outcomes} - codes)
    if unknown:
        raise MethodologyError(
            f"requests ended as {', '.join(unknown)}, which this version has no rule for; run: earmark build"
        )
    windows = {item.tenant_id: item.downloads for item in figures.windows}
    for tenant in figures.tenants:
        counted, downloads = figures.requests(tenant.tenant_id, outcome=COUNTED), windows.get(tenant.tenant_id, 0)
        if counted != downloads:
            raise MethodologyError(
                f"{tenant.tenant_id}: {counted} requests counted, but rpt_download_windows_daily has {downloads} "
                "downloads: the models are not of one state; run: earmark build"
            )
    ended = {(item.tenant_id, item.source, item.day): item.requests for item in figures.source_days}
    loaded = {(item.tenant_id, item.source, item.day): item.rows for item in figures.loaded_days}
    pending = set(figures.pending)
    for key in sorted(ended.keys() | loaded.keys()):
        tenant_id, source, day = key
        if (tenant_id, day) in pending or (figures.kept_from and day < figures.kept_from):
            continue
        if ended.get(key, 0) != loaded.get(key, 0):
            raise MethodologyError(
                f"{tenant_id}, source {source}, {day}: {loaded.get(key, 0)} requests are loaded, but "
                f"{ended.get(key, 0)} have an outcome; run: earmark build --event-time-start {day} "
                f"--event-time-end {day + timedelta(days=1)}"
            )


def _tenants(connection: psycopg.Connection, tenant_ids: Sequence[str]) -> list[Tenant]:
    known: dict[str, str] = dict(
        connection.execute("select tenant_id, name from tenancy.tenants order by tenant_id").fetchall()
    )
    wanted = sorted(set(tenant_ids)) or list(known)
    settings = {tenant_id: read_settings(connection, tenant_id) for tenant_id in wanted}
    return [Tenant(tenant_id, known[tenant_id], settings[tenant_id]) for tenant_id in wanted]


def _period(
    connection: psycopg.Connection, tenants: list[str], first: date | None, last: date | None
) -> tuple[date, date]:
    """Return the first and last day: those that are given, else those on which there are requests."""
    if _one(connection, "select to_regclass('marts.fct_request_outcomes_daily')")[0] is None:
        raise MethodologyError("the models are not built yet; run: earmark build")
    there = connection.execute(_EXTENT, {"tenants": tenants, "first": first, "last": last}).fetchone()
    assert there is not None  # noqa: S101  (an aggregate has one row)
    earliest, latest, is_any = there
    who = ", ".join(tenants) or "any tenant"
    if earliest is None:
        raise MethodologyError(
            f"no requests of {who} are counted yet; load them with earmark load, then run: earmark build"
        )
    if not is_any:
        raise MethodologyError(f"no requests of {who} in the period: there are some from {earliest} to {latest}")
    return first or earliest, last or latest


def _versions(connection: psycopg.Connection) -> Versions:
    engine = recorded(connection)
    (server,) = _one(connection, "show server_version")
    (migration,) = _one(
        connection, "select max(file_name) from ingest.migrations where file_name not like 'functions/%'"
    )
    built = connection.execute(
        "select left(version, 12), built_at from ingest.model_builds where model = 'int_requests__outcomes'"
    ).fetchone()
    rules, built_at = built or (None, None)
    return Versions(version("earmark"), server, f"{engine.engine} {engine.version}", migration, rules, built_at)


def _one(connection: psycopg.Connection, query: LiteralString, scope: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
    return connection.execute(query, scope).fetchone()


def _all(
    connection: psycopg.Connection, kind: type[Row], query: LiteralString, scope: dict[str, Any]
) -> list[Row]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, scope).fetchall()


_EXTENT: Final = """
select
    min(day),
    max(day),
    coalesce(bool_or(day between coalesce(%(first)s, day) and coalesce(%(last)s, day)), false)
from marts.fct_request_outcomes_daily
where tenant_id = any(%(tenants)s)
"""
_OUTCOMES: Final = """
select tenant_id, outcome, threshold_basis, agent_list, sum(requests)::bigint as requests
from marts.fct_request_outcomes_daily
where tenant_id = any(%(tenants)s) and day between %(first)s and %(last)s
group by 1, 2, 3, 4
"""
_SOURCE_DAYS: Final = """
select tenant_id, source, day, sum(requests)::bigint as requests
from marts.fct_request_outcomes_daily
where tenant_id = any(%(tenants)s) and day between %(first)s and %(last)s
group by 1, 2, 3
"""
_LOADED_DAYS: Final = """
select
    tenant_id,
    source,
    (occurred_at at time zone 'UTC')::date as day,
    count(*) as rows,
    count(*) filter (where event_type = 'download') as downloads,
    count(household_key) as with_address,
    count(*) filter (where user_agent not in ('', '-')) as with_user_agent,
    count(method) as with_method,
    count(status) as with_status,
    count(bytes_sent) as with_bytes_sent,
    count(object_bytes) as with_object_bytes,
    count(byte_range) as with_byte_range
from raw.listener_events
where
    tenant_id = any(%(tenants)s) and occurred_at >= %(starts_at)s and occurred_at < %(ends_at)s
    and event_type in ('request', 'download')
group by 1, 2, 3
"""
_PENDING: Final = """
with pending as (
    select p.tenant_id, p.day
    from ingest.pending_refresh as p
    inner join ingest.model_builds as b on b.model = 'int_requests__outcomes'
    where p.producer = any(b.inputs) or p.producer = b.model
)

select distinct e.tenant_id, e.day
from (
    select tenant_id, (occurred_at at time zone 'UTC')::date as day
    from raw.listener_events
    where
        exists (select from pending) and tenant_id = any(%(tenants)s)
        and occurred_at >= %(starts_at)s and occurred_at < %(ends_at)s
    union
    select tenant_id, day from pending
    where tenant_id = any(%(tenants)s) and isfinite(day) and day between %(pending_from)s and %(pending_to)s
) as e
inner join pending as p on p.tenant_id in ('', e.tenant_id) and p.day in ('-infinity', e.day)
order by 1, 2
"""
_WINDOWS: Final = """
select
    tenant_id,
    sum(downloads)::bigint as downloads,
    sum(calendar_day)::bigint as calendar_day,
    sum(rolling_first)::bigint as rolling_first,
    sum(rolling_last)::bigint as rolling_last
from marts.rpt_download_windows_daily
where tenant_id = any(%(tenants)s) and day between %(first)s and %(last)s
group by 1
order by 1
"""
_UNKNOWN_AGENTS: Final = """
select count(*) from marts.fct_downloads
where
    tenant_id = any(%(tenants)s) and occurred_at >= %(starts_at)s and occurred_at < %(ends_at)s
    and agent_category = 'unknown'
"""
_NETWORKS: Final = """
select
    network_list,
    count(*) as loads,
    (min(first_event_at) at time zone 'UTC')::date as first_day,
    (max(last_event_at) at time zone 'UTC')::date as last_day
from ingest.loads
where
    tenant_id = any(%(tenants)s) and dataset = 'listener_events'
    and first_event_at < %(ends_at)s and last_event_at >= %(starts_at)s
group by 1
order by 3, 1
"""
_SAFE_ADDRESSES: Final = """
select tenant_id, expires_on, count(*) as addresses
from tenancy.safe_addresses
where tenant_id = any(%(tenants)s) and expires_on > %(first)s
group by 1, 2
order by 1, 2
"""
_DELIVERY: Final = """
select
    coalesce(ad_units.delivery, 'not known') as delivery,
    sum(days.impressions)::bigint as impressions,
    sum(days.impressions_by_bytes)::bigint as by_bytes,
    sum(days.impressions_by_download)::bigint as by_download,
    sum(days.impressions_by_ad_server)::bigint as by_ad_server
from rollups.cagg_ad_impressions_daily as days
left join marts.dim_ad_units as ad_units using (tenant_id, ad_unit_id)
where tenant_id = any(%(tenants)s) and days.bucket >= %(starts_at)s and days.bucket < %(ends_at)s
group by 1
order by 1
"""
_NOT_DELIVERED: Final = """
select coalesce(sum(not_delivered), 0)::bigint
from marts.rpt_ad_delivery_daily
where tenant_id = any(%(tenants)s) and day between %(first)s and %(last)s
"""
_PLAYS: Final = """
select
    coalesce(sum(starts), 0)::bigint as starts,
    coalesce(sum(first_quartile), 0)::bigint as first_quartile,
    coalesce(sum(midpoint), 0)::bigint as midpoint,
    coalesce(sum(third_quartile), 0)::bigint as third_quartile,
    coalesce(sum(complete), 0)::bigint as complete
from marts.rpt_ad_plays_daily
where tenant_id = any(%(tenants)s) and day between %(first)s and %(last)s
"""
_CONSUMERS: Final = """
select tenant_id, period_start as month, downloads, listeners, households
from marts.rpt_consumers
where
    tenant_id = any(%(tenants)s) and scope = 'tenant' and period = 'month'
    and period_start <= %(last)s and period_start + interval '1 month' > %(first)s
order by 1, 2
"""
