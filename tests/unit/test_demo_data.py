"""The demo data, read with parsers of its own: formats, counts, shapes, and the effect that was planted."""

import csv
import gzip
import hashlib
import ipaddress
import json
import math
import re
import subprocess
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import polars as pl
import pytest

from earmark.demo import TRUTH_FILE, DemoTruth, write_demo_data

NGINX = re.compile(
    r'^(\S+) - - \[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d \+0000)\] "(GET|HEAD) (\S+) HTTP/[\d.]+" '
    r'(\d{3}) (\d+) "([^"]*)" "([^"]*)"$'
)
DAY = timedelta(days=1)
ACTIONS = {"view", "signup", "lead", "purchase", "install", "offline_purchase"}
IPV4 = ipaddress.ip_network("198.18.0.0/15")
IPV6 = ipaddress.ip_network("2001:db8::/32")


@dataclass
class Request:
    """One line of a log."""

    at: datetime
    ip: str
    method: str
    path: str
    status: int
    sent: int
    user_agent: str
    byte_range: tuple[int, int] | None = None


@dataclass
class Read:
    """What a folder's files were found to hold."""

    rows: list = field(default_factory=list)
    malformed: int = 0
    late: int = 0
    duplicates: int = 0
    lines: int = 0


@dataclass
class Demo:
    """A folder of demo data and its truth."""

    root: Path
    truth: DemoTruth


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    root = tmp_path_factory.mktemp("demo") / "landing"
    return Demo(root, write_demo_data(root, days=42, events=60_000))


def _lines(path: Path) -> list[str]:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode().splitlines()


def _nginx(line: str) -> Request:
    found = NGINX.match(line)
    if found is None:
        raise ValueError(line)
    ip, time, method, path, status, sent, _, agent = found.groups()
    at = datetime.strptime(time, "%d/%b/%Y:%H:%M:%S %z")
    return Request(at, ip, method, path, int(status), int(sent), agent)


def _cloudfront(fields: list[str], line: str) -> Request:
    row = dict(zip(fields, line.split("\t"), strict=True))
    at = datetime.fromisoformat(f"{row['date']}T{row['time']}+00:00")
    start, end = row["sc-range-start"], row["sc-range-end"]
    return Request(
        at,
        row["c-ip"],
        row["cs-method"],
        row["cs-uri-stem"],
        int(row["sc-status"]),
        int(row["sc-bytes"]),
        unquote(row["cs(User-Agent)"]),
        None if start == "-" else (int(start), int(end)),
    )


def _impression(line: str) -> dict:
    row = json.loads(line)
    row["at"] = datetime.fromisoformat(row["occurred_at"])
    if row["event_type"] != "ad_impression":
        raise ValueError(line)
    return row


def _response(columns: list[str], line: str) -> dict:
    row = json.loads(line) if line.startswith("{") else None
    if row is None:
        row = dict(zip(columns, next(csv.reader([line])), strict=True))
    row["at"] = datetime.fromisoformat(row["occurred_at"])
    if row["action"] not in ACTIONS:
        raise ValueError(line)
    return row


@cache
def _read(root: Path, tenant: str, folder: str) -> Read:
    """Parse every line of a folder; a line that stands in two files is a duplicate."""
    read = Read()
    seen: set[str] = set()
    for path in sorted((root / tenant / folder).iterdir(), key=_in_order):
        header: list[str] = []
        filed = date.fromisoformat(re.search(r"\d{4}-\d\d-\d\d", path.name)[0])
        for line in _lines(path):
            if line.startswith("#Version"):
                continue
            if line.startswith("#Fields: "):
                header = line.removeprefix("#Fields: ").split()
                continue
            if line.startswith("event_id,"):
                header = line.split(",")
                continue
            read.lines += 1
            if line in seen:
                read.duplicates += 1
                continue
            try:
                if folder == "nginx":
                    row = _nginx(line)
                elif folder == "cloudfront":
                    row = _cloudfront(header, line)
                elif folder == "listener_events":
                    row = _impression(line)
                else:
                    row = _response(header, line)
            except (ValueError, KeyError):
                read.malformed += 1
                continue
            seen.add(line)
            at = row.at if isinstance(row, Request) else row["at"]
            read.late += at.date() != filed and not path.name.startswith("orders-")
            read.rows.append(row)
    return read


def _in_order(path: Path) -> tuple[bool, str]:
    again = any(word in path.name for word in ("rotated", "resent", "again", ".b0"))
    return again, path.name


def _tenants(demo: Demo) -> Iterator[tuple[str, str]]:
    return zip(demo.truth.tenants, ("nginx", "cloudfront"), strict=True)


def _csv(demo: Demo, tenant: str, name: str) -> list[dict[str, str]]:
    with (demo.root / tenant / name / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def _episodes(demo: Demo, tenant: str) -> dict[str, dict]:
    """Return the episodes of a tenant's feeds by the path of their enclosure."""
    episodes = {}
    for feed in sorted((demo.root / tenant / "rss").iterdir()):
        channel = ET.parse(feed).getroot().find("channel")  # noqa: S314  (written by us)
        podcast = channel.find("{https://podcastindex.org/namespace/1.0}guid").text
        for item in channel.findall("item"):
            enclosure = item.find("enclosure")
            url = enclosure.get("url").partition("?")[0]
            assert f"/media.{tenant}.example/" in url
            guid = item.find("guid").text
            episodes[url.partition(f"media.{tenant}.example")[2]] = {
                # The rule of the rss source, said once more.
                "id": str(uuid.uuid5(uuid.UUID(podcast), guid)),
                "podcast": podcast,
                "slug": feed.stem,
                "bytes": int(enclosure.get("length")),
                "published": parsedate_to_datetime(item.find("pubDate").text),
                "seconds": _seconds(item.find("{http://www.itunes.com/dtds/podcast-1.0.dtd}duration").text),
            }
    return episodes


def _seconds(text: str) -> int:
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds


def _fingerprints(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


# ----------------------------------------------------------------------------------------------------- the folder


def test_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_demo_data(tmp_path / name, days=12, events=3_000, seed=seed)
    first = _fingerprints(tmp_path / "a")
    assert first == _fingerprints(tmp_path / "b")
    other = _fingerprints(tmp_path / "c")
    assert (
        first["harbourline/nginx/access-2026-06-25.log.gz"] != other["harbourline/nginx/access-2026-06-25.log.gz"]
    )
    assert first["saltmarsh/attribution_events/pixel-2026-06-25.csv"] != other.get(
        "saltmarsh/attribution_events/pixel-2026-06-25.csv"
    )


@pytest.mark.parametrize(("days", "events", "tenants"), [(1, 2_000, 1), (9, 12_000, 2), (60, 20_000, 5)])
def test_sizes_are_as_asked(tmp_path: Path, days: int, events: int, tenants: int) -> None:
    truth = write_demo_data(tmp_path, days=days, events=events, tenants=tenants, end=date(2025, 3, 2))
    assert truth.start == date(2025, 3, 2) - (days - 1) * DAY
    assert truth.total("listener_events").rows == pytest.approx(events, rel=0.12)
    assert len(set(truth.tenants)) == tenants
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(truth.tenants)


def test_refuses_a_folder_with_files_and_too_little_data(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("a\n")
    with pytest.raises(FileExistsError, match="not empty"):
        write_demo_data(tmp_path)
    with pytest.raises(ValueError, match="at least one day"):
        write_demo_data(tmp_path / "new", days=0)


def test_the_folder_holds_what_the_loader_knows(demo: Demo) -> None:
    visible = {path.name for path in demo.root.iterdir() if not path.name.startswith(".")}
    assert visible == {"tenants.csv", *demo.truth.tenants}
    assert (demo.root / "tenants.csv").read_text().startswith("tenant_id,name\nharbourline,")
    for tenant, log in _tenants(demo):
        assert {path.name for path in (demo.root / tenant).iterdir()} == {
            *("ad_units", "attribution_events", "campaigns", "insertion_orders", "listener_events"),
            *("listener_metrics", "rss", "spend", "sponsors", log),
        }


def test_the_truth_is_written_beside_the_data(demo: Demo) -> None:
    written = json.loads((demo.root / TRUTH_FILE).read_text())
    assert written == json.loads(json.dumps(demo.truth.as_dict(), default=str))
    assert len(written["campaigns"]) == 10
    assert all(type(campaign["promo_code_and_pixel_orders"]) is int for campaign in written["campaigns"])


def test_importing_the_package_is_light() -> None:
    code = "import sys, earmark.demo; print(sorted({'numpy', 'pandas', 'polars'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------ formats, counts


@pytest.mark.parametrize("folder", ["nginx", "cloudfront", "listener_events", "attribution_events"])
def test_every_row_parses_but_the_malformed_ones(demo: Demo, folder: str) -> None:
    truths = [truth for truth in demo.truth.folders if truth.folder == folder]
    assert truths
    for truth in truths:
        read = _read(demo.root, truth.tenant, folder)
        assert (len(read.rows), read.late, read.duplicates, read.malformed, read.lines) == (
            *(truth.rows, truth.late, truth.duplicates, truth.malformed, truth.written),
        )
        assert min(truth.late, truth.duplicates, truth.malformed) > 0
        assert truth.files == len(list((demo.root / truth.tenant / folder).iterdir()))
        times = [row.at if isinstance(row, Request) else row["at"] for row in read.rows]
        assert min(times).date() >= demo.truth.start
        assert max(times) < datetime(2026, 7, 1, tzinfo=UTC)


def test_reference_rows_are_counted_and_refer_to_each_other(demo: Demo) -> None:
    for tenant, _ in _tenants(demo):
        tables = {
            name: _csv(demo, tenant, name)
            for name in ("sponsors", "campaigns", "insertion_orders", "ad_units", "spend")
        }
        for name, rows in tables.items():
            assert len(rows) == demo.truth.total(name, tenant).rows > 0
        sponsors = {row["sponsor_id"] for row in tables["sponsors"]}
        campaigns = {row["campaign_id"] for row in tables["campaigns"]}
        orders = {row["insertion_order_id"] for row in tables["insertion_orders"]}
        episodes = _episodes(demo, tenant).values()
        podcasts = {episode["podcast"] for episode in episodes} | {""}
        assert {row["sponsor_id"] for row in tables["campaigns"]} <= sponsors
        assert {row["campaign_id"] for row in tables["insertion_orders"] + tables["spend"]} <= campaigns
        assert {row["podcast_id"] for row in tables["insertion_orders"] + tables["spend"]} <= podcasts
        assert {row["insertion_order_id"] for row in tables["ad_units"]} == orders
        baked_in = [row for row in tables["ad_units"] if row["delivery"] == "baked_in"]
        assert {row["episode_id"] for row in baked_in} <= {episode["id"] for episode in episodes}
        assert len({row["ad_unit_id"] for row in tables["ad_units"]}) == len(tables["ad_units"])
        assert len({row["vanity_url"] for row in tables["insertion_orders"]}) == len(orders)
        assert len(episodes) == demo.truth.total("episodes", tenant).rows


def test_metrics_hold_the_rows_that_the_truth_counts(demo: Demo) -> None:
    for tenant, _ in _tenants(demo):
        files = sorted((demo.root / tenant / "listener_metrics").iterdir())
        frame = pl.concat(pl.read_parquet(path) for path in files)
        truth = demo.truth.total("listener_metrics", tenant)
        assert frame.height == truth.written
        assert frame["value"].null_count() == truth.malformed > 0
        good = frame.drop_nulls("value")
        assert good.height - good.unique().height == truth.duplicates > 0
        assert set(good["episode_id"]) <= {episode["id"] for episode in _episodes(demo, tenant).values()}


def test_addresses_are_from_ranges_that_nobody_has(demo: Demo) -> None:
    for tenant, log in _tenants(demo):
        requests = _read(demo.root, tenant, log).rows
        addresses = {ipaddress.ip_address(request.ip) for request in requests}
        assert all(address in (IPV4 if address.version == 4 else IPV6) for address in addresses)
        share = sum(":" in request.ip for request in requests) / len(requests)
        assert 0.2 < share < 0.4
        agents = defaultdict(set)
        for request in requests:
            agents[request.ip].add(request.user_agent)
        assert max(len(of_one) for of_one in agents.values()) > 6  # a shared address


def test_requests_are_of_every_kind(demo: Demo) -> None:
    for tenant, log in _tenants(demo):
        requests = _read(demo.root, tenant, log).rows
        kinds = Counter((request.method, request.status) for request in requests)
        total = len(requests)
        assert kinds["GET", 200] > 0.12 * total
        assert kinds["GET", 206] > 0.4 * total
        assert all(kinds["GET", status] > 0.001 * total for status in (304, 404))
        assert kinds["HEAD", 200] > 0.01 * total
        bots = sum(bool(re.search(r"bot|curl|requests/|Wget|Go-http", r.user_agent)) for r in requests)
        assert 0.01 < bots / total < 0.06
        if log == "cloudfront":
            assert sum(request.byte_range == (0, 1) for request in requests) > 0.05 * total
        else:
            assert sum(request.sent == 2 for request in requests) > 0.05 * total


# -------------------------------------------------------------------------------------------------------- shapes


def _first_requests(demo: Demo, tenant: str, log: str) -> list[tuple[datetime, dict]]:
    """Return the first request of each address, user agent and episode."""
    episodes = _episodes(demo, tenant)
    first: dict[tuple[str, str, str], datetime] = {}
    for request in _read(demo.root, tenant, log).rows:
        if request.method == "GET" and request.status in {200, 206} and request.path in episodes:
            key = (request.ip, request.user_agent, request.path)
            first[key] = min(request.at, first.get(key, request.at))
    return [(at, episodes[path]) for (_, _, path), at in first.items()]


def test_listening_spikes_at_release_and_has_a_long_tail(demo: Demo) -> None:
    lags: Counter[int] = Counter()
    for tenant, log in _tenants(demo):
        for at, episode in _first_requests(demo, tenant, log):
            if episode["published"].date() >= demo.truth.start and episode["published"].date() <= date(
                2026, 6, 15
            ):
                lags[(at - episode["published"]).days] += 1
    total = sum(lags.values())
    assert lags[-1] < 0.01 * total  # nobody but a bot comes before the release
    assert lags[0] > 0.3 * total
    assert lags[0] > 2 * lags[1] > 2 * lags[5] > 0
    assert sum(count for lag, count in lags.items() if lag >= 14) > 0.01 * total


def test_listening_follows_the_day_and_the_week(demo: Demo) -> None:
    hours: Counter[int] = Counter()
    weekdays: Counter[int] = Counter()
    for tenant, log in _tenants(demo):
        for request in _read(demo.root, tenant, log).rows:
            hours[request.at.hour] += 1
            weekdays[request.at.weekday()] += 1
    assert sum(hours[hour] for hour in range(12, 18)) > 1.5 * sum(hours[hour] for hour in range(6))
    assert (weekdays[5] + weekdays[6]) / 2 < 0.8 * sum(weekdays[day] for day in range(5)) / 5


def test_popularity_of_shows_is_zipf(demo: Demo) -> None:
    for tenant, log in _tenants(demo):
        counts = Counter(episode["slug"] for _, episode in _first_requests(demo, tenant, log))
        ranked = [count for _, count in counts.most_common()]
        assert len(ranked) == 6
        slope = (math.log(ranked[5]) - math.log(ranked[0])) / math.log(6)
        assert -1.2 < slope < -0.6


# --------------------------------------------------------------------------------------------------- the campaigns


def _household(ip: str) -> str:
    return ip if ":" not in ip else str(ipaddress.ip_network(f"{ip}/64", strict=False))


def _delivered(demo: Demo, tenant: str, log: str) -> tuple[dict[str, set[str]], set[str]]:
    """Return the households that each campaign reached, and all that listened from an address of their own."""
    episodes = _episodes(demo, tenant)
    units = defaultdict(list)
    campaign_of = {}
    for unit in _csv(demo, tenant, "ad_units"):
        units[unit["episode_id"]].append(unit)
        campaign_of[unit["ad_unit_id"]] = unit["campaign_id"]
    got: Counter[tuple[str, str]] = Counter()
    agents = defaultdict(set)
    for request in _read(demo.root, tenant, log).rows:
        agents[_household(request.ip)].add(request.user_agent)
        if request.method == "GET" and request.status in {200, 206} and request.path in episodes:
            got[_household(request.ip), request.path] += request.sent
    alone = {home for home, of_one in agents.items() if len(of_one) <= 5}
    reached = defaultdict(set)
    for (home, path), sent in got.items():
        episode = episodes[path]
        for unit in units[episode["id"]]:
            ends = (float(unit["starts_at_second"]) + float(unit["duration_seconds"])) / episode["seconds"]
            if sent >= 0.98 * ends * episode["bytes"] and home in alone:
                reached[unit["campaign_id"]].add(home)
    for event in _read(demo.root, tenant, "listener_events").rows:
        home = _household(event["ip"])
        if event["bytes_sent"] == event["object_bytes"] and home in alone:
            reached[campaign_of[event["ad_unit_id"]]].add(home)
    return reached, alone


def test_exposed_households_convert_more_exactly_where_an_effect_was_planted(demo: Demo) -> None:
    groups = {True: [0, 0, 0, 0], False: [0, 0, 0, 0]}  # exposed, of them buyers; others, of them buyers
    for tenant, log in _tenants(demo):
        reached, alone = _delivered(demo, tenant, log)
        responses = _read(demo.root, tenant, "attribution_events").rows
        for sponsor in {truth.sponsor_id for truth in demo.truth.campaigns if truth.tenant == tenant}:
            truths = [truth for truth in demo.truth.campaigns if truth.sponsor_id == sponsor]
            exposed = set().union(*(reached[truth.campaign_id] for truth in truths))
            buyers = {
                _household(row["ip"])
                for row in responses
                if row["sponsor_id"] == sponsor and row["action"] in truths[0].conversion_actions and row.get("ip")
            }
            planted = any(truth.lift_per_exposure > 0 for truth in truths)
            others = alone - exposed
            found = (len(exposed), len(exposed & buyers), len(others), len(others & buyers))
            groups[planted] = [a + b for a, b in zip(groups[planted], found, strict=True)]
    lifts = {}
    for planted, (exposed, bought, others, bought_too) in groups.items():
        assert min(exposed, others) > 300
        p, q = bought / exposed, bought_too / others
        error = math.sqrt(p * (1 - p) / exposed + q * (1 - q) / others)
        lifts[planted] = (p - q) / error
    assert lifts[True] > 5
    assert abs(lifts[False]) < 2.5


def test_campaign_truth_agrees_with_the_files(demo: Demo) -> None:
    for tenant, log in _tenants(demo):
        reached, _ = _delivered(demo, tenant, log)
        campaign_of = {row["ad_unit_id"]: row["campaign_id"] for row in _csv(demo, tenant, "ad_units")}
        inserted = Counter(
            campaign_of[event["ad_unit_id"]]
            for event in _read(demo.root, tenant, "listener_events").rows
            if event["bytes_sent"] == event["object_bytes"]
        )
        responses = _read(demo.root, tenant, "attribution_events").rows
        codes = {row["promo_code"]: row["campaign_id"] for row in _csv(demo, tenant, "insertion_orders")}
        paid_by_code = defaultdict(set)
        seen_by_pixel = set()
        for row in responses:
            key = (row["sponsor_id"], row.get("order_number"))
            if row["type"] == "promo_code":
                paid_by_code[codes[row["discount_code"].upper()]].add(key)
            elif row["type"] == "pixel" and row["order_number"]:
                seen_by_pixel.add(key)
        for truth in (truth for truth in demo.truth.campaigns if truth.tenant == tenant):
            assert truth.exposures == truth.exposures_baked_in + truth.exposures_dai
            assert truth.exposures_dai == inserted[truth.campaign_id]
            assert truth.promo_code_orders == len(paid_by_code[truth.campaign_id])
            assert truth.promo_code_and_pixel_orders == len(paid_by_code[truth.campaign_id] & seen_by_pixel)
            # Households behind a shared address are left out of `reached`.
            assert 0.75 * truth.reach < len(reached[truth.campaign_id]) < 1.1 * truth.reach


def test_incremental_conversions_are_as_many_as_planted(demo: Demo) -> None:
    for truth in demo.truth.campaigns:
        planted = truth.lift_per_exposure * truth.exposures
        assert truth.incremental_in_lookback <= truth.incremental_conversions
        if not planted:
            assert truth.incremental_conversions == 0
        else:  # a few come after the data ends
            assert 0.5 * planted < truth.incremental_conversions < planted + 3 * math.sqrt(planted)
        assert 0 <= truth.baseline_after_exposure < truth.baseline_conversions


def test_conversions_are_orders_signups_leads_and_installs(demo: Demo) -> None:
    """Baseline and incremental conversions together are what the rows report, each counted once."""
    for tenant, _ in _tenants(demo):
        responses = _read(demo.root, tenant, "attribution_events").rows
        for sponsor in {truth.sponsor_id for truth in demo.truth.campaigns if truth.tenant == tenant}:
            truths = [truth for truth in demo.truth.campaigns if truth.sponsor_id == sponsor]
            rows = [
                row
                for row in responses
                if row["sponsor_id"] == sponsor and row["action"] in truths[0].conversion_actions
            ]
            orders = {row["order_number"] for row in rows if row.get("order_number")}
            leads = sum(not row.get("order_number") for row in rows)
            planted = sum(truth.incremental_conversions for truth in truths)
            assert len(orders) + leads == truths[0].baseline_conversions + planted


def test_rows_show_refunds_free_orders_surveys_and_new_customers(demo: Demo) -> None:
    rows = [row for tenant, _ in _tenants(demo) for row in _read(demo.root, tenant, "attribution_events").rows]
    values = [float(row["value"]) for row in rows if row.get("value")]
    assert sum(value < 0 for value in values) > 1
    assert sum(value == 0 for value in values) > 1
    assert {row["type"] for row in rows} == {"pixel", "promo_code", "vanity_url", "survey", "offline"}
    assert {str(row.get("is_new_customer")).lower() for row in rows} >= {"true", "false"}
    assert all(len(row["hashed_email"]) == 64 for row in rows if row.get("hashed_email"))
