"""Access logs as people have them: where the client stands, formats of servers, and each kind of log as fields."""

import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.addresses.networks import Networks
from earmark.addresses.privacy import HashKey, bare_address, canonical_address, clean_addresses
from earmark.addresses.proxies import Proxies
from earmark.addresses.site import Lookups
from earmark.ingestion.errors import LoadError, UnknownDatasetError
from earmark.ingestion.formats import read_head
from earmark.ingestion.layouts import LayoutError
from earmark.ingestion.load import LoadRequest, parse, resolve
from earmark.ingestion.log_formats import LogFormatError, parse_format
from earmark.ingestion.sources import Context

HASHER = HashKey("k", bytes(32)).for_tenant("acme")
AT = "[11/May/2026:07:30:00 +0200]"
REST = AT + ' "GET /show/one.mp3 HTTP/1.1" 200 4000 "-" "Player/1.0"'
NONE = "0.0.0.0"  # noqa: S104
A, B, C = "198.51.100.21", "198.51.100.22", "198.51.100.23"
TRUSTED = Lookups(Proxies([ipaddress.ip_network("203.0.113.0/24")]), Networks())


def load(
    tmp_path: Path,
    lines: Sequence[str] | str,
    *,
    source: str | None = None,
    log_format: str | None = None,
    lookups: Lookups | None = None,
) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return the rows that a file becomes, and its rejects."""
    path = tmp_path / "log"
    path.write_text(lines if isinstance(lines, str) else "\n".join(lines) + "\n")
    head = read_head(path, "log")
    request = LoadRequest("log", "acme", source=source, log_format=log_format)
    found, dataset, label = resolve(request, head)
    lookups = lookups or Lookups()
    context = Context("log", dataset, log_format=log_format, trusts_proxies=bool(lookups.proxies))
    rows: list[dict[str, Any]] = []
    rejects = []
    for _, prepared in parse(path, head, found, label, context, HASHER, lookups):
        rows += prepared.rows.iter_rows(named=True)
        rejects += prepared.rejects
        assert prepared.read == prepared.rows.height + len(prepared.rejects)
    return rows, rejects


def key(address: str) -> str:
    return "\\x" + HASHER.household(canonical_address(address) or "").hex()


def clients(rows: Sequence[dict[str, Any]]) -> list[str | None]:
    return [row["household_key"] for row in rows]


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("192.0.2.1:50123", "192.0.2.1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:80", "fe80::1"),
        ('"192.0.2.1"', "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("www.example.com:80", "www.example.com:80"),
        ("192.0.2.1:", "192.0.2.1:"),
    ],
)
def test_an_address_by_its_grammar(text: str, bare: str) -> None:
    assert bare_address(text) == bare
    assert clean_addresses(pl.Series([text])).to_list() == [bare]


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_with_a_port_is_that_address(address: Any, port: int) -> None:
    text = f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
    assert canonical_address(text) == canonical_address(str(address))


def test_the_address_that_stands_for_none_is_none() -> None:
    given = pl.Series([NONE, "::", " ", "10.0.0.0"])
    assert clean_addresses(given).to_list() == [None, None, None, "10.0.0.0"]


@pytest.mark.parametrize(
    "before",
    [
        "{} - -",
        "{}:50123 - -",
        "[2001:db8::9]:443 - -",
        "media.example.org {} - -",
        "media.example.org:443 {} - bob",
        "_ {} - -",
        "- {} - -",
        "203.0.113.9:443 {} - -",
        "10.1.1.1 {} - -",
        "{} 10.1.1.1 - -",
        "May  1 07:30:00 web1 nginx: {} - -",
        "<190>May 11 07:30:00 web1 nginx[12]: media.example.org {} - -",
        "<190>2026-05-11T07:30:00.123+02:00 web1 nginx: {} - -",
        "<190>1 2026-05-11T07:30:00Z web1 nginx - - - {} - -",
        "2026-05-11T05:30:00.123456789Z stdout F {} - -",
        "2026-05-11T05:30:00.123456789Z {} - -",
        "web-1  | {} - -",
        "[pod/web-7c9/nginx] {} - -",
        "{} - Jane Doe",
        "{} media.example.org -",
    ],
)
def test_where_the_client_stands(tmp_path: Path, before: str) -> None:
    rows, rejects = load(tmp_path, [f"{before.format(A)} {REST}"] * 2, source="nginx")
    assert rejects == []
    assert clients(rows) == [key("2001:db8::9" if "2001:db8::9" in before else A)] * 2
    assert "198.51.100" not in str(rows)


def test_the_source_is_found_whatever_carries_the_lines(tmp_path: Path) -> None:
    for before in ("<190>May 11 07:30:00 web1 nginx: ", "[pod/web/nginx] ", "", "media.example.org "):
        rows, _ = load(tmp_path, [f"{before}{A} - - {REST}"])
        assert clients(rows) == [key(A)]
    docker = [json.dumps({"log": f"{A} - - {REST}\n", "stream": "stdout", "time": "2026-05-11T05:30:00.1Z"})]
    rows, rejects = load(tmp_path, [*docker, '{"log":"ready to serve\\n"}', "{broken"])
    assert (clients(rows), [reject.line for reject in rejects]) == ([key(A)], [2, 3])
    assert rows[0]["url"] == "/show/one.mp3"


def test_a_virtual_host_makes_the_url_whole(tmp_path: Path) -> None:
    rows, _ = load(tmp_path, [f"media.example.org {A} - - {REST}"])
    assert rows[0]["enclosure_key"] == "media.example.org/show/one.mp3"
    # An address in its place is the server's, and no name that a feed has.
    rows, _ = load(tmp_path, [f"203.0.113.9:443 {A} - - {REST}"])
    assert rows[0]["enclosure_key"] == "/show/one.mp3"


def test_of_two_addresses_the_one_that_differs_is_the_clients(tmp_path: Path) -> None:
    rows, _ = load(tmp_path, [f"203.0.113.9 {client} - - {REST}" for client in (A, B, C)])
    assert clients(rows) == [key(A), key(B), key(C)]
    rows, _ = load(tmp_path, [f"{client} 203.0.113.9 - - {REST}" for client in (A, B, C)])
    assert clients(rows) == [key(A), key(B), key(C)]


def test_two_addresses_that_tell_nothing_are_refused_until_a_format_tells(tmp_path: Path) -> None:
    lines = [f"203.0.113.9 {A} - - {REST}", f"203.0.113.8 {B} - - {REST}"]
    with pytest.raises(LayoutError, match=r"two addresses.*--format"):
        load(tmp_path, lines)
    rows, _ = load(tmp_path, lines, log_format='%A %h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"')
    assert clients(rows) == [key(A), key(B)]


def test_a_list_of_forwarded_addresses_needs_to_know_the_proxies(tmp_path: Path) -> None:
    lines = [f"192.0.2.99, {A}, 203.0.113.7 - - {REST}", f"{B} - - {REST}"]
    with pytest.raises(LayoutError, match="EARMARK_TRUSTED_PROXIES"):
        load(tmp_path, lines[:1])
    rows, rejects = load(tmp_path, lines, lookups=TRUSTED)
    assert (clients(rows), rejects) == ([key(A), key(B)], [])
    # A single list among others may be anyone's doing: that line alone is refused.
    rows, rejects = load(tmp_path, [*lines, lines[1], lines[1]])
    assert (clients(rows), [reject.line for reject in rejects]) == ([key(B)] * 3, [1])


def test_a_list_before_the_address_that_connected(tmp_path: Path) -> None:
    lines = [f"192.0.2.99, {A} 203.0.113.7 - - {REST}", f"- {B} - - {REST}", f"{C} 203.0.113.7 - - {REST}"]
    rows, _ = load(tmp_path, lines, lookups=TRUSTED)
    assert clients(rows) == [key(A), key(B), key(C)]
    rows, _ = load(tmp_path, lines)
    assert clients(rows) == [key("203.0.113.7"), key(B), key("203.0.113.7")]


def test_a_line_of_another_layout_is_a_reject(tmp_path: Path) -> None:
    lines = [f"{A} - - {REST}"] * 3 + [f"203.0.113.9 {B} - - {REST}", f"May 11 07:30:00 web nginx: {C} - - {REST}"]
    rows, rejects = load(tmp_path, lines, source="nginx")
    assert (len(rows), [reject.line for reject in rejects]) == (3, [4, 5])
    assert all("an address stands between" in reject.detail for reject in rejects)
    assert not any(b"198.51.100" in (reject.original or b"") for reject in rejects)


@pytest.mark.parametrize(
    ("client", "why"),
    [
        ("dialup-7.example.net", "host_name"),
        ("-", "none"),
        (NONE, "none"),
        ("198.51.100.xxx", "masked"),
        ("198.51.100.*", "masked"),
        ("2001:db8:xxxx::", "masked"),
    ],
)
def test_a_client_that_is_not_known_is_nobody(tmp_path: Path, client: str, why: str) -> None:
    rows, rejects = load(tmp_path, [f"{client} - - {REST} 0.3"], source="nginx")
    assert (clients(rows), rejects) == ([None], [])
    assert json.loads(rows[0]["properties"]) == {"no_address": why, "log_extra": "0.3"}


def test_addresses_that_all_end_in_zero_are_masked(tmp_path: Path) -> None:
    masked = [f"198.51.{network}.0 - - {REST}" for network in (1, 2, 3)]
    rows, _ = load(tmp_path, masked)
    assert clients(rows) == [None] * 3
    rows, _ = load(tmp_path, [*masked, f"{A} - - {REST}"])
    assert None not in clients(rows)


NGINX = """log_format main '$server_name [$time_iso8601] "$request_method $request_uri" $status '
                '$body_bytes_sent/$request_length "$http_range" $sent_http_content_range "$http_user_agent" '
                '$remote_addr "$http_x_forwarded_for" $request_time';"""
NGINX_LINE = (
    'media.example.org [2026-05-11T07:30:00+02:00] "GET /show/one.mp3?a=1" 206 100/77 "bytes=0-99" '
    "bytes 0-99/4000 "
    f'"Player/1.0" 203.0.113.7 "{A}" 0.002'
)


def test_nginx_says_its_own_format(tmp_path: Path) -> None:
    rows, rejects = load(tmp_path, [NGINX_LINE, "rubbish"], log_format=NGINX, lookups=TRUSTED)
    (row,) = rows
    assert (row["household_key"], row["enclosure_key"]) == (key(A), "media.example.org/show/one.mp3")
    assert (row["method"], row["status"], row["bytes_sent"]) == ("GET", 206, 100)
    assert (row["byte_range"], row["object_bytes"]) == ("bytes=0-99", 4000)
    assert row["occurred_at"].isoformat() == "2026-05-11T05:30:00+00:00"
    assert [(reject.line, reject.reason) for reject in rejects] == [(2, "not_readable")]


@pytest.mark.parametrize(
    ("log_format", "line"),
    [
        ('LogFormat "%v:%p %h %l %u %t \\"%r\\" %>s %O \\"%{Referer}i\\" \\"%{User-Agent}i\\"" x',
         f"m.example:80 {A} - - {REST}"),
        ('%{X-Forwarded-For}i %l %u %t "%r" %>s %b', f"{A} - - {AT} " + '"GET /show/one.mp3 HTTP/1.1" 200 4000'),
        ("%{%Y-%m-%d %H:%M:%S %z}t|%a|%m|%U%q|%>s|%B",
         f"2026-05-11 07:30:00 +0200|{A}|GET|/show/one.mp3|200|4000"),
        ("%{msec}t %a %{c}a %m %U%q %s %B", f"1778477400000 {A} 203.0.113.7 GET /show/one.mp3 200 4000"),
        ('{"at":"$msec","who":"$remote_addr","what":"$request","st":$status,"by":$body_bytes_sent}',
         json.dumps({"at": "1778477400.0", "who": A, "what": "GET /show/one.mp3 HTTP/2", "st": 200, "by": 4000})),
        ('{"time":"%t","ip":"%a","uri":"%U%q","m":"%m","n":{"status":"%>s","sent":"%B"}}', None),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, log_format: str, line: str | None) -> None:
    if line is None:
        assert parse_format(log_format).paths["status"] == '$["n"]["status"]'
        return
    rows, rejects = load(tmp_path, [line], log_format=log_format, source="apache")
    assert rejects == []
    assert (clients(rows), rows[0]["bytes_sent"], rows[0]["source"]) == ([key(A)], 4000, "apache")
    assert rows[0]["occurred_at"].isoformat() == "2026-05-11T05:30:00+00:00"
    assert rows[0]["url"].endswith("/show/one.mp3")


@pytest.mark.parametrize(
    ("log_format", "reason"),
    [
        ("", "empty"),
        ("$time_local $request", "client's address"),
        ("$remote_addr $request", "the time"),
        ("%h %t", "the request"),
        ("{nothing", "no JSON object"),
        ('%h %{%d/%b/%Y:%H:%M:%S}t %{%z}t "%r"', "several parts"),
        ("x" * 9000, "longer"),
    ],
)
def test_a_format_that_does_not_say_enough_is_refused(log_format: str, reason: str) -> None:
    with pytest.raises(LogFormatError, match=reason):
        parse_format(log_format)


@given(st.text(alphabet="$%{}[]\"'\\ abhrtu_1<>", max_size=60))
def test_any_text_is_a_format_or_refused(text: str) -> None:
    try:
        found = parse_format(text)
    except LogFormatError:
        return
    assert found.roles


def test_a_format_that_no_line_fits_is_refused_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="none of its first lines") as raised:
        load(tmp_path, [f"{A} - - {REST}"], log_format='%h %t "%r" %>s')
    assert isinstance(raised.value, LoadError)
    with pytest.raises(UnknownDatasetError, match="log format goes with"):
        load(tmp_path, [f"{A} - - {REST}"], log_format='%h %t "%r"', source="s3")


AT_UTC = "2026-05-11T05:30:00+00:00"
JSON_LOGS: dict[str, dict[str, Any]] = {
    "combined": {
        "time_iso8601": "2026-05-11T07:30:00+02:00", "remote_addr": A, "request": "GET /show/one.mp3 HTTP/1.1",
        "status": "200", "body_bytes_sent": "4000", "http_referer": "", "http_user_agent": "Player/1.0",
        "host": "media.example.org",
    },
    "caddy": {
        "level": "info", "ts": 1778477400.0, "logger": "http.log.access", "msg": "handled request",
        "request": {
            "remote_ip": "203.0.113.7", "remote_port": "4711", "client_ip": A, "method": "GET",
            "host": "media.example.org", "uri": "/show/one.mp3",
            "headers": {"User-Agent": ["Player/1.0"], "Range": ["bytes=0-"]},
        },
        "bytes_read": 0, "duration": 0.01, "size": 4000, "status": 200,
        "resp_headers": {"Content-Length": ["4000"]},
    },
    "cloudflare": {
        "ClientIP": A, "ClientRequestHost": "media.example.org", "ClientRequestMethod": "GET",
        "ClientRequestURI": "/show/one.mp3", "EdgeStartTimestamp": 1778477400000000000, "EdgeResponseBytes": 4000,
        "EdgeResponseStatus": 200, "ClientRequestUserAgent": "Player/1.0", "RayID": "8f1", "ClientCountry": "de",
    },
    "fastly": {
        "timestamp": "2026-05-11T05:30:00+0000", "client_ip": A, "host": "media.example.org",
        "url": "/show/one.mp3",
        "request_method": "GET", "response_status": 200, "response_body_size": 4000, "fastly_is_edge": True,
        "request_user_agent": "Player/1.0", "request_referer": "",
    },
    "google": {
        "insertId": "x1", "timestamp": "2026-05-11T05:30:00.000000Z", "resource": {"type": "http_load_balancer"},
        "httpRequest": {
            "requestMethod": "GET", "requestUrl": "https://media.example.org/show/one.mp3", "status": 200,
            "responseSize": "4000", "userAgent": "Player/1.0", "remoteIp": A + ":4711", "serverIp": "10.0.0.3",
        },
    },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(JSON_LOGS))
def test_json_logs(tmp_path: Path, name: str) -> None:
    line = json.dumps(JSON_LOGS[name])
    rows, rejects = load(tmp_path, [line, '{"other":1}'])
    (row,) = rows
    assert (row["source"], row["household_key"]) == (name, key(A))
    assert (row["method"], row["status"], row["bytes_sent"]) == ("GET", 200, 4000)
    assert (row["enclosure_key"], row["user_agent"]) == ("media.example.org/show/one.mp3", "Player/1.0")
    assert (row["occurred_at"].isoformat(), row["referrer"]) == (AT_UTC, None)
    assert "198.51.100" not in str(rows)
    assert [reject.line for reject in rejects] == [2]
    assert load(tmp_path, [line])[0][0]["event_id"] == row["event_id"]


def test_lines_that_are_no_requests_of_clients(tmp_path: Path) -> None:
    shield = JSON_LOGS["fastly"] | {"fastly_is_edge": False}
    worker = JSON_LOGS["cloudflare"] | {"WorkerSubrequest": True}
    for line, reason in ((shield, "shield"), (worker, "Worker")):
        _, rejects = load(tmp_path, [json.dumps(line)])
        assert reason in rejects[0].detail


def test_old_caddy_logs(tmp_path: Path) -> None:
    request = {"remote_addr": f"{A}:4711", "method": "GET", "uri": "/a.mp3", "host": "h.example", "headers": {}}
    rows, _ = load(tmp_path, [json.dumps({"ts": 1778477400.5, "status": 200, "size": 1, "request": request})])
    assert clients(rows) == [key(A)]


IIS = (
    "#Software: Microsoft Internet Information Services 10.0\n#Version: 1.0\n#Date: 2026-05-11 05:30:00\n"
    "#Fields: date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) "
    "cs(Referer) sc-status sc-substatus sc-win32-status sc-bytes time-taken\n"
    f"2026-05-11 05:30:00 10.0.0.3 GET /show/one.mp3 a=1 443 - {A} Player/1.0+(phone) - 200 0 0 4000 12\n"
)


def test_iis(tmp_path: Path) -> None:
    rows, rejects = load(tmp_path, IIS + f"2026-05-11 05:30:00 10.0.0.3 GET {A} -\n")
    (row,) = rows
    assert (row["source"], row["household_key"], row["url"]) == ("w3c", key(A), "/show/one.mp3?a=1")
    assert (row["user_agent"], row["bytes_sent"]) == ("Player/1.0 (phone)", 4000)
    assert row["occurred_at"].isoformat() == AT_UTC
    assert "the line has 6 fields" in rejects[0].detail
    assert b"198.51.100" not in rejects[0].original


def test_w3c_fields_that_say_no_client_are_rejects(tmp_path: Path) -> None:
    _, rejects = load(tmp_path, IIS.replace("c-ip", "x-ip"), source="iis")
    assert "c-ip" in rejects[0].detail


def test_cloudfront_with_chosen_fields(tmp_path: Path) -> None:
    header = "#Version: 1.0\n#Fields: c-ip x-edge-location cs-uri-stem sc-status cs-method date time sc-bytes\n"
    rows, rejects = load(tmp_path, header + f"{A}\tFRA2\t/a.mp3\t200\tGET\t2026-05-11\t05:30:00\t4000\n")
    assert (rows[0]["source"], clients(rows), rejects) == ("cloudfront", [key(A)], [])
    assert (rows[0]["enclosure_key"], rows[0]["bytes_sent"]) == ("/a.mp3", 4000)


def test_amazons_load_balancers(tmp_path: Path) -> None:
    line = (
        "h2 2026-05-11T05:30:00.000000Z app/podcast/50dc {}:4711 10.0.0.1:80 0.001 0.002 0.000 200 200 34 4000 "
        '"GET https://media.example.org:443/show/one.mp3?a=1 HTTP/2.0" "Player/1.0" ECDHE TLSv1.3 arn:aws:x '
        '"Root=1-58" "media.example.org" "arn:aws:acm:y" 0 2026-05-11T05:29:59Z "forward" "-" "-"'
    )
    classic = (
        "2026-05-11T05:30:00.000000Z my-elb {}:4711 10.0.0.1:80 0.1 0.2 0.3 200 200 0 4000 "
        '"GET http://media.example.org:80/show/one.mp3 HTTP/1.1" "Player/1.0" - -'
    )
    lines = [line.format(A), line.format("[2001:db8::9]"), classic.format(B), "nothing"]
    rows, rejects = load(tmp_path, lines)
    assert {row["source"] for row in rows} == {"alb"}
    assert clients(rows) == [key(A), key("2001:db8::9"), key(B)]
    assert {row["enclosure_key"] for row in rows} == {"media.example.org/show/one.mp3"}
    assert ({row["bytes_sent"] for row in rows}, [reject.line for reject in rejects]) == ({4000}, [4])


def test_usage_logs_of_google_cloud_storage(tmp_path: Path) -> None:
    data = (
        '"time_micros","c_ip","c_ip_type","c_ip_region","cs_method","cs_uri","sc_status","cs_bytes","sc_bytes",'
        '"time_taken_micros","cs_host","cs_referer","cs_user_agent","s_request_id","cs_operation"\n'
        f'"1778477400000000","{A}","1","","GET","/bucket/one.mp3","200","0","4000","12","storage.googleapis.com",'
        '"","Player/1.0","r1","GET_Object"\n'
    )
    rows, rejects = load(tmp_path, data)
    assert (rows[0]["source"], clients(rows), rejects) == ("google_storage", [key(A)], [])
    assert (rows[0]["url"], rows[0]["bytes_sent"]) == ("https://storage.googleapis.com/bucket/one.mp3", 4000)
    assert rows[0]["occurred_at"].isoformat() == AT_UTC


def test_what_is_not_known_says_what_it_looks_like(tmp_path: Path) -> None:
    with pytest.raises(UnknownDatasetError, match=r"JSON with the keys when, who.*--format"):
        load(tmp_path, ['{"when":1,"who":"x"}'])
    with pytest.raises(UnknownDatasetError, match=r'begins with "some text".*--format'):
        load(tmp_path, ["some text"])


def test_addresses_are_hashed_wherever_they_stand(tmp_path: Path) -> None:
    line = (
        f'{A} - - {AT} "GET /show/one.mp3?for={B}&six=2001%3Adb8%3A%3A77&v=2001%253Adb8%253A%253A78 HTTP/1.1" '
        "200 1 "
        f'"http://192.0.2.77/page?ip={C}" "Player/1.0 Chrome/124.0.0.0 ({C}; http://192.0.2.78/)"'
    )
    rows, _ = load(tmp_path, [line])
    (row,) = rows
    for address in ("198.51.100", "192.0.2.7", "2001", "db8"):
        assert address not in str(row), address
    # A product's version is no address, and the file's own path stays what the feed says.
    assert "Chrome/124.0.0.0" in row["user_agent"]
    assert row["enclosure_key"] == "/show/one.mp3"
