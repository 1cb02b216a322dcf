"""Asset checks that dbt cannot make: that loads conserve rows, and that the marts hold what was loaded.

dbt's own tests are checks of their models; they come with the models (``assets.dbt_models``).
"""

from typing import Final

import dagster as dg
from psycopg import sql

from earmark.ingestion.datasets import ATTRIBUTION_EVENTS, LISTENER_EVENTS
from orchestration.defs.assets import raw_key
from orchestration.defs.resources import Warehouse

MOST_REJECTED: Final = 0.05  # a share of rejected rows that a healthy source does not reach
LONGEST_WAIT: Final = "15 minutes"

# The rows of the last hundred loads, counted within the time that each load spans: only its chunks are read.
_CONSERVED: Final = """
    select l.load_id, l.uri, l.rows_loaded, count(e.load_id) as rows_found
    from (
        select * from ingest.loads
        where dataset = {dataset} and rows_loaded > 0
        order by load_id desc limit 100
    ) as l
    left join {table} as e
        on
            e.load_id = l.load_id and e.tenant_id = l.tenant_id
            and e.occurred_at between l.first_event_at and l.last_event_at
    group by 1, 2, 3
    having count(e.load_id) <> l.rows_loaded
"""

_REJECTED: Final = """
    select coalesce(sum(rows_read), 0)::bigint, coalesce(sum(rows_rejected), 0)::bigint
    from (select * from ingest.loads where dataset = %s order by load_id desc limit 100) as l
"""

_WAITING: Final = """
    select producer, tenant_id, day::text, changed_at
    from ingest.pending_refresh
    where changed_at < now() - %s::interval
    order by changed_at
"""


def _loads_are_conserved(dataset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=raw_key(dataset),
        name="loads_are_conserved",
        blocking=True,
        description="Every row that the ledger says was loaded is in the table, for the last hundred loads.",
    )
    def check(warehouse: Warehouse) -> dg.AssetCheckResult:
        with warehouse.connect() as connection:
            query = sql.SQL(_CONSERVED).format(dataset=dataset, table=sql.Identifier("raw", dataset))
            lost = connection.execute(query).fetchall()
        return dg.AssetCheckResult(
            passed=not lost,
            metadata={
                "loads_with_another_count": "; ".join(
                    f"load {load_id} ({uri}): {loaded} in the ledger, {found} in the table"
                    for load_id, uri, loaded, found in lost[:20]
                )
                or "none"
            },
        )

    return check


def _few_rows_are_rejected(dataset: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=raw_key(dataset),
        name="few_rows_are_rejected",
        description=f"At most {MOST_REJECTED:.0%} of the rows of the last hundred loads were rejected.",
    )
    def check(warehouse: Warehouse) -> dg.AssetCheckResult:
        with warehouse.connect() as connection:
            row = connection.execute(_REJECTED, (dataset,)).fetchone()
        read, rejected = row or (0, 0)
        return dg.AssetCheckResult(
            passed=rejected <= MOST_REJECTED * read,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"rows_read": read, "rows_rejected": rejected, "where": "ingest.rejects says why"},
        )

    return check


@dg.asset_check(
    asset=dg.AssetKey(["marts", "rpt_campaign_daily"]),
    name="holds_what_was_loaded",
    description=f"No changed slice has waited longer than {LONGEST_WAIT} for its refresh.",
)
def holds_what_was_loaded(warehouse: Warehouse) -> dg.AssetCheckResult:
    """Compare the marts' watermark with what was loaded, by the ledger and not by the time of a run."""
    with warehouse.connect() as connection:
        waiting = connection.execute(_WAITING, (LONGEST_WAIT,)).fetchall()
    return dg.AssetCheckResult(
        passed=not waiting,
        metadata={
            "slices_waiting": len(waiting),
            "longest": str(waiting[0]) if waiting else "none",
        },
    )


_EVENTS: Final = (LISTENER_EVENTS.name, ATTRIBUTION_EVENTS.name)

CHECKS: Final = [
    *(_loads_are_conserved(dataset) for dataset in _EVENTS),
    *(_few_rows_are_rejected(dataset) for dataset in _EVENTS),
    holds_what_was_loaded,
]
