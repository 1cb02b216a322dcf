"""Each source's lines and quirks as fields, and which source a file is."""

import ipaddress
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from earmark.addresses.networks import Networks
from earmark.addresses.privacy import HashKey
from earmark.addresses.proxies import Proxies
from earmark.addresses.ranges import Ranges
from earmark.ingestion.datasets import DATASETS
from earmark.ingestion.errors import LoadError, NotThisSourceError, UnknownDatasetError
from earmark.ingestion.formats import LINE, read_blocks, read_head
from earmark.ingestion.load import LoadRequest, resolve
from earmark.ingestion.rows import Lookups, event_id_of, prepare
from earmark.ingestion.sources import SOURCES, Context, cloudfront, find_source, rss

HASHER = HashKey("k", bytes(32)).for_tenant("acme")
S3 = (
    "owner show-bucket [06/Feb/2019:00:00:38 +0000] 192.0.2.3 - 3E57427F3EXAMPLE REST.GET.OBJECT ep%2520one.mp3 "
    '"GET /show-bucket/ep%20one.mp3?X-Amz-Signature=x HTTP/1.1" 206 - 113 9000 7 3 "-" "S3Console/0.4" -'
)
CLOUDFRONT = (
    "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status "
    "cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id x-host-header "
    "x-forwarded-for sc-range-start sc-range-end\n"
)
EDGE = (
    "2024-05-01\t00:16:14\tSFO5\t3149979\t192.0.2.3\tGET\td1.cloudfront.net\t/ep.mp3\t206\t-\t{agent}\tle=Z\tsid=1\tMiss\t"
    "{id}\tcdn.example.com\t192.0.2.9\t0\t99\n"
)


def load(
    tmp_path: Path,
    data: bytes | str,
    dataset: str = "listener_events",
    source: str | None = None,
    lookups: Lookups | None = None,
):
    """Return prepared rows as dictionaries, and rejects."""
    path = tmp_path / "file"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    head = read_head(path, "file")
    found, name, label = resolve(LoadRequest("file", "acme", dataset if source is None else None, source), head)
    context = Context("file", name)
    rows: dict[str, list[dict[str, object]]] = {}
    rejects = []
    for block in read_blocks(path, head, found.shape):
        for of_dataset, frame in found.rows(block.rows, context).items():
            lines = found.shape == "lines"
            prepared = prepare(
                DATASETS[of_dataset], frame, label, HASHER, block.original, lookups=lookups, ip_optional=lines
            )
            rows.setdefault(of_dataset, []).extend(prepared.rows.iter_rows(named=True))
            rejects += prepared.rejects
            assert prepared.read == prepared.rows.height + len(prepared.rejects)
    return rows, rejects


def one(tmp_path: Path, data: bytes | str, **how: Any) -> dict[str, object]:
    rows, rejects = load(tmp_path, data, **how)
    assert rejects == []
    (row,) = rows["listener_events"]
    return row


LOG = '192.0.2.3 - - [03/Dec/2013:20:37:20 +0100] "{request}" 206 - "{referrer}" "{agent}"'


def log(request: str = "GET /ep.mp3?a=1 HTTP/1.1", referrer: str = "-", agent: str = "Overcast/3.0") -> str:
    return LOG.format(request=request, referrer=referrer, agent=agent) + "\n"


def test_combined(tmp_path: Path):
    row = one(tmp_path, log(), source="nginx")
    assert row["occurred_at"].isoformat() == "2013-12-03T19:37:20+00:00"
    assert (row["source"], row["event_type"], row["method"], row["status"]) == ("nginx", "request", "GET", 206)
    assert (row["url"], row["enclosure_key"], row["bytes_sent"]) == ("/ep.mp3?a=1", "/ep.mp3", 0)
    assert (row["referrer"], row["user_agent"]) == (None, "Overcast/3.0")
    assert row["household_key"] == "\\x" + HASHER.household("192.0.2.3").hex()
    assert row["_made"]


@pytest.mark.parametrize("request_line", ["-", "", "\\x16\\x03\\x01", "quit", "GET"])
def test_a_request_that_is_no_http_is_kept_without_method(tmp_path: Path, request_line: str):
    row = one(tmp_path, log(request_line), source="apache")
    assert (row["method"], row["url"], row["enclosure_key"]) == (None, request_line or "-", None)


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ('h.example - bob [03/Dec/2013:20:37:20 +0000] "GET /a HTTP/1.0" 200 5', "bytes_sent", 5),
        (log(agent='say \\"hi\\"').strip(), "user_agent", 'say "hi"'),
        (log("GET http://other.example/a.mp3 HTTP/1.1").strip(), "enclosure_key", "other.example/a.mp3"),
        (log("GET /a b.mp3 HTTP/1.1").strip(), "url", "/a b.mp3"),
        ("www.Example.com:443 " + log().strip(), "enclosure_key", "example.com/ep.mp3"),
        (log().strip() + " 2338", "properties", '{"log_extra":"2338"}'),
        ('2001:db8::1 - - [03/Dec/2013:20:37:20 +0000] "GET /a HTTP/1.0" 200 5', "key_id", "k"),
        ('h.example - - [03/Dec/2013:20:37:20 +0000] "GET /a HTTP/1.0" 200 5', "household_key", None),
    ],
)
def test_combined_forms(tmp_path: Path, line: str, field: str, value: object):
    assert one(tmp_path, line, source="nginx")[field] == value


def test_a_forwarded_address_at_the_end_of_a_line_is_hashed(tmp_path: Path):
    row = one(tmp_path, log().strip() + ' "198.51.100.7"', source="nginx")
    assert row["properties"] == '{"log_extra":"\\"<ip:' + HASHER.household("198.51.100.7").hex() + '>\\""}'


TRUSTS_192_0_2 = Lookups(
    Proxies([ipaddress.ip_network("192.0.2.0/24")]),
    Networks(Ranges({ipaddress.ip_network("198.51.100.0/24"): "data_center"})),
)
CLIENT = "\\x" + HASHER.household("198.51.100.7").hex()
FORWARDED_CSV = 'occurred_at,event_type,url,ip,{name}\n2024-05-01,play,/a,{ip},"203.0.113.9, 198.51.100.7"\n'


@pytest.mark.parametrize("name", ["forwarded_for", "x_forwarded_for", "X-Forwarded-For"])
def test_the_client_behind_a_trusted_proxy(tmp_path: Path, name: str):
    row = one(tmp_path, FORWARDED_CSV.format(name=name, ip="192.0.2.3"), lookups=TRUSTS_192_0_2)
    assert (row["household_key"], row["network"], row["properties"]) == (CLIENT, "data_center", "{}")
    assert "forwarded" not in str(row)
    # Whoever is no trusted proxy is not believed, and without proxies nobody is.
    for ip, lookups in (("203.0.113.1", TRUSTS_192_0_2), ("192.0.2.3", None)):
        row = one(tmp_path, FORWARDED_CSV.format(name=name, ip=ip), lookups=lookups)
        assert row["household_key"] == "\\x" + HASHER.household(ip).hex()
        assert (row["network"], row["properties"]) == (None, "{}")
    assert "198.51.100.7" not in str(row)


def test_the_event_id_does_not_depend_on_who_is_trusted(tmp_path: Path):
    data = FORWARDED_CSV.format(name="x-forwarded-for", ip="192.0.2.3")
    assert one(tmp_path, data, lookups=TRUSTS_192_0_2)["event_id"] == one(tmp_path, data)["event_id"]


def test_an_unknown_client_has_no_keys(tmp_path: Path):
    data = FORWARDED_CSV.format(name="forwarded_for", ip="192.0.2.3").replace("198.51.100.7", "unknown")
    row = one(tmp_path, data, lookups=TRUSTS_192_0_2)
    assert (row["household_key"], row["listener_key"], row["key_id"]) == (None, None, None)


@pytest.mark.parametrize(
    ("extra", "client"),
    [
        ('"198.51.100.7"', "198.51.100.7"),
        ('"203.0.113.9, 198.51.100.7, 192.0.2.8"', "198.51.100.7"),
        ('"2001:db8:1:2::9" rt=0.1', "2001:db8:1:2::/64"),
        ('"-"', "192.0.2.3"),
        ('"gzip"', "192.0.2.3"),
        ("0.123", "192.0.2.3"),
        ('"198.51.100.7, unknown"', None),
    ],
)
def test_nginx_appends_forwarded_for(tmp_path: Path, extra: str, client: str | None):
    row = one(tmp_path, f"{log().strip()} {extra}", source="nginx", lookups=TRUSTS_192_0_2)
    assert row["household_key"] == (None if client is None else "\\x" + HASHER.household(client).hex())
    assert "198.51.100.7" not in str(row)


def test_cloudfront_tells_forwarded_for(tmp_path: Path):
    line = EDGE.format(agent="a", id="r1").replace("192.0.2.9", "203.0.113.9,%20198.51.100.7")
    row = one(tmp_path, CLOUDFRONT + line, lookups=TRUSTS_192_0_2)
    assert (row["household_key"], row["network"]) == (CLIENT, "data_center")
    assert one(tmp_path, CLOUDFRONT + line)["network"] is None


def test_a_column_named_network_is_an_extra(tmp_path: Path):
    data = "occurred_at,event_type,url,ip,network\n2024-05-01,play,/a,198.51.100.7,Acme Podcasts\n"
    row = one(tmp_path, data, lookups=TRUSTS_192_0_2)
    assert (row["network"], row["properties"]) == ("data_center", '{"network":"Acme Podcasts"}')


def test_lines_of_another_form_are_rejects(tmp_path: Path):
    rows, rejects = load(tmp_path, log() + "rubbish 192.0.2.77\n" + log().replace("Dec", "Dez"), source="nginx")
    assert [row["_line"] for row in rows["listener_events"]] == [1]
    assert [(reject.line, reject.reason) for reject in rejects] == [(2, "not_readable"), (3, "not_readable")]
    assert b"192.0.2.77" not in rejects[0].original


def test_s3(tmp_path: Path):
    row = one(tmp_path, S3)
    assert (row["url"], row["enclosure_key"]) == (
        "https://show-bucket/ep%20one.mp3",
        "show-bucket/ep%20one.mp3",
    )
    assert (row["bytes_sent"], row["object_bytes"], row["status"]) == (113, 9000, 206)
    assert row["event_id"] == event_id_of("3E57427F3EXAMPLE REST.GET.OBJECT ep%2520one.mp3")
    assert not row["_made"]
    assert "Signature" not in str(row)


@pytest.mark.parametrize(
    ("old", "new", "field", "value"),
    [
        ('"-" "S3Console', '"http://a/?b=1"" "S3Console', "referrer", "http://a/?b=1"),
        ('"GET /show-bucket/ep%20one.mp3?X-Amz-Signature=x HTTP/1.1"', "-", "method", None),
        ("REST.GET.OBJECT", "WEBSITE.GET.OBJECT", "method", "GET"),
        ("REST.GET.OBJECT", "REST.GET.ACL", "method", "GET.ACL"),
        ("REST.GET.OBJECT", "REST.COPY.OBJECT_GET", "method", "COPY.OBJECT_GET"),
        (
            '"S3Console/0.4" -',
            '"a "b" c" - HOSTID SigV4 - AuthHeader s3.amazonaws.com TLSv1',
            "user_agent",
            'a "b" c',
        ),
        ("- 113 9000", "- - 9000", "bytes_sent", 0),
        ("- 113 9000", "- - -", "object_bytes", None),
        ("REST.GET.OBJECT", "SOAP.PUT.OBJECT", "properties", '{"operation":"SOAP.PUT.OBJECT"'),
        ("192.0.2.3", "-", "household_key", None),
        ("ep%2520one.mp3 ", "- ", "enclosure_key", "show-bucket/"),
        ('"S3Console/0.4" -', '"S3Console/0.4"', "user_agent", "S3Console/0.4"),
    ],
)
def test_s3_quirks(tmp_path: Path, old: str, new: str, field: str, value: object):
    assert old in S3
    found = one(tmp_path, S3.replace(old, new), source="s3")[field]
    assert found == value or (isinstance(value, str) and str(found).startswith(value))


def test_cloudfront(tmp_path: Path):
    row = one(tmp_path, CLOUDFRONT + EDGE.format(agent="Spotify/8.6%2520(Pixel%25203a)", id="r1"))
    assert row["url"] == "https://cdn.example.com/ep.mp3?le=Z"
    assert (row["enclosure_key"], row["byte_range"]) == ("cdn.example.com/ep.mp3", "bytes=0-99")
    assert row["user_agent"] == "Spotify/8.6 (Pixel 3a)"
    assert row["event_id"] == event_id_of("r1 2024-05-01 00:16:14")
    assert "192.0.2" not in str(row)
    assert "sid=1" not in str(row)


WIDE = (
    "#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status x-edge-request-id "
    "sc-content-type sc-content-len sc-range-start sc-range-end\n"
)


@pytest.mark.parametrize(
    ("method", "status", "sent", "length", "start", "end", "expected"),
    [
        # The whole file and its headers; a listener who went away early.
        ("GET", "200", "9000500", "9000000", "-", "-", (9000000, 9000000, None)),
        ("GET", "200", "70500", "9000000", "-", "-", (70500, 9000000, None)),
        ("GET", "206", "1000500", "1000000", "500000", "1499999", (1000000, None, "bytes=500000-1499999")),
        ("GET", "206", "502", "2", "0", "1", (2, None, "bytes=0-1")),
        ("GET", "206", "1000500", "-", "500000", "1499999", (1000000, None, "bytes=500000-1499999")),
        # A length that the log does not tell (chunked); one of a body that was not sent.
        ("GET", "200", "9000500", "-", "-", "-", (9000500, None, None)),
        ("HEAD", "200", "500", "9000000", "-", "-", (500, 9000000, None)),
        ("GET", "404", "900", "400", "-", "-", (400, None, None)),
        ("GET", "304", "300", "-", "-", "-", (300, None, None)),
        ("GET", "000", "0", "-", "-", "-", (0, None, None)),
    ],
)
def test_the_bytes_of_cloudfront(
    tmp_path: Path, method: str, status: str, sent: str, length: str, start: str, end: str, expected: tuple
):
    line = (
        f"2024-05-01\t00:16:14\tSFO5\t{sent}\t192.0.2.3\t{method}\th.example\t/a.mp3\t{status}\tr1\taudio/mpeg\t"
    )
    row = one(tmp_path, WIDE + line + f"{length}\t{start}\t{end}\n")
    assert (row["bytes_sent"], row["object_bytes"], row["byte_range"]) == expected


def test_bytes_that_are_no_number_are_refused(tmp_path: Path):
    line = EDGE.format(agent="a", id="r1").replace("3149979", "many")
    _, rejects = load(tmp_path, CLOUDFRONT + line)
    assert [(reject.field, reject.reason) for reject in rejects] == [("bytes_sent", "not_integer")]


def test_cloudfront_files_put_together(tmp_path: Path):
    short = "#Fields: date time c-ip cs-method cs-uri-stem sc-status x-edge-request-id cs(Host)\n"
    data = CLOUDFRONT + EDGE.format(agent="a", id="1") + short
    data += "2024-05-01\t00:00:01\t192.0.2.3\tGET\t/b.mp3\t200\t2\th.example\n" + EDGE.format(agent="a", id="3")
    rows, rejects = load(tmp_path, data)
    assert [row["enclosure_key"] for row in rows["listener_events"]] == [
        "cdn.example.com/ep.mp3",
        "h.example/b.mp3",
    ]
    assert [(reject.line, reject.reason) for reject in rejects] == [(6, "not_readable")]
    assert "its #Fields: line names 8" in rejects[0].detail


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a%20b", "a b"),
        ("a%2520b", "a b"),
        ("a%252520b", "a%20b"),
        ("100%", "100%"),
        ("%00", "%00"),
        ("%ff", "%ff"),
    ],
)
def test_cloudfront_decoding(text: str, plain: str):
    assert cloudfront.decode(text) == plain


HITS = "time,uuid,hashedIpAddress,method,url,userAgent,range,country,xpsId\n"
HIT = "2024-05-25T18:11:30.273Z,a11378c4cf54489c86d852c713ed0ef7,be723a50,GET,https://op3.dev/e/h.fm/a.mp3,Pod/1,,US,X\n"


def test_op3_hits(tmp_path: Path):
    row = one(tmp_path, HITS + HIT)
    assert row["event_id"] == "a11378c4-cf54-489c-86d8-52c713ed0ef7"
    assert (row["event_type"], row["enclosure_key"], row["country_code"]) == ("request", "h.fm/a.mp3", "US")
    assert row["household_key"] == "\\x" + HASHER.household("op3:be723a50").hex()
    assert row["properties"] == '{"xpsId":"X"}'


def test_op3_downloads(tmp_path: Path):
    head = "time\turl\taudienceId\tshowUuid\tepisodeId\thashedIpAddress\tagentName\tbotType\n"
    line = "2024-05-25T18:11:30Z\thttps://op3.dev/e/h.fm/a.mp3\taud{}\tshow\tep\tbe723a50\tOvercast\t\n"
    rows, rejects = load(tmp_path, head + line.format(1) + line.format(2))
    first, second = rows["listener_events"]
    assert rejects == []
    assert (first["event_type"], first["user_agent"]) == ("download", None)
    assert first["household_key"] == second["household_key"]
    assert first["listener_key"] != second["listener_key"]
    assert first["event_id"] != second["event_id"]
    assert '"agentName":"Overcast"' in str(first["properties"])


FEED = """
<?xml version="1.0"?><!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/passwd"><!ENTITY y "boom">]>
<rss xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd" xmlns:podcast="https://podcastindex.org/namespace/1.0">
<channel><title>Show &x;&amp; more</title>{guid}<link>https://show.example/</link>
<item><guid>g1</guid><title>One</title><pubDate>Wed, 15 May 2024 02:02:00 -0500</pubDate>
<itunes:duration>1:02:03</itunes:duration>
<enclosure url="https://pdst.fm/e/h.fm/1.mp3?x" length="123" type="audio/mpeg"/>
</item><item><title>Two</title><enclosure url="https://h.fm/2.mp3" length="0"/>
<itunes:duration>soon</itunes:duration></item>
<item><title>Three & broken</title></item></channel>
"""


def test_rss(tmp_path: Path):
    rows, rejects = load(tmp_path, FEED.format(guid="<podcast:guid>ABC-1</podcast:guid>"), source="rss")
    (podcast,) = rows["podcasts"]
    one, two, three = rows["episodes"]
    assert rejects == []
    assert (podcast["podcast_id"], podcast["podcast_guid"]) == ("abc-1", "ABC-1")
    assert "root:" not in str(podcast)
    assert one["published_at"].isoformat() == "2024-05-15T07:02:00+00:00"
    assert (one["duration_seconds"], one["enclosure_bytes"], one["enclosure_key"]) == (3723.0, None, "h.fm/1.mp3")
    assert "123 bytes for 3723 seconds" in str(one["properties"])
    assert (two["enclosure_bytes"], two["duration_seconds"], two["guid"]) == (None, None, None)
    assert two["properties"] == '{"unread_duration":"soon"}'
    assert three["title"].startswith("Three")
    again = load(tmp_path, FEED.format(guid="<podcast:guid>ABC-1</podcast:guid>"), source="rss")[0]
    assert again == rows


def test_the_id_of_a_feed_without_guid_is_that_of_its_url():
    # The example of https://podcasting2.org/docs/podcast-namespace/tags/guid
    assert str(rss.uuid.uuid5(rss.PODCAST_NAMESPACE, "mp3s.nashownotes.com/pc20rss.xml")) == (
        "917393e3-1b1e-5cef-ace4-edaa54e1f810"
    )


def feed(items: str, channel: str = "", head: str = "") -> str:
    return (
        f'<?xml version="1.0"?>{head}<rss version="2.0" xmlns:itunes="http://www.iTunes.com/DTDs/Podcast-1.0.dtd"'
        ' xmlns:media="http://search.yahoo.com/mrss" xmlns:atom="http://www.w3.org/2005/Atom"'
        ' xmlns:podcast="https://github.com/Podcastindex-org/podcast-namespace/blob/main/docs/1.0.md"><channel>'
        f"<title>T</title>{channel}{items}</channel></rss>"
    )


SELF = '<atom:link rel="self" href="https://feeds.example.org/t/feed.xml"/>'


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("<a>R & B &amp; c</a>", "<a>R &#38; B &#38; c</a>"),
        ('<a u="x?a=1&b=2&amp;c"/>', '<a u="x?a=1&#38;b=2&#38;c"/>'),
        ("<a>&nbsp;&nosuch;&#233;&#xE9;</a>", "<a>&#160;&#38;nosuch;&#233;&#xE9;</a>"),
        ("<a>x\x0b\x01y&#11;&#x0;</a>", "<a>xy</a>"),
        ("<a><![CDATA[a & b &nbsp;]]><!-- & --><?p & ?></a>", "<a><![CDATA[a & b &nbsp;]]><!-- & --><?p & ?></a>"),
        (
            '<!DOCTYPE r [<!ENTITY own "x & y">]><r>&own; & &other;</r>',
            '<!DOCTYPE r [<!ENTITY own "x & y">]><r>&own; &#38; &#38;other;</r>',
        ),
        ("<a><!-- never & closed", "<a><!-- never & closed"),
    ],
)
def test_what_no_parser_takes_is_mended_and_nothing_else(text: str, mended: str):
    assert rss.mend(text.encode()).decode() == mended


def test_a_bare_ampersand_costs_nothing_after_it(tmp_path: Path):
    items = (
        "<item><guid>a&amp;1</guid><title>Q & A</title><enclosure url='https://h.fm/p?s=1&e=1'/></item>"
        "<item><guid>a&amp;2</guid><title>B &amp; C&hellip;</title><enclosure url='https://h.fm/p?s=1&amp;e=2'/></item>"
        "<item><guid>a&amp;3</guid></b><title>D &amp; E</title></item>"  # and an error that is not mended
        "<item><guid>a&amp;4</guid><title>F &amp; G</title></item>"
    )
    episodes = load(tmp_path, feed(items), source="rss")[0]["episodes"]
    assert [row["guid"] for row in episodes][:2] == ["a&1", "a&2"]
    assert [row["title"] for row in episodes][:2] == ["Q & A", "B & C\u2026"]
    assert [row["enclosure_key"] for row in episodes][:2] == ["h.fm/p?e=1&s=1", "h.fm/p?e=2&s=1"]
    assert all("&" in row["guid"] for row in episodes)


def test_the_file_of_an_item_is_its_first_audio(tmp_path: Path):
    items = (
        "<item><guid>1</guid><media:group><media:content url='a.mp3' fileSize='480000' duration='60'/>"
        "<media:content url='a.jpg' type='image/jpeg'/></media:group></item>"
        "<item><guid>2</guid><enclosure url='/b.jpg' type='image/jpeg'/>"
        "<enclosure url='/b.mp3' type='audio/mpeg'/>"
        "<podcast:alternateEnclosure type='audio/opus'><podcast:source uri='//o.example.org/b.opus'/>"
        "<podcast:source uri='ipfs://x'/></podcast:alternateEnclosure></item>"
        "<item><guid>3</guid><enclosure url='cdn.example.org/c.mp3'/></item>"
    )
    episodes = load(tmp_path, feed(items, SELF), source="rss")[0]["episodes"]
    assert [row["enclosure_url"] for row in episodes] == [
        "https://feeds.example.org/t/a.mp3",
        "https://feeds.example.org/b.mp3",
        "cdn.example.org/c.mp3",
    ]
    assert (episodes[0]["enclosure_bytes"], episodes[0]["duration_seconds"]) == (480000, 60)
    assert '"other_enclosures":"o.example.org/b.opus"' in str(episodes[1]["properties"])


@pytest.mark.parametrize(
    ("head", "element"),
    [
        ("xmlns:itunes='HTTP://WWW.ITUNES.COM/dtds/podcast-1.0.dtd/'", "itunes:duration"),
        ("xmlns:i='http://www.itunes.com/dtds/Podcast-1.0.dtd'", "i:duration"),
        ("xmlns:ITUNES='urn:other'", "ITUNES:Duration"),
        ("", "iTunes:duration"),
        ("", "duration"),
    ],
)
def test_namespaces_in_any_spelling_and_none(tmp_path: Path, head: str, element: str):
    item = f"<item><guid>1</guid><{element}>1800</{element}></item>"
    text = f"<rss {head}><channel><title>T</title>{item}</channel></rss>"
    (row,) = load(tmp_path, text, source="rss")[0]["episodes"]
    assert row["duration_seconds"] == 1800


def test_items_that_share_a_guid_are_episodes_of_their_own(tmp_path: Path):
    items = "".join(f"<item><guid>home</guid><enclosure url='https://h.fm/{n}.mp3'/></item>" for n in (1, 2, 3, 3))
    episodes = load(tmp_path, feed(items, SELF), source="rss")[0]["episodes"]
    assert len({row["episode_id"] for row in episodes}) == 3
    assert {row["guid"] for row in episodes} == {None}
    assert all('"shared_guid":"home"' in str(row["properties"]) for row in episodes)


def test_a_show_is_known_by_guid_then_feed_then_title_and_author(tmp_path: Path):
    def podcast(channel: str) -> str:
        text = feed("<item><guid>1</guid></item>", f"<link>https://home.example.org/</link>{channel}")
        return str(load(tmp_path, text, source="rss")[0]["podcasts"][0]["podcast_id"])

    def of(href: str) -> str:
        return f'<atom:link rel="self" href="{href}"/>'

    assert podcast("<podcast:guid>G</podcast:guid>" + SELF) == podcast("<podcast:guid>g</podcast:guid>")
    spellings = ("https://F.example.org/a", "http://f.example.org:80/a/", "//f.example.org/a#x")
    assert len({podcast(of(href)) for href in spellings}) == 1
    assert podcast(of("https://f.example.org/b")) != podcast(of("https://f.example.org/a"))
    assert podcast("<itunes:author>A</itunes:author>") != podcast("<itunes:author>B</itunes:author>")


@pytest.mark.parametrize(
    ("size", "seconds", "kind", "is_believed"),
    [
        ("28800000", "1800", "audio/mpeg", True),
        ("4000", "1800", "audio/mpeg", False),
        ("28800000", "30", "audio/mpeg", False),
        ("28800000", "30", "video/mp4", True),
        ("28800000", None, "audio/mpeg", True),
        ("100000000", "30", None, False),
    ],
)
def test_lengths_that_no_file_of_that_duration_has(
    size: str, seconds: str | None, kind: str | None, is_believed: bool
):
    believed, doubt = rss.believed_length(size, seconds, kind)
    assert (believed == size, doubt is None) == (is_believed, is_believed)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1:02:03", "3723"), ("62:03", "3723"), ("3723", "3723"), ("90.5", "90.5"), ("0:01:30.25", "90.25")]
    + [(text, None) for text in ("", "0", "00:00", "-5", "1h", "a:b", "nan", "1:2:3:4", "9999999")],
)
def test_durations(text: str, seconds: str | None):
    assert rss.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "iso"),
    [
        ("Wed, 15 May 2024 02:02:00 GMT", "2024-05-15T02:02:00Z"),
        ("Wed, 15 May 2024 02:02:00 PST", "2024-05-15T10:02:00Z"),
        ("15 May 2024 02:02 -0000", "2024-05-15T02:02:00Z"),
        ("2024-05-15T02:02:00+02:00", "2024-05-15T00:02:00Z"),
        ("soon", None),
        ("", None),
        ("Wed, 99 May 2024 02:02:00 GMT", None),
    ],
)
def test_dates_of_feeds(text: str, iso: str | None):
    assert rss.parse_date(text) == iso


def test_generic_keeps_what_it_does_not_know(tmp_path: Path):
    data = "Occurred_At,event_type,url,device,client_ip,zip,ip\n"
    data += "2024-05-01T00:00:00Z,play,/a,phone,192.0.2.9,12345,192.0.2.1\n"
    row = one(tmp_path, data)
    assert row["properties"] == '{"device":"phone","zip":"12345"}'
    assert "192.0.2" not in str(row)


def test_generic_merges_properties(tmp_path: Path):
    line = '{"occurred_at":"2024-05-01T00:00:00Z","event_type":"play","url":"/a",'
    line += '"properties":{"a":1},"b":"x","c":{"d":2}}'
    assert one(tmp_path, line)["properties"] == '{"b":"x","c":"{\\"d\\": 2}","a": 1}'


def test_generic_ids(tmp_path: Path):
    head = "event_id,occurred_at,event_type,url\n"
    rest = ",2024-05-01T00:00:00Z,play,/a\n"
    ids = ["A11378C4-CF54-489C-86D8-52C713ED0EF7", "order 7", ""]
    rows, _ = load(tmp_path, head + "".join(value + rest for value in ids))
    first, second, third = rows["listener_events"]
    assert first["event_id"] == "a11378c4-cf54-489c-86d8-52c713ed0ef7"
    assert (second["event_id"], second["properties"]) == (event_id_of("order 7"), '{"event_id":"order 7"}')
    assert [row["_made"] for row in (first, second, third)] == [False, False, True]


def test_an_id_made_of_content_is_the_same_in_csv_ndjson_and_parquet(tmp_path: Path):
    row = {"occurred_at": "2024-05-01T00:00:00Z", "event_type": "play", "url": "/a", "status": "200"}
    frame = pl.DataFrame([row])
    frame.write_parquet(tmp_path / "p")
    ids = {
        one(tmp_path, data)["event_id"]
        for data in (frame.write_csv(), frame.write_ndjson(), (tmp_path / "p").read_bytes())
    }
    assert len(ids) == 1


def test_a_bad_address_in_our_own_form_is_refused_and_not_told(tmp_path: Path):
    _, rejects = load(tmp_path, "occurred_at,event_type,url,ip\n2024-05-01,play,/a,192.0.2.300\n")
    assert [(reject.field, reject.reason) for reject in rejects] == [("ip", "not_an_address")]
    assert "192.0.2.300" not in rejects[0].detail


@pytest.mark.parametrize(
    ("data", "dataset", "source", "expected"),
    [
        (S3, "listener_events", None, "s3"),
        (log(), "listener_events", None, "combined"),
        (CLOUDFRONT + EDGE, "listener_events", None, "cloudfront"),
        (HITS + HIT, "listener_events", None, "op3"),
        ("occurred_at,event_type,url\n2024-05-01,play,/a\n", "listener_events", None, "generic"),
        ("sponsor_id,name\ns,n\n", "sponsors", None, "generic"),
        (FEED, None, "rss", "rss"),
        (FEED, "episodes", None, "rss"),
        (log(), None, "nginx", "combined"),
        (log(), None, None, "combined"),
        ("", "listener_events", None, "generic"),
        ("", None, "nginx", "combined"),
    ],
)
def test_which_source_a_file_is(tmp_path: Path, data: str, dataset: str | None, source: str | None, expected: str):
    path = tmp_path / "file"
    path.write_text(data)
    assert resolve(LoadRequest("file", "acme", dataset, source), read_head(path, "file"))[0].name == expected


@pytest.mark.parametrize(
    ("data", "dataset", "source", "error", "message"),
    [
        (log(), "listener_event", None, UnknownDatasetError, "no dataset 'listener_event'.*listener_events"),
        (log(), None, "ngnix", UnknownDatasetError, "no source 'ngnix'.*nginx"),
        (log(), "spend", "nginx", UnknownDatasetError, "nginx holds listener_events, not spend"),
        ("a,b\n1,2\n", None, None, UnknownDatasetError, "say which"),
        ("a,b\n1,2\n", None, "nginx", NotThisSourceError, "does not look like source combined"),
        (
            "a,b\n1,2\n",
            "spend",
            None,
            NotThisSourceError,
            "no column campaign_id, spend_date, amount.*columns: a, b",
        ),
        ('{"a":1}\n', "spend", None, NotThisSourceError, "no column campaign_id"),
        ("<html></html>", None, "rss", NotThisSourceError, "does not look like source rss"),
        ("<html></html>", "spend", None, NotThisSourceError, "does not look like source generic"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_fix(
    tmp_path: Path, data: str, dataset: str | None, source: str | None, error: type[LoadError], message: str
):
    path = tmp_path / "file"
    path.write_text(data)
    with pytest.raises(error, match=message):
        resolve(LoadRequest("file", "acme", dataset, source), read_head(path, "file"))


def test_sources_are_found_by_name_and_alias():
    names = [name for source in SOURCES for name in (source.name, *source.aliases)]
    assert len(names) == len(set(names))
    assert not set(names) & set(DATASETS)
    assert all(find_source(name) is not None for name in names)
    assert find_source("none") is None
    assert all(set(source.datasets) <= set(DATASETS) for source in SOURCES)
    assert LINE.startswith("_")
