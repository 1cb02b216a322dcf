"""What each kind of field takes, and why rows are refused."""

import hashlib
from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.ingestion import checks
from earmark.ingestion.checks import check
from earmark.ingestion.datasets import DATASETS, Kind
from earmark.ingestion.errors import AmountsUnknownError
from earmark.ingestion.values import Amounts, Evidence, plain_amounts

NOW = datetime(2024, 6, 1, tzinfo=UTC)
EVENT = {"occurred_at": "2024-05-01T12:00:00Z", "event_type": "request", "url": "/a.mp3"}
CAMPAIGN = {"campaign_id": "c", "sponsor_id": "s", "name": "n", "starts_at": "2024-01-01", "ends_at": "2024-02-01"}


def run(dataset: str, *rows: dict[str, str | None]):
    """Check rows; returns what passed and the rejects as (line, field, reason)."""
    columns = {name: None for row in rows for name in row}
    frame = pl.DataFrame(
        {name: [row.get(name) for row in rows] for name in columns}, schema=dict.fromkeys(columns, pl.String)
    ).with_columns(pl.int_range(1, len(rows) + 1, dtype=pl.Int64).alias("_line"))
    passed, rejects = check(DATASETS[dataset], frame, NOW)
    return passed, [(reject.line, reject.field, reject.reason) for reject in rejects]


def reason(dataset: str, row: dict[str, str | None]) -> tuple[str | None, str] | None:
    rejects = run(dataset, row)[1]
    return rejects[0][1:] if rejects else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-25T18:11:30.273Z", datetime(2024, 5, 25, 18, 11, 30, 273000, UTC)),
        ("2024-05-25T18:11:30+02:00", datetime(2024, 5, 25, 16, 11, 30, 0, UTC)),
        ("2024-05-25 18:11:30+0200", datetime(2024, 5, 25, 16, 11, 30, 0, UTC)),
        ("2024-05-25T18:11:30-05", datetime(2024, 5, 25, 23, 11, 30, 0, UTC)),
        ("2024-05-25T18:11:30", datetime(2024, 5, 25, 18, 11, 30, 0, UTC)),
        ("2024-05-25 18:11:30.123456", datetime(2024, 5, 25, 18, 11, 30, 123456, UTC)),
        ("2024-05-25 18:11:30 UTC", datetime(2024, 5, 25, 18, 11, 30, 0, UTC)),
        ("2024-05-25T18:11Z", datetime(2024, 5, 25, 18, 11, 0, 0, UTC)),
        ("2024-05-25 18:11", datetime(2024, 5, 25, 18, 11, 0, 0, UTC)),
        ("2024-05-25", datetime(2024, 5, 25, 0, 0, 0, 0, UTC)),
        (" 2024-05-25T18:11:30Z ", datetime(2024, 5, 25, 18, 11, 30, 0, UTC)),
        ("2024-02-30T00:00:00Z", None),
        ("2024-13-01T00:00:00Z", None),
        ("2024-05-25T24:00:00Z", None),
        ("12024-05-25T18:11:30Z", None),
        ("+12024-05-25T18:11:30Z", None),
        ("25/05/2024 18:11", None),
        ("1716660690", None),
        ("yesterday", None),
        ("-", None),
    ],
)
def test_times(text: str, expected: datetime | None):
    assert checks.parse_timestamp(pl.Series([text])).to_list() == [expected]


def test_forms_of_time_mix_in_a_column():
    texts = ["2024-05-25T18:11:30Z", "2024-05-25T20:11:30+02:00", None, "no", "2024-05-25 18:11:30"]
    at = datetime(2024, 5, 25, 18, 11, 30, tzinfo=UTC)
    assert checks.parse_timestamp(pl.Series(texts)).to_list() == [at, at, None, None, at]


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_any_iso_time_is_read_back(at: datetime):
    assert checks.parse_timestamp(pl.Series([at.isoformat()])).to_list() == [at]


@given(st.text(max_size=30))
def test_no_text_breaks_a_parser(text: str):
    for parser in checks._PARSERS.values():
        assert len(parser(pl.Series([text, None], dtype=pl.String))) == 2


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Kind.DATE, "2024-05-01", date(2024, 5, 1)),
        (Kind.DATE, "2024-05-01 00:00:00", date(2024, 5, 1)),
        (Kind.DATE, "2024-05-01T13:00:00", None),
        (Kind.DATE, "01.05.2024", None),
        (Kind.INTEGER, "206", 206),
        (Kind.INTEGER, "206.0", 206),
        (Kind.INTEGER, "-1", -1),
        (Kind.INTEGER, "206.5", None),
        (Kind.INTEGER, "99999999999999999999", None),
        (Kind.INTEGER, "0x10", None),
        (Kind.NUMBER, "1.5e3", 1500.0),
        (Kind.NUMBER, "nan", None),
        (Kind.NUMBER, "inf", None),
        (Kind.NUMBER, "1,5", None),
        (Kind.DECIMAL, "12.340", "12.340"),
        (Kind.DECIMAL, "-3", "-3"),
        (Kind.DECIMAL, "1e2", "1e2"),
        (Kind.DECIMAL, "1,234.50", None),
        (Kind.DECIMAL, "$5", None),
        (Kind.DECIMAL, "NaN", None),
        (Kind.BOOLEAN, "Yes", "true"),
        (Kind.BOOLEAN, "0", "false"),
        (Kind.BOOLEAN, "maybe", None),
        (Kind.CURRENCY, "usd", "USD"),
        (Kind.CURRENCY, "US$", None),
        (Kind.SHA256, "AB" * 32, "\\x" + "ab" * 32),
        (Kind.SHA256, "Someone@example.com ", "\\x" + hashlib.sha256(b"someone@example.com").hexdigest()),
        (Kind.SHA256, "someone@", None),
        (Kind.LIST, "purchase|lead", '{"purchase","lead"}'),
        (Kind.LIST, '["a\\"b", "c"]', '{"a\\"b","c"}'),
        (Kind.LIST, "[1]", None),
        (Kind.LIST, "[", None),
        (Kind.JSON, '{"a": [1, {"b": null}]}', '{"a": [1, {"b": null}]}'),
        (Kind.JSON, '{"id": "91FFDB42E159C503"}', '{"id": "91FFDB42E159C503"}'),
        (Kind.JSON, '{"id": "2E15999999"}', '{"id": "2E15999999"}'),
        (Kind.JSON, '{\n"a": 1}', '{\n"a": 1}'),
        (Kind.JSON, '{"a": "\\\\u0000"}', '{"a": "\\\\u0000"}'),
        (Kind.JSON, '{"a": "\\u0000"}', None),
        (Kind.JSON, '{"a": "\\ud800"}', None),
        (Kind.JSON, '{"a": 1e999999}', None),
        (Kind.JSON, "[1]", None),
        (Kind.JSON, '{"a": 1', None),
        (Kind.JSON, '{"a":' * 20_000, None),
        (Kind.JSON, '{"a": NaN}', None),
        (Kind.JSON, "x", None),
    ],
)
def test_kinds(kind: Kind, text: str, expected: object):
    assert checks._PARSERS[kind](pl.Series([text])).to_list() == [expected]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"occurred_at": None}, ("occurred_at", "missing")),
        ({"occurred_at": ""}, ("occurred_at", "missing")),
        ({"occurred_at": "x"}, ("occurred_at", "not_timestamp")),
        ({"occurred_at": "2003-12-31T23:59:59Z"}, ("occurred_at", "time_out_of_range")),
        ({"occurred_at": "2004-01-01T00:00:00Z"}, None),
        ({"occurred_at": "2024-06-02T00:00:00Z"}, None),
        ({"occurred_at": "2024-06-02T00:00:01Z"}, ("occurred_at", "time_out_of_range")),
        ({"event_type": "stream"}, ("event_type", "not_in_choices")),
        ({"url": None}, ("episode_id", "missing")),
        ({"url": None, "ad_unit_id": "a"}, None),
        ({"bytes_sent": "-1"}, ("bytes_sent", "negative")),
        ({"bytes_sent": "many"}, ("bytes_sent", "not_integer")),
        ({"status": "70000"}, ("status", "out_of_range")),
        ({"quartile": "0"}, None),
        ({"quartile": "100"}, None),
        ({"quartile": "30"}, ("quartile", "not_in_choices")),
        ({"quartile": "half"}, ("quartile", "not_integer")),
        ({"user_agent": "a\0b"}, ("user_agent", "nul")),
        ({"referrer": "x" * (64 * 1024 + 1)}, ("referrer", "too_long")),
        ({"referrer": "x" * 64 * 1024}, None),
        ({"properties": "{"}, ("properties", "not_json")),
        ({"occurred_at": "x", "status": "y"}, ("occurred_at", "not_timestamp")),
    ],
)
def test_listener_events(change: dict[str, str | None], expected: tuple[str, str] | None):
    assert reason("listener_events", {**EVENT, **change}) == expected


@pytest.mark.parametrize(
    ("dataset", "row", "expected"),
    [
        ("campaigns", CAMPAIGN, None),
        ("campaigns", {**CAMPAIGN, "ends_at": "2024-01-01"}, None),
        ("campaigns", {**CAMPAIGN, "ends_at": "2023-12-31"}, ("ends_at", "out_of_range")),
        ("campaigns", {**CAMPAIGN, "ends_at": "2024-01-01T00:00:00Z"}, ("ends_at", "out_of_range")),
        ("campaigns", {**CAMPAIGN, "ends_at": "2030-01-01"}, None),
        ("campaigns", {**CAMPAIGN, "lookback_days": "91"}, ("lookback_days", "out_of_range")),
        ("campaigns", {**CAMPAIGN, "lookback_days": "0"}, ("lookback_days", "out_of_range")),
        ("campaigns", {**CAMPAIGN, "conversion_actions": "purchase|lead"}, None),
        ("campaigns", {**CAMPAIGN, "conversion_actions": "buy"}, ("conversion_actions", "not_in_choices")),
        ("spend", {"campaign_id": "c", "spend_date": "2024-05-01", "amount": "-5.00"}, None),
        (
            "spend",
            {"campaign_id": "c", "spend_date": "2024-05-01", "amount": "5.00 USD"},
            ("amount", "not_decimal"),
        ),
        ("insertion_orders", {"insertion_order_id": "i", "campaign_id": "c", "cpm": "-1"}, ("cpm", "negative")),
        (
            "insertion_orders",
            {"insertion_order_id": "i", "campaign_id": "c", "starts_on": "2024-02-02", "ends_on": "2024-02-01"},
            ("ends_on", "out_of_range"),
        ),
        (
            "ad_units",
            {"ad_unit_id": "a", "campaign_id": "c", "position": "mid", "delivery": "baked_in"},
            ("episode_id", "missing"),
        ),
        ("ad_units", {"ad_unit_id": "a", "campaign_id": "c", "position": "mid", "delivery": "dai"}, None),
        (
            "ad_units",
            {"ad_unit_id": "a", "campaign_id": "c", "position": "mid", "delivery": "dai", "duration_seconds": "0"},
            ("duration_seconds", "out_of_range"),
        ),
        (
            "episodes",
            {"episode_id": "e", "podcast_id": "p", "duration_seconds": "-1"},
            ("duration_seconds", "negative"),
        ),
        ("episodes", {"episode_id": "e", "podcast_id": "p", "bitrate_bps": "128000", "id3_bytes": "0"}, None),
        ("episodes", {"episode_id": "e", "podcast_id": "p", "bitrate_bps": "0"}, ("bitrate_bps", "out_of_range")),
        ("episodes", {"episode_id": "e", "podcast_id": "p", "id3_bytes": "-1"}, ("id3_bytes", "negative")),
        (
            "attribution_events",
            {"occurred_at": "2024-05-01", "action": "purchase", "type": "pixel", "value": "-3"},
            None,
        ),
        (
            "attribution_events",
            {"occurred_at": "2024-05-01", "action": "purchase", "type": "pixel", "hashed_email": "a@b.c"},
            ("hashed_email", "not_sha256"),
        ),
    ],
)
def test_other_datasets(dataset: str, row: dict[str, str | None], expected: tuple[str, str] | None):
    assert reason(dataset, row) == expected


def test_only_the_bad_rows_are_refused_and_the_order_stays():
    passed, rejects = run("listener_events", EVENT, {**EVENT, "status": "x"}, EVENT, {**EVENT, "event_type": None})
    assert passed["_line"].to_list() == [1, 3]
    assert rejects == [(2, "status", "not_integer"), (4, "event_type", "missing")]


def test_a_message_says_what_is_there_and_what_is_allowed():
    frame = pl.DataFrame(
        {"_line": [7], **{name: [value] for name, value in EVENT.items()}, "status": ["two\0hundred"]}
    )
    (reject,) = check(DATASETS["listener_events"], frame.with_columns(status=pl.lit("two")), NOW)[1]
    assert reject.line == 7
    assert reject.detail == 'status is "two": allowed is a whole number of at most 18 digits'


def test_a_wrong_quartile_is_told_the_allowed_ones():
    frame = pl.DataFrame({"_line": [7], **{name: [value] for name, value in EVENT.items()}, "quartile": ["30"]})
    (reject,) = check(DATASETS["listener_events"], frame, NOW)[1]
    assert reject.detail == 'quartile is "30": allowed are 0, 25, 50, 75, 100'


def test_defaults():
    passed, _ = run("campaigns", CAMPAIGN)
    row = passed.row(0, named=True)
    assert (row["conversion_actions"], row["lookback_days"], row["currency"]) == ('{"purchase"}', 30.0, "USD")
    spend, _ = run("spend", {"campaign_id": "c", "spend_date": "2024-05-01", "amount": "5"})
    assert spend["podcast_id"].to_list() == [""]


def test_typed_columns_of_parquet_pass_as_they_are():
    frame = pl.DataFrame(
        {
            "_line": [1, 2],
            "occurred_at": pl.Series([datetime(2024, 5, 1, 12), None]).dt.cast_time_unit("ns"),  # noqa: DTZ001
            "event_type": ["request", "request"],
            "url": ["/a", "/b"],
            "status": [206.0, 200.0],
            "bytes_sent": [1, 2],
        }
    )
    passed, rejects = check(DATASETS["listener_events"], frame, NOW)
    assert passed["occurred_at"].to_list() == [datetime(2024, 5, 1, 12, tzinfo=UTC)]
    assert passed["status"].to_list() == [206]
    assert [(reject.line, reject.field, reject.reason) for reject in rejects] == [(2, "occurred_at", "missing")]


def test_a_bare_day_as_an_end_lasts_to_its_end():
    passed, _ = run(
        "campaigns", {**CAMPAIGN, "ends_at": " 2024-02-29"}, {**CAMPAIGN, "ends_at": "2024-02-29T00:00:00Z"}
    )
    assert passed["ends_at"].to_list() == [datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 2, 29, tzinfo=UTC)]
    dates = pl.DataFrame({**CAMPAIGN, "ends_at": [date(2024, 12, 31)], "_line": [1]})
    assert check(DATASETS["campaigns"], dates, NOW)[0]["ends_at"].to_list() == [datetime(2025, 1, 1, tzinfo=UTC)]


ORDER = {"occurred_at": "2024-05-01", "action": "purchase", "type": "pixel"}


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("order_number", "#7001", "7001"),
        ("order_number", " # 7001\u00a0", "7001"),
        ("order_number", "7001.0", "7001"),
        ("order_number", "\ufeff7001\u200b", "7001"),
        ("order_number", "0070", "0070"),
        ("order_number", "A-7.0", "A-7.0"),
        ("order_number", "#", None),
        ("sponsor_id", "#s", "#s"),
        ("cookie_id", "undefined", None),
        ("cookie_id", "(Not Set)", None),
        ("cookie_id", "NaN", None),
        ("cookie_id", "00000000-0000-0000-0000-000000000000", None),
        ("cookie_id", "nano", "nano"),
        ("discount_code", "\tSAVE\u202f", "SAVE"),
    ],
)
def test_ids_are_trimmed_and_told_from_none(field: str, text: str, expected: str | None):
    passed, rejects = run("attribution_events", {**ORDER, field: text})
    assert (passed[field].to_list(), rejects) == ([expected], [])


def test_what_is_no_id_is_missing_where_one_is_needed():
    row = {"campaign_id": "null", "spend_date": "2024-05-01", "amount": "1"}
    assert reason("spend", row) == ("campaign_id", "missing")


def test_an_id_that_a_spreadsheet_rounded_is_refused():
    assert reason("attribution_events", {**ORDER, "order_number": "4.50123E+12"}) == (
        "order_number",
        "digits_lost",
    )


def test_ids_of_a_column_of_floats_are_whole():
    frame = pl.DataFrame({**ORDER, "order_number": [7001.0, 0.5, float("nan"), None], "_line": [1, 2, 3, 4]})
    passed, _ = check(DATASETS["attribution_events"], frame, NOW)
    assert passed["order_number"].to_list() == ["7001", "0.5", None, None]


@pytest.mark.parametrize(
    ("texts", "how", "expected"),
    [
        (["2.345", "99,90"], Amounts.COMMA, ["2345", "99.90"]),
        (["2.345,60", "7"], Amounts.COMMA, ["2345.60", "7"]),
        (["2 345,6", "2\u202f345"], Amounts.COMMA, ["2345.6", "2345"]),
        (["2,345.60", "2,345"], Amounts.POINT, ["2345.60", "2345"]),
        (["2'345.60", "1,234,567"], Amounts.POINT, ["2345.60", "1234567"]),
        (["0,345", "2,345"], Amounts.COMMA, ["0.345", "2.345"]),
        (["2,345"], Amounts.UNKNOWN, [None]),
        (["2,345", "2.345", "9.5", "9,5"], Amounts.MIXED, [None, None, "9.5", "9.5"]),
        (["1.5,5", "5,5"], Amounts.COMMA, [None, "5.5"]),
        (["-1.234,5", "$5", ",5"], Amounts.COMMA, ["-1234.5", None, ".5"]),
    ],
)
def test_the_file_decides_what_a_comma_is(texts: list[str], how: Amounts, expected: list[str | None]):
    evidence = Evidence()
    for text in texts:  # where a block ends changes nothing
        evidence.add(pl.Series([text]))
    assert evidence.judge() is how
    rows = [{"campaign_id": "c", "spend_date": "2024-05-01", "amount": text} for text in texts]
    frame = pl.DataFrame(rows).with_columns(pl.int_range(1, len(rows) + 1, dtype=pl.Int64).alias("_line"))
    with pytest.raises(AmountsUnknownError):
        check(DATASETS["spend"], frame, NOW)
    passed, rejects = check(DATASETS["spend"], frame, NOW, amounts=how)
    assert passed["amount"].to_list() == [text for text in expected if text is not None]
    assert [reject.line for reject in rejects] == [at for at, text in enumerate(expected, 1) if text is None]
    assert all(reject.reason == "not_decimal" for reject in rejects)
    assert all("file" in reject.detail and texts[reject.line - 1] in reject.detail for reject in rejects)


def test_a_point_alone_is_a_decimal_one():
    row = {"campaign_id": "c", "spend_date": "2024-05-01", "amount": "1.234"}
    assert run("spend", row)[0]["amount"].to_list() == ["1.234"]


@given(st.lists(st.text("0123456789.,' -", max_size=9), min_size=1, max_size=5))
def test_no_amount_is_read_as_another(texts: list[str]):
    evidence = Evidence()
    evidence.add(pl.Series(texts))
    read = checks.parse_decimal(plain_amounts(pl.Series(texts), evidence.judge())).to_list()
    for text, value in zip(texts, read, strict=True):
        if value is not None:
            assert [c for c in value if c.isdigit()] == [c for c in text if c.isdigit()]
