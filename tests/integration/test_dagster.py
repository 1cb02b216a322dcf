"""Dagster for real: the graph loads, the sensors are evaluated, and a dropped file reaches the marts."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test

from earmark.addresses.privacy import HashKey
from earmark.addresses.public_networks import PUBLIC_LISTS
from earmark.demo import write_demo_data
from earmark.ingestion.datasets import DATASETS
from earmark.ingestion.landing import load_landing
from earmark.ingestion.summary import LoadSummary
from earmark.journeys.fit import FitSummary
from earmark.warehouse import changes, dbt
from earmark.warehouse.database import Database
from earmark.warehouse.refresh import Refresh, make_plan
from orchestration.definitions import build_definitions, definitions
from orchestration.defs import sensors
from orchestration.defs.assets import public_networks
from orchestration.defs.fit import markdown_table
from orchestration.defs.report import Report
from orchestration.defs.resources import Landing, Warehouse
from orchestration.defs.sensors import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Asked,
    freshness_sensor,
    landing_sensor,
    next_request,
)

LOG = (
    '{ip} - - [{time:%d/%b/%Y:%H:%M:%S} +0000] "GET /{path} HTTP/1.1" 200 5000000 "-" '
    '"AntennaPod/3.4.0 (Linux; Android 14)"\n'
)
FEED = """<?xml version="1.0"?><rss version="2.0"><channel><title>Test Show</title>
<item><title>One</title><guid>one</guid><pubDate>Mon, 05 Jan 2026 06:00:00 GMT</pubDate>
<enclosure url="https://cdn.example.com/one.mp3" length="5000000" type="audio/mpeg"/></item>
</channel></rss>"""


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    root = tmp_path / "landing"
    (root / "acme" / "nginx").mkdir(parents=True)
    (root / "acme" / "rss").mkdir(parents=True)
    (root / "tenants.csv").write_text("tenant_id,name\nacme,Acme\n")
    (root / "acme" / "rss" / "show.xml").write_text(FEED)
    _drop(root, "a.log", datetime(2026, 1, 6, 8, tzinfo=UTC), listeners=3)
    return root


@pytest.fixture
def location(database: str, landing: Path) -> dg.Definitions:
    return build_definitions(Warehouse(url=database), Landing(root=str(landing)))


@pytest.fixture(autouse=True)
def _one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the landing sensor look once, not for a round of Dagster's."""
    monkeypatch.setattr(sensors, "_LOOKS_FOR", timedelta(0))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def _drop(root: Path, name: str, at: datetime, listeners: int) -> None:
    lines = [
        LOG.format(ip=f"198.18.0.{n}", time=at + timedelta(minutes=n), path="one.mp3") for n in range(listeners)
    ]
    (root / "acme" / "nginx" / name).write_text("".join(lines))


def _tick(
    sensor: dg.SensorDefinition, location: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    resources = {name: location.resources[name] for name in sensor.required_resource_keys}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
    return sensor(context)


def _run(
    location: dg.Definitions, instance: dg.DagsterInstance, name: str, request: dg.RunRequest
) -> dg.ExecuteInProcessResult:
    job = location.resolve_job_def(name)
    if request.asset_selection is not None:  # as a sensor asks; by hand it is all of it
        job = job.get_subset(
            asset_selection=frozenset(request.asset_selection),
            asset_check_selection=frozenset(request.asset_check_keys or ()),
        )
    return job.execute_in_process(run_config=request.run_config, instance=instance, tags=request.tags)


def _downloads(database: str) -> list[tuple[str, int]]:
    with psycopg.connect(database) as connection:
        return connection.execute("select day::text, downloads from marts.rpt_episode_daily order by 1").fetchall()


def test_a_dropped_file_reaches_the_marts(
    location: dg.Definitions, instance: dg.DagsterInstance, database: str, landing: Path
) -> None:
    asked = _tick(landing_sensor, location, instance)
    assert isinstance(asked, dg.SensorResult)
    result = _run(location, instance, "load_and_refresh", asked.run_requests[0])
    assert result.success
    materialized = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert {key.removeprefix("raw/") for key in materialized if key.startswith("raw/")} == set(DATASETS)
    assert "marts/rpt_episode_daily" in materialized
    assert _downloads(database) == [("2026-01-06", 3)]
    checks = result.get_asset_check_evaluations()
    assert len(checks) > 20
    assert all(check.passed for check in checks)
    assert isinstance(_tick(landing_sensor, location, instance), dg.SkipReason)
    assert isinstance(_tick(freshness_sensor, location, instance), dg.SkipReason)

    # A file for another day refreshes that day and leaves what is not cut by time alone.
    _drop(landing, "b.log", datetime(2026, 1, 9, 8, tzinfo=UTC), listeners=2)
    asked = _tick(landing_sensor, location, instance)
    assert isinstance(asked, dg.SensorResult)
    result = _run(location, instance, "load_and_refresh", asked.run_requests[0])
    built = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}
    assert "marts/fct_downloads" in built
    told = result.asset_materializations_for_node("dbt_models")
    metadata = {item.asset_key.path[-1]: item.metadata for item in told}["fct_downloads"]
    assert metadata["slices"].value == metadata["slices_changed"].value == "acme: 2026-01-09"
    assert metadata["rows_written"].value == 2
    assert not any(key.startswith("staging/") for key in built)
    assert _downloads(database) == [("2026-01-06", 3), ("2026-01-09", 2)]


def test_what_was_done_without_dagster_is_told_and_a_click_refreshes_what_is_news(
    location: dg.Definitions, instance: dg.DagsterInstance, database: str, landing: Path
) -> None:
    report, key = Report(instance), HashKey("k1", b"0123456789abcdef")
    refresh = Refresh(Database.from_url(database))
    with psycopg.connect(database) as connection:
        report.loads(LoadSummary.of(load_landing(connection, str(landing), key=key)))
    report.models(refresh, [event for event in refresh.run() if dbt.is_result(event)])

    def told(*path: str) -> dict[str, object]:
        event = instance.get_latest_materialization_event(dg.AssetKey(path))
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    assert told("raw", "listener_events")["rows_loaded"] == 3
    assert told("marts", "fct_downloads")["slices"] == refresh.builds["fct_downloads"].slices
    checks = [
        check for check in location.resolve_asset_graph().asset_check_keys if check.asset_key.path[0] == "marts"
    ]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    assert {record.status.value for record in found.values()} == {"SUCCEEDED"}

    _drop(landing, "b.log", datetime(2026, 1, 7, 8, tzinfo=UTC), listeners=2)
    outcomes = dg.AssetKey(["intermediate", "int_requests__outcomes"])
    query = """
        select 'intermediate.int_requests__outcomes'::regclass::oid, count(*)
        from intermediate.int_requests__outcomes
    """
    with psycopg.connect(database, autocommit=True) as connection:
        load_landing(connection, str(landing), key=key)
        before = connection.execute(query).fetchone()
        click = dg.RunRequest(asset_selection=[outcomes])
        assert _run(location, instance, "refresh", click).success
        after = connection.execute(query).fetchone()
        again = make_plan(connection, refresh.manifest, models=["int_requests__outcomes"])
    assert again.is_empty
    assert "fct_downloads" in again.waiting
    assert (
        again.summary() == f"nothing is news to the chosen models; {len(again.waiting)} others wait: earmark build"
    )
    assert before is not None
    assert after == (before[0], 5)  # the table is the same one, with what was news
    assert told(*outcomes.path)["slices"] == "acme: 2026-01-07"
    later = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    assert {key: record.event.timestamp for key, record in later.items()} == {
        key: record.event.timestamp for key, record in found.items()
    }  # a check that there was no need to make keeps its last result


def test_a_click_on_a_model_that_is_older_than_its_sql_builds_it_whole_and_only_it_is_noted(
    location: dg.Definitions, instance: dg.DagsterInstance, database: str, landing: Path
) -> None:
    refresh = Refresh(Database.from_url(database))
    with psycopg.connect(database, autocommit=True) as connection:
        load_landing(connection, str(landing), key=HashKey("k1", b"0123456789abcdef"))
        for _ in refresh.run():
            pass
        connection.execute(
            "update ingest.model_builds set version = 'older' where model in ('fct_downloads', 'dim_sponsors',"
            " 'int_requests__outcomes')"
        )
        # It stands on another that is older too: it is built, and stays older than its SQL.
        click = dg.RunRequest(asset_selection=[dg.AssetKey(["marts", "fct_downloads"])])
        assert _run(location, instance, "refresh", click).success
        # It stands on none.
        click = dg.RunRequest(asset_selection=[dg.AssetKey(["marts", "dim_sponsors"])])
        assert _run(location, instance, "refresh", click).success
        assert set(make_plan(connection, refresh.manifest).stale) == {"fct_downloads", "int_requests__outcomes"}


def test_checks_alone_are_made_over_all_that_the_models_hold_and_refresh_nothing(
    location: dg.Definitions, instance: dg.DagsterInstance, database: str, landing: Path
) -> None:
    key = HashKey("k1", b"0123456789abcdef")
    with psycopg.connect(database, autocommit=True) as connection:
        load_landing(connection, str(landing), key=key)
        for _ in Refresh(Database.from_url(database)).run():
            pass
        job = location.resolve_job_def("test")
        made = job.execute_in_process(instance=instance).get_asset_check_evaluations()
        assert len(made) > 100
        assert all(check.passed for check in made)
        # A row that no refresh has looked at since, in a day that is not news.
        connection.execute("update marts.fct_downloads set agent_category = 'none such'")
        _drop(landing, "b.log", datetime(2026, 1, 9, 8, tzinfo=UTC), listeners=2)
        load_landing(connection, str(landing), key=key)
        builds = connection.execute("select count(*) from ingest.builds").fetchone()
        wrong = [
            check
            for check in made
            if "agent_category" in check.check_name and check.asset_key.path[-1] == "fct_downloads"
        ]
        subset = job.get_subset(
            asset_selection=frozenset(), asset_check_selection=frozenset({wrong[0].asset_check_key})
        )
        result = subset.execute_in_process(instance=instance, raise_on_error=False)
        assert [check.passed for check in result.get_asset_check_evaluations()] == [False]
        assert connection.execute("select count(*) from ingest.builds").fetchone() == builds


def test_rows_loaded_by_hand_are_refreshed_for_exactly_their_days(
    location: dg.Definitions, instance: dg.DagsterInstance, database: str, landing: Path
) -> None:
    for name, day in (("a.log", 6), ("c.log", 20)):
        _drop(landing, name, datetime(2026, 1, day, 8, tzinfo=UTC), listeners=day)
    with psycopg.connect(database) as connection:
        load_landing(connection, str(landing), key=HashKey("k1", b"0123456789abcdef"))

    asked = _tick(freshness_sensor, location, instance)
    assert isinstance(asked, dg.SensorResult)
    request = asked.run_requests[0]
    assert request.tags["earmark/slices"] == "2026-01-06, 2026-01-20, any day of acme"
    assert _run(location, instance, "refresh", request).success
    assert _downloads(database) == [("2026-01-06", 6), ("2026-01-20", 20)]
    assert isinstance(_tick(freshness_sensor, location, instance), dg.SkipReason)

    # A first build that is cut off leaves no day that would wait: what was built has seen them all.
    which = "select 'marts.fct_downloads'::regclass::oid"
    with psycopg.connect(database, autocommit=True) as connection:
        before = connection.execute(which).fetchone()
        changes.begin_whole(connection, ["fct_downloads"])
        asked = _tick(freshness_sensor, location, instance)
        assert isinstance(asked, dg.SensorResult)
        assert asked.run_requests[0].tags["earmark/slices"] == "what was cut off"
        assert _run(location, instance, "refresh", asked.run_requests[0]).success
        assert connection.execute(which).fetchone() != before
    assert isinstance(_tick(freshness_sensor, location, instance), dg.SkipReason)


def test_a_refused_file_stops_no_other_and_is_not_asked_for_again(
    location: dg.Definitions, instance: dg.DagsterInstance, database: str, landing: Path
) -> None:
    (landing / "acme" / "nginx" / "broken.log.gz").write_bytes(b"\x1f\x8b broken")
    asked = _tick(landing_sensor, location, instance)
    assert isinstance(asked, dg.SensorResult)
    result = _run(location, instance, "load_and_refresh", asked.run_requests[0])
    assert result.success
    told = {item.asset_key.path[-1]: item for item in result.get_asset_materialization_events() if item.asset_key}
    metadata = told["listener_events"].materialization.metadata
    assert metadata["files_refused"].value == 1
    assert "broken.log.gz: is damaged" in str(metadata["refused"].value)
    assert isinstance(_tick(landing_sensor, location, instance), dg.SkipReason)
    with psycopg.connect(database) as connection:
        refused = connection.execute("select uri from ingest.files where status = 'refused'").fetchall()
        loaded = connection.execute("select count(*) from raw.listener_events").fetchone()
    assert [uri.endswith("broken.log.gz") for (uri,) in refused] == [True]
    assert loaded == (3,)


def test_while_a_load_waits_in_the_queue_no_other_is_asked_for(
    location: dg.Definitions, instance: dg.DagsterInstance, landing: Path
) -> None:
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("earmark"), "__repository__")
    queued = create_run_for_test(
        instance,
        "load_and_refresh",
        status=dg.DagsterRunStatus.QUEUED,
        remote_job_origin=origin.get_job_origin("load_and_refresh"),
    )
    for number in range(3):
        _drop(landing, f"more{number}.log", datetime(2026, 1, 7 + number, 8, tzinfo=UTC), listeners=1)
        skipped = _tick(landing_sensor, location, instance)
        assert isinstance(skipped, dg.SkipReason)
        assert skipped.skip_message == f"run {queued.run_id} will load them"


def test_a_file_that_lands_while_the_sensor_looks_is_asked_for_in_this_round(
    location: dg.Definitions, instance: dg.DagsterInstance, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (landing / "acme" / "nginx" / "a.log").rename(landing / "a.part")
    (landing / "acme" / "rss" / "show.xml").unlink()
    assert isinstance(_tick(landing_sensor, location, instance), dg.SkipReason)
    monkeypatch.setattr(sensors, "_LOOKS_FOR", timedelta(minutes=1))
    rests = []

    def rest(seconds: float) -> None:
        rests.append(seconds)
        (landing / "a.part").rename(landing / "acme" / "nginx" / "a.log")

    monkeypatch.setattr(sensors.time, "sleep", rest)
    assert isinstance(_tick(landing_sensor, location, instance), dg.SensorResult)
    assert len(rests) == 1


@pytest.mark.parametrize(
    ("reason", "died"),
    [
        (None, True),  # its process was killed
        (RunFailureReason.START_TIMEOUT, True),  # it never had one
        (RunFailureReason.STEP_FAILURE, False),
    ],
)
def test_work_of_a_run_that_died_waits_no_longer_than_the_first_pause(
    location: dg.Definitions, instance: dg.DagsterInstance, reason: RunFailureReason | None, died: bool
) -> None:
    asked = _tick(landing_sensor, location, instance)
    assert isinstance(asked, dg.SensorResult)
    last = Asked.read(asked.cursor)
    assert last is not None
    # Asked for a minute ago, and five times before.
    last = Asked(last.state, 6, (datetime.now(UTC) - FIRST_PAUSE).isoformat())
    run = create_run_for_test(
        instance, "load_and_refresh", tags={"dagster/run_key": f"load_and_refresh-{last.state}-{last.at}"}
    )
    instance.report_run_failed(run, job_failure_data=JobFailureData(None, failure_reason=reason))
    again = _tick(landing_sensor, location, instance, last.written())
    if died:
        assert isinstance(again, dg.SensorResult)
        assert Asked.read(again.cursor).attempts == 6
    else:
        assert isinstance(again, dg.SkipReason)
        assert again.skip_message.startswith("asked before; if that comes to nothing, again in 18")  # 31 minutes


def test_the_fit_runs_after_the_models(instance: dg.DagsterInstance, database: str, tmp_path: Path) -> None:
    landing = tmp_path / "demo"
    write_demo_data(landing, days=10, events=2000, tenants=1, seed=7)
    location = build_definitions(Warehouse(url=database), Landing(root=str(landing)))
    assert _run(location, instance, "load_and_refresh", dg.RunRequest()).success
    result = _run(location, instance, "fit", dg.RunRequest())
    assert result.success
    materialized = [event.asset_key.to_user_string() for event in result.get_asset_materialization_events()]
    assert materialized[:2] == ["attribution/channel_credits", "attribution/fits"]
    assert "marts/rpt_model_comparison" in materialized[2:]
    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert {check.check_name for check in result.get_asset_check_evaluations()} >= {
        "model_comparison_conserves_conversions",
        "shapley_by_path_is_shapley_by_definition",
    }
    told, _ = result.asset_materializations_for_node("attribution_fit")
    assert told.metadata["fitted"].value > 0
    assert told.metadata["skipped"].value == 0
    assert str(told.metadata["credit"].value).startswith("| tenant | model | channel | conversions |")
    with psycopg.connect(database) as connection:
        conversions = connection.execute("select sum(conversions) from attribution.fits where model = 'shapley'")
        assert conversions.fetchone() == (told.metadata["conversions"].value,)
    again, _ = _run(location, instance, "fit", dg.RunRequest()).asset_materializations_for_node("attribution_fit")
    assert (again.metadata["fitted"].value, again.metadata["skipped"].value) == (0, told.metadata["fitted"].value)


def test_the_table_of_credit_is_short_and_safe() -> None:
    rows = tuple(("acme", "markov", f"a|b{number}", 1234.56) for number in range(3))
    lines = markdown_table(FitSummary(latest=rows), most=2).splitlines()
    assert lines[2] == "| acme | markov | a\\|b0 | 1,234.6 |"
    assert lines[-1] == "1 more rows: attribution.channel_credits"


def test_public_networks_are_fetched_and_what_fails_is_told(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ranges.txt").write_text("5.8.16.0/24\n5.8.18.0/24\n")
    served = dict.fromkeys(("x4bnet_datacenter", "x4bnet_vpn"), f"file://{tmp_path}/ranges.txt")
    mirrors = dict.fromkeys(PUBLIC_LISTS, f"file://{tmp_path}/none") | served
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EARMARK_NETWORK_URLS", ",".join(f"{name}={url}" for name, url in mirrors.items()))
    result = dg.materialize([public_networks], instance=instance)
    (told,) = result.asset_materializations_for_node("landing__public_networks")
    assert (told.metadata["ranges"].value, told.metadata["ranges/x4bnet_datacenter"].value) == (2, 2)
    assert str(told.metadata["version"].value).startswith("x4bnet_datacenter@")
    assert "oracle: file://" in str(told.metadata["not_fetched"].value)
    assert [path.name for path in (tmp_path / "home" / "networks").iterdir()] == ["x4bnet_datacenter.csv"]


def test_the_graph_goes_from_files_to_marts() -> None:
    graph = definitions.get_repository_def().asset_graph
    marts = {key for key in graph.get_all_asset_keys() if key.path[0] == "marts"}
    assert dg.AssetKey(["marts", "rpt_campaign_daily"]) in marts
    upstream = graph.get_ancestor_asset_keys(dg.AssetKey(["marts", "rpt_campaign_daily"]))
    assert dg.AssetKey(["landing", "files"]) in upstream
    assert dg.AssetKey(["raw", "listener_events"]) in upstream
    assert dg.AssetKey(["landing", "public_networks"]) in upstream
    assert dg.AssetKey(["attribution", "channel_credits"]) not in upstream
    fitted = graph.get_ancestor_asset_keys(dg.AssetKey(["marts", "rpt_model_comparison"]))
    assert dg.AssetKey(["attribution", "channel_credits"]) in fitted
    assert dg.AssetKey(["intermediate", "int_attribution_journeys"]) in graph.get_ancestor_asset_keys(
        dg.AssetKey(["attribution", "channel_credits"])
    )
    (schedule,) = [item for item in definitions.schedules or () if item.name == "nightly_fit"]
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        if key.path[0] in {"seeds", "tenancy", "ingest"}:
            continue
        assert node.owners, key
        assert node.kinds, key
        assert node.description, key


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_new_state_is_asked_for_at_once() -> None:
    last = Asked("old", 7, NOW.isoformat())
    assert next_request("new", None, NOW) == Asked("new", 1, NOW.isoformat())
    assert next_request("new", last, NOW) == Asked("new", 1, NOW.isoformat())


def test_the_same_state_is_asked_for_again_ever_later() -> None:
    asked = Asked("same", 1, NOW.isoformat())
    assert next_request("same", asked, NOW) == FIRST_PAUSE
    again = next_request("same", asked, NOW + FIRST_PAUSE)
    assert again == Asked("same", 2, (NOW + FIRST_PAUSE).isoformat())
    assert next_request("same", again, NOW + 2 * FIRST_PAUSE) == FIRST_PAUSE
    assert next_request("same", Asked("same", 50, NOW.isoformat()), NOW) == LONGEST_PAUSE


def test_a_cursor_survives_its_text() -> None:
    asked = Asked("state", 3, NOW.isoformat())
    assert Asked.read(asked.written()) == asked
    assert Asked.read(None) is None
    assert json.loads(asked.written())["attempts"] == 3
