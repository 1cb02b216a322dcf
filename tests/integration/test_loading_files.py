"""Loading one file: all or nothing, once, and every row accounted for."""

import gzip
import hashlib
import ipaddress
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest

from earmark.addresses.networks import Networks
from earmark.addresses.privacy import HashKey
from earmark.addresses.proxies import Proxies
from earmark.addresses.ranges import Ranges
from earmark.addresses.site import Lookups
from earmark.ingestion import files, load
from earmark.ingestion.errors import (
    DatabaseLoadError,
    FileChangedError,
    HashKeyError,
    LoadError,
    NoRegularFileError,
    NoRowsError,
    UnknownTenantError,
    UnreachableFileError,
)
from earmark.ingestion.load import LoadReport, LoadRequest, load_file

KEY = HashKey("k1", b"0123456789abcdef0123456789abcdef")
TABLES = (
    "raw.listener_events",
    "raw.attribution_events",
    "raw.listener_metrics",
    "ingest.loads",
    "ingest.rejects",
)


@pytest.fixture(autouse=True)
def _tenant(connection: psycopg.Connection) -> None:
    connection.execute("insert into tenancy.tenants (tenant_id, name) values ('acme', 'Acme'), ('other', 'Other')")
    connection.commit()


def run(connection: psycopg.Connection, path: Path | str, dataset: str | None = None, **how: Any) -> LoadReport:
    tenant = how.pop("tenant", "acme")
    return load_file(
        connection,
        LoadRequest(str(path), tenant, dataset, how.pop("source", None)),
        key=how.pop("key", KEY),
        **how,
    )


def figures(report: LoadReport) -> tuple[int, int, int, int]:
    (only,) = report.datasets
    return only.read, only.loaded, only.duplicate, only.rejected


def rows(connection: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()


def counts(connection: psycopg.Connection) -> dict[str, int]:
    return {table: rows(connection, f"select count(*) from {table}")[0][0] for table in TABLES}


def events(count: int, start: int = 0, day: int = 1) -> str:
    lines = ["event_id,occurred_at,event_type,url,ip,user_agent"]
    for at in range(start, start + count):
        time = f"2024-05-{day:02d}T{at // 3600 % 24:02d}:{at // 60 % 60:02d}:{at % 60:02d}Z"
        lines.append(f"{uuid.UUID(int=at + 1)},{time},request,/a.mp3,192.0.2.{at % 250},agent {at % 7}")
    return "\n".join(lines) + "\n"


def log_lines(count: int, start: int = 0) -> list[str]:
    return [
        f"192.0.2.{at % 250} - - [03/Dec/2013:{at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d} +0000] "
        f'"GET /{at % 9}.mp3 HTTP/1.1" 200 {at} "-" "agent"'
        for at in range(start, start + count)
    ]


def write(folder: Path, text: str | list[str], name: str = "file.csv") -> Path:
    path = folder / name
    path.write_text(text if isinstance(text, str) else "\n".join(text) + "\n")
    return path


def test_a_load_and_its_ledger(connection: psycopg.Connection, tmp_path: Path):
    path = write(tmp_path, events(100) + "x,never,request,/a.mp3,192.0.2.1,\n")
    report = run(connection, path, "listener_events")
    assert figures(report) == (101, 100, 0, 1)
    assert rows(
        connection,
        "select dataset, source, uri, rows_read, rows_loaded, rows_duplicate, rows_rejected, first_event_at::text,"
        " last_event_at::text from ingest.loads",
    ) == [
        (
            *("listener_events", "generic", str(path), 101, 100, 0, 1),
            *("2024-05-01 00:00:00+00", "2024-05-01 00:01:39+00"),
        )
    ]
    assert rows(connection, "select producer, day::text from ingest.changes") == [
        ("raw.listener_events", "2024-05-01")
    ]
    ((line, field, reason, detail, original),) = rows(
        connection, "select line_number, field, reason, detail, original from ingest.rejects"
    )
    assert (line, field, reason) == (102, "occurred_at", "not_timestamp")
    assert detail.startswith('occurred_at is "never": allowed is ISO 8601')
    assert original.startswith("x,never,request,/a.mp3,<ip:")


def test_stored_keys_are_sixteen_bytes(connection: psycopg.Connection, tmp_path: Path):
    run(connection, write(tmp_path, events(3)), "listener_events")
    hasher = KEY.for_tenant("acme")
    stored = rows(
        connection, "select household_key, listener_key, key_id from raw.listener_events order by occurred_at"
    )
    assert stored[2] == (hasher.household("192.0.2.2"), hasher.listener("192.0.2.2", "agent 2"), "k1")


def test_the_same_bytes_add_nothing(connection: psycopg.Connection, tmp_path: Path):
    path = write(tmp_path, events(100))
    first = run(connection, path, "listener_events")
    before = counts(connection)
    again = run(connection, path, "listener_events")
    assert again.already_loaded_as == first.datasets[0].load_id
    assert again.datasets == ()
    assert counts(connection) == before
    assert run(connection, path, "listener_events", tenant="other").already_loaded_as is None


def test_the_same_rows_in_other_bytes_are_duplicates(connection: psycopg.Connection, tmp_path: Path):
    run(connection, write(tmp_path, events(100)), "listener_events")
    day = rows(connection, "select changed_by::text::bigint from ingest.changes")
    packed = tmp_path / "again.csv.gz"
    packed.write_bytes(gzip.compress(events(100).encode()))
    assert figures(run(connection, packed, "listener_events")) == (100, 0, 100, 0)
    assert rows(connection, "select changed_by::text::bigint from ingest.changes") == day


def test_half_known_files(connection: psycopg.Connection, tmp_path: Path):
    run(connection, write(tmp_path, events(100)), "listener_events")
    assert figures(run(connection, write(tmp_path, events(100, 50)), "listener_events")) == (100, 50, 50, 0)
    assert figures(run(connection, write(tmp_path, events(50, 500)), "listener_events")) == (50, 50, 0, 0)
    assert counts(connection)["raw.listener_events"] == 200


def test_twins_within_a_file_and_the_first_wins(connection: psycopg.Connection, tmp_path: Path):
    text = events(10) + "".join(line.replace("/a.mp3", "/b.mp3") + "\n" for line in events(5).splitlines()[1:])
    assert figures(run(connection, write(tmp_path, text), "listener_events")) == (15, 10, 5, 0)
    assert rows(connection, "select distinct url from raw.listener_events") == [("/a.mp3",)]


def test_a_file_of_many_blocks(connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whether rows go straight or by way of the staging table, and wherever a block ends, is not to be seen."""
    text = (
        events(3000)
        + "".join(line + "\n" for line in events(500, 1000).splitlines()[1:])
        + events(1000, 3000)[43:]
    )
    text = text.replace("event_id,occurred_at,event_type,url,ip,user_agent\n", "")
    text = "event_id,occurred_at,event_type,url,ip,user_agent\n" + text
    real = load.read_blocks
    for tenant, size in (("acme", 1 << 23), ("other", 1 << 14)):
        monkeypatch.setattr(load, "read_blocks", lambda *given, size=size: real(*given, size))
        report = run(connection, write(tmp_path, text), "listener_events", tenant=tenant)
        read, loaded, duplicate, rejected = figures(report)
        assert (loaded, duplicate) == (4000, 500)
        assert read == loaded + duplicate + rejected
    both = "select event_id, occurred_at, url from raw.listener_events where tenant_id = '{}' order by 1, 2"
    assert rows(connection, both.format("acme")) == rows(connection, both.format("other"))


def test_equal_lines_of_one_log_are_events_of_their_own(
    connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    lines = log_lines(300)
    lines += [lines[7]] * 3 + lines[100:110]
    assert figures(run(connection, write(tmp_path, lines), source="nginx")) == (313, 313, 0, 0)
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert figures(run(connection, packed, source="nginx")) == (313, 0, 313, 0)
    # The same in blocks of a few lines, of which some go straight into the table.
    real = load.read_blocks
    monkeypatch.setattr(load, "read_blocks", lambda *given: real(*given, 700))
    assert figures(run(connection, packed, source="nginx", tenant="other")) == (313, 313, 0, 0)
    assert figures(run(connection, write(tmp_path, lines), source="nginx", tenant="other")) == (313, 0, 313, 0)


def test_overlapping_rotations_add_only_the_new_lines(connection: psycopg.Connection, tmp_path: Path):
    run(connection, write(tmp_path, log_lines(200)), source="nginx")
    assert figures(run(connection, write(tmp_path, log_lines(200, 100)), source="nginx")) == (200, 100, 100, 0)
    assert counts(connection)["raw.listener_events"] == 300


def test_only_days_with_rows_get_chunks(connection: psycopg.Connection, tmp_path: Path):
    text = "occurred_at,event_type,url\n2005-01-01,play,/a\n2024-05-01,play,/a\n"
    report = run(connection, write(tmp_path, text), "listener_events")
    assert report.datasets[0].changed_days == 2
    chunks = rows(
        connection,
        "select right(inhrelid::regclass::text, 8) from pg_inherits"
        " where inhparent = 'raw.listener_events'::regclass"
        " and inhrelid::regclass::text < 'chunks.raw__listener_events__2025'"
        " order by 1",
    )
    assert chunks == [("20050101",), ("20240501",)]


def test_a_file_with_nothing_but_bad_rows(connection: psycopg.Connection, tmp_path: Path):
    text = "occurred_at,event_type,url\n" + "x,y,z\n" * 50
    assert figures(run(connection, write(tmp_path, text), "listener_events")) == (50, 0, 0, 50)
    assert rows(connection, "select count(*) from ingest.changes") == [(0,)]


@pytest.mark.parametrize("text", ["", "\n\n", "occurred_at,event_type,url\n"])
def test_a_file_without_a_row_is_refused(connection: psycopg.Connection, tmp_path: Path, text: str):
    with pytest.raises(NoRowsError, match=r"file\.csv: holds no row; nothing was loaded"):
        run(connection, write(tmp_path, text), "listener_events")
    assert rows(connection, "select count(*) from ingest.loads") == [(0,)]


CAMPAIGNS = "campaign_id,sponsor_id,name,starts_at,ends_at,lookback_days\n"


def test_reference_data_keeps_the_latest(connection: psycopg.Connection, tmp_path: Path):
    first = CAMPAIGNS + "c1,s,One,2024-01-01,2024-02-01,30\nc2,s,Two,2024-01-01,2024-02-01,30\n"
    second = first.replace("Two", "Changed") + "c3,s,3,2024-01-01,2024-02-01,\n"
    run(connection, write(tmp_path, events(10)), "listener_events")
    before = rows(connection, "select producer, day::text, changed_by::text from ingest.changes")
    assert figures(run(connection, write(tmp_path, first), "campaigns")) == (2, 2, 0, 0)
    after = rows(connection, "select producer, day::text, changed_by::text from ingest.changes order by producer")
    assert after[1:] == before, "the campaigns changed, and no day of events"
    assert after[0][:2] == ("raw.campaigns", "-infinity")
    assert figures(run(connection, write(tmp_path, second), "campaigns")) == (3, 2, 1, 0)
    assert rows(connection, "select name from raw.campaigns order by 1") == [("3",), ("Changed",), ("One",)]
    # The first file again: since then another was loaded, so its bytes are news.
    assert figures(run(connection, write(tmp_path, first), "campaigns")) == (2, 1, 1, 0)
    assert run(connection, write(tmp_path, first), "campaigns").already_loaded_as is not None
    days = rows(connection, "select changed_by::text::bigint from ingest.changes")
    assert figures(run(connection, write(tmp_path, first + "\n"), "campaigns")) == (2, 0, 2, 0)
    assert rows(connection, "select changed_by::text::bigint from ingest.changes") == days


def test_rows_of_one_key_that_differ_are_refused_with_their_lines(connection: psycopg.Connection, tmp_path: Path):
    text = "sponsor_id,name\ns,first\nt,other\ns,second\nt,other\n"
    assert figures(run(connection, write(tmp_path, text), "sponsors")) == (4, 1, 1, 2)
    assert rows(connection, "select name from raw.sponsors") == [("other",)]
    assert rows(connection, "select line_number, field, reason, original from ingest.rejects order by 1") == [
        (2, "sponsor_id", "key_twice", '{"name": "first", "properties": {}, "sponsor_id": "s"}'),
        (4, "sponsor_id", "key_twice", '{"name": "second", "properties": {}, "sponsor_id": "s"}'),
    ]
    assert rows(connection, "select distinct detail from ingest.rejects") == [
        ("lines 2, 4 are of the same sponsor_id and differ: leave out what does not hold",)
    ]


def test_spend_of_a_day_in_several_rows_is_added_up(connection: psycopg.Connection, tmp_path: Path):
    text = (
        "campaign_id,spend_date,amount,currency,placement,agency\n"
        "c,2024-05-01,70.10,EUR,pre,x\nc,2024-05-01,0.20,EUR,mid,x\nc,2024-05-01,70.10,EUR,pre,x\n"
        "c,2024-05-02,5,EUR,pre,x\nd,2024-05-01,1,EUR,pre,x\nd,2024-05-01,1,USD,pre,x\n"
    )
    assert figures(run(connection, write(tmp_path, text), "spend")) == (6, 3, 0, 3)
    assert rows(
        connection, "select campaign_id, spend_date::text, amount::text, properties from raw.spend order by 2"
    ) == [
        ("c", "2024-05-01", "70.30", {"agency": "x"}),
        ("c", "2024-05-02", "5", {"agency": "x", "placement": "pre"}),
    ]
    refused = rows(connection, "select line_number, reason, detail from ingest.rejects order by 1")
    assert [row[:2] for row in refused] == [(4, "row_twice"), (6, "key_twice"), (7, "key_twice")]
    assert refused[0][2].startswith(
        "line 4 says the same as line 2, of the same campaign_id, podcast_id, spend_date"
    )
    assert refused[1][2].startswith("lines 6, 7 are of the same campaign_id, podcast_id, spend_date and differ")
    # What is there already stays so, row by row.
    other = "\n".join(text.splitlines()[:3]) + "\n"
    assert figures(run(connection, write(tmp_path, other), "spend")) == (2, 0, 2, 0)


def test_metrics_are_added_up_over_what_is_not_kept_and_nothing_else(
    connection: psycopg.Connection, tmp_path: Path
):
    head = "episode_id,metric_date,metric_name,value,country\n"
    row = "{},2024-05-01,starts,{},{}\n"
    text = (
        head
        + row.format("e", 10, "US")
        + row.format("e", 5, "DE")
        + row.format("f", 1, "US")
        + row.format("f", 2, "US")
    )
    assert figures(run(connection, write(tmp_path, text), "listener_metrics")) == (4, 2, 0, 2)
    assert rows(connection, "select episode_id, value from raw.listener_metrics") == [("e", 15)]


def test_lines_of_an_order_under_one_event_id_are_all_kept(connection: psycopg.Connection, tmp_path: Path):
    head = "event_id,occurred_at,action,type,order_number,value\n"
    row = "o-1,2024-05-01T10:00:00Z,purchase,offline,o-1,{}\n"
    text = head + row.format(20) + row.format(40) + row.format(20)
    assert figures(run(connection, write(tmp_path, text), "attribution_events")) == (3, 2, 1, 0)
    assert rows(connection, "select sum(value)::text from raw.attribution_events") == [("60",)]
    assert figures(run(connection, write(tmp_path, text + "\n"), "attribution_events")) == (3, 0, 3, 0)


def test_a_file_of_decimal_commas(connection: psycopg.Connection, tmp_path: Path):
    text = "campaign_id;spend_date;amount\nc;2024-05-01;2.345\nc;2024-05-02;9,5\nc;2024-05-03;1.5,5\n"
    assert figures(run(connection, write(tmp_path, text), "spend")) == (3, 2, 0, 1)
    assert rows(connection, "select amount::text, currency from raw.spend order by spend_date") == [
        ("2345", None),
        ("9.5", None),
    ]
    assert 'amount is "1.5,5"' in rows(connection, "select detail from ingest.rejects")[0][0]


def test_no_email_address_reaches_the_database(connection: psycopg.Connection, tmp_path: Path):
    data = (
        "occurred_at,action,type,value,Customer Email,note,email,hashed_email,cookie_id,url,order_number\n"
        "2024-05-01,purchase,pixel,1,x.y@mail.example.net,by x.y@mail.example.net,x.y@mail.example.net,"
        "X.Y@mail.example.net,x.y@mail.example.net,https://shop.example/?u=x.y%40mail.example.net,1\n"
        f"2024-05-01,purchase,pixel,x.y@mail.example.net,,,,{'a' * 113}x.y@mail.example.net,,,2\n"
    )
    assert figures(run(connection, write(tmp_path, data), "attribution_events")) == (2, 1, 0, 1)
    texts = [
        str(value)
        for table in (*TABLES, "ingest.changes", "ingest.files")
        for row in rows(connection, f"select t::text from {table} as t")
        for value in row
    ]
    assert texts
    assert not [text for text in texts if "mail.exam" in text.lower() or "x.y@" in text.lower()]
    (found,) = rows(
        connection,
        "select encode(hashed_email, 'hex'), properties->>'Customer Email' from raw.attribution_events",
    )
    assert found[0] == hashlib.sha256(b"x.y@mail.example.net").hexdigest()
    assert found[1].startswith("<email:")


def test_metrics_of_two_partners_stand_side_by_side(connection: psycopg.Connection, tmp_path: Path):
    text = "episode_id,metric_date,metric_name,value\ne,2024-05-01,starts,10\n"
    run(connection, write(tmp_path, text), "listener_metrics", source="spotify")
    run(connection, write(tmp_path, text), "listener_metrics", source="apple")
    assert figures(
        run(connection, write(tmp_path, text.replace("10", "11")), "listener_metrics", source="apple")
    ) == (*(1, 1, 0, 0),)
    assert rows(connection, "select source, value from raw.listener_metrics order by 1") == [
        ("apple", 11),
        ("spotify", 10),
    ]


def test_spend_marks_its_own_days(connection: psycopg.Connection, tmp_path: Path):
    text = "campaign_id,spend_date,amount\nc,2024-05-01,10.10\nc,2024-05-03,5\n"
    run(connection, write(tmp_path, text), "spend")
    assert rows(connection, "select producer, day::text from ingest.changes order by 2") == [
        ("raw.spend", "2024-05-01"),
        ("raw.spend", "2024-05-03"),
    ]
    assert rows(connection, "select sum(amount)::text from raw.spend") == [("15.10",)]


def test_every_kind_reaches_its_column(connection: psycopg.Connection, tmp_path: Path):
    line = (
        '{"occurred_at":"2024-05-01T00:00:00Z","action":"purchase","type":"pixel","value":19.99,"currency":"usd",'
        f'"is_new_customer":true,"hashed_email":"{"ab" * 32}","ip":"192.0.2.1","user_agent":"a","order_number":7,'
        '"properties":{"note":"it\'s \\"quoted\\", with a comma\\nand a line"},"cart":[1,2]}\n'
    )
    assert figures(run(connection, write(tmp_path, line, "x.ndjson"), "attribution_events")) == (1, 1, 0, 0)
    assert rows(
        connection,
        "select value::text, currency, is_new_customer, encode(hashed_email, 'hex'), length(household_key),"
        " order_number, properties->>'note', properties->>'cart' from raw.attribution_events",
    ) == [("19.99", "USD", True, "ab" * 32, 16, "7", 'it\'s "quoted", with a comma\nand a line', "[1, 2]")]


def test_beacons_and_declared_bitrates_reach_their_columns(connection: psycopg.Connection, tmp_path: Path):
    beacons = "occurred_at,event_type,ad_unit_id,play_id,quartile\n2024-05-01,ad_impression,a,p1,75\n"
    run(connection, write(tmp_path, beacons), "listener_events")
    episodes = "episode_id,podcast_id,bitrate_bps,id3_bytes\ne,p,128000,4096\n"
    run(connection, write(tmp_path, episodes), "episodes")
    assert rows(connection, "select play_id, quartile from raw.listener_events") == [("p1", 75)]
    assert rows(connection, "select bitrate_bps, id3_bytes from raw.episodes") == [(128000, 4096)]


def test_csv_ndjson_and_parquet_give_the_same_rows(connection: psycopg.Connection, tmp_path: Path):
    frame = pl.read_csv(events(500).encode(), infer_schema=False)
    frame.write_parquet(tmp_path / "p.parquet")
    frame.write_ndjson(tmp_path / "n.ndjson")
    run(connection, write(tmp_path, events(500)), "listener_events")
    for name in ("p.parquet", "n.ndjson"):
        assert figures(run(connection, tmp_path / name, "listener_events")) == (500, 0, 500, 0)


def test_no_raw_address_reaches_the_database(connection: psycopg.Connection, tmp_path: Path):
    address, other = "192.0.2.77", "2001:db8:aaaa:bbbb:cccc::1"
    data = (
        "occurred_at,event_type,url,ip,user_agent,x_forwarded_for,note,status\n"
        f"2024-05-01,play,https://h/a?client={address},{address},agent {address},{other},seen from {other},200\n"
        f"2024-05-01,play,/a,{address},agent,{other},seen,two {address}\n"
        f"2024-05-01,play,/a,{address}\n"
    )
    assert figures(run(connection, write(tmp_path, data), "listener_events")) == (3, 1, 0, 2)
    texts = [
        str(value)
        for table in ("raw.listener_events", "ingest.rejects", "ingest.loads")
        for row in rows(connection, f"select t::text, t.* from {table} as t")
        for value in row
    ]
    assert not [text for text in texts if address in text or "2001:db8:aaaa" in text]
    assert not [text for text in texts if address.encode().hex() in text]


def test_networks_and_the_version_of_their_lists(connection: psycopg.Connection, tmp_path: Path):
    lookups = Lookups(
        Proxies([ipaddress.ip_network("192.0.2.1")]),
        Networks(Ranges({ipaddress.ip_network("198.51.100.0/24"): "vpn"}), "mine@1a2b3c4d"),
    )
    data = "occurred_at,event_type,url,ip,forwarded_for\n"
    data += "2024-05-01,play,/a,192.0.2.1,198.51.100.7\n2024-05-01,play,/b,192.0.2.1,\n"
    run(connection, write(tmp_path, data), "listener_events", lookups=lookups)
    run(connection, write(tmp_path, "sponsor_id,name\ns,n\n"), "sponsors", lookups=lookups)
    found = rows(connection, "select url, network, household_key from raw.listener_events order by 1")
    hasher = KEY.for_tenant("acme")
    assert found == [
        ("/a", "vpn", hasher.household("198.51.100.7")),
        ("/b", None, hasher.household("192.0.2.1")),
    ]
    assert rows(connection, "select dataset, network_list from ingest.loads order by 1") == [
        ("listener_events", "mine@1a2b3c4d"),
        ("sponsors", None),
    ]


def test_an_unknown_tenant_is_told_how_to_register(connection: psycopg.Connection, tmp_path: Path):
    with pytest.raises(UnknownTenantError, match=r"no tenant 'nobody'.*tenants\.csv"):
        run(connection, write(tmp_path, events(1)), "listener_events", tenant="nobody")


def test_another_secret_under_the_same_id_is_refused(connection: psycopg.Connection, tmp_path: Path):
    run(connection, write(tmp_path, events(1)), "listener_events")
    with pytest.raises(HashKeyError, match="'k1' is another secret"):
        run(connection, write(tmp_path, events(2)), "listener_events", key=HashKey("k1", b"x" * 32))
    assert counts(connection)["raw.listener_events"] == 1
    run(connection, write(tmp_path, events(2)), "listener_events", key=HashKey("k2", b"x" * 32))
    assert (
        rows(connection, "select fingerprint = %b from ingest.hash_keys".replace("%b", "fingerprint"))
        == [(True,)] * 2
    )


@pytest.mark.parametrize("uri", ["/nowhere/file.csv", "memory://nowhere.csv", "gopher://x/y"])
def test_a_file_that_is_not_there(connection: psycopg.Connection, uri: str):
    with pytest.raises(UnreachableFileError, match=r"file\.csv|nowhere|gopher"):
        run(connection, uri, "listener_events")


def test_a_folder_is_no_file(connection: psycopg.Connection, tmp_path: Path):
    with pytest.raises(NoRegularFileError, match="is a folder"):
        run(connection, tmp_path, "listener_events")


def test_a_file_that_changes_while_it_is_read_leaves_nothing(connection: psycopg.Connection, tmp_path: Path):
    path = write(tmp_path, events(100))
    before = counts(connection)

    def grow(_rows: int) -> None:
        with path.open("a") as file:
            file.write("more\n")

    with pytest.raises(FileChangedError, match="changed while it was read; nothing was loaded"):
        run(connection, path, "listener_events", progress=grow)
    assert counts(connection) == before


def test_a_truncated_file_leaves_nothing(connection: psycopg.Connection, tmp_path: Path):
    path = tmp_path / "x.csv.gz"
    packed = gzip.compress(events(60_000).encode(), 1)
    path.write_bytes(packed[: len(packed) * 3 // 4])
    before = counts(connection)
    with pytest.raises(LoadError, match=r"x\.csv\.gz: is damaged"):
        run(connection, path, "listener_events")
    assert counts(connection) == before


def test_a_killed_backend_leaves_nothing(connection: psycopg.Connection, database: str, tmp_path: Path):
    before = counts(connection)
    connection.commit()
    with psycopg.connect(database) as doomed:
        pid = doomed.info.backend_pid

        def kill(_rows: int) -> None:
            connection.execute("select pg_terminate_backend(%s, 5000)", (pid,))

        with pytest.raises(DatabaseLoadError, match=r"the database stopped the load .*nothing was loaded"):
            run(doomed, write(tmp_path, events(1000)), "listener_events", progress=kill)
    assert counts(connection) == before
    assert figures(run(connection, tmp_path / "file.csv", "listener_events")) == (1000, 1000, 0, 0)


def test_a_full_disk_is_said_so(connection: psycopg.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_given: object) -> None:
        raise psycopg.errors.DiskFull("could not extend file: No space left on device")

    monkeypatch.setattr(load._Load, "_insert", full)
    run(connection, write(tmp_path, events(10)), "listener_events")
    with pytest.raises(DatabaseLoadError, match=r"No space left on device\); nothing was loaded\. Make room"):
        run(connection, write(tmp_path, events(20)), "listener_events")
    assert counts(connection)["raw.listener_events"] == 10


def test_a_role_without_rights_is_told_the_role_it_needs(connection: psycopg.Connection, tmp_path: Path):
    role = f"nobody_{uuid.uuid4().hex[:8]}"
    connection.execute(f"create role {role}".encode())
    try:
        connection.execute(f"set local role {role}".encode())
        with pytest.raises(DatabaseLoadError, match="earmark_loader"):
            run(connection, write(tmp_path, events(1)), "listener_events")
    finally:
        connection.rollback()


@pytest.fixture
def loaders(database: str) -> Iterator[list[psycopg.Connection]]:
    opened = [psycopg.connect(database) for _ in range(2)]
    yield opened
    for one in opened:
        one.close()


def together(loaders: list[psycopg.Connection], paths: list[Path], **how: Any) -> list[LoadReport]:
    """Load on several connections at once; the threads start as one."""
    barrier = threading.Barrier(len(paths))
    reports: list[LoadReport | None] = [None] * len(paths)
    failures: list[BaseException] = []

    def work(at: int) -> None:
        barrier.wait()
        try:
            reports[at] = run(loaders[at], paths[at], **how)
        except LoadError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(paths))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    return [report for report in reports if report is not None]


def test_two_loaders_of_one_file(
    connection: psycopg.Connection, loaders: list[psycopg.Connection], tmp_path: Path
):
    path = write(tmp_path, events(5000))
    reports = together(loaders, [path, path], dataset="listener_events")
    assert sorted(report.already_loaded_as is None for report in reports) == [False, True]
    assert counts(connection)["raw.listener_events"] == 5000
    assert counts(connection)["ingest.loads"] == 1


def test_two_loaders_of_files_that_overlap(
    connection: psycopg.Connection, loaders: list[psycopg.Connection], tmp_path: Path
):
    paths = [write(tmp_path, events(4000), "a.csv"), write(tmp_path, events(4000, 2000), "b.csv")]
    reports = together(loaders, paths, dataset="listener_events")
    assert sorted(figures(report)[1:3] for report in reports) == [(2000, 2000), (4000, 0)]
    assert counts(connection)["raw.listener_events"] == 6000


def test_progress_counts_rows(connection: psycopg.Connection, tmp_path: Path):
    seen: list[int] = []
    run(connection, write(tmp_path, events(100)), "listener_events", progress=seen.append)
    assert seen[-1] == 100


def test_any_address_of_fsspec(connection: psycopg.Connection):
    system, _ = files.filesystem("memory://bucket/events.csv")
    system.pipe_file("/bucket/events.csv", events(10).encode())
    assert figures(run(connection, "memory://bucket/events.csv", "listener_events")) == (10, 10, 0, 0)
