"""Sensors: new files ask for a load and its refresh, changed slices ask for a refresh of exactly those.

A load brings its refresh with it; what the freshness sensor finds was loaded by hand or by somebody else, or its
refresh failed.

Both look at the database and the landing folder, never at a clock of their own: what is there decides. A request
that led to nothing (its run failed) is made again, ever later, until something changes. A run that died, with its
process or before it had one, is nobody's fault: its work is asked for again as after a first request.

A run is asked for the models that the refresh can come to, and for none of dbt's checks: what dbt tests is told
as it happens, and a check that there was no need to make keeps its last result.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import dagster as dg
from dagster._core.events import RunFailureReason
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG, RUN_KEY_TAG

from earmark.ingestion.landing import LandedFile, new_files, register_tenants
from earmark.warehouse import changes
from earmark.warehouse.refresh import make_plan, sliced_models, slices_in_words
from orchestration.defs.assets import MANIFEST, dbt_models, load_job, raw_tables, refresh_job
from orchestration.defs.checks import CHECKS
from orchestration.defs.resources import Landing, Warehouse

FIRST_PAUSE: Final = timedelta(minutes=1)
LONGEST_PAUSE: Final = timedelta(hours=1)
# Dagster's daemon goes round every 5 seconds; asking for 5 would miss every other round by a hair.
_SECONDS_BETWEEN_LOOKS: Final = 1
# Within its round the landing sensor looks again and again, for this long, at no more than a tenth of the time.
_LOOKS_FOR: Final = timedelta(seconds=4.5)
_SHORTEST_REST: Final = timedelta(seconds=0.2)
# What a run says that fails by itself; what is failed from outside has another reason, or none.
_FAILED_BY_ITSELF: Final = frozenset(
    reason.value
    for reason in (
        RunFailureReason.STEP_FAILURE,
        RunFailureReason.RUN_EXCEPTION,
        RunFailureReason.JOB_INITIALIZATION_FAILURE,
    )
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a sensor asked for last: its cursor. ``state`` stands for all that was to be done."""

    state: str
    attempts: int
    at: str

    @classmethod
    def read(cls, cursor: str | None) -> "Asked | None":
        """Read a cursor; None where there is none."""
        return cls(**json.loads(cursor)) if cursor else None

    def written(self) -> str:
        """Return the cursor's text."""
        return json.dumps(asdict(self))


def next_request(state: str, last: Asked | None, now: datetime, *, died: bool = False) -> Asked | timedelta:
    """Decide whether to ask now: the request to make, or how long to wait before asking again.

    ``state`` is what is to be done, as a digest; the same state again means that the last request came to
    nothing. The pauses double from ``FIRST_PAUSE`` to ``LONGEST_PAUSE``. ``died``: the run of the last request did
    not fail by itself; it counts as no attempt and makes no pause longer.
    """
    if last is None or last.state != state:
        return Asked(state, 1, now.isoformat())
    doubled = 0 if died else min(last.attempts - 1, 10)
    pause: timedelta = min(FIRST_PAUSE * 2**doubled, LONGEST_PAUSE)
    waited = now - datetime.fromisoformat(last.at)
    if waited < pause:
        return pause - waited
    return Asked(state, last.attempts + (not died), now.isoformat())


def has_died(run: dg.DagsterRun) -> bool:
    """Whether a run ended otherwise than by its own work: its process was killed, say, or never began."""
    return (
        run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(RUN_FAILURE_REASON_TAG) not in _FAILED_BY_ITSELF
    )


def digest(parts: Iterable[str]) -> str:
    """Return a short name for a state."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _ask(
    context: dg.SensorEvaluationContext,
    state: str,
    job: str,
    tags: dict[str, str],
    assets: Callable[[], Iterable[dg.AssetKey]],
) -> dg.SensorResult | dg.SkipReason:
    last = Asked.read(context.cursor)
    asked = next_request(state, last, datetime.now(UTC), died=last is not None and _died(context, job, last))
    if isinstance(asked, timedelta):
        return dg.SkipReason(f"asked before; if that comes to nothing, again in {asked.total_seconds():.0f} s")
    selected = set(assets())
    checks = [key for check in CHECKS for key in check.check_keys if key.asset_key in selected]
    request = dg.RunRequest(
        run_key=_run_key(job, asked), tags=tags, asset_selection=sorted(selected), asset_check_keys=checks
    )
    return dg.SensorResult(run_requests=[request], cursor=asked.written())


def _look(warehouse: Warehouse, location: str) -> list[LandedFile]:
    """Return the new files of the landing folder as soon as there are some, none when the round is over."""
    over = time.monotonic() + (0 if "://" in location else _LOOKS_FOR.total_seconds())
    while True:
        began = time.monotonic()
        with warehouse.connect() as connection:
            register_tenants(connection, location)  # a tenant's refused files are new again
            files = new_files(connection, location)
        rest = max(_SHORTEST_REST.total_seconds(), 9 * (time.monotonic() - began))
        if files or time.monotonic() + rest > over:
            return files
        time.sleep(rest)


def _run_key(job: str, asked: Asked) -> str:
    return f"{job}-{asked.state}-{asked.at}"


def _died(context: dg.SensorEvaluationContext, job: str, last: Asked) -> bool:
    """Whether the run of the last request has died."""
    runs = context.instance.get_runs(dg.RunsFilter(tags={RUN_KEY_TAG: _run_key(job, last)}), limit=1)
    return any(has_died(run) for run in runs)


def _waiting_run(context: dg.SensorEvaluationContext, *statuses: dg.DagsterRunStatus) -> str | None:
    """Return a load or refresh in one of these states, if there is one."""
    for name in (load_job.name, refresh_job.name):
        found = context.instance.get_run_ids(dg.RunsFilter(job_name=name, statuses=statuses), limit=1)
        if found:
            return found[0]
    return None


def _models(warehouse: Warehouse, names: Iterable[str]) -> set[dg.AssetKey]:
    """Return the models of these names, and those that a refresh would build now."""
    with warehouse.connect() as connection:
        planned = {*names, *make_plan(connection, MANIFEST).models}
    return {key for key in dbt_models.keys if key.path[-1] in planned}


@dg.sensor(
    name="landing",
    job=load_job,
    minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a load when the landing folder holds files that are new or have changed.",
)
def landing_sensor(
    context: dg.SensorEvaluationContext, warehouse: Warehouse, landing: Landing
) -> dg.SensorResult | dg.SkipReason:
    """Look for files that the ledger does not know in this size and time.

    A folder is looked at until there are some or the round is over; a bucket, where each look is paid for, once.
    """
    files = _look(warehouse, landing.location())
    if not files:
        return dg.SkipReason("no new files")
    # A run that has not started will find these files too; one at work may have looked before they came.
    if (queued := _waiting_run(context, dg.DagsterRunStatus.QUEUED)) is not None:
        return dg.SkipReason(f"run {queued} will load them")
    state = digest(f"{file.state.uri} {file.state.bytes} {file.state.modified_at}" for file in files)
    return _ask(
        context,
        state,
        load_job.name,
        {"earmark/new_files": str(len(files))},
        lambda: raw_tables.keys | _models(warehouse, sliced_models(MANIFEST)),
    )


@dg.sensor(
    name="freshness",
    job=refresh_job,
    minimum_interval_seconds=_SECONDS_BETWEEN_LOOKS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks for slices that were changed, by whomever, and asks for a refresh of exactly those.",
)
def freshness_sensor(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SensorResult | dg.SkipReason:
    """Look for slices that some model has not seen, and for whole builds that were cut off."""
    with warehouse.connect() as connection:
        slices = changes.pending_slices(connection)
        begun = changes.begun_models(connection)
    if not slices and not begun:
        return dg.SkipReason("every changed slice is refreshed")
    if (running := _waiting_run(context, dg.DagsterRunStatus.QUEUED, *IN_PROGRESS_RUN_STATUSES)) is not None:
        return dg.SkipReason(f"run {running} is at work")
    changed = (f"{item.producer} {item.tenant_id} {item.day} {item.change}" for item in slices)
    tags = {"earmark/slices": slices_in_words(slices) if slices else "what was cut off"}
    return _ask(context, digest([*begun, *changed]), refresh_job.name, tags, lambda: _models(warehouse, ()))
