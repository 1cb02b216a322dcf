"""The stage ``fit``: journeys from paths and touches, their fit, the mart on top of it, on both engines."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from dbt.cli.main import dbtRunnerResult

from earmark.journeys import fit as fitting
from earmark.journeys.fit import fit
from earmark.warehouse.database import Database

Dbt = Any  # the class of conftest.py, which tests cannot import

# What the stage reads, in the shape of the models that make it.
TABLES = """
    create schema intermediate;
    create schema marts;
    create schema seeds;
    create schema staging;
    create table seeds.attribution_models (
        model text collate "C", method text, first_weight numeric, middle_weight numeric, last_weight numeric,
        half_life_days double precision, chain_order integer, with_nulls boolean
    );
    create table seeds.attribution_channels (
        tenant_id text collate "C", dimension text, value text collate "C", treat_as text, reason text
    );
    create table staging.stg_raw__campaigns (
        tenant_id text collate "C", campaign_id text collate "C", sponsor_id text collate "C"
    );
    create table marts.fct_conversions (
        tenant_id text collate "C", conversion_id uuid, occurred_at timestamptz, sponsor_id text collate "C",
        value numeric, currency text
    );
    create table marts.fct_attribution_paths (
        tenant_id text collate "C", conversion_id uuid, occurred_at timestamptz, touch_id uuid, position integer,
        left_out_as text, channel text collate "C"
    );
    create table marts.fct_attribution_credits (
        tenant_id text collate "C", conversion_id uuid, occurred_at timestamptz, model text collate "C",
        channel text collate "C", sponsor_id text collate "C", credit numeric, revenue numeric, currency text
    );
    create table intermediate.int_touchpoints (
        tenant_id text collate "C", touch_id uuid, occurred_at timestamptz, touch_type text, signal text,
        evidence text, campaign_id text collate "C", insertion_order_id text, ad_unit_id text, podcast_id text,
        episode_key text, household_key bytea, listener_key bytea, cookie_id text, hashed_email bytea
    );
    insert into staging.stg_raw__campaigns
    values ('t', 'G', 's'), ('t', 'M', 's'), ('t', 'X', 's'), ('t', 'O', 'other'), ('u', 'G', 's');
    insert into seeds.attribution_models (model, method, chain_order, with_nulls)
    values
    ('last_touch', 'last_touch', null, null), ('shapley', 'shapley', null, null), ('markov', 'markov', 1, true),
    ('converting', 'markov', 1, false);
"""
JANUARY = date(2026, 1, 1)


@pytest.fixture
def dbt(dbt_on_any_engine: Dbt) -> Dbt:
    return dbt_on_any_engine


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    with any_engine.connect(autocommit=True) as connection:
        connection.execute(TABLES)
        yield connection


def at(day: int, hour: int = 12, month: int = 1) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def add_touch(
    warehouse: psycopg.Connection,
    number: int,
    campaign: str,
    when: datetime,
    household: str | None,
    touch_type: str = "dai",
    **more: Any,
) -> UUID:
    values = {
        "tenant_id": "t", "touch_id": UUID(int=number), "occurred_at": when, "touch_type": touch_type,
        "signal": "pixel" if touch_type in ("dai", "baked_in", "play") else touch_type, "campaign_id": campaign,
        "household_key": household and household.encode(), **more,
    }  # fmt: skip
    add(warehouse, "intermediate.int_touchpoints", values)
    return values["touch_id"]


def add_conversion(
    warehouse: psycopg.Connection,
    number: int,
    when: datetime,
    path: list[str],
    *,
    value: float = 10,
    currency: str | None = "EUR",
    sponsor: str | None = "s",
    tenant: str = "t",
) -> UUID:
    """Add a conversion with its path, and its credit by the models in SQL."""
    conversion = UUID(int=1_000_000 + number)
    base = {"tenant_id": tenant, "conversion_id": conversion, "occurred_at": when}
    about = {"sponsor_id": sponsor, "currency": currency}
    add(warehouse, "marts.fct_conversions", {**base, **about, "value": value})
    for position, channel in enumerate(path, start=1):
        touch = {"touch_id": UUID(int=number * 100 + position), "position": position, "channel": channel}
        add(warehouse, "marts.fct_attribution_paths", {**base, **touch})
    channels = sorted(set(path))
    for model, credited in {"last_touch": path[-1:], "shapley": channels}.items():
        for channel in credited or [None]:
            part = {"model": model, "channel": channel, "credit": 1 / len(credited or [None])}
            revenue = value / len(credited or [None])
            add(warehouse, "marts.fct_attribution_credits", {**base, **about, **part, "revenue": revenue})
    return conversion


def add(warehouse: psycopg.Connection, table: str, values: dict[str, Any]) -> None:
    marks = ", ".join(["%s"] * len(values))
    warehouse.execute(f"insert into {table} ({', '.join(values)}) values ({marks})", list(values.values()))


def add_check(warehouse: psycopg.Connection) -> None:
    """Add the small check of Markov: G twice, M, G > M converted, G did not."""
    for number, path in enumerate((["G"], ["G"], ["M"], ["G", "M"]), start=1):
        add_conversion(warehouse, number, at(number), path)
    add_touch(warehouse, 99, "G", at(9), "h9")


def build_views(dbt: Dbt, **variables: Any) -> None:
    views = ("int_conversions__by_month", "int_attribution_journeys")
    result = dbt("run", "--select", *views, **variables)
    assert result.success, dbt.messages(result)


def journeys(warehouse: psycopg.Connection, tenant: str = "t", sponsor: str = "s") -> dict[tuple[str, ...], Any]:
    rows = warehouse.execute(
        "select month, channels, conversions, revenue, nulls from intermediate.int_attribution_journeys"
        " where (tenant_id, sponsor_id) = (%s, %s)",
        (tenant, sponsor),
    ).fetchall()
    assert len({(row[0], *row[1]) for row in rows}) == len(rows)
    return {
        (*([f"{month:%m}"] if month != JANUARY else []), *channels): (conversions, float(revenue), nulls)
        for month, channels, conversions, revenue, nulls in rows
    }


def credit(warehouse: psycopg.Connection, model: str = "markov", column: str = "conversions") -> dict[str, float]:
    query = f"select channel, {column} from attribution.channel_credits where (model, tenant_id) = (%s, 't')"
    return dict(warehouse.execute(query, (model,)).fetchall())


def stored(warehouse: psycopg.Connection) -> list[str]:
    rows = warehouse.execute(
        "select to_jsonb(c) || to_jsonb(f) - 'fitted_at' from attribution.fits as f"
        " left join attribution.channel_credits as c using (tenant_id, month, sponsor_id, model)"
        " order by tenant_id, month, sponsor_id, model, channel"
    )
    return [json.dumps(row[0], sort_keys=True) for row in rows]


# --- Journeys ---------------------------------------------------------------------------------------------


def test_paths_of_conversions_and_of_households_that_did_not_convert(
    dbt: Dbt, warehouse: psycopg.Connection
) -> None:
    add_check(warehouse)
    add_conversion(warehouse, 5, at(31, 23), ["G"], value=7, currency="USD")
    add_conversion(warehouse, 6, at(1, 0, month=2), ["G"], value=3)
    add_conversion(warehouse, 7, at(5), [], value=50)  # unattributed: no path
    add_conversion(warehouse, 8, at(5), ["M"], sponsor=None)
    # By time, then channel; a month, a sponsor and a household each have a path of their own.
    for number, (campaign, when, household) in enumerate(
        (
            ("M", at(3), "h1"), ("G", at(3), "h1"), ("X", at(2), "h1"), ("O", at(4), "h1"), ("G", at(3), "h2"),
            ("M", at(1, 0, month=2), "h2"), ("G", at(3), None),
        ),
        start=9001,
    ):  # fmt: skip
        add_touch(warehouse, number, campaign, when, household)
    build_views(dbt)
    assert journeys(warehouse) == {
        ("G",): (3, 20, 2),
        ("M",): (1, 10, 0),
        ("G", "M"): (1, 10, 0),
        ("X", "G", "M"): (0, 0, 1),
        ("02", "G"): (1, 3, 0),
        ("02", "M"): (0, 0, 1),
    }
    assert journeys(warehouse, sponsor="other") == {("O",): (0, 0, 1)}
    assert journeys(warehouse, sponsor="") == {("M",): (1, 10, 0)}


def test_what_led_to_a_conversion_is_no_journey_that_came_to_nothing(
    dbt: Dbt, warehouse: psycopg.Connection
) -> None:
    conversion = add_conversion(warehouse, 1, at(9), ["G"])
    reasons = {
        "beyond_lookback": "B", "before_conversion": "C", "confirms_impression": "D", "outranked": "E",
        "collapsed": "F", "repeated": "H", "dropped": "I", "excluded": "J",
    }  # fmt: skip
    for number, (reason, campaign) in enumerate(reasons.items(), start=201):
        add(
            warehouse,
            "staging.stg_raw__campaigns",
            {"tenant_id": "t", "campaign_id": campaign, "sponsor_id": "s"},
        )
        touch = add_touch(warehouse, number, campaign, at(number - 200), "h1")
        add(
            warehouse,
            "marts.fct_attribution_paths",
            {
                "tenant_id": "t",
                "conversion_id": conversion,
                "occurred_at": at(9),
                "touch_id": touch,
                "left_out_as": reason,
                "channel": campaign,
            },
        )
    add_touch(warehouse, 101, "G", at(1), "h1")  # the step of the path itself: it has the id of the path's touch
    warehouse.execute(
        "insert into seeds.attribution_channels values"
        " ('t', 'campaign', 'J', 'excluded'), ('u', 'campaign', 'B', 'excluded'),"
        " (null, 'campaign', 'C', 'direct')"
    )
    build_views(dbt)
    assert journeys(warehouse) == {("G",): (1, 10, 0), ("B", "C"): (0, 0, 1)}


def test_paths_that_did_not_convert_are_made_by_the_same_rules(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    touches = (
        ("G", "dai", "u1"), ("G", "play", "u1"), ("M", "play", "u2"), ("G", "dai", "u1"), ("X", "survey", None),
    )  # fmt: skip
    for number, (campaign, touch_type, unit) in enumerate(touches, start=1):
        add_touch(warehouse, number, campaign, at(number), "h1", touch_type, ad_unit_id=unit)
    add_touch(warehouse, 50, "X", at(1), "h2", "survey")
    # A play that confirms an exposure is no touch; an answer is believed where there is no exposure.
    build_views(dbt)
    assert journeys(warehouse) == {("G", "M", "G"): (0, 0, 1), ("X",): (0, 0, 1)}
    build_views(dbt, attribution_path_transforms=["drop:M", "collapse"])
    assert journeys(warehouse) == {("G",): (0, 0, 1), ("X",): (0, 0, 1)}
    build_views(dbt, attribution_path_transforms=["distinct"], attribution_dimension="touch_type")
    assert journeys(warehouse) == {("dai", "play"): (0, 0, 1), ("survey",): (0, 0, 1)}
    warehouse.execute("insert into seeds.attribution_channels values (null, 'touch_type', 'play', 'excluded')")
    build_views(dbt)
    assert journeys(warehouse) == {("G", "G"): (0, 0, 1), ("X",): (0, 0, 1)}


# --- The fit ----------------------------------------------------------------------------------------------


def test_only_what_has_changed_is_fitted_anew(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_check(warehouse)
    add_conversion(warehouse, 5, at(1, month=2), ["G"])
    build_views(dbt)
    first = fit(warehouse, samples=20, seed=0)
    assert (first.fitted, first.unchanged, first.removed, first.groups, first.conversions) == (6, 0, 0, 2, 5)
    january = "month = date '2026-01-01' and "
    query = f"select channel, conversions from attribution.channel_credits where {january} model = %s"
    assert dict(warehouse.execute(query, ("markov",)).fetchall()) == pytest.approx({"G": 2.4, "M": 1.6})
    assert dict(warehouse.execute(query, ("shapley",)).fetchall()) == pytest.approx({"G": 2.5, "M": 1.5})
    counts = f"select paths, conversions, nulls, revenue from attribution.fits where {january} model = 'markov'"
    assert warehouse.execute(counts).fetchone() == (3, 4, 1, 40)
    before, times = stored(warehouse), "select model, month, fitted_at from attribution.fits order by 1, 2"
    fitted_at = warehouse.execute(times).fetchall()

    again = fit(warehouse, samples=20, seed=0)
    assert (again.fitted, again.unchanged) == (0, 6)
    assert (stored(warehouse), warehouse.execute(times).fetchall()) == (before, fitted_at)

    # A late journey of January: its month, and no other. Then another setting: all of it.
    add_touch(warehouse, 98, "M", at(9), "h8")
    late = fit(warehouse, samples=20, seed=0)
    assert (late.fitted, late.unchanged) == (3, 3)
    assert [row for row in warehouse.execute(times) if row[1] > JANUARY] == [
        row for row in fitted_at if row[1] > JANUARY
    ]
    assert fit(warehouse, samples=20, seed=1).fitted == 6
    warehouse.execute("update seeds.attribution_models set chain_order = 2 where model = 'markov'")
    assert fit(warehouse, samples=20, seed=1).fitted == 2

    # The same figures whatever came before: as if fitted from nothing.
    grown = stored(warehouse)
    warehouse.execute("truncate attribution.fits cascade")
    assert fit(warehouse, samples=20, seed=1).fitted == 6
    assert stored(warehouse) == grown


def test_what_has_no_journeys_or_model_any_more_goes(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_check(warehouse)
    add_conversion(warehouse, 5, at(1, month=2), ["G"])
    build_views(dbt)
    fit(warehouse, samples=0, seed=0)
    warehouse.execute("delete from marts.fct_attribution_paths where occurred_at >= '2026-02-01'")
    warehouse.execute("delete from seeds.attribution_models where model = 'converting'")
    done = fit(warehouse, samples=0, seed=0)
    assert (done.fitted, done.unchanged, done.removed) == (0, 2, 4)
    rows = warehouse.execute("select distinct month, model from attribution.channel_credits order by 2").fetchall()
    assert rows == [(JANUARY, "markov"), (JANUARY, "shapley")]


def test_a_model_that_does_not_fit_leaves_a_note_and_the_others(
    dbt: Dbt, warehouse: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_check(warehouse)
    build_views(dbt)
    monkeypatch.setattr("earmark.journeys.markov.MAX_STATES", 1)
    for fitted in (3, 0):  # told again although nothing is fitted anew
        done = fit(warehouse, samples=0, seed=0)
        assert done.fitted == fitted
        assert len(done.notes) == 2
        assert done.notes[1].startswith(
            "t, 2026-01, sponsor s: markov: left out: markov of order 1 has more than 1 states"
        )
    assert credit(warehouse) == {}
    assert credit(warehouse, "shapley") == {"G": 2.5, "M": 1.5}


def test_a_failure_leaves_what_was_there(
    dbt: Dbt, warehouse: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_check(warehouse)
    build_views(dbt)
    fit(warehouse, samples=0, seed=0)
    before = stored(warehouse)
    add_conversion(warehouse, 5, at(5), ["M"])
    real = fitting.credit_channels

    def fails(journeys: Any, model: fitting.Model, **settings: Any) -> fitting.Fitted:
        if model.name == "shapley":
            raise MemoryError
        return real(journeys, model, **settings)

    monkeypatch.setattr(fitting, "credit_channels", fails)
    with pytest.raises(MemoryError):
        fit(warehouse, samples=0, seed=0)
    assert stored(warehouse) == before


def test_engines_agree_row_for_row(
    parsed: Dbt, address: Database, timescaledb: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for database, numbers in ((address, range(1, 61)), (timescaledb, range(60, 0, -1))):
        with database.connect(autocommit=True) as warehouse:
            warehouse.execute(TABLES)
            for number in numbers:
                path = ["GMX"[(number * step) % 3] for step in range(1, 2 + number % 4)]
                add_conversion(warehouse, number, at(1 + number % 28), path, value=number)
                add_touch(warehouse, 90_000 + number, "GMX"[number % 3], at(1 + number % 28), f"h{number % 40}")
            build_views(parsed.use(database, monkeypatch))
            fit(warehouse, samples=50, seed=3)
            found.append(stored(warehouse))
    assert found[0] == found[1]
    assert len(found[0]) == 9


# --- The mart ---------------------------------------------------------------------------------------------


def build_mart(dbt: Dbt) -> dbtRunnerResult:
    return dbt("build", "--exclude-resource-types", "unit_test", "--select", "rpt_model_comparison")


def test_all_models_stand_side_by_side_and_conserve_conversions(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_check(warehouse)
    add_conversion(warehouse, 5, at(5), [], value=0)
    add_conversion(warehouse, 6, at(6), ["M"], value=9, currency="USD")
    add_conversion(warehouse, 7, at(7), [], sponsor=None, currency=None)
    build_views(dbt)
    fit(warehouse, samples=20, seed=0)
    result = build_mart(dbt)
    assert result.success, dbt.messages(result)
    names = {item.node.name for item in result.result}
    assert {"model_comparison_conserves_conversions", "shapley_by_path_is_shapley_by_definition"} <= names
    query = (
        "select channel, conversions, revenue from marts.rpt_model_comparison"
        " where (model, sponsor_id) = (%s, 's')"
    )
    by_model = {
        model: {channel: (float(conversions), float(revenue)) for channel, conversions, revenue in rows}
        for model in ("last_touch", "shapley", "markov", "converting")
        for rows in [warehouse.execute(query, (model,)).fetchall()]
    }
    assert by_model["last_touch"] == {"G": (2, 20), "M": (3, 20), None: (1, 0)}
    assert by_model["shapley"] == {"G": (2.5, 25), "M": (2.5, 15), None: (1, 0)}
    for model in ("markov", "converting"):
        assert by_model[model].keys() == {"G", "M", None}
        assert by_model[model][None] == (1, 0)
        assert sum(row[0] for row in by_model[model].values()) == pytest.approx(6)
        assert sum(row[1] for row in by_model[model].values()) == pytest.approx(40)
    unknown = warehouse.execute(
        "select model, conversions from marts.rpt_model_comparison where sponsor_id is null"
    )
    assert {(model, int(conversions)) for model, conversions in unknown} == {
        ("last_touch", 1), ("shapley", 1), ("markov", 1), ("converting", 1),
    }  # fmt: skip


def test_a_fit_of_before_shares_what_is_there_now(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_check(warehouse)
    build_views(dbt)
    fit(warehouse, samples=0, seed=0)
    for number in (5, 6, 7, 8):
        add_conversion(warehouse, number, at(5), ["M"])
    add_conversion(warehouse, 9, at(5, month=3), ["M"])  # a month that was never fitted
    result = build_mart(dbt)
    assert result.success, dbt.messages(result)
    rows = warehouse.execute(
        "select month, channel, conversions::double precision from marts.rpt_model_comparison"
        " where model = 'markov'"
    ).fetchall()
    assert {row[1]: row[2] for row in rows} == pytest.approx({"G": 4.8, "M": 3.2, None: 0})
    assert {row[0] for row in rows} == {JANUARY}


@pytest.mark.parametrize(
    ("change", "fails"),
    [
        ("update attribution.channel_credits set share_of_conversions = 0.7 where channel = 'G'", "conserves"),
        ("update attribution.channel_credits set share_of_revenue = 0.7 where channel = 'G'", "conserves"),
        (
            "update marts.fct_attribution_credits set credit = credit - 0.000001 where model = 'last_touch'",
            "conserves",
        ),
        ("delete from marts.fct_attribution_credits where model = 'last_touch'", "conserves"),
        ("update attribution.channel_credits set conversions = 2.4 where channel = 'G'", "shapley_by_path"),
        ("delete from attribution.channel_credits where (model, channel) = ('shapley', 'M')", "shapley_by_path"),
    ],
)
def test_the_tests_of_the_mart_can_fail(dbt: Dbt, warehouse: psycopg.Connection, change: str, fails: str) -> None:
    add_check(warehouse)
    build_views(dbt)
    fit(warehouse, samples=0, seed=0)
    warehouse.execute(change)
    result = build_mart(dbt)
    failed = {item.node.name for item in result.result if item.status == "fail"}
    assert any(fails in name for name in failed), dbt.messages(result)
