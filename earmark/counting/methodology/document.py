"""The methodology document as text: Markdown, and one page of HTML made of it. Pure: reads no database.

Its reader is a stranger, such as an advertiser's auditor. So every figure is said with what it is a figure of. A
section yields its paragraphs, lists and tables.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, timedelta
from html import escape
from typing import Final

from markdown_it import MarkdownIt

from earmark.counting.methodology.figures import OWN_PATTERNS, Figures, LoadedDay
from earmark.counting.methodology.rules import COUNTED, Rule, Stage, rules
from earmark.counting.tenants import Value

TITLE: Final = "How the podcast downloads were counted"

_BASES: Final = {
    "declared": "the bitrate that is declared for the episode",
    "feed": "the bitrate that follows from size and duration in the feed",
    "object": "the bitrate that follows from the size of the file that was served and its duration",
    "assumed": "the bitrate that the tenant assumes where none is known",
    "whole_file": "the whole file: the episode is shorter than the threshold, or no bitrate is known",
    "unknown": "nothing: no bytes or no size are known",
}
_WINDOWS: Final = {
    "calendar_day": "a UTC day",
    "rolling_first": "24 hours from the last request that counted",
    "rolling_last": "24 hours from the last request, so that every request makes the window longer",
}
_ADS: Final = {
    "baked_in": "baked into the file",
    "dai": "inserted dynamically",
    "not known": "of an ad unit that is not known any more",
}
_FIELDS: Final[tuple[tuple[str, Callable[[LoadedDay], int]], ...]] = (
    ("address", lambda item: item.with_address),
    ("user agent", lambda item: item.with_user_agent),
    ("method", lambda item: item.with_method),
    ("status", lambda item: item.with_status),
    ("bytes sent", lambda item: item.with_bytes_sent),
    ("file size", lambda item: item.with_object_bytes),
    ("byte range", lambda item: item.with_byte_range),
)
# What Markdown or HTML would take for its own: an underscore within a word it does not.
_MARKS: Final = re.compile(r"[\\`*\[\]<>|#~]|&(?=[#A-Za-z0-9]+;)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def render(figures: Figures) -> str:
    """Return the document in Markdown."""
    sections = (
        _scope,
        _waterfall,
        _sources,
        _filter,
        _threshold,
        _uniques,
        _invalid_traffic,
        _privacy,
        _ads,
        _consumers,
        _limits,
        _versions,
    )
    return "\n\n".join(block for section in sections for block in section(figures)) + "\n"


def render_html(markdown: str) -> str:
    """Return a self-contained page of the document, for the screen and for paper."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return _PAGE.replace("{title}", escape(TITLE)).replace("{body}", body)


def _scope(figures: Figures) -> Iterator[str]:
    yield f"# {TITLE}"
    if figures.pending:
        yield _warning(figures)
    yield (
        "This document says how requests for podcast files became downloads, what was discarded under which rule, "
        "and what settings were in force. The counting implements the IAB Tech Lab Podcast Technical Measurement "
        "Guidelines, version 2.3. Where a rule is not from the guidelines, it says *ours*."
    )
    yield "## Scope and period"
    yield _table(("tenant", "name"), [(_text(item.tenant_id), _text(item.name)) for item in figures.tenants])
    yield f"Period: {figures.first} to {figures.last}, both days within. Days are UTC days."
    exception = "; not yet on the days that the warning names" if figures.pending else ""
    yield (
        "The settings in this document are those in force now. A change of a setting counts all days of its "
        f"tenant again, so they are also those that the figures of the period were counted by{exception}."
    )


def _warning(figures: Figures) -> str:
    days: dict[str, list[date]] = defaultdict(list)
    for tenant_id, day in figures.pending:
        days[tenant_id].append(day)
    lines = [
        "> **Warning: not all days of the period are up to date.** Rows or settings have changed since these days",
        "> were counted, and their figures may change with the next refresh:",
        ">",
        *(f"> - {_text(tenant_id)}: {_spans(of_tenant)}" for tenant_id, of_tenant in days.items()),
    ]
    return "\n".join(lines)


def _waterfall(figures: Figures) -> Iterator[str]:
    yield "## From requests to downloads"
    yield (
        "Every request ends in exactly one outcome: it is counted, or it is discarded under one reason code, "
        "that of the first rule that applies to it. The rules apply in this order."
    )
    left = total = figures.requests()
    rows = [("", "**requests**", "", _number(total), _share(total, total), _number(total))]
    for number, rule in enumerate(rules(), start=1):
        discarded = figures.requests(outcome=rule.code)
        left -= discarded
        figures_of_rule = (_number(discarded), _share(discarded, total), _number(left))
        rows.append((str(number), rule.title, f"`{rule.code}`", *figures_of_rule))
    counted = figures.requests(outcome=COUNTED)
    rows.append(("", "**counted downloads**", f"`{COUNTED}`", _number(counted), _share(counted, total), ""))
    header = ("", "rule", "reason code", "requests", "share of all", "left after it")
    yield _table(header, rows, numbers_from=3)
    yield f"**{_sum_line(total, counted)}.**"
    if len(figures.tenants) > 1:
        yield from _waterfall_of_tenants(figures)


def _waterfall_of_tenants(figures: Figures) -> Iterator[str]:
    names = [tenant.tenant_id for tenant in figures.tenants]
    codes = (*(rule.code for rule in rules()), COUNTED)
    rows = [(f"`{code}`", *(_number(figures.requests(name, outcome=code)) for name in names)) for code in codes]
    rows.append(("all requests", *(_number(figures.requests(name)) for name in names)))
    yield "The same by tenant:"
    yield _table(("outcome", *map(_text, names)), rows, numbers_from=1)
    totals = [(name, figures.requests(name), figures.requests(name, outcome=COUNTED)) for name in names]
    yield _list(*(f"{_text(name)}: {_sum_line(total, counted)}." for name, total, counted in totals))


def _sum_line(total: int, counted: int) -> str:
    return f"{_number(total)} requests = {_number(counted)} counted + {_number(total - counted)} discarded"


def _sources(figures: Figures) -> Iterator[str]:
    yield "## Data sources"
    yield (
        "What a source does not show cannot be judged: one without bytes cannot tell whether a download reached "
        "the threshold. The second table shows the share of loaded rows that hold a field."
    )
    counts, shown = [], []
    for tenant_id, source in sorted({(item.tenant_id, item.source) for item in figures.source_days}):
        days = [item for item in figures.source_days if (item.tenant_id, item.source) == (tenant_id, source)]
        loaded = [item for item in figures.loaded_days if (item.tenant_id, item.source) == (tenant_id, source)]
        rows, downloads = sum(item.rows for item in loaded), sum(item.downloads for item in loaded)
        name = (_text(tenant_id), _text(source))
        span = (str(min(item.day for item in days)), str(max(item.day for item in days)))
        counts.append((*name, *span, _kind(rows, downloads), _number(sum(item.requests for item in days))))
        shown.append((*name, *(_extent(sum(map(field, loaded)), rows) for _, field in _FIELDS)))
    header = ("tenant", "source", "first day", "last day", "its rows are", "requests")
    yield _table(header, counts, numbers_from=5)
    yield _table(("tenant", "source", *(name for name, _ in _FIELDS)), shown, numbers_from=2)
    yield (
        "Rows that are *downloads* are what a measurement service has made of requests; they go through the same "
        "rules. A byte range may also be missing because the whole file was asked for."
    )
    if figures.kept_from:
        yield f"Loaded rows before {figures.kept_from} are deleted; their outcomes are kept."


def _kind(rows: int, downloads: int) -> str:
    if not rows:
        return "not kept any more"
    return "requests" if not downloads else "downloads" if downloads == rows else "requests and downloads"


def _filter(figures: Figures) -> Iterator[str]:
    yield from _rules(
        figures,
        Stage.FILTER,
        "What is no request of a listener's player for an episode, or delivered nothing of it.",
    )


def _threshold(figures: Figures) -> Iterator[str]:
    seconds = figures.variables["threshold_seconds"]
    yield from _rules(
        figures,
        Stage.THRESHOLD,
        f"A download is the header of the file (ID3, where its size is known) and {seconds} seconds of audio. "
        "The bytes of a listener's requests for an episode are put together: over the UTC day or, for windows "
        "of 24 hours, over 24 hours from the first of them. Where the source shows which bytes were sent, a "
        "byte that was sent twice counts once.",
    )
    came_so_far = ("threshold_unknown", "below_threshold", "duplicate", COUNTED)
    rows = []
    for basis, meaning in _BASES.items():
        of_basis = [item for item in figures.outcomes if item.threshold_basis == basis]
        judged = sum(item.requests for item in of_basis if item.outcome in came_so_far)
        counted = sum(item.requests for item in of_basis if item.outcome == COUNTED)
        rows.append((f"`{basis}`", meaning, _number(judged), _number(counted)))
    yield "### What the threshold was judged by"
    yield (
        "How many bytes that are follows from the bitrate, which is known in several ways. The first in this "
        "table that applies is taken. One that follows from a size but is below 8 kbit/s or above 20 Mbit/s is "
        "an error of the feed and not taken."
    )
    yield _table(("basis", "judged by", "requests that came so far", "counted"), rows, numbers_from=2)
    counts_unknown = _setting(figures, "counts_unknown_threshold")
    yield (
        f"Requests of basis `unknown` count: {counts_unknown}. Where they do, any byte is enough, and where no "
        "bytes are known, the request."
    )


def _uniques(figures: Figures) -> Iterator[str]:
    yield from _rules(
        figures,
        Stage.UNIQUES,
        "Requests of one listener for one episode within a window are one download. A listener is an address "
        "and a user agent: ten requests from six user agents behind one address are six downloads.",
    )
    yield "### The three windows side by side"
    yield "The downloads of the same requests under each reading of the window:"
    in_force = {item.tenant_id: item.settings["download_window"] for item in figures.tenants}
    rows = [
        (
            _text(item.tenant_id),
            f"`{in_force[item.tenant_id]}`",
            *map(_number, (item.downloads, item.calendar_day, item.rolling_first, item.rolling_last)),
        )
        for item in figures.windows
    ]
    header = ("tenant", "in force", "downloads", *(f"`{name}`" for name in _WINDOWS))
    yield _table(header, rows, numbers_from=2)
    yield _list(*(f"`{name}`: {meaning}." for name, meaning in _WINDOWS.items()))


def _invalid_traffic(figures: Figures) -> Iterator[str]:
    yield "## Invalid traffic"
    yield "### Agent lists"
    yield (
        "A user agent is classified by the list in effect on the day of the request; a rebuild gives the same. "
        "Within a public list the first match wins, in the order bots, apps, libraries, browsers. What it does "
        f"not know is decided by {_number(figures.own_patterns)} patterns of our own, and so is everything "
        "before the first public list. Watches and forged user agents are always told by our own."
    )
    header = ("list", "where it comes from", "first day in effect", "last day in effect", "requests classified")
    yield _table(header, list(_agent_lists(figures)), numbers_from=4)
    yield "### Network lists"
    yield (
        "Addresses are looked up in lists of data centres and VPNs while a file is loaded, before they are "
        "hashed; a newer list does not reach rows that are loaded already. A version is the name of a list and "
        "the beginning of the sha256 of its content."
    )
    networks = [
        (
            _text(item.network_list or "none: not looked up"),
            str(item.first_day),
            str(item.last_day),
            _number(item.loads),
        )
        for item in figures.networks
    ]
    yield _table(("lists", "first day", "last day", "files"), networks, numbers_from=3)
    yield "### Addresses with many listeners"
    limit = _setting(figures, "max_daily_downloads_per_address")
    yield f"Pairs of listener and episode that one address may ask for in a UTC day: {limit}."
    yield (
        "A safe address is known to be many people, such as an office: neither its volume nor its network "
        "discards it. Each has a reason and an end. Those in effect in the period or later:"
    )
    safe = [
        (_text(item.tenant_id), str(item.expires_on), _number(item.addresses)) for item in figures.safe_addresses
    ]
    yield _table(("tenant", "safe on days before", "addresses"), safe, numbers_from=2)


def _agent_lists(figures: Figures) -> Iterator[tuple[str, ...]]:
    """Return a row for each list in effect in the period, with its days in it."""
    requests: dict[str, int] = defaultdict(int)
    for item in figures.outcomes:
        requests[item.agent_list] += item.requests
    first_public = figures.agents[0].effective_from if figures.agents else None
    lists = [(OWN_PATTERNS, "our own patterns", date.min, first_public)]
    lists += [(item.agent_list, item.source, item.effective_from, item.effective_until) for item in figures.agents]
    for name, source, since, until in lists:
        first = max(since, figures.first)
        last = figures.last if until is None else min(until - timedelta(days=1), figures.last)
        if first <= last:
            yield _text(name), _text(source), str(first), str(last), _number(requests[name])


def _privacy(figures: Figures) -> Iterator[str]:
    proxies = (
        f"Addresses and ranges that are set as trusted proxies: {_number(figures.trusted_proxies)}."
        if figures.trusted_proxies
        else "No proxy is set as trusted: the address that connected is the client's."
    )
    yield "## Addresses and privacy"
    yield _list(
        "IPv6 addresses are cut to their first 64 bits before anything else. IPv4 addresses are whole, also "
        "where they are written as IPv6.",
        "Addresses never reach the database. What stands for one is the first 16 bytes of its HMAC-SHA-256 "
        "under a secret key. Each tenant has a key of its own: rows of two tenants cannot be joined.",
        "The household key is the hash of the address, the listener key that of address and user agent.",
        f"{proxies} The header X-Forwarded-For tells the client only where a trusted proxy sent it. This is the "
        "setting of now; rows do not tell under which they were loaded.",
        "Under another key the same listener is another one. The keys in use, by their id:",
    )
    keys = [(_text(item.key_id), _time(item.first_used_at)) for item in figures.hash_keys]
    yield _table(("key", "first used (UTC)"), keys)


def _ads(figures: Figures) -> Iterator[str]:
    yield "## Ad delivery"
    yield (
        "An ad that is baked in is delivered where its episode's download counts and the bytes of its place in "
        "the file were among those sent. Where the bytes or the place are not known, the download stands for "
        "them. An ad that is inserted dynamically is delivered where an ad server reports it for an agent that "
        "is not discarded; where the bytes are reported, all of the ad's were sent."
    )
    rows = [
        (
            _ADS[item.delivery],
            *map(_number, (item.impressions, item.by_bytes, item.by_download, item.by_ad_server)),
        )
        for item in figures.delivery
    ]
    header = ("ads", "impressions", "shown by bytes", "by the download", "by the ad server")
    yield _table(header, rows, numbers_from=1)
    yield (
        "Downloads of episodes with a baked-in ad that did not deliver its bytes: "
        f"{_number(figures.not_delivered)}. They are no impressions."
    )
    yield (
        "Client-confirmed ad plays are what players report by beacons. They are counted apart, and never "
        "derived from bytes. Plays that reached:"
    )
    plays = figures.plays
    reached = (plays.starts, plays.first_quartile, plays.midpoint, plays.third_quartile, plays.complete)
    yield _table(("start", "25 %", "50 %", "75 %", "100 %"), [tuple(map(_number, reached))], numbers_from=0)


def _consumers(figures: Figures) -> Iterator[str]:
    yield "## Consumers"
    yield (
        "A listener is a distinct pair of address and user agent with a counted download, a household a "
        "distinct address. They are counted anew for each period: they must never be added up over days, months "
        "or tenants. The months are whole months in UTC, also where the period of this document holds a part of "
        "one."
    )
    rows = [
        (
            _text(item.tenant_id),
            f"{item.month:%Y-%m}",
            *map(_number, (item.downloads, item.listeners, item.households)),
        )
        for item in figures.consumers
    ]
    yield _table(("tenant", "month", "downloads", "listeners", "households"), rows, numbers_from=2)


def _limits(figures: Figures) -> Iterator[str]:
    counted, unknown = figures.requests(outcome=COUNTED), figures.unknown_agents
    yield "## Known limits"
    yield _list(
        "Access logs in the combined form carry no Range header. The bytes that a listener was sent of an "
        "episode are then added up: the same part sent twice counts twice.",
        "Bytes sent are what the server handed over. Whether anybody listened does not follow from them.",
        "The bytes of a listener that cover an ad are looked at by UTC day: an ad whose bytes were sent before "
        "and after midnight is not seen as delivered.",
        f"Agents that nobody knows count: {_number(unknown)} of {_number(counted)} downloads "
        f"({_share(unknown, counted)}).",
        "People behind one address with the same user agent are one listener; one person with two devices or "
        "addresses is two.",
        "Networks that are on no list are taken for those of listeners.",
    )


def _versions(figures: Figures) -> Iterator[str]:
    versions = figures.versions
    rules = "not noted"
    if versions.rules and versions.rules_built_at:
        rules = f"{_text(versions.rules)}, built {_time(versions.rules_built_at)} UTC"
    rows = (
        ("earmark", _text(versions.earmark)),
        ("commit of the source", "not known to an installed program"),
        ("SQL of the rules", rules),
        ("last migration", _text(versions.migration)),
        ("PostgreSQL", _text(versions.server)),
        ("time-series engine", _text(versions.engine)),
        ("this document", f"{_time(figures.made_at)} UTC"),
    )
    yield "## Versions"
    yield _table(("what", "version"), rows)


def _rules(figures: Figures, stage: Stage, text: str) -> Iterator[str]:
    yield f"## {stage.capitalize()}"
    yield text
    total = figures.requests()
    for number, rule in enumerate(rules(), start=1):
        if rule.stage is not stage:
            continue
        discarded = figures.requests(outcome=rule.code)
        yield f"### {number}. {rule.title}: `{rule.code}`"
        yield rule.text
        points = [f"Source: {rule.source}."]
        if rule.settings:
            points.append(f"In force: {'; '.join(_in_force(figures, rule))}.")
        points.append(f"Discarded: {_number(discarded)} requests, {_share(discarded, total)} of all.")
        yield _list(*points)


def _in_force(figures: Figures, rule: Rule) -> Iterator[str]:
    for name in rule.settings:
        is_variable = name in figures.variables
        value = _value(name, figures.variables[name]) if is_variable else _setting(figures, name)
        yield f"`{name}` = {value}"


def _setting(figures: Figures, name: str) -> str:
    """Return the value of a setting; where tenants differ, that of each."""
    values = {item.tenant_id: _value(name, item.settings[name]) for item in figures.tenants}
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{value} ({_text(tenant_id)})" for tenant_id, value in values.items())


def _value(name: str, value: Value) -> str:
    if value is None:
        return "all sources" if name == "counted_sources" else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return _text(", ".join(value))
    return _number(value) if isinstance(value, int) else _text(value)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int | None = None) -> str:
    """Return a table, or that there is nothing; columns from ``numbers_from`` on stand to the right."""
    if not rows:
        return "None."
    first_number = len(header) if numbers_from is None else numbers_from
    rule = ["---" if column < first_number else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _list(*points: str) -> str:
    return "\n".join(f"- {point}" for point in points)


def _text(value: str) -> str:
    """Return text of others so that nothing in it is taken for Markdown or HTML."""
    return _MARKS.sub(r"\\\g<0>", " ".join(value.split()))


def _number(value: int) -> str:
    return f"{value:,}"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def _extent(part: int, whole: int) -> str:
    """Return how much of it there is, in a word where it is all or nothing."""
    if not whole:
        return "-"
    return "none" if not part else "all" if part == whole else _share(part, whole)


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _spans(days: Sequence[date]) -> str:
    """Return days in order as spans: 2026-01-03 to 2026-01-05, 2026-01-09."""
    spans: list[list[date]] = []
    for day in days:
        if spans and day - spans[-1][1] == timedelta(days=1):
            spans[-1][1] = day
        else:
            spans.append([day, day])
    return ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in spans)


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body { margin: 0 auto; max-width: 60rem; padding: 2rem 1.25rem 4rem; color: #1a1d21; background: #fff;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 2px solid #1a1d21; }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .4rem; }
p, ul { margin: 0 0 .8rem; }
ul { padding-left: 1.25rem; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: #f1f3f5;
  padding: .1em .3em; border-radius: 3px; }
.table { overflow-x: auto; margin: 0 0 1rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid #d9dde1; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #868e96; vertical-align: bottom; }
blockquote { margin: 0 0 1.5rem; padding: .75rem 1rem; border-left: 4px solid #c77700; background: #fff6e5; }
blockquote > :last-child { margin-bottom: 0; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .table { overflow: visible; }
  h2, h3 { break-after: avoid; }
  tr, blockquote { break-inside: avoid; }
  thead { display: table-header-group; }
}
</style>
</head>
<body>
{body}</body>
</html>
"""
