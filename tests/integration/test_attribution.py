"""Attribution through the whole pipeline: real journeys, late and deleted touches, changed settings, bad input.

Each rule has its unit test beside the models; the mathematics of paths alone is tested in ``tests/unit``.
"""

import csv
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from earmark.addresses.privacy import HashKey
from earmark.ingestion.load import LoadRequest, load_file
from earmark.warehouse.changes import pending_slices
from earmark.warehouse.database import Database

pytestmark = pytest.mark.built
Dbt = Any  # the class of conftest.py, which tests cannot import
ATTRIBUTION = ("marts.fct_attribution_paths", "marts.fct_attribution_credits")
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def dbt(dbt_on_any_engine: Dbt) -> Dbt:
    """Everything here holds on each engine."""
    return dbt_on_any_engine


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    with any_engine.connect(autocommit=True) as opened:
        opened.execute("insert into tenancy.tenants values ('acme', 'Acme')")
        opened.execute(
            "insert into raw.podcasts (tenant_id, podcast_id, title, load_id) values ('acme', 'p', 'P', 1)"
        )
        opened.execute(
            "insert into raw.sponsors (tenant_id, sponsor_id, name, load_id) values ('acme', 's', 'S', 1)"
        )
        for campaign in ("a", "b", "silent"):
            add_campaign(opened, campaign)
        for campaign in ("a", "b"):
            opened.execute(
                "insert into raw.ad_units (tenant_id, ad_unit_id, campaign_id, position, delivery, load_id)"
                " values ('acme', %s, %s, 'mid', 'dai', 1)",
                (f"ad-{campaign}", campaign),
            )
        opened.execute(
            "select timeseries.ensure_chunks(t::regclass, %s, %s)"
            " from unnest(array['raw.listener_events', 'raw.attribution_events']) as t",
            (START, START + 100 * DAY),
        )
        yield opened


def add_campaign(
    warehouse: psycopg.Connection, campaign: str, *, lookback: float = 30, currency: str = "USD"
) -> None:
    warehouse.execute(
        "insert into raw.campaigns (tenant_id, campaign_id, sponsor_id, name, starts_at, ends_at, lookback_days,"
        " currency, load_id) values ('acme', %s, 's', %s, '2018-01-01Z', '2027-01-01Z', %s, %s, 1)",
        (campaign, campaign, lookback, currency),
    )


def expose(warehouse: psycopg.Connection, at: float, household: str, campaign: str = "a") -> uuid.UUID:
    """Deliver an ad, ``at`` days after the start."""
    event = uuid.uuid4()
    warehouse.execute(
        "insert into raw.listener_events (tenant_id, event_id, occurred_at, event_type, source, ad_unit_id,"
        " household_key, listener_key, user_agent, load_id)"
        " values ('acme', %s, %s, 'ad_impression', 'test', %s, %s, %s, 'Overcast/3.0 (iOS podcast app)', 1)",
        (event, START + at * DAY, f"ad-{campaign}", key(household), key(household + "'s phone")),
    )
    return event


def convert(warehouse: psycopg.Connection, at: float, household: str | None, **more: Any) -> uuid.UUID:
    row = {
        "tenant_id": "acme", "event_id": uuid.uuid4(), "occurred_at": START + at * DAY, "action": "purchase",
        "type": "pixel", "source": "test", "sponsor_id": "s", "value": 10, "currency": "USD", "load_id": 1,
        "household_key": key(household) if household else None,
    } | more  # fmt: skip
    names = ", ".join(row)
    values = ", ".join(f"%({name})s" for name in row)
    warehouse.execute(f"insert into raw.attribution_events ({names}) values ({values})", row)
    event: uuid.UUID = row["event_id"]
    return event


def key(text: str) -> bytes:
    return text.encode().ljust(16, b"\0")[:16]


def versions(warehouse: psycopg.Connection, table: str, column: str = "occurred_at") -> dict[int, set[Any]]:
    """Return the row versions of each day, counted from the start: they change when a row is replaced."""
    days: dict[int, set[Any]] = {}
    query = f"select {column}::date - %s::date, tableoid, ctid::text, xmin::text from {table}"
    for day, *version in warehouse.execute(query, (START,)):
        days.setdefault(day, set()).add(tuple(version))
    return days


def replaced_days(before: dict[int, set[Any]], after: dict[int, set[Any]]) -> set[int]:
    return {day for day in before.keys() | after.keys() if before.get(day) != after.get(day)}


def contents(warehouse: psycopg.Connection) -> dict[str, list[str]]:
    tables = (*ATTRIBUTION, "marts.fct_conversions", "marts.rpt_campaign_daily")
    return {t: [r[0] for r in warehouse.execute(f"select x::text from {t} as x order by 1")] for t in tables}


def credit(warehouse: psycopg.Connection, model: str) -> dict[str, tuple[float, float]]:
    rows = warehouse.execute(
        "select channel, sum(credit), sum(revenue) from marts.fct_attribution_credits"
        " where model = %s and channel is not null group by channel",
        (model,),
    )
    return {channel: (float(conversions), float(value)) for channel, conversions, value in rows}


def refresh(dbt: Dbt, *selected: str) -> None:
    """Refresh what has changed, and look at it with every data test."""
    dbt.build(*selected, data_tests=True)


# With the tests of nothing but these models.
ALL = ("--select", "+fct_attribution_credits", "+rpt_campaign_daily", "--indirect-selection", "cautious")


def test_a_late_touch_credits_anew_exactly_the_conversions_whose_window_holds_it(
    dbt: Dbt, warehouse: psycopg.Connection
) -> None:
    for day in range(0, 60, 5):
        for household in ("h1", "h2"):
            expose(warehouse, day + 0.1, household, "ab"[day % 2])
            convert(warehouse, day + 0.5, household)
    refresh(dbt, *ALL)
    before = contents(warehouse)
    seen = {table: versions(warehouse, table) for table in ATTRIBUTION}
    seen["day"] = versions(warehouse, "marts.rpt_campaign_daily", "day")

    # Days without a conversion of h3: nothing is credited anew. Then h2's window: 7.2 to 37.2 holds days 10 to 35.
    expose(warehouse, 7.3, "h3")
    refresh(dbt, *ALL)
    for table in ATTRIBUTION:
        assert replaced_days(seen[table], versions(warehouse, table)) == set()
    late = expose(warehouse, 7.2, "h2", "b")
    refresh(dbt, *ALL)
    after = contents(warehouse)
    for table in ATTRIBUTION:
        assert replaced_days(seen[table], versions(warehouse, table)) == {10, 15, 20, 25, 30, 35}
    # The report is of last touches, which are the same; the day of the touch itself has another impression.
    assert replaced_days(seen["day"], versions(warehouse, "marts.rpt_campaign_daily", "day")) == {7}
    assert warehouse.execute(
        "select count(distinct conversion_id), count(*) from marts.fct_attribution_paths where touch_at = %s",
        (START + 7.2 * DAY,),
    ).fetchone() == (6, 6)

    warehouse.execute(
        "delete from raw.listener_events where event_id = %s or household_key = %s", (late, key("h3"))
    )
    refresh(dbt, *ALL)
    assert contents(warehouse) == before
    warehouse.execute("delete from raw.listener_events where household_key = %s", (key("h2"),))
    refresh(dbt, *ALL)
    gone = contents(warehouse)
    assert gone != before != after
    assert warehouse.execute(
        "select match_type, evidence, sum(credit) from marts.fct_attribution_credits as x"
        " inner join marts.fct_conversions as c using (tenant_id, conversion_id)"
        " where c.household_key = %s and model = 'linear' group by 1, 2",
        (key("h2"),),
    ).fetchall() == [("unattributed", "no_touch", 12)]
    dbt.build("--full-refresh", *ALL)
    assert contents(warehouse) == gone


def test_a_changed_lookback_credits_anew_what_it_must_and_nothing_else(
    dbt: Dbt, warehouse: psycopg.Connection, tmp_path: Path
) -> None:
    expose(warehouse, 0.1, "h1", "a")
    expose(warehouse, 1.1, "h1", "b")
    for day in (2.1, 6.1, 9.1, 20.1):
        convert(warehouse, day, "h1")
    convert(warehouse, 30.05, "h2")
    refresh(dbt, *ALL)
    seen = {table: versions(warehouse, table) for table in ATTRIBUTION}
    impressions = versions(warehouse, "marts.fct_ad_impressions")
    conversions = versions(warehouse, "marts.fct_conversions")

    # A file that is loaded says the same campaign with another lookback: days 9 and 20 fall out of it.
    file = tmp_path / "campaigns.csv"
    header = "campaign_id,sponsor_id,name,starts_at,ends_at,conversion_actions,lookback_days,currency\n"
    line = "a,s,a,2018-01-01T00:00:00Z,2027-01-01T00:00:00Z,purchase,7,USD\n"
    file.write_text(header + line)
    load_file(warehouse, LoadRequest(str(file), "acme", "campaigns"), key=HashKey("k1", b"k" * 32))

    def waiting() -> set[tuple[str, date | None]]:
        # Models that are not built here wait for theirs.
        found = {(item.producer, item.day) for item in pending_slices(warehouse)}
        return {item for item in found if item[0] == "raw.campaigns" or item[1] is None}

    assert waiting() == {("raw.campaigns", None)}
    refresh(dbt, *ALL)
    assert waiting() == set()
    # Rows of days 2 and 6 say the new window; h2 never met the campaign.
    for table in ATTRIBUTION:
        assert replaced_days(seen[table], versions(warehouse, table)) == {2, 6, 9, 20}
    assert versions(warehouse, "marts.fct_ad_impressions") == impressions
    assert versions(warehouse, "marts.fct_conversions") == conversions
    assert credit(warehouse, "linear") == {"a": (1, 10), "b": (3, 30)}

    # By hand, to the second: 5.999 days hold day 6.1, and a second less does not.
    warehouse.execute("update raw.campaigns set lookback_days = 6 where campaign_id = 'a'")
    refresh(dbt, *ALL)
    assert credit(warehouse, "linear") == {"a": (1, 10), "b": (3, 30)}
    warehouse.execute("update raw.campaigns set lookback_days = 6 - 1 / 86400.0 where campaign_id = 'a'")
    refresh(dbt, *ALL)
    assert credit(warehouse, "linear") == {"a": (0.5, 5), "b": (3.5, 35)}
    left_out = warehouse.execute(
        "select age_seconds, left_out_as from marts.fct_attribution_paths where campaign_id = 'a' order by 1"
    ).fetchall()
    assert left_out == [(2 * 86400, None)] + [(d * 86400, "beyond_lookback") for d in (6, 9, 20)]
    kept = contents(warehouse)
    dbt.build("--full-refresh", *ALL)
    assert contents(warehouse) == kept


def test_what_is_odd_has_its_place(dbt: Dbt, warehouse: psycopg.Connection) -> None:
    add_campaign(warehouse, "a > b")  # the separator of paths in a name
    add_campaign(warehouse, "euro", currency="EUR")
    warehouse.execute(
        "insert into raw.ad_units (tenant_id, ad_unit_id, campaign_id, position, delivery, load_id)"
        " values ('acme', 'ad-sep', 'a > b', 'mid', 'dai', 1)"
    )
    expose(warehouse, 1, "h1")
    expose(warehouse, 1.1, "h1", "sep")
    expose(warehouse, 2, "h1")  # at the very time of the conversion: before it
    expose(warehouse, 2.00001, "h1")  # after it
    order = convert(warehouse, 2, "h1", order_number="1", type="promo_code")
    convert(warehouse, 2.1, "h1", order_number="1", value=99)  # the same order again: its value is told first
    convert(warehouse, 5, "h1", order_number="1", value=-4, type="offline")  # part of it is paid back
    convert(warehouse, 5, "h1", value=-7)  # nobody knows what was paid back
    nobody = convert(warehouse, 3, None, value=0)
    free = convert(warehouse, 3, "h1", value=0)
    foreign = convert(warehouse, 4, "h1", currency="EUR", campaign_id="euro")
    refresh(dbt)

    found = {
        row[0]: row[1:]
        for row in warehouse.execute(
            "select conversion_id, gross_value, refunded_value, value, currency from marts.fct_conversions"
        )
    }
    assert found == {
        order: (10, -4, 6, "USD"),
        nobody: (0, 0, 0, "USD"),
        free: (0, 0, 0, "USD"),
        foreign: (10, 0, 10, "EUR"),
    }
    path = "select array_agg(channel order by position) from marts.fct_attribution_paths where conversion_id = %s"
    assert warehouse.execute(path, (order,)).fetchone() == (["a", "a > b", "a"],)
    assert warehouse.execute(path, (foreign,)).fetchone() == (["a", "a > b", "a", "a", "euro"],)
    assert warehouse.execute(
        "select match_type, evidence from marts.fct_attribution_credits"
        " where conversion_id = %s and model = 'linear'",
        (nobody,),
    ).fetchall() == [("unattributed", "no_identity")]
    # By campaign only its own currency is added up; a campaign without a touch has no credit and no error.
    assert warehouse.execute(
        "select campaign_id, conversions, revenue, conversions_other_currency from marts.rpt_campaigns order by 1"
    ).fetchall() == [("a", 2, 6, 0), ("a > b", 0, 0, 0), ("b", 0, 0, 0), ("euro", 1, 10, 0), ("silent", 0, 0, 0)]
    totals = warehouse.execute(
        "select model, sum(credit), sum(revenue) filter (where currency = 'USD'),"
        " sum(revenue) filter (where currency = 'EUR') from marts.fct_attribution_credits group by model"
    ).fetchall()
    assert len(totals) == 7
    assert {row[1:] for row in totals} == {(4, 6, 10)}


def test_real_journeys_are_credited_as_by_the_reference(
    dbt: Dbt, warehouse: psycopg.Connection, shared_data: Path
) -> None:
    """Touches as responses that name a campaign, one a channel; converting rows as conversions that do."""
    folder = shared_data / "attribution" / "journeys"
    with warehouse.cursor() as cursor, (folder / "touches.csv").open(encoding="utf-8", newline="") as lines:
        touches = list(csv.DictReader(lines))
        for name in sorted({row["channel"] for row in touches}):
            add_campaign(warehouse, name, lookback=90)
        warehouse.execute(
            "select timeseries.ensure_chunks('raw.attribution_events', %s, %s)",
            (min(row["time"] for row in touches), max(row["time"] for row in touches)),
        )
        with cursor.copy(
            "copy raw.attribution_events (tenant_id, event_id, occurred_at, action, type, source, sponsor_id,"
            " campaign_id, household_key, value, currency, load_id) from stdin"
        ) as copy:
            for number, row in enumerate(touches):
                converts = row["conversion"] == "1"
                copy.write_row((
                    "acme", uuid.UUID(int=number), row["time"], "purchase" if converts else "view", "pixel",
                    "test", "s", row["channel"], key(row["customer_id"]),
                    row["conversion_value"] if converts else None, "USD", 1,
                ))  # fmt: skip
    cut = {"attribution_cut_at_conversion": True}
    dbt.build(*ALL, data_tests=True, **cut)
    with (folder / "expected.csv").open(encoding="utf-8", newline="") as lines:
        expected = list(csv.DictReader(lines))
    models = {
        "first": "first_touch", "last": "last_touch", "linear": "linear", "position_40_20_40": "position_based",
        "time_decay_7d": "time_decay",
    }  # fmt: skip
    for lookback in ("none", "14", "7"):
        if lookback != "none":
            warehouse.execute("update raw.campaigns set lookback_days = %s::double precision", (lookback,))
            dbt.build(*ALL, data_tests=True, **cut)
        rows = [row for row in expected if row["lookback_days"] == lookback]
        assert {row["model"] for row in rows} == models.keys()
        ours = {model: credit(warehouse, name) for model, name in models.items()}
        for row in rows:
            reference = (float(row["conversions"]), float(row["value"]))
            assert ours[row["model"]][row["channel"]] == pytest.approx(reference, rel=1e-9), row
