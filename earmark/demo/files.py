"""How the demo data stands in the landing folder: logs, NDJSON, CSV, Parquet, RSS, and what goes wrong in them.

Rows come late, come twice, or are broken; all of it is counted. What the rows say is decided in ``listening`` and
``responses``.
"""

import base64
import csv
import gzip
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from email.utils import format_datetime
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import polars as pl

from earmark.demo.catalog import DAY, AdUnit, Campaign, Podcast, Tenant
from earmark.demo.listening import (
    COUNTRIES,
    DAY_SECONDS,
    RESERVED,
    Columns,
    Homes,
    Ints,
    Listening,
    mix,
)
from earmark.demo.responses import (
    CARRIER_ADDRESSES,
    DEVICE_OF_BUYER,
    Response,
    Responses,
    Row,
)
from earmark.demo.truth import FolderTruth
from earmark.ingestion.formats import DOCUMENT, LINE
from earmark.ingestion.sources import Context, rss

LATE_SHARE: Final = 0.015
MOST_DAYS_LATE: Final = 3
OVERLAP_EVERY: Final = 10  # days from one file that overlaps to the next
OVERLAP_PART: Final = 12  # it holds the last 1/12 of a day's rows
ROWS_A_MALFORMED_ROW: Final = 5_000
GZIP_LEVEL: Final = 4

CLOUDFRONT_FIELDS: Final = (
    "date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status cs(Referer) "
    "cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header cs-protocol "
    "cs-bytes time-taken x-forwarded-for ssl-protocol ssl-cipher x-edge-response-result-type "
    "cs-protocol-version fle-status fle-encrypted-fields c-port time-to-first-byte "
    "x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start sc-range-end"
)
# What CloudFront leaves as it is in a user agent; the rest is percent-encoded.
_CLOUDFRONT_SAFE: Final = "!$&()*+,-./:;=?@_"
_EDGES: Final = {
    "US": "IAD89-P1", "GB": "LHR61-P4", "CA": "YTO50-C2", "DE": "FRA56-P5", "AU": "SYD62-P1",
    "SE": "ARN56-P2", "NL": "AMS58-P3", "IN": "BLR50-P2", "BR": "GRU3-P6", "ZA": "JNB50-C1",
}  # fmt: skip
_CLOCK: Final = tuple(f"{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}" for s in range(DAY_SECONDS))
_CSV_COLUMNS: Final = (
    "event_id", "occurred_at", "action", "type", "sponsor_id", "campaign_id", "ip", "user_agent", "cookie_id",
    "hashed_email", "order_number", "value", "currency", "discount_code", "url", "is_new_customer", "properties",
)  # fmt: skip

Breaker: TypeAlias = Callable[[str], str]


@dataclass(slots=True)
class _Tally:
    files: int = 0
    counts: Counter[str] = field(default_factory=Counter)


def write_text(path: Path, text: str) -> None:
    """Write a file as UTF-8 with Unix line ends; gzip without a time where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    path.write_bytes(gzip.compress(data, GZIP_LEVEL, mtime=0) if path.suffix == ".gz" else data)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return CSV with a header; None is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return stream.getvalue()


def feed_ids(feed: str) -> tuple[str, dict[str, str]]:
    """Return the podcast_id that loading a feed gives, and the episode_id of each guid, as the rss source does."""
    document = pl.DataFrame({LINE: [1], DOCUMENT: [feed.encode()]})
    rows = rss.SOURCE.rows(document, Context(name="feed.xml", dataset="episodes"))
    episodes = rows["episodes"]
    return str(rows["podcasts"]["podcast_id"][0]), dict(zip(episodes["guid"], episodes["episode_id"], strict=True))


def write_tenant(
    folder: Path,
    tenant: Tenant,
    listening: Listening,
    responses: Responses,
    start: date,
    days: int,
    rng: np.random.Generator,
) -> list[FolderTruth]:
    """Write all files of a tenant; returns what stands in them."""
    writer = _TenantWriter(folder, tenant, listening, start, days, rng)
    writer.write_feeds()
    writer.write_reference()
    writer.write_log()
    writer.write_impressions()
    writer.write_responses(responses.rows)
    writer.write_metrics()
    return writer.truths()


class _Addresses:
    """The addresses of homes as text; an IPv6 home's devices change theirs daily inside its /64."""

    def __init__(self, homes: Homes) -> None:
        self._ipv4 = [f"198.{18 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in homes.ipv4.tolist()]
        self._ipv6 = homes.ipv6
        self._prefix = [f"2001:db8:{n >> 16:x}:{n & 65535:x}" for n in homes.prefix.tolist()]

    def texts(self, home: Ints, device: Ints, t: Ints) -> list[str]:
        suffix = mix(home, device, t // DAY_SECONDS).tolist()
        ipv4, prefix = self._ipv4, self._prefix
        return [
            f"{prefix[h]}:{s >> 48:x}:{s >> 32 & 65535:x}:{s >> 16 & 65535:x}:{s & 65535 or 1:x}"
            if is_ipv6
            else ipv4[h]
            for h, s, is_ipv6 in zip(home.tolist(), suffix, self._ipv6[home].tolist(), strict=True)
        ]

    @staticmethod
    def of_carrier(number: int) -> str:
        n = 2**17 - RESERVED // 2 + number % CARRIER_ADDRESSES
        return f"198.{18 + (n >> 16)}.{n >> 8 & 255}.{n & 255}"


class _TenantWriter:
    """Writes the folders of one tenant and counts what it writes."""

    def __init__(
        self,
        folder: Path,
        tenant: Tenant,
        listening: Listening,
        start: date,
        days: int,
        rng: np.random.Generator,
    ) -> None:
        self.folder = folder
        self.tenant = tenant
        self.listening = listening
        self.start = start
        self.days = days
        self.rng = rng
        self.addresses = _Addresses(listening.homes)
        self.first_day = (start - date(1970, 1, 1)).days
        self.feeds = [feed_text(tenant, podcast) for podcast in tenant.podcasts]
        ids = [feed_ids(feed) for feed in self.feeds]
        self.podcast_ids = [podcast_id for podcast_id, _ in ids]
        self.episode_ids = [
            ids[show][1][tenant.podcasts[show].episodes[place].guid] for show, place in listening.episodes
        ]
        self._tallies: dict[tuple[str, str], _Tally] = defaultdict(_Tally)

    def truths(self) -> list[FolderTruth]:
        """Return what was written so far."""
        return [
            FolderTruth(
                tenant=self.tenant.tenant_id,
                folder=folder,
                dataset=dataset,
                files=tally.files,
                rows=tally.counts["rows"],
                late=tally.counts["late"],
                duplicates=tally.counts["duplicates"],
                malformed=tally.counts["malformed"],
            )
            for (folder, dataset), tally in self._tallies.items()
        ]

    # ------------------------------------------------------------------------------------- what goes wrong

    def _filed_on(self, t: Ints) -> Ints:
        """Return the day (from 0) in whose file each row stands: its own, or up to three days later."""
        day = t // DAY_SECONDS - self.first_day
        late = self.rng.random(len(t)) < LATE_SHARE
        filed = day + np.where(late, self.rng.integers(1, MOST_DAYS_LATE + 1, size=len(t)), 0)
        return np.where(filed >= self.days, day, filed)

    def _malformed_on(self, rows: int) -> Counter[int]:
        """Return how many malformed rows each day's file gets."""
        count = max(4, rows // ROWS_A_MALFORMED_ROW)
        return Counter(self.rng.integers(0, self.days, size=count).tolist())

    def _overlaps_on(self, day: int) -> bool:
        """Say whether a second file of that day holds its last rows again."""
        return day % OVERLAP_EVERY == min(7, self.days - 1)

    def _write_day(
        self,
        tally: _Tally,
        path: Path,
        overlap_path: Path | None,
        lines: list[str],
        malformed: int,
        breakers: Sequence[Breaker],
        header: Sequence[str] = (),
    ) -> None:
        """Write one day's lines with broken ones among them, and the file that repeats the last of them."""
        if not lines:
            return
        tally.counts["rows"] += len(lines)
        tally.files += 1
        written = list(lines)
        for _ in range(malformed):
            model = lines[int(self.rng.integers(len(lines)))]
            broken = breakers[tally.counts["malformed"] % len(breakers)](model)
            written.insert(int(self.rng.integers(1, len(written) + 1)), broken)
            tally.counts["malformed"] += 1
        write_text(path, "\n".join([*header, *written, ""]))
        if overlap_path is not None:
            again = lines[-max(1, len(lines) // OVERLAP_PART) :]
            write_text(overlap_path, "\n".join([*header, *again, ""]))
            tally.counts["duplicates"] += len(again)
            tally.files += 1

    def _write_once(self, name: str, header: Sequence[str], rows: list[Sequence[object]]) -> None:
        write_text(self.folder / name / f"{name}.csv", csv_text(header, rows))
        tally = self._tallies[name, name]
        tally.files += 1
        tally.counts["rows"] += len(rows)

    # -------------------------------------------------------------------------------------- reference data

    def write_feeds(self) -> None:
        """Write an RSS feed a podcast."""
        for podcast, feed in zip(self.tenant.podcasts, self.feeds, strict=True):
            write_text(self.folder / "rss" / f"{podcast.slug}.xml", feed)
            for dataset, rows in (("podcasts", 1), ("episodes", len(podcast.episodes))):
                tally = self._tallies["rss", dataset]
                tally.files += 1
                tally.counts["rows"] += rows

    def write_reference(self) -> None:
        """Write sponsors, campaigns, insertion orders, ad units and spend as CSV."""
        tenant = self.tenant
        self._write_once(
            "sponsors",
            ("sponsor_id", "name", "domain"),
            [(s.sponsor_id, s.name, s.domain) for s in tenant.sponsors],
        )
        self._write_once(
            "campaigns",
            (
                *("campaign_id", "sponsor_id", "name", "starts_at", "ends_at"),
                *("conversion_actions", "lookback_days", "currency"),
            ),
            [
                (
                    c.campaign_id,
                    tenant.sponsors[c.sponsor].sponsor_id,
                    c.name,
                    f"{c.starts_on}T00:00:00Z",
                    f"{c.ends_on + DAY}T00:00:00Z",
                    "|".join(c.actions),
                    f"{c.lookback_days:g}",
                    "USD",
                )
                for c in tenant.campaigns
            ],
        )
        self._write_ad_units()
        self._write_orders_and_spend()

    def _write_ad_units(self) -> None:
        ids = dict(zip(self.listening.episodes, self.episode_ids, strict=True))
        rows: list[Sequence[object]] = [
            (
                unit.unit_id,
                campaign.campaign_id,
                campaign.orders[unit.order].order_id,
                None if unit.episode is None else ids[unit.episode],
                unit.position,
                unit.delivery,
                unit.starts_at_second,
                unit.seconds,
            )
            for campaign in self.tenant.campaigns
            for unit in campaign.units
        ]
        self._write_once(
            "ad_units",
            (
                *("ad_unit_id", "campaign_id", "insertion_order_id", "episode_id", "position"),
                *("delivery", "starts_at_second", "duration_seconds"),
            ),
            rows,
        )

    def _write_orders_and_spend(self) -> None:
        """Book about what is delivered in the flight, and spend it evenly over the flight's days."""
        orders: list[Sequence[object]] = []
        spend: list[Sequence[object]] = []
        for number, campaign in enumerate(self.tenant.campaigns):
            flight = (campaign.ends_on - campaign.starts_on).days + 1
            for line, order in enumerate(campaign.orders):
                delivered = self._delivered(number, line, campaign)
                booked = max(100, round(delivered * self.rng.uniform(0.8, 1.25) / 100) * 100)
                podcast = None if order.podcast is None else self.podcast_ids[order.podcast]
                orders.append(
                    (
                        order.order_id,
                        campaign.campaign_id,
                        podcast,
                        order.promo_code,
                        order.vanity_url,
                        booked,
                        f"{order.cpm:.2f}",
                        "USD",
                        campaign.starts_on,
                        campaign.ends_on,
                    )
                )
                daily = booked * order.cpm / 1000 / flight
                spend.extend(
                    (
                        campaign.campaign_id,
                        podcast,
                        campaign.starts_on + day * DAY,
                        f"{daily * self.rng.uniform(0.9, 1.1):.2f}",
                        "USD",
                    )
                    for day in range(flight)
                )
        self._write_once(
            "insertion_orders",
            (
                *("insertion_order_id", "campaign_id", "podcast_id", "promo_code", "vanity_url"),
                *("booked_impressions", "cpm", "currency", "starts_on", "ends_on"),
            ),
            orders,
        )
        self._write_once("spend", ("campaign_id", "podcast_id", "spend_date", "amount", "currency"), spend)

    def _delivered(self, campaign: int, order: int, plan: Campaign) -> int:
        exposures = self.listening.exposures
        ends = ((plan.ends_on + DAY) - date(1970, 1, 1)).days * DAY_SECONDS
        chosen = (exposures["campaign"] == campaign) & (exposures["order"] == order)
        return int((chosen & (exposures["t"] < ends)).sum())

    # ------------------------------------------------------------------------------------- listener events

    def write_log(self) -> None:
        """Write the requests as the daily log of the tenant's server."""
        requests = self.listening.requests
        filed = self._filed_on(requests["t"])
        order = np.lexsort((requests["t"], filed))
        edges = np.searchsorted(filed[order], np.arange(self.days + 1))
        tally = self._tallies[self.tenant.log_folder, "listener_events"]
        tally.counts["late"] += int((filed != requests["t"] // DAY_SECONDS - self.first_day).sum())
        malformed = self._malformed_on(len(order))
        render = {"nginx": self._nginx, "cloudfront": self._cloudfront}[self.tenant.log_folder]
        for day in range(self.days):
            chosen = order[edges[day] : edges[day + 1]]
            render({k: column[chosen] for k, column in requests.items()}, day, malformed[day], tally)

    def _nginx(self, rows: Columns, day: int, malformed: int, tally: _Tally) -> None:
        today = self.start + day * DAY
        path = self.folder / "nginx" / f"access-{today}.log.gz"
        names = {n: f"{self.start + n * DAY:%d/%b/%Y}" for n in range(day - MOST_DAYS_LATE, day + 1)}
        agents = [client.user_agent for client in self.listening.clients]
        versions = ["HTTP/2.0" if n % 3 else "HTTP/1.1" for n in range(len(agents))]
        site = f"https://{self.tenant.tenant_id}.example/"
        lines = [
            f'{ip} - - [{names[n]}:{_CLOCK[s]} +0000] "{"HEAD" if head else "GET"} {target} {versions[a]}" '
            f'{status} {sent} "{site if shown else "-"}" "{agents[a]}"'
            for ip, n, s, head, target, a, status, sent, shown in zip(
                self.addresses.texts(rows["home"], rows["device"], rows["t"]),
                (rows["t"] // DAY_SECONDS - self.first_day).tolist(),
                (rows["t"] % DAY_SECONDS).tolist(),
                rows["method"].tolist(),
                [self.listening.targets[n] for n in rows["target"].tolist()],
                rows["client"].tolist(),
                rows["status"].tolist(),
                rows["sent"].tolist(),
                rows["referrer"].tolist(),
                strict=True,
            )
        ]
        overlap = path.with_name(f"access-{today}-rotated.log.gz") if self._overlaps_on(day) else None
        self._write_day(tally, path, overlap, lines, malformed, _NGINX_BREAKERS)

    def _cloudfront(self, rows: Columns, day: int, malformed: int, tally: _Tally) -> None:
        today = self.start + day * DAY
        name = "E1DEMO{}.{}-{}.{:08x}.gz"
        tag = self.tenant.tenant_id[:6].upper()
        path = self.folder / "cloudfront" / name.format(tag, today, 23, 0xA0000000 + day * 7919)
        overlap = path.with_name(name.format(tag, today + DAY, "00", 0xB0000000 + day * 7919))
        names = {n: f"{self.start + n * DAY}" for n in range(day - MOST_DAYS_LATE, day + 1)}
        agents = [quote(c.user_agent, safe=_CLOUDFRONT_SAFE) for c in self.listening.clients]
        targets = [quote(target, safe="/-._~") for target in self.listening.targets]
        count = len(rows["t"])
        # 42 bytes are 56 letters of base64, as long as a request id is.
        letters = base64.urlsafe_b64encode(self.rng.bytes(42 * count)).decode()
        numbers = self.rng.integers(0, 2**31, size=count).tolist()
        edges = [_EDGES[country] for country, *_ in COUNTRIES]
        country = self.listening.homes.country[rows["home"]].tolist()
        site = f"https://{self.tenant.tenant_id}.example/"
        host = self.tenant.media_host
        lines = []
        for place, (ip, n, s, head, target, a, status, sent, first, last, size, shown) in enumerate(
            zip(
                self.addresses.texts(rows["home"], rows["device"], rows["t"]),
                (rows["t"] // DAY_SECONDS - self.first_day).tolist(),
                (rows["t"] % DAY_SECONDS).tolist(),
                rows["method"].tolist(),
                rows["target"].tolist(),
                rows["client"].tolist(),
                rows["status"].tolist(),
                rows["sent"].tolist(),
                rows["first"].tolist(),
                rows["last"].tolist(),
                rows["size"].tolist(),
                rows["referrer"].tolist(),
                strict=True,
            )
        ):
            chance = numbers[place]
            result = "Error" if status >= 400 else ("Miss" if chance % 9 == 0 else "Hit")
            span = (f"{last - first + 1}\t{first}\t{last}") if first >= 0 else f"{size}\t-\t-"
            query = "source=feed" if chance % 5 < 2 else "-"
            took = 0.004 + sent / 4e7 + chance % 977 / 5e3
            lines.append(
                f"{names[n]}\t{_CLOCK[s]}\t{edges[country[place]]}\t{sent + 409 + chance % 61}\t{ip}\t"
                f"{'HEAD' if head else 'GET'}\td{tag.lower()}111abcdef8.cloudfront.net\t{targets[target]}\t"
                f"{status}\t{site if shown else '-'}\t{agents[a]}\t{query}\t-\t{result}\t"
                f"{letters[56 * place : 56 * place + 54]}==\t{host}\thttps\t{180 + chance % 83}\t{took:.3f}\t-\t"
                f"TLSv1.3\tTLS_AES_128_GCM_SHA256\t{result}\tHTTP/2.0\t-\t-\t{20_000 + chance % 40_000}\t"
                f"{took / 3:.3f}\t{result}\taudio/mpeg\t{span}"
            )
        header = ("#Version: 1.0", f"#Fields: {CLOUDFRONT_FIELDS}")
        self._write_day(
            tally,
            path,
            overlap if self._overlaps_on(day) else None,
            lines,
            malformed,
            _CLOUDFRONT_BREAKERS,
            header,
        )

    def write_impressions(self) -> None:
        """Write the impressions of inserted ads as daily NDJSON."""
        rows = self.listening.impressions
        filed = self._filed_on(rows["t"])
        order = np.lexsort((rows["t"], filed))
        edges = np.searchsorted(filed[order], np.arange(self.days + 1))
        tally = self._tallies["listener_events", "listener_events"]
        tally.counts["late"] += int((filed != rows["t"] // DAY_SECONDS - self.first_day).sum())
        malformed = self._malformed_on(len(order))
        units = [self.tenant.campaigns[c].units[u] for c, u in self.listening.units]
        for day in range(self.days):
            chosen = order[edges[day] : edges[day + 1]]
            lines = self._impression_lines({k: c[chosen] for k, c in rows.items()}, units)
            today = self.start + day * DAY
            path = self.folder / "listener_events" / f"dai-{today}.ndjson"
            overlap = path.with_name(f"dai-{today}-resent.ndjson") if self._overlaps_on(day) else None
            self._write_day(tally, path, overlap, lines, malformed[day], _IMPRESSION_BREAKERS)

    def _impression_lines(self, rows: Columns, units: list[AdUnit]) -> list[str]:
        homes = self.listening.homes
        ids = self.rng.bytes(16 * len(rows["t"])).hex()
        lines = []
        for place, (ip, t, home, client, episode, unit, sent, size) in enumerate(
            zip(
                self.addresses.texts(rows["home"], rows["device"], rows["t"]),
                rows["t"].tolist(),
                rows["home"].tolist(),
                rows["client"].tolist(),
                rows["episode"].tolist(),
                rows["unit"].tolist(),
                rows["sent"].tolist(),
                rows["size"].tolist(),
                strict=True,
            )
        ):
            letters = ids[32 * place : 32 * place + 32]
            country, _, _, regions = COUNTRIES[homes.country[home]]
            event = {
                "event_id": f"{letters[:8]}-{letters[8:12]}-4{letters[13:16]}-a{letters[17:20]}-{letters[20:]}",
                "occurred_at": self._time(t),
                "event_type": "ad_impression",
                "episode_id": self.episode_ids[episode],
                "ad_unit_id": units[unit].unit_id,
                "bytes_sent": sent,
                "object_bytes": size,
                "ip": ip,
                "user_agent": self.listening.clients[client].user_agent,
                "country_code": country,
                "region_code": regions[homes.region[home]],
                "properties": {"slot": units[unit].position},
            }
            lines.append(json.dumps(event, separators=(",", ":")))
        return lines

    def _time(self, t: int) -> str:
        return f"{self.start + (t // DAY_SECONDS - self.first_day) * DAY}T{_CLOCK[t % DAY_SECONDS]}Z"

    # ------------------------------------------------------------------------------------ responses, metrics

    def write_responses(self, responses: list[Response]) -> None:
        """Write what the pixel saw as daily CSV, and what the sponsors' shops report as weekly NDJSON."""
        rows = self._with_addresses(responses)
        seen = [(r.t, row) for r, row in zip(responses, rows, strict=True) if r.by_pixel]
        told = [(r.t, row) for r, row in zip(responses, rows, strict=True) if not r.by_pixel]
        t = np.array([at for at, _ in seen], dtype=np.int64)
        filed = self._filed_on(t)
        tally = self._tallies["attribution_events", "attribution_events"]
        tally.counts["late"] += int((filed != t // DAY_SECONDS - self.first_day).sum())
        malformed = self._malformed_on(len(seen))
        order = np.lexsort((t, filed))
        edges = np.searchsorted(filed[order], np.arange(self.days + 1))
        header = ",".join(_CSV_COLUMNS)
        for day in range(self.days):
            chosen = order[edges[day] : edges[day + 1]].tolist()
            lines = csv_text(
                _CSV_COLUMNS, [_csv_row(seen[n][1], self._time(seen[n][0])) for n in chosen]
            ).splitlines()[1:]
            today = self.start + day * DAY
            path = self.folder / "attribution_events" / f"pixel-{today}.csv"
            overlap = path.with_name(f"pixel-{today}-again.csv") if self._overlaps_on(day) else None
            self._write_day(tally, path, overlap, lines, malformed[day], _RESPONSE_BREAKERS, (header,))
        for week in range(-(-self.days // 7)):
            begins = (self.first_day + 7 * week) * DAY_SECONDS
            lines = [
                json.dumps(
                    {"event_id": row["event_id"], "occurred_at": self._time(at)} | row,
                    separators=(",", ":"),
                )
                for at, row in told
                if begins <= at < begins + 7 * DAY_SECONDS
            ]
            name = f"orders-{self.start + 7 * week * DAY}.ndjson"
            if lines:
                self._write_day(tally, self.folder / "attribution_events" / name, None, lines, 0, ())

    def _with_addresses(self, responses: list[Response]) -> list[Row]:
        homes = [r.client[0] if r.client else 0 for r in responses]
        texts = self.addresses.texts(
            np.array(homes, dtype=np.int64),
            np.full(len(homes), DEVICE_OF_BUYER, dtype=np.int64),
            np.array([r.t for r in responses], dtype=np.int64),
        )
        rows = []
        for response, text in zip(responses, texts, strict=True):
            row = response.row
            if response.client is not None:
                away = response.client[1]
                row = row | {"ip": text if away is None else self.addresses.of_carrier(away)}
            rows.append(row)
        return rows

    def write_metrics(self) -> None:
        """Write what a partner reports by episode and day: Parquet by month, the last days of one month twice."""
        frame = self._metrics()
        tally = self._tallies["listener_metrics", "listener_metrics"]
        tally.counts["rows"] += frame.height
        folder = self.folder / "listener_metrics"
        folder.mkdir(parents=True, exist_ok=True)
        months = frame.with_columns(pl.col("metric_date").dt.strftime("%Y-%m").alias("month"))
        parts = months.partition_by("month", as_dict=True, include_key=False)
        for number, ((month,), rows) in enumerate(parts.items()):
            if number == 0:
                last = rows["metric_date"].max()
                again = rows.filter(pl.col("metric_date") == last)
                again.write_parquet(folder / f"partner-{month}-corrected.parquet")
                tally.counts["duplicates"] += again.height
                tally.files += 1
                # Figures that the partner left empty.
                broken = rows.head(3).with_columns(pl.lit(None, dtype=pl.Float64).alias("value"))
                tally.counts["malformed"] += broken.height
                rows = pl.concat([rows, broken])  # noqa: PLW2901
            rows.write_parquet(folder / f"partner-{month}.parquet")
            tally.files += 1

    def _metrics(self) -> pl.DataFrame:
        """Return a partner's figures: it sees nine in ten downloads and listens longer than the log can tell."""
        downloads = self.listening.downloads
        day = downloads["t"] // DAY_SECONDS - self.first_day
        episodes = len(self.listening.episodes)
        cell = day * episodes + downloads["episode"]
        count = np.bincount(cell, minlength=episodes * self.days)
        heard = np.bincount(cell, weights=downloads["reach"] / downloads["size"], minlength=episodes * self.days)
        cells = np.flatnonzero(count)
        seen = self.rng.binomial(count[cells], 0.9)
        cells, seen = cells[seen > 0], seen[seen > 0]
        seconds = np.array([self.tenant.podcasts[s].episodes[e].seconds for s, e in self.listening.episodes])[
            cells % episodes
        ]
        rate = np.round(0.85 * heard[cells] / count[cells], 4)
        figures = {
            "downloads": seen.astype(np.float64),
            "completion_rate": rate,
            "average_listen_seconds": np.round(rate * seconds, 1),
        }
        dates = [self.start + n * DAY for n in (cells // episodes).tolist()]
        keys = [self.episode_ids[n] for n in (cells % episodes).tolist()]
        return pl.concat(
            pl.DataFrame(
                {
                    "episode_id": keys,
                    "metric_date": dates,
                    "metric_name": [name] * len(keys),
                    "value": values,
                    "partner": ["Earshot Hosting"] * len(keys),
                }
            )
            for name, values in figures.items()
        ).sort("metric_date", "episode_id", "metric_name")


def _csv_row(row: Row, occurred_at: str) -> list[str | None]:
    values: list[str | None] = []
    for name in _CSV_COLUMNS:
        value = occurred_at if name == "occurred_at" else row.get(name)
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, dict):
            value = json.dumps(value, separators=(",", ":"))
        values.append(value)
    return values


# ----------------------------------------------------------------------------------------- how a row gets broken


def _without(name: str) -> Breaker:
    def remove(line: str) -> str:
        event = json.loads(line)
        del event[name]
        return json.dumps(event, separators=(",", ":"))

    return remove


def _with(name: str, value: str) -> Breaker:
    def change(line: str) -> str:
        return json.dumps(json.loads(line) | {name: value}, separators=(",", ":"))

    return change


def _with_column(number: int, value: str) -> Breaker:
    def change(line: str) -> str:
        columns = next(csv.reader([line]))
        columns[number] = value
        return csv_text(columns, ()).removesuffix("\n")

    return change


_NGINX_BREAKERS: Final[tuple[Breaker, ...]] = (
    lambda line: line[: line.index('"') + 9],  # the disk was full
    lambda line: line.replace("[", "[99/", 1),  # no such day
    lambda line: line[: line.index("[")] + line[line.index('"') :],  # no time
)
_CLOUDFRONT_BREAKERS: Final[tuple[Breaker, ...]] = (
    lambda line: "\t".join(line.split("\t")[:4]),
    lambda line: line.replace("-", "-77", 1),
    lambda line: "\t".join(line.split("\t")[2:]),
)
_IMPRESSION_BREAKERS: Final[tuple[Breaker, ...]] = (
    lambda line: line[: len(line) // 2],
    _with("occurred_at", "yesterday evening"),
    _with("event_type", "ad_started"),
    _without("occurred_at"),
)
_RESPONSE_BREAKERS: Final[tuple[Breaker, ...]] = (
    _with_column(2, "unsubscribe"),
    _with_column(1, "2026-02-30T25:61:00Z"),
    lambda line: line[:30],
    _with_column(2, ""),
)


# ---------------------------------------------------------------------------------------------------------- feeds


def feed_text(tenant: Tenant, podcast: Podcast) -> str:
    """Return a podcast's RSS feed, the newest episode first; durations in the three ways that hosts write them."""
    site = f"https://{tenant.tenant_id}.example/{podcast.slug}"
    newest = podcast.episodes[-1].published_at
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        (
            '<rss version="2.0" xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd"'
            ' xmlns:podcast="https://podcastindex.org/namespace/1.0"'
            ' xmlns:atom="http://www.w3.org/2005/Atom">'
        ),
        "  <channel>",
        f"    <title>{escape(podcast.title)}</title>",
        f"    <link>{site}</link>",
        f'    <atom:link href={quoteattr(podcast.feed_url)} rel="self" type="application/rss+xml"/>',
        "    <language>en</language>",
        f"    <description>{escape(podcast.title)}, made up for the demo of earmark.</description>",
        f"    <lastBuildDate>{format_datetime(newest)}</lastBuildDate>",
        f"    <itunes:author>{escape(tenant.name)}</itunes:author>",
        "    <itunes:explicit>false</itunes:explicit>",
        f"    <podcast:guid>{podcast.guid}</podcast:guid>",
    ]
    for number, episode in reversed(list(enumerate(podcast.episodes))):
        lines += [
            "    <item>",
            f"      <title>{escape(episode.title)}</title>",
            f"      <link>{site}/{episode.guid}</link>",
            f'      <guid isPermaLink="false">{episode.guid}</guid>',
            f"      <pubDate>{format_datetime(episode.published_at)}</pubDate>",
            (
                f"      <enclosure url={quoteattr(episode.enclosure_url)}"
                f' length="{episode.bytes}" type="audio/mpeg"/>'
            ),
            f"      <itunes:duration>{_duration(episode.seconds, number % 3)}</itunes:duration>",
            "    </item>",
        ]
    return "\n".join([*lines, "  </channel>", "</rss>", ""])


def _duration(seconds: int, way: int) -> str:
    if way == 0:
        return str(seconds)
    if way == 1 and seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02d}"
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
