"""The marts of attribution: windows side by side, overlap of signals, what became of every response.

What each figure is has its unit tests beside the models; here rows go in raw, and the marts follow late rows,
refunds and erasure to other days, as a rebuild would have them.
"""

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from earmark.warehouse.database import Database

pytestmark = pytest.mark.built
Dbt = Any  # the class of conftest.py, which tests cannot import

MARTS = (
    "rpt_attribution_daily",
    "rpt_attribution_windows_daily",
    "rpt_signal_overlap_daily",
    "rpt_response_outcomes_daily",
)
MODELS = (*(f"+{mart}" for mart in MARTS), "+rpt_campaigns")
CAMPAIGNS = {"c1": ("s1", 30), "c2": ("s1", 7), "c3": ("s2", 30)}
APP = "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)"


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    """Return a connection to a database whose sessions are in a zone with summer time, as dbt's are then."""
    with any_engine.connect(autocommit=True) as opened:
        opened.execute(
            sql.SQL("alter database {} set timezone = 'America/New_York'").format(sql.Identifier(any_engine.name))
        )
        opened.execute("insert into tenancy.tenants values ('acme', 'Acme')")
        add(opened, "podcasts", podcast_id="p", title="Show")
        for sponsor in ("s1", "s2"):
            add(opened, "sponsors", sponsor_id=sponsor, name=sponsor)
        for campaign, (sponsor, lookback) in CAMPAIGNS.items():
            add(
                opened, "campaigns", campaign_id=campaign, sponsor_id=sponsor, name=campaign,
                starts_at="2026-01-01Z", ends_at="2026-03-01Z", lookback_days=lookback,
            )  # fmt: skip
            add(
                opened, "insertion_orders", insertion_order_id=f"io-{campaign}", campaign_id=campaign,
                promo_code=f"CODE-{campaign}", vanity_url=f"https://shop.example.com/{campaign}",
            )  # fmt: skip
            add(
                opened, "episodes", episode_id=f"e-{campaign}", podcast_id="p",
                enclosure_key=f"cdn.example.com/{campaign}.mp3",
            )  # fmt: skip
            add(
                opened, "ad_units", ad_unit_id=f"a-{campaign}", campaign_id=campaign, episode_id=f"e-{campaign}",
                position="mid", delivery="baked_in",
            )  # fmt: skip
        yield opened


@pytest.fixture
def dbt(warehouse: psycopg.Connection, dbt_on_any_engine: Dbt) -> Dbt:
    """Everything here holds on each engine."""
    return dbt_on_any_engine


def add(warehouse: psycopg.Connection, table: str, **columns: Any) -> None:
    values = {"tenant_id": "acme", "load_id": 0, **columns}
    warehouse.execute(
        sql.SQL("insert into {} ({}) values ({})").format(
            sql.Identifier("raw", table),
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(sql.Placeholder() * len(values)),
        ),
        list(values.values()),
    )


def day(number: int, hour: int = 12, minute: int = 0) -> datetime:
    return datetime(2026, 1, number, hour, minute, tzinfo=UTC)


def key(household: str | None) -> bytes | None:
    return None if household is None else household.encode().ljust(16, b"\0")


def expose(warehouse: psycopg.Connection, occurred_at: datetime, campaign: str, household: str = "h") -> None:
    """Write a download of the episode that has the campaign's ad."""
    ensure_chunks(warehouse, "raw.listener_events", occurred_at)
    add(
        warehouse, "listener_events", event_id=uuid.uuid4(), occurred_at=occurred_at, event_type="request",
        source="test", enclosure_key=f"cdn.example.com/{campaign}.mp3", method="GET", status=200,
        household_key=key(household), listener_key=key(household), user_agent=APP,
    )  # fmt: skip


def respond(
    warehouse: psycopg.Connection,
    occurred_at: datetime,
    value: float | None = None,
    *,
    household: str | None = "h",
    **columns: Any,
) -> None:
    """Write a response of an advertiser: a purchase by pixel unless the columns say otherwise."""
    ensure_chunks(warehouse, "raw.attribution_events", occurred_at)
    standard = {"action": "purchase", "type": "pixel", "sponsor_id": "s1", "currency": "USD"}
    add(
        warehouse, "attribution_events", event_id=uuid.uuid4(), occurred_at=occurred_at, source="test",
        household_key=key(household), value=value, **{**standard, **columns},
    )  # fmt: skip


def ensure_chunks(warehouse: psycopg.Connection, table: str, occurred_at: datetime) -> None:
    warehouse.execute(
        "select timeseries.ensure_chunks(%s, %s, %s)", (table, occurred_at, occurred_at + timedelta(hours=1))
    )


def refresh(dbt: Dbt) -> None:
    """Refresh what has changed, and look whether the marts add up to the facts."""
    dbt.build("--select", *MODELS, "--indirect-selection", "buildable", data_tests=True)


def contents(warehouse: psycopg.Connection) -> dict[str, list[str]]:
    return {
        mart: [row[0] for row in warehouse.execute(f"select t::text from marts.{mart} as t order by t::text")]  # type: ignore[arg-type]
        for mart in MARTS
    }


def assert_equals_a_rebuild(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    refreshed = contents(warehouse)
    assert all(refreshed.values())
    dbt.build("--select", *MODELS, "--full-refresh")
    assert contents(warehouse) == refreshed


def overlap(warehouse: psycopg.Connection) -> dict[str, tuple[int, int, int]]:
    """Return conversions, revenue and conversions that disagree of each combination of signals on 20 January."""
    rows = warehouse.execute(
        "select signals, conversions, revenue::int, conversions_disagreeing"
        " from marts.rpt_signal_overlap_daily where day = '2026-01-20'"
    ).fetchall()
    return {signals: (conversions, revenue, disagree) for signals, conversions, revenue, disagree in rows}


def credited(warehouse: psycopg.Connection, model: str) -> dict[int, dict[str | None, Decimal]]:
    found: dict[int, dict[str | None, Decimal]] = {}
    for days, campaign, conversions, revenue in warehouse.execute(
        "select window_days, campaign_id, conversions, revenue from marts.rpt_attribution_windows_daily"
        " where model = %s",
        (model,),
    ):
        assert revenue == 90 * conversions
        found.setdefault(days, {})[campaign] = conversions
    return found


def test_windows_stand_side_by_side(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    respond(warehouse, day(31), 90)
    for ago, campaign in ((30, "c1"), (20, "c1"), (10, "c2"), (5, "c1")):
        expose(warehouse, day(31) - timedelta(days=ago, microseconds=ago == 30), campaign)
    refresh(dbt)
    third, whole = Decimal("0.333333333333"), Decimal(1)
    assert credited(warehouse, "last_touch") == {
        1: {None: whole}, 7: {"c1": whole}, 14: {"c1": whole}, 30: {"c1": whole},
    }  # fmt: skip
    # c2 itself looks back 7 days: the windows of 14 and 30 days say what it would have with more.
    assert credited(warehouse, "linear") == {
        1: {None: whole},
        7: {"c1": whole},
        14: {"c1": whole / 2, "c2": whole / 2},
        30: {"c1": 2 * third, "c2": whole - 2 * third},
    }
    own = "select campaign_id, conversions, revenue from marts.rpt_attribution_daily where model = 'linear'"
    assert warehouse.execute(own).fetchall() == [("c1", 1, 90)]
    # A touch that comes late, and lies on another day than its conversion.
    expose(warehouse, day(31) - timedelta(hours=14), "c2")
    refresh(dbt)
    assert credited(warehouse, "last_touch")[1] == {"c2": whole}
    assert credited(warehouse, "linear")[7] == {"c1": whole / 2, "c2": whole / 2}
    assert sorted(warehouse.execute(own).fetchall())[1][0] == "c2"
    assert_equals_a_rebuild(dbt, warehouse)


def test_overlap_of_signals_is_measured(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    for household, campaign, on in (
        ("agrees", "c1", 15), ("differs", "c1", 15), ("outranked", "c1", 15), ("heard both", "c1", 15),
        ("heard both", "c2", 16), ("too old", "c2", 5),
    ):  # fmt: skip
        expose(warehouse, day(on), campaign, household)
    respond(warehouse, day(20), 1, household="agrees", discount_code="code-c1")
    respond(warehouse, day(20), 2, household="differs", discount_code="CODE-C2")
    respond(warehouse, day(20), 4, household="two claims", order_number="o", discount_code="code-c1")
    respond(warehouse, day(21), 4, household="two claims", order_number="o", type="vanity_url",
            url="https://shop.example.com/c2")  # fmt: skip
    respond(warehouse, day(20), 8, household="outranked", type="survey", campaign_id="c2")
    respond(warehouse, day(20), 16, household="heard both", discount_code="code-c1")
    respond(warehouse, day(20), 32, household="too old")
    respond(warehouse, day(20), 64, household=None)
    respond(warehouse, day(19), None, household="visited", action="view", url="http://shop.example.com/c1/")
    respond(warehouse, day(20), 128, household="visited")
    refresh(dbt)
    found = overlap(warehouse)
    # The strongest event of the order with two claims is the visit by URL, a day later.
    assert found == {
        "": (2, 96, 0),
        "pixel,promo_code": (3, 19, 1),
        "pixel,survey": (1, 8, 1),
        "vanity_url": (1, 128, 0),
    }
    two_claims = warehouse.execute(
        "select signals, signal_count, conversions, conversions_disagreeing from marts.rpt_signal_overlap_daily"
        " where day = '2026-01-21'"
    ).fetchall()
    assert two_claims == [("promo_code,vanity_url", 2, 1, 1)]

    # An exposure that comes late adds its signal; one that is erased takes it away.
    expose(warehouse, day(18), "c1", "visited")
    warehouse.execute("delete from raw.listener_events where household_key = %s", (key("differs"),))
    refresh(dbt)
    assert overlap(warehouse) == {
        "": (2, 96, 0),
        "pixel,promo_code": (2, 17, 0),
        "pixel,survey": (1, 8, 1),
        "pixel,vanity_url": (1, 128, 0),
        "promo_code": (1, 2, 0),
    }
    assert_equals_a_rebuild(dbt, warehouse)


def outcomes(warehouse: psycopg.Connection, number: int) -> dict[str, tuple[int, int]]:
    return {
        outcome: (events, value)
        for outcome, events, value in warehouse.execute(
            "select outcome, sum(events)::int, sum(value)::int from marts.rpt_response_outcomes_daily"
            " where day = %s group by outcome",
            (day(number).date(),),
        )
    }


def test_every_refund_has_its_outcome(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    respond(warehouse, day(2), 100, order_number="o1")
    respond(warehouse, day(3), 100, order_number="o1", type="survey", campaign_id="c1")
    respond(warehouse, day(2), 50, order_number="o2")
    respond(warehouse, day(3), action="view")
    respond(warehouse, day(3), action="view", url="shop.example.com/c1")
    respond(warehouse, day(10), -10, order_number="o1")
    respond(warehouse, day(10), -20, order_number="o1", sponsor_id=None, currency=None)
    respond(warehouse, day(10), -31, order_number="o1", type="offline")
    respond(warehouse, day(10), -5, order_number="o2", currency="EUR")
    respond(warehouse, day(10), -7, order_number="o9")
    respond(warehouse, day(10), -3)
    respond(warehouse, day(10), -2, action="lead", order_number="o1")
    refresh(dbt)
    assert outcomes(warehouse, 2) == {"conversion": (2, 150)}
    assert outcomes(warehouse, 3) == {"same_order": (1, 100), "not_counted": (1, 0), "touch": (1, 0)}
    expected = {
        "refund": (2, -30),
        "refund_repeated": (1, -31),
        "refund_other_currency": (1, -5),
        "refund_without_order": (2, -10),
        "not_counted": (1, -2),
    }
    assert outcomes(warehouse, 10) == expected
    assert_taken_off(warehouse, -30)

    # The sale of an order comes after its refund.
    respond(warehouse, day(4), 70, order_number="o9")
    refresh(dbt)
    expected |= {"refund": (3, -37), "refund_without_order": (1, -3)}
    assert outcomes(warehouse, 10) == expected
    assert_taken_off(warehouse, -37)
    # A stronger signal reports the refund; a sale disappears.
    respond(warehouse, day(12), -30, order_number="o1", type="promo_code")
    warehouse.execute("delete from raw.attribution_events where order_number = 'o2' and value > 0")
    refresh(dbt)
    assert outcomes(warehouse, 12) == {"refund": (1, -30)}
    assert outcomes(warehouse, 10) == {
        "refund": (1, -7),
        "refund_repeated": (3, -61),
        "refund_without_order": (2, -8),
        "not_counted": (1, -2),
    }
    assert_taken_off(warehouse, -37)
    assert_equals_a_rebuild(dbt, warehouse)


def assert_taken_off(warehouse: psycopg.Connection, expected: int | None = None) -> None:
    """Compare what ends as a refund with what the conversions have less."""
    row = warehouse.execute(
        "select coalesce((select sum(value) from marts.rpt_response_outcomes_daily where outcome = 'refund'), 0),"
        " coalesce((select sum(refunded_value) from marts.fct_conversions), 0)"
    ).fetchone()
    assert row is not None
    assert row[0] == row[1]
    assert expected is None or row[0] == expected


def test_the_marts_are_the_same_after_any_refresh(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    random_ = random.Random(5)  # noqa: S311

    def add_some(count: int) -> None:
        for _ in range(count):
            at = day(random_.randrange(1, 29), random_.randrange(24), random_.randrange(60))
            household = random_.choice(["h1", "h2", "h3"])
            if random_.random() < 0.3:
                expose(warehouse, at, random_.choice(["c1", "c2", "c3"]), household)
                continue
            respond(
                warehouse,
                at,
                random_.choice([None, 0, 10, 20, 30, -1, -2, -3]),
                household=household,
                action=random_.choice(["purchase", "purchase", "purchase", "view"]),
                type=random_.choice(["pixel", "promo_code", "survey", "offline"]),
                sponsor_id=random_.choice(["s1", "s1", "s2", None]),
                order_number=random_.choice([None, *(f"o{number}" for number in range(12))]),
                currency=random_.choice(["USD", "USD", "EUR", None]),
                discount_code=random_.choice([None, "CODE-C1", "CODE-C2", "CODE-C3"]),
                campaign_id=random_.choice([None, None, "c1", "c3"]),
            )

    add_some(90)
    refresh(dbt)
    for _ in range(3):
        add_some(4)
        warehouse.execute(
            "delete from raw.attribution_events where occurred_at in"
            " (select occurred_at from raw.attribution_events order by md5(occurred_at::text) limit 2)"
        )
        refresh(dbt)
        assert_taken_off(warehouse)
    seen = {row[0] for row in warehouse.execute("select distinct outcome from marts.rpt_response_outcomes_daily")}
    assert seen == {
        "conversion", "same_order", "refund", "refund_repeated", "refund_other_currency", "refund_without_order",
        "touch", "not_counted",
    }  # fmt: skip
    assert_equals_a_rebuild(dbt, warehouse)
