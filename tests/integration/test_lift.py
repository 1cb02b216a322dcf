"""Lift: rows through the models to the figures, late rows, holdouts and their mistakes, and a planted truth."""

import math
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from earmark.addresses.privacy import HashKey
from earmark.demo import write_demo_data
from earmark.ingestion.landing import load_landing
from earmark.warehouse.database import Database

pytestmark = pytest.mark.built
Dbt = Any  # the class of conftest.py, which tests cannot import

APP = "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)"
SHOWS = {"ours": "p1", "bare": "p1", "other": "p2"}
Z = 1.959963984540054


def at(day: float) -> datetime:
    """Return a time of January, the first day being 1."""
    return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day - 1)


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    """Return a connection to a database with a campaign, baked into one of two episodes of show p1."""
    with any_engine.connect(autocommit=True) as opened:
        opened.execute("insert into tenancy.tenants values ('acme', 'Acme')")
        for episode, podcast in SHOWS.items():
            opened.execute(
                "insert into raw.podcasts (tenant_id, podcast_id, title, load_id) values ('acme', %s, %s, 0)"
                " on conflict do nothing",
                (podcast, podcast),
            )
            opened.execute(
                "insert into raw.episodes (tenant_id, episode_id, podcast_id, enclosure_key, load_id)"
                " values ('acme', %s, %s, %s, 0)",
                (episode, podcast, f"cdn.example.com/{episode}.mp3"),
            )
        for campaign, sponsor in (("c", "s"), ("house", "own")):
            opened.execute(
                "insert into raw.campaigns (tenant_id, campaign_id, sponsor_id, name, starts_at, ends_at,"
                " lookback_days, load_id) values ('acme', %s, %s, 'C', '2026-01-01Z', '2026-01-21Z', 5, 0)",
                (campaign, sponsor),
            )
        for unit, campaign, episode in (("ad", "c", "ours"), ("placebo", "house", "other")):
            opened.execute(
                "insert into raw.ad_units (tenant_id, ad_unit_id, campaign_id, episode_id, position, delivery,"
                " load_id) values ('acme', %s, %s, %s, 'pre', 'baked_in', 0)",
                (unit, campaign, episode),
            )
        yield opened


@pytest.fixture
def dbt(warehouse: psycopg.Connection, dbt_on_any_engine: Dbt) -> Dbt:
    """Everything here holds on each engine."""
    return dbt_on_any_engine


def key(household: int) -> bytes:
    return household.to_bytes(4, "big")


def listen(warehouse: psycopg.Connection, household: int, day: float, episode: str) -> None:
    warehouse.execute("select timeseries.ensure_chunks('raw.listener_events', %s, %s)", (at(day), at(day + 0.01)))
    warehouse.execute(
        "insert into raw.listener_events (tenant_id, event_id, occurred_at, event_type, source, enclosure_key,"
        " method, status, household_key, listener_key, user_agent, load_id)"
        " values ('acme', %s, %s, 'request', 'test', %s, 'GET', 200, %s, %s, %s, 0)",
        (uuid.uuid4(), at(day), f"cdn.example.com/{episode}.mp3", key(household), key(household), APP),
    )


def buy(warehouse: psycopg.Connection, household: int | None, day: float, action: str = "purchase") -> None:
    warehouse.execute(
        "select timeseries.ensure_chunks('raw.attribution_events', %s, %s)", (at(day), at(day + 0.01))
    )
    warehouse.execute(
        "insert into raw.attribution_events (tenant_id, event_id, occurred_at, action, type, source, sponsor_id,"
        " household_key, load_id) values ('acme', %s, %s, %s, 'pixel', 'test', 's', %s, 0)",
        (uuid.uuid4(), at(day), action, None if household is None else key(household)),
    )


def add_history(warehouse: psycopg.Connection) -> None:
    """Write 20 households that are reached on day 11, 10 that never are, 30 that hear the placebo alone."""
    listen(warehouse, 999, 1, "other")  # both kinds of data begin with the flight and go on after it
    listen(warehouse, 999, 40, "other")
    buy(warehouse, 999, 1, "view")
    buy(warehouse, 999, 40, "view")
    for household in range(20):
        listen(warehouse, household, 5, "bare")
        listen(warehouse, household, 11, "ours")
    for household in range(20, 30):
        listen(warehouse, household, 5, "bare")
    for household in range(30, 60):
        listen(warehouse, household, 8, "other")
    for household in range(8):
        buy(warehouse, household, 12)  # exposed
    for household in range(3):
        buy(warehouse, household, 7)  # not yet exposed
        buy(warehouse, 20 + household, 15)  # never exposed
        buy(warehouse, household, 17)  # after the lookback
    for household in range(6):
        buy(warehouse, 30 + household, 9)  # after the placebo
    buy(warehouse, None, 12)
    buy(warehouse, 5000, 12)


def lift(warehouse: psycopg.Connection, control: str = "unexposed", campaign: str = "c") -> dict[str, Any] | None:
    with warehouse.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(
            "select * from marts.rpt_campaign_lift where campaign_id = %s and control = %s", (campaign, control)
        ).fetchone()


def expected(x_e: int, n_e: float, x_c: int, n_c: float) -> dict[str, float]:
    """Return the figures of two groups with enough conversions, by the formulas of docs/lift.md."""
    p_e, p_c = x_e / n_e, x_c / n_c
    half = Z * math.sqrt(p_e * (1 - p_e) / n_e + p_c * (1 - p_c) / n_c)
    ratio = math.exp(Z * math.sqrt((1 - p_e) / x_e + (1 - p_c) / x_c))
    return {
        "exposed_rate": p_e,
        "control_rate": p_c,
        "rate_difference": p_e - p_c,
        "difference_low": p_e - p_c - half,
        "difference_high": p_e - p_c + half,
        "lift": (p_e - p_c) / p_c,
        "lift_low": p_e / p_c / ratio - 1,
        "lift_high": p_e / p_c * ratio - 1,
        "incremental_conversions": n_e * (p_e - p_c),
        "incremental_low": n_e * (p_e - p_c - half),
        "incremental_high": n_e * (p_e - p_c + half),
    }


def test_rows_become_lift_and_late_ones_change_it(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_history(warehouse)
    dbt.build("--select", "+rpt_campaign_lift")
    assert dbt("test", "--select", "rpt_campaign_lift,test_type:generic").success
    found = lift(warehouse)
    assert found is not None
    # 20 households for 5 days after their exposure; before it 20 for 10 days, and 10 for the flight and 5 days.
    n_e, n_c = 20 * 5, 20 * 10 + 10 * 25
    assert (found["exposed_days"], found["control_days"]) == (n_e, n_c)
    assert (found["exposed_households"], found["control_households"]) == (20, 30)
    assert (found["exposed_conversions"], found["exposed_converters"]) == (8, 8)
    assert (found["control_conversions"], found["control_converters"]) == (6, 6)
    assert found["interval_method"] == "normal"
    figures = expected(8, n_e, 6, n_c)
    assert {name: found[name] for name in figures} == pytest.approx(figures, rel=1e-9)
    # 25 conversions, of which one has no household and one that of nobody who listens.
    conversions = 8 + 3 * 3 + 6 + 2
    assert found["sponsor_conversions"] == conversions
    assert found["identified_share"] == pytest.approx((conversions - 1) / conversions)
    assert found["matched_share"] == pytest.approx((conversions - 2) / conversions)
    assert found["modelled_incremental_conversions"] == pytest.approx(
        figures["incremental_conversions"] * conversions / (conversions - 1)
    )
    assert found["modelled_low"] == pytest.approx(figures["incremental_low"] * conversions / (conversions - 1))
    assert found["modelled_high"] == pytest.approx(figures["incremental_high"] * conversions / (conversions - 2))
    assert lift(warehouse, "holdout") is None

    listen(warehouse, 20, 13, "ours")  # late: one of the control was exposed when it bought on day 15
    dbt.build("--select", "+rpt_campaign_lift")
    found = lift(warehouse)
    assert found is not None
    assert (found["exposed_days"], found["control_days"]) == (n_e + 5, n_c - 13)
    assert (found["exposed_conversions"], found["control_conversions"]) == (9, 5)


def test_a_declared_holdout_is_another_control(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_history(warehouse)
    dbt.build("--select", "+rpt_campaign_lift")
    declare = "insert into seeds.attribution_holdouts values ('acme', %s, %s, %s, null)"
    warehouse.execute(declare, ("c", "ad_unit", "placebo"))
    dbt.build("--select", "rpt_campaign_lift")
    found = lift(warehouse, "holdout")
    assert found is not None
    # Household 999 heard it on day 1, the others on day 8.
    assert (found["control_households"], found["control_days"]) == (31, 31 * 5)
    figures = expected(8, 100, 6, 31 * 5)
    assert {name: found[name] for name in figures} == pytest.approx(figures, rel=1e-9)
    assert lift(warehouse, "unexposed") is not None

    warehouse.execute("delete from seeds.attribution_holdouts")
    warehouse.execute(declare, ("c", "podcast", "p2"))
    dbt.build("--select", "rpt_campaign_lift")
    by_podcast = lift(warehouse, "holdout")
    assert by_podcast is not None
    assert {name: by_podcast[name] for name in figures} == pytest.approx(figures, rel=1e-9)
    dbt.build("--select", "stg_raw__podcasts")
    assert dbt("test", "--select", "holdouts_are_declared_rightly").success


def test_wrong_holdouts_are_found_and_the_remedy_said(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    warehouse.execute(
        "insert into raw.campaigns (tenant_id, campaign_id, sponsor_id, name, starts_at, ends_at, load_id)"
        " values ('acme', 'house2', 'own', 'C', '2026-01-01Z', '2026-01-21Z', 0)"
    )
    wrong = {
        ("nowhere", "ad_unit", "placebo"): "the tenant has no such campaign: ",
        ("c", "episode", "other"): "no such kind: write ad_unit or podcast",
        ("c", "ad_unit", "p2"): "the tenant has no such ad unit: ",
        ("c", "ad_unit", "ad"): "the ad unit is one of the campaign itself: ",
        ("house2", "ad_unit", "placebo"): "the ad unit advertises the same sponsor",
        ("c", "podcast", "placebo"): "the tenant has no such podcast: ",
    }
    dbt.build("--select", "attribution_holdouts", "stg_raw__campaigns", "stg_raw__ad_units", "stg_raw__podcasts")
    declare = "insert into seeds.attribution_holdouts values ('acme', %s, %s, %s, null)"
    for right in (("c", "ad_unit", "placebo"), ("house", "podcast", "p1")):
        warehouse.execute(declare, right)
    assert dbt("test", "--select", "holdouts_are_declared_rightly").success
    for row in wrong:
        warehouse.execute(declare, row)
    warehouse.execute(declare, ("house", "podcast", "p1"))
    result = dbt("test", "--select", "holdouts_are_declared_rightly")
    assert not result.success
    found = warehouse.execute(result.result.results[-1].node.compiled_code).fetchall()
    problems = {row[1:4]: row[4] for row in found}
    wrong[("house", "podcast", "p1")] = "the row stands there twice: take one out"
    assert problems.keys() == wrong.keys()
    assert [row for row, problem in wrong.items() if not problems[row].startswith(problem)] == []


def test_the_planted_truth_of_the_demo_data_is_found(dbt: Dbt, any_engine: Database, tmp_path: Path) -> None:
    root = tmp_path / "landing"
    truth = write_demo_data(root, events=120_000, tenants=1)
    with any_engine.connect() as connection:
        load_landing(connection, str(root), key=HashKey("k1", b"0123456789abcdef0123456789abcdef"))
        connection.commit()
    dbt.build("--select", "+rpt_campaign_lift")
    with any_engine.connect(autocommit=True) as connection:
        assert len(truth.campaigns) == 5
        modelled = 0.0
        for campaign in truth.campaigns:
            found = lift(connection, campaign=campaign.campaign_id)
            assert found is not None
            assert found["modelled_low"] <= campaign.incremental_conversions <= found["modelled_high"], found
            assert (found["incremental_low"] > 0) == (campaign.lift_per_exposure > 0), found
            if campaign.incremental_conversions:
                modelled += found["modelled_incremental_conversions"]
    # One campaign's figure is uncertain by a third; all together they are near, a little low (docs/lift.md).
    planted = sum(campaign.incremental_conversions for campaign in truth.campaigns)
    assert 0.65 < modelled / planted < 1.15
