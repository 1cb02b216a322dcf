"""What people ask the database first: how the campaigns did, and where the pipeline stands. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """One row of ``marts.rpt_campaigns``: a campaign to date. Money is in the campaign's currency."""

    tenant_id: str
    campaign_id: str
    campaign_name: str
    sponsor_name: str | None
    currency: str
    booked_impressions: int | None
    impressions: int
    reach: int
    frequency: Decimal | None
    spend: Decimal
    conversions: Decimal
    revenue: Decimal
    ecpm: Decimal | None
    cpa: Decimal | None
    roas: Decimal | None


@dataclass(frozen=True, slots=True)
class Waterfall:
    """What became of a tenant's requests: ``requests`` is the sum of all the outcomes."""

    tenant_id: str
    outcome: str
    requests: int


def campaigns(connection: psycopg.Connection) -> list[CampaignResult]:
    """Return every campaign to date, by tenant and spend."""
    with connection.cursor(row_factory=class_row(CampaignResult)) as cursor:
        cursor.execute(
            """
            select
                tenant_id, campaign_id, campaign_name, sponsor_name, currency, booked_impressions, impressions,
                reach, frequency, spend, conversions, revenue, ecpm, cpa, roas
            from marts.rpt_campaigns
            order by tenant_id, spend desc, campaign_id
            """
        )
        return cursor.fetchall()


def waterfall(connection: psycopg.Connection) -> list[Waterfall]:
    """Return the outcomes of all requests, by tenant, the most frequent first."""
    with connection.cursor(row_factory=class_row(Waterfall)) as cursor:
        cursor.execute(
            """
            select tenant_id, outcome, sum(requests)::bigint as requests
            from rollups.cagg_request_outcomes_daily
            group by 1, 2
            order by 1, 3 desc
            """
        )
        return cursor.fetchall()


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """The loads of one tenant and dataset, added up."""

    tenant_id: str
    dataset: str
    files: int
    rows_read: int
    rows_loaded: int
    rows_duplicate: int
    rows_rejected: int
    first_event_at: datetime | None
    last_event_at: datetime | None
    days_pending: int


def ledger(connection: psycopg.Connection) -> list[LedgerLine]:
    """Return what was loaded, a line a tenant and dataset, and how many days wait for a refresh."""
    with connection.cursor(row_factory=class_row(LedgerLine)) as cursor:
        cursor.execute(
            """
            with loaded as (
                select
                    tenant_id, dataset, count(distinct digest) as files,
                    sum(rows_read)::bigint as rows_read, sum(rows_loaded)::bigint as rows_loaded,
                    sum(rows_duplicate)::bigint as rows_duplicate,
                    sum(rows_rejected)::bigint as rows_rejected,
                    min(first_event_at) as first_event_at, max(last_event_at) as last_event_at
                from ingest.loads
                group by tenant_id, dataset
            ),

            pending as (
                select tenant_id, split_part(producer, '.', 2) as dataset, count(*) as days
                from ingest.pending_refresh
                where producer like 'raw.%'
                group by 1, 2
            )

            select loaded.*, coalesce(pending.days, 0) as days_pending
            from loaded
            left join pending using (tenant_id, dataset)
            order by tenant_id, dataset
            """
        )
        return cursor.fetchall()


def refused_files(connection: psycopg.Connection, most: int = 20) -> list[dict[str, Any]]:
    """Return the landed files that were refused, the latest first: ``uri``, ``message``, ``seen_at``."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            select uri, message, seen_at
            from ingest.files
            where status = 'refused'
            order by seen_at desc
            limit %s
            """,
            (most,),
        )
        return cursor.fetchall()


def count_refused_files(connection: psycopg.Connection) -> int:
    """Return how many landed files were refused and stand as they did."""
    row = connection.execute("select count(*) from ingest.files where status = 'refused'").fetchone()
    return int(row[0]) if row else 0


def rejects_of_loads(
    connection: psycopg.Connection, load_ids: Sequence[int], most: int = 5
) -> list[dict[str, Any]]:
    """Return the commonest reasons of the rejects of loads, each with the first row that it refused.

    Keys: ``dataset, field, reason, rows, uri, line_number, detail, original``.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            select distinct on (rows, dataset, field, reason) *
            from (
                select
                    l.dataset, r.field, r.reason, l.uri, r.line_number, r.detail, r.original, r.load_id,
                    count(*) over (partition by l.dataset, r.field, r.reason) as rows
                from ingest.rejects as r
                inner join ingest.loads as l using (load_id)
                where r.load_id = any(%s)
            ) as counted
            order by rows desc, dataset, field, reason, load_id, line_number
            limit %s
            """,
            (list(load_ids), most),
        )
        return cursor.fetchall()


def unknown_references(
    connection: psycopg.Connection, tenant_id: str | None = None, most: int = 10
) -> list[dict[str, Any]]:
    """Return what rows name and is not loaded, the commonest first; nothing where the mart is not built yet.

    ``tenant_id``: of that tenant alone.

    Keys: those of ``marts.rpt_unknown_references``.
    """
    row = connection.execute("select to_regclass('marts.rpt_unknown_references') is not null").fetchone()
    if row is None or not row[0]:
        return []
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            select tenant_id, dataset, field, value, refers_to, row_count, near_miss
            from marts.rpt_unknown_references
            where %(tenant)s::text is null or tenant_id = %(tenant)s
            order by near_miss is null, row_count desc, tenant_id, dataset, field, value
            limit %(most)s
            """,
            {"tenant": tenant_id, "most": most},
        )
        return cursor.fetchall()


def reject_reasons(connection: psycopg.Connection, most: int = 10) -> list[dict[str, Any]]:
    """Return why rows were rejected: ``tenant_id, dataset, field, reason, rows`` and an ``example``."""
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            select l.tenant_id, l.dataset, r.field, r.reason, count(*) as rows, min(r.detail) as example
            from ingest.rejects as r
            inner join ingest.loads as l using (load_id)
            group by 1, 2, 3, 4
            order by 5 desc
            limit %s
            """,
            (most,),
        )
        return cursor.fetchall()
