"""Mangled files of every source: each ends in a report that adds up or in a refusal, and in nothing else.

Files are made of valid ones by mutations that hypothesis picks and shrinks. Most are only parsed, a part is loaded
into a database. ``corpus/`` holds inputs of our own that once broke something; what hypothesis finds it keeps in
its example database. EARMARK_CRASH_POINTS says how many files are tried, EARMARK_CRASH_SEED repeats a run.
"""

import gzip
import io
import json
import os
import re
import resource
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pytest
import zstandard
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from psycopg import sql

from earmark.addresses.privacy import HashKey
from earmark.ingestion import rows
from earmark.ingestion.datasets import DATASETS
from earmark.ingestion.errors import (
    AmountsUnknownError,
    DatabaseLoadError,
    LoadError,
    RowsRefusedError,
    UnforeseenError,
)
from earmark.ingestion.formats import Reject, read_head
from earmark.ingestion.load import LoadReport, LoadRequest, judge_amounts, load_file, parse, resolve
from earmark.ingestion.refusals import reading
from earmark.ingestion.sources import Context
from earmark.ingestion.values import Amounts
from earmark.warehouse.database import Database

POINTS = int(os.environ.get("EARMARK_CRASH_POINTS", "0"))
PARSED = POINTS or 700
LOADED = POINTS // 20 or 60
SEED = int(os.environ.get("EARMARK_CRASH_SEED", "0"))
LONGEST = 20.0  # seconds for a file of some kilobytes; more is a hang
CORPUS = Path(__file__).parent / "corpus"
KEY = HashKey("k1", b"0123456789abcdef0123456789abcdef")
HASHER = KEY.for_tenant("acme")
FAULTS = (UnforeseenError, RowsRefusedError, DatabaseLoadError)
# Every address in the files below is one of these.
ADDRESS = re.compile(
    r"(?<![0-9])203\.0\.113\.(?:[1-9][0-9]?)(?![0-9])|(?<![0-9A-Za-z:.])2001:db8:aaaa::[1-9](?![0-9A-Za-z:])"
)

# --- Valid files ------------------------------------------------------------------------------------------

CSV = """event_id,occurred_at,event_type,url,ip,user_agent,status,bytes_sent,properties,note
e1,2024-05-01T00:00:00Z,request,https://x.example/a.mp3,203.0.113.1,"Overcast/3.0 (""x"", y)",206,10,"{""a"": 1}",n
,2024-05-01T00:00:01+02:00,play,/b.mp3?x=1,2001:db8:aaaa::1,agent,200,,,"two
lines"
e3,2024-05-02,download,/c.mp3,203.0.113.2,,404,0,{},203.0.113.3
e3,2024-05-02,download,/c.mp3,203.0.113.2,,404,0,{},
"""
CONVERSIONS = """event_id,occurred_at,action,type,value,currency,order_number,hashed_email,ip,cart
c1,2024-05-01T00:00:00Z,purchase,pixel,19.99,usd,o1,aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa,203.0.113.4,x
c2,2024-05-03 10:00,view,pixel,,,,,2001:db8:aaaa::2,
c3,2024-05-03,purchase,promo_code,1e3,EUR,o1,,,
"""
CAMPAIGNS = """campaign_id,sponsor_id,name,starts_at,ends_at,lookback_days,conversion_actions
c1,s,One,2024-01-01,2024-02-01,30,purchase|lead
c2,s,Two,2024-01-01T00:00:00Z,2025-02-01,,"[""view""]"
"""
SPEND = """campaign_id;spend_date;amount;currency
c1;2024-05-01;10.10;USD
c1;2024-05-02;5;EUR
"""
EVENTS: list[dict[str, Any]] = [
    {"occurred_at": "2024-05-01T00:00:00Z", "event_type": "request", "url": "/a.mp3", "ip": "203.0.113.5",
     "properties": {"deep": {"er": [1, 2.5, None, "x"]}}, "status": 206, "user_agent": "a\u00e9\U0001f600"},
    {"occurred_at": "2024-05-01T00:00:02.5Z", "event_type": "play", "episode_id": "e", "ip": "2001:db8:aaaa::3",
     "list": [1, [2, {"x": None}]], "big": 12345678901234567890, "flag": True},
    {"occurred_at": "2024-05-03", "event_type": "ad_impression", "ad_unit_id": "u", "quartile": 5, "x": "\u2028"}
]  # fmt: skip
COMBINED = """203.0.113.6 - - [03/Dec/2013:20:37:20 +0100] "GET /ep.mp3?a=1 HTTP/1.1" 206 - "-" "Overcast/3.0"
203.0.113.6 - bob [03/Dec/2013:20:37:21 +0100] "-" 400 5 "http://r.example/203.0.113.7" "x \\"q\\" y" "203.0.113.8"
h.example:443 2001:db8:aaaa::4 - - [03/Dec/2013:20:37:22 -0700] "GET /a b.mp3 HTTP/1.0" 200 99
203.0.113.6 - - [03/Dec/2013:20:37:20 +0100] "GET /ep.mp3?a=1 HTTP/1.1" 206 - "-" "Overcast/3.0"
no log line at all 203.0.113.9
"""
S3 = """owner show-bucket [06/Feb/2019:00:00:38 +0000] 203.0.113.3 - 3E57427F3EX REST.GET.OBJECT ep%2520one.mp3 \
"GET /show-bucket/ep%20one.mp3?X-Amz-Signature=x HTTP/1.1" 206 - 113 9000 7 3 "-" "S3Console/0.4" -
owner show-bucket [06/Feb/2019:00:00:39 +0000] 2001:db8:aaaa::5 - 3E57427F3EY REST.HEAD.OBJECT ep.mp3 \
"HEAD /ep.mp3 HTTP/1.1" 200 - - 9000 7 - "-" "x" - extra fields
""".replace("\\\n", "")
CLOUDFRONT = (
    "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status "
    "cs(Referer) cs(User-Agent) cs-uri-query x-edge-request-id x-host-header x-forwarded-for sc-content-len "
    "sc-range-start sc-range-end\n"
    "2024-05-01\t00:16:14\tSFO5\t3149979\t203.0.113.3\tGET\td1.cloudfront.net\t/ep.mp3\t206\t-\tagent%2520x\tle=Z\t"
    "id1\tcdn.example.com\t203.0.113.9\t100\t0\t99\n"
    "2024-05-01\t00:16:15\tSFO5\t31\t2001:db8:aaaa::6\tGET\td1.cloudfront.net\t/ep.mp3\t200\t-\t%E9%00\t-\t"
    "id2\t-\t-\t100\t-\t-\n"
)
OP3 = """time\tuuid\thashedIpAddress\tmethod\turl\tuserAgent\treferer\trange\tcountry
2024-05-01T00:00:00.000Z\tu1\t4ab2c3d4e5\tGET\thttps://op3.dev/e/x.example/a.mp3\tagent\t\tbytes=0-1\tUS
2024-05-01T00:00:01.000Z\tu2\t4ab2c3d4e6\tGET\thttps://op3.dev/e/x.example/a.mp3\tagent\t\t\tDE
"""
OP3_ROWS = {
    "rows": [
        {"time": "2024-05-01T00:00:00.000Z", "url": "https://x.example/a.mp3", "hashedIpAddress": "4ab2c3d4e5",
         "audienceId": "aud1", "showUuid": "s", "episodeId": "e", "countryCode": "US"},
        {"time": "2024-05-01T00:00:01.000Z", "url": "https://x.example/b.mp3", "audienceId": "aud", "showUuid": ""}
    ],
    "queryTime": 5,
}  # fmt: skip
RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd" xmlns:podcast="https://p.example">
<channel><title>Show &amp; tell</title><link>https://show.example</link><itunes:author>Me</itunes:author>
<podcast:guid>917393e3-1b1e-5cef-ace4-edaa54e1f810</podcast:guid>
<item><title>One &nbsp;</title><guid>g1</guid><pubDate>Tue, 02 Jul 2013 18:40:00 PST</pubDate>
<enclosure url="https://cdn.example/203.0.113.1/1.mp3" length="123" type="audio/mpeg"/>
<itunes:duration>1:02:03</itunes:duration><description><![CDATA[<p>x</p>]]></description></item>
<item><title>Two</title><enclosure url="https://cdn.example/2.mp3" length="0"/>
<itunes:duration>90.5</itunes:duration><itunes:season>1</itunes:season><itunes:episode>2</itunes:episode></item>
</channel></rss>
"""

W3C = (
    "#Version: 1.0\n#Fields: date time c-ip cs-method cs-host cs-uri-stem cs-uri-query sc-status sc-bytes "
    "cs(User-Agent)\n"
    "2024-05-01 00:16:14 203.0.113.3 GET cdn.example.com /ep.mp3 a=203.0.113.4 200 3149979 agent+x/1.0\n"
    "2024-05-01 00:16:15 2001:db8:aaaa::6 HEAD - /ep.mp3 - 206 - -\n"
)
ALB = (
    "https 2024-05-01T00:16:14.186641Z app/lb/1 203.0.113.3:2817 10.0.0.1:80 0.086 0.048 0.037 200 200 0 5700 "
    '"GET https://cdn.example.com:443/ep.mp3?x=1 HTTP/1.1" "agent \\"q\\"" ECDHE TLSv1.2 - "Root=1"\n'
    "h2 2024-05-01T00:16:15.186641Z app/lb/1 [2001:db8:aaaa::7]:2817 - -1 -1 -1 460 - 0 0 "
    '"- http://x:80- -" "-" - -\n'
)
CADDY = [
    {"level": "info", "ts": 1714522574.5, "logger": "http.log.access", "status": 206, "size": 9,
     "request": {"remote_ip": "203.0.113.3", "client_ip": "203.0.113.3", "method": "GET", "host": "x.example",
                 "uri": "/a.mp3?ip=203.0.113.4", "headers": {"User-Agent": ["a"], "Range": ["bytes=0-8"]}},
     "resp_headers": {"Content-Range": ["bytes 0-8/100"]}},
    {"level": "info", "ts": 1714522575, "status": 200, "size": 1,
     "request": {"remote_addr": "203.0.113.5:99", "method": "GET", "host": "x.example", "uri": "/b.mp3"}},
]  # fmt: skip
CLOUDFLARE = [
    {"ClientIP": "203.0.113.3", "EdgeStartTimestamp": "2024-05-01T00:00:00Z", "EdgeResponseStatus": 200,
     "ClientRequestHost": "x.example", "ClientRequestURI": "/a.mp3", "ClientRequestMethod": "GET", "RayID": "r1",
     "EdgeResponseBytes": 10, "ClientRequestUserAgent": "a", "ClientCountry": "us"},
    {"ClientIP": "2001:db8:aaaa::8", "EdgeStartTimestamp": 1714522575000000000, "EdgeResponseStatus": 206,
     "ClientRequestHost": "", "ClientRequestURI": "/b.mp3", "WorkerSubrequest": False},
]  # fmt: skip
FASTLY = [
    {"timestamp": "2024-05-01T00:00:00+0000", "client_ip": "203.0.113.3", "host": "x.example", "url": "/a.mp3",
     "request_method": "GET", "response_status": 200, "response_body_size": 5, "request_user_agent": "a"},
    {"timestamp": "2024-05-01T00:00:01+0000", "client_ip": "203.0.113.4", "host": "x.example", "url": "/b.mp3",
     "request_method": "GET", "response_status": "206", "fastly_is_edge": True},
]  # fmt: skip
GOOGLE = [
    {"insertId": "i1", "timestamp": "2024-05-01T00:00:00.123456Z",
     "httpRequest": {"requestMethod": "GET", "requestUrl": "https://x.example/a.mp3", "status": 200,
                     "responseSize": "10", "userAgent": "a", "remoteIp": "203.0.113.3"}},
    {"insertId": "i2", "timestamp": "2024-05-01T00:00:01Z",
     "httpRequest": {"requestUrl": "https://x.example/b.mp3", "remoteIp": "203.0.113.4"}},
]  # fmt: skip
GCS = (
    '"time_micros","c_ip","c_ip_type","cs_method","cs_uri","sc_status","sc_bytes","cs_host","s_request_id"\n'
    '"1714522574000000","203.0.113.3","1","GET","/b/a.mp3","200","10","storage.example","q1"\n'
    '"1714522575000000","2001:db8:aaaa::9","2","GET","/b/c.mp3","404","0","","q2"\n'
)
PIXEL = [
    {"collect": "pixel", "time": "1714522574.583", "request_id": "94fe62774383fd1687dc8b7b6f2efcc3",
     "ip": "203.0.113.3", "forwarded_for": "", "method": "GET", "url": "https://shop.example/thanks",
     "query": "action=purchase&value=5.50&order_number=%2312&ip=203.0.113.4", "user_agent": "a", "referrer": "",
     "byte_range": ""},
    {"collect": "vanity", "time": "1714522575.001", "request_id": "a" * 32, "ip": "2001:db8:aaaa::1",
     "forwarded_for": "203.0.113.5", "method": "GET", "url": "https://c.example/go/x", "query": "",
     "user_agent": "", "referrer": "", "byte_range": ""},
]  # fmt: skip
PREFIX = [
    {**PIXEL[0], "collect": "prefix", "url": "https://x.example/a.mp3", "query": "", "byte_range": "bytes=0-1"},
    {**PIXEL[1], "collect": "prefix", "url": "https://x.example/b.mp3"},
]
SHOPIFY = """Name,Email,Financial Status,Paid at,Currency,Total,Discount Code,Created at,Lineitem name,\
Refunded Amount,Id
#7,jo@shop.example,paid,2024-05-01 10:00:00 -0400,USD,80.10,SAVE,2024-05-01 09:59:00 -0400,Cup,10.05,55
#7,jo@shop.example,,,,,,2024-05-01 09:59:00 -0400,Hat,,
#8,,paid,,USD,30.00,,2024-05-01 09:59:00 -0400,Cup,0.00,56
"""
WOOCOMMERCE = """order_id,order_number,order_date,status,order_total,order_currency,customer_ip_address,\
billing_email,coupon_items
7,1007,2024-05-01 10:00:00,wc-completed,50.00,EUR,203.0.113.3,jo@shop.example,code:save|amount:5.00
8,1008,5/2/2024 6:29:00,processing,20,EUR,203.0.113.4,,
"""


def parquet(frame: pl.DataFrame) -> bytes:
    target = io.BytesIO()
    frame.write_parquet(target)
    return target.getvalue()


PARQUET = parquet(pl.read_csv(CSV.encode(), infer_schema=False))
TYPED = parquet(
    pl.DataFrame(
        {
            "occurred_at": [datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 5, 2, tzinfo=UTC)],
            "event_type": pl.Series(["play", "request"], dtype=pl.Categorical),
            "url": ["/a.mp3", "/b.mp3"],
            "ip": ["203.0.113.1", "2001:db8:aaaa::1"],
            "status": pl.Series([200, None], dtype=pl.UInt16),
            "day": [date(2024, 5, 1), None],
            "nested": [{"a": [1, None], "b": {"c": b"x"}}, None],
            "number": [float("nan"), float("inf")],
            "money": [Decimal("1.50"), None],
            "span": [timedelta(1), None],
            "at": [time_of_day(1, 2, 3), None],
            "bytes": [b"\xff", None],
            "nothing": pl.Series([None, None], dtype=pl.Null),
            "flag": [True, None],
            "huge": pl.Series([2**64 - 1, 0], dtype=pl.UInt64),
        }
    )
)


def lines(items: list[Any]) -> bytes:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items).encode()


@dataclass(frozen=True)
class Kind:
    """A valid file: what it is said to be (a dataset or source), its name, and its bytes."""

    what: str
    name: str
    data: bytes


KINDS = {
    "csv": Kind("listener_events", "a.csv", CSV.encode()),
    "tsv": Kind("listener_events", "a.tsv", CSV.replace(",", "\t").encode()),
    "csv conversions": Kind("attribution_events", "a.csv", CONVERSIONS.encode()),
    "csv campaigns": Kind("campaigns", "a.csv", CAMPAIGNS.encode()),
    "csv spend": Kind("spend", "a.csv", SPEND.encode()),
    "ndjson": Kind("listener_events", "a.ndjson", lines(EVENTS)),
    "json": Kind("listener_events", "a.json", json.dumps(EVENTS).encode()),
    "parquet": Kind("listener_events", "a.parquet", PARQUET),
    "parquet typed": Kind("listener_events", "b.parquet", TYPED),
    "nginx": Kind("nginx", "access.log", COMBINED.encode()),
    "apache": Kind("apache", "access.log", COMBINED.encode()),
    "s3": Kind("s3", "s3.log", S3.encode()),
    "cloudfront": Kind("cloudfront", "edge.log", CLOUDFRONT.encode()),
    "op3 tsv": Kind("op3", "a.tsv", OP3.encode()),
    "op3 csv": Kind("op3", "a.csv", OP3.replace("\t", ",").encode()),
    "op3 json": Kind("op3", "a.json", json.dumps(OP3_ROWS).encode()),
    "op3 ndjson": Kind("op3", "a.ndjson", lines(OP3_ROWS["rows"])),  # type: ignore[arg-type]
    "rss": Kind("rss", "feed.xml", RSS.encode()),
    "csv utf-16": Kind("listener_events", "a.csv", CSV.encode("utf-16")),
    "iis": Kind("iis", "iis.log", W3C.encode()),
    "alb": Kind("alb", "alb.log", ALB.encode()),
    "caddy": Kind("caddy", "caddy.log", lines(CADDY)),
    "cloudflare": Kind("cloudflare", "a.json", lines(CLOUDFLARE)),
    "fastly": Kind("fastly", "a.json", lines(FASTLY)),
    "google": Kind("google", "a.json", lines(GOOGLE)),
    "gcs": Kind("gcs", "a.csv", GCS.encode()),
    "pixel": Kind("pixel", "a.log", lines(PIXEL)),
    "prefix": Kind("prefix", "a.log", lines(PREFIX)),
    "shopify": Kind("shopify", "orders.csv", SHOPIFY.encode()),
    "woocommerce": Kind("woocommerce", "orders.csv", WOOCOMMERCE.encode()),
}

# --- Mutations --------------------------------------------------------------------------------------------

TOKENS = (
    *(
        b"\0",
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\xc3",
        b"\xef\xbb\xbf",
        b"\r",
        b"\r\n",
        b"\n",
        b"\n\n\n",
        b"\x0b\x0c\x85",
    ),
    *(
        b'"',
        b'""',
        b'"\n"',
        b",",
        b"\t",
        b";",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b"<",
        b">",
        b"&",
        b"&#0;",
        b"&x;",
        b"%00",
    ),
    *(b"9" * 400, b"-1", b"1e999999999", b"NaN", b"null", b"true", b"18446744073709551616", b"0.1e-400", b"1E5"),
    *(b"9999-12-31T23:59:59Z", b"0000-00-00", b"10000-01-01", b"-4000-01-01", b"2024-02-30", b"1969-12-31"),
    *(b"31/Dec/9999:23:59:59 -9999", b"00/Foo/0000:99:99:99 +0000", b"2024-05-01T00:00:00+99:99"),
    *(b"'; drop table raw.listener_events; --", b"\\.", b"\\N", b"$$", b"%s%n", b"{}", b"../../etc/passwd"),
    *(b"[" * 3000, b'{"a":' * 2000, b"<a>" * 3000, b"x" * 70_000, b"x" * 1_100_000, b"," * 3000, b"a\x1fb"),
    *(
        b"\\u0000",
        b"\\ud800",
        b"\\x00",
        b"\xf0\x9f\x98\x80",
        "\u202e\u0085\u2029".encode(),
        b"<![CDATA[",
        b"]]>",
        b"<!--",
    ),
    *(
        b'<!DOCTYPE rss [<!ENTITY x "y"><!ENTITY z SYSTEM "file:///etc/passwd">]>',
        b"#Fields:",
        b"#Fields: date time\n",
    ),
    *(
        b"_line",
        b"_problem",
        b"event_id",
        b"__index_level_0__",
        b"203.0.113.9",
        b"2001:db8:aaaa::9",
        b"::ffff:203.0.113.9",
    ),
)
Mutation = tuple[str, float, float, bytes]


def mutate(data: bytes, mutation: Mutation) -> bytes:
    """Change a file at a place (two fractions of its length) in a way."""
    how, first, second, token = mutation
    start, end = sorted((int(first * len(data)), int(second * len(data))))
    return HOWS[how](data, start, end, token)


def flip(data: bytes, start: int, _end: int, _token: bytes) -> bytes:
    return data[:start] + bytes(byte ^ (1 << (start % 8)) for byte in data[start : start + 1]) + data[start + 1 :]


def renumber(data: bytes, start: int, end: int, token: bytes) -> bytes:
    def change(found: re.Match[bytes]) -> bytes:
        return token if found.start() >= start else found[0]

    return re.sub(rb"[0-9]+", change, data, count=end % 40 + 1)


def another(data: bytes, start: int, _end: int, _token: bytes) -> bytes:
    return data + list(KINDS.values())[start % len(KINDS)].data


def line_twice(data: bytes, start: int, _end: int, _token: bytes) -> bytes:
    parts = data.split(b"\n")
    at = start % len(parts)
    return b"\n".join([*parts[: at + 1], *parts[at:]])


HOWS: dict[str, Callable[..., bytes]] = {
    "cut": lambda data, start, *_: data[:start],
    "flip": flip,
    "insert": lambda data, start, _, token: data[:start] + token + data[start:],
    "replace": lambda data, start, end, token: data[:start] + token + data[min(end, start + 40) :],
    "delete": lambda data, start, end, _: data[:start] + data[min(end, start + 40) :],
    "repeat": lambda data, start, end, _: data[:end] + data[start:end] * 3 + data[end:],
    "swap": lambda data, start, end, _: data[start:end] + data[:start] + data[end:],
    "renumber": renumber,
    "end": lambda data, *at: data + at[2],
    "front": lambda data, *at: at[2] + data,
    "line twice": line_twice,
    "twice": lambda data, *_: data + data,
    "another": another,
    "line ends": lambda data, start, *_: data.replace(b"\n", b"\r\n" if start % 2 else b"\r"),
}


PACKS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "zstd": lambda data: zstandard.compress(data, 1),
    "gzip twice": lambda data: (
        gzip.compress(data[: len(data) // 2], mtime=0) + gzip.compress(data[len(data) // 2 :])
    ),
}
fraction = st.floats(0, 1)
mutations = st.lists(
    st.tuples(st.sampled_from(sorted(HOWS)), fraction, fraction, st.sampled_from(TOKENS) | st.binary(max_size=6)),
    min_size=1,
    max_size=4,
)


@dataclass(frozen=True)
class Fuzzed:
    """A mangled file, and how it came about."""

    kind: str
    what: str
    name: str
    data: bytes


@st.composite
def fuzzed(draw: st.DrawFn) -> Fuzzed:
    """Draw a valid file, mutate it, pack it, and at times mutate what came out."""
    name = draw(st.sampled_from(sorted(KINDS)))
    kind = KINDS[name]
    data = kind.data
    for mutation in draw(mutations):
        data = mutate(data, mutation)
    pack = draw(st.sampled_from(("plain", "plain", "plain", "gzip", "zstd", "gzip twice")))
    data = PACKS[pack](data)
    if pack != "plain" and draw(st.booleans()):
        data = mutate(data, draw(mutations)[0])
    what = kind.what
    if draw(st.integers(0, 15)) == 0:
        what = draw(st.sampled_from(sorted({item.what for item in KINDS.values()})))
    return Fuzzed(name, what, kind.name + ("" if pack == "plain" else ".gz"), data)


# --- What must hold ---------------------------------------------------------------------------------------


def request_for(path: Path, what: str) -> LoadRequest:
    return LoadRequest(str(path), "acme", *((what, None) if what in DATASETS else (None, what)))


def write(folder: Path, file: Fuzzed) -> Path:
    path = folder / file.name
    path.write_bytes(file.data)
    return path


def check_refusal(error: LoadError, path: Path) -> None:
    message = str(error)
    assert not isinstance(error, FAULTS), message
    assert message.startswith(f"{path}"), message
    assert "\n" not in message
    assert message.isprintable() or message.isascii(), message
    assert not ADDRESS.search(message), message


def parse_all(path: Path, what: str) -> Counter[str]:
    """Parse a file as loading does, and see that every row is accounted for; returns what became of the rows."""
    began = time.monotonic()
    counts: Counter[str] = Counter()
    parsed: list[tuple[str, rows.Prepared]] = []
    request = request_for(path, what)
    try:
        with reading(request.uri, HASHER.redact):
            head = read_head(path, request.uri)
            source, dataset, label = resolve(request, head)

            def read(amounts: Amounts | None = None) -> None:
                context = Context(request.uri, dataset)
                for name, prepared in parse(path, head, source, label, context, HASHER, rows.Lookups(), amounts):
                    parsed.append((name, prepared))

            try:
                read()
            except AmountsUnknownError:
                parsed.clear()
                read(judge_amounts(path, head, source, Context(request.uri, dataset)))
    except LoadError as error:
        check_refusal(error, path)
        counts["refused"] += 1
    assert time.monotonic() - began < LONGEST
    rejected: set[tuple[str, int]] = set()
    for name, prepared in parsed:
        counts["rows"] += prepared.rows.height
        counts["rejects"] += len(prepared.rejects)
        assert prepared.read == prepared.rows.height + len(prepared.rejects)
        for reject in prepared.rejects:
            check_reject(reject)
            assert (name, reject.line) not in rejected, reject
            rejected.add((name, reject.line))
    return counts


def check_reject(reject: Reject) -> None:
    assert reject.original is not None
    assert "\0" not in reject.detail
    for text in (reject.detail, reject.original.decode("utf-8", "replace")):
        assert not ADDRESS.search(text), text


SETTINGS = settings(
    deadline=None,
    print_blob=True,
    report_multiple_bugs=True,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
tally: Counter[str] = Counter()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder for the files, one after the other, and say at the end what was tried."""
    yield tmp_path_factory.mktemp("fuzzed")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    tried = dict(sorted(tally.items()))
    print(f"\nfuzzed files, seed {SEED}, peak {peak} MB: {tried}")


@seed(SEED)
@settings(SETTINGS, max_examples=PARSED)
@given(file=fuzzed())
def test_every_mangled_file_is_read_or_refused(folder: Path, file: Fuzzed):
    note(f"EARMARK_CRASH_SEED={SEED}")
    counts = parse_all(write(folder, file), file.what)
    tally[f"parsed {file.kind}"] += 1
    tally["parsed refused"] += counts["refused"]
    tally["parsed rows"] += counts["rows"]
    tally["parsed rejects"] += counts["rejects"]


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_files_that_are_mangled_are_good_ones(folder: Path, name: str):
    kind = KINDS[name]
    counts = parse_all(write(folder, Fuzzed(name, kind.what, kind.name, kind.data)), kind.what)
    assert counts["rows"] > counts["rejects"]
    assert counts["refused"] == 0


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_what_once_broke_something_does_so_no_more(path: Path):
    # The name begins with what the file is said to be.
    parse_all(path, path.name.partition("--")[0])


@pytest.fixture(scope="module")
def loader(server: Database, template: Database) -> Iterator[psycopg.Connection]:
    """Return one connection for all files, to a database that nothing is committed to."""
    database = replace(server, name=f"earmark_fuzzed_{uuid.uuid4().hex[:12]}")
    name = sql.Identifier(database.name)
    with server.connect(autocommit=True) as admin:
        admin.execute(sql.SQL("create database {} template {}").format(name, sql.Identifier(template.name)))
        with database.connect("earmark tests") as connection:
            connection.execute("insert into tenancy.tenants (tenant_id, name) values ('acme', 'Acme')")
            connection.commit()
            yield connection
        admin.execute(sql.SQL("drop database {} with (force)").format(name))


STATE = """
select
    (select count(*) from ingest.loads),
    (select count(*) from ingest.rejects),
    (select coalesce(sum(changed_by::text::bigint), 0) from ingest.changes),
    (select count(*) from pg_class where relnamespace = pg_my_temp_schema()),
    (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())
"""


def state(connection: psycopg.Connection) -> tuple[Any, ...]:
    found = connection.execute(STATE.encode()).fetchone()
    assert found is not None
    tables = [connection.execute(f"select count(*) from raw.{name}".encode()).fetchone() for name in DATASETS]
    return (*found, *(row[0] for row in tables if row))


def load_twice(connection: psycopg.Connection, path: Path, what: str) -> Counter[str]:
    """Load a file into the database, see what must hold, load it again, and undo all of it."""
    counts: Counter[str] = Counter()
    with connection.transaction(force_rollback=True):
        before = state(connection)
        try:
            report = load_file(connection, request_for(path, what), key=KEY)
        except LoadError as error:
            check_refusal(error, path)
            assert state(connection) == before
            counts["refused"] += 1
        else:
            counts += check_report(connection, report)
            after = state(connection)
            again = load_file(connection, request_for(path, what), key=KEY)
            assert again.already_loaded_as is not None or not any(item.loaded for item in again.datasets)
            assert state(connection)[4:] == after[4:]
    assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    return counts


def check_report(connection: psycopg.Connection, report: LoadReport) -> Counter[str]:
    counts: Counter[str] = Counter()
    for item in report.datasets:
        assert item.read == item.loaded + item.duplicate + item.rejected
        found = connection.execute(
            "select (select count(*) from ingest.rejects where load_id = %(load)s),"
            f" (select count(*) from raw.{item.dataset} where load_id = %(load)s)".encode(),
            {"load": item.load_id},
        ).fetchone()
        assert found == (item.rejected, item.loaded)
        counts["rows"] += item.loaded
        counts["rejects"] += item.rejected
    return counts


@seed(SEED)
@settings(SETTINGS, max_examples=LOADED)
@given(file=fuzzed())
def test_a_mangled_file_is_in_the_database_whole_or_not_at_all(
    loader: psycopg.Connection, folder: Path, file: Fuzzed
):
    note(f"EARMARK_CRASH_SEED={SEED}")
    counts = load_twice(loader, write(folder, file), file.what)
    tally[f"loaded {file.kind}"] += 1
    tally["loaded refused"] += counts["refused"]
    tally["loaded rows"] += counts["rows"]
    tally["loaded rejects"] += counts["rejects"]
