"""The methodology document as text: Markdown, and one page of HTML made of it. Pure: reads no database.

What it says is in ``document.md.j2``; here are the rows of its tables, and how figures and texts are written.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import date, datetime, timedelta
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markdown_it import MarkdownIt

from earmark.counting.methodology.figures import OWN_PATTERNS, Figures, LoadedDay
from earmark.counting.methodology.rules import COUNTED, rules
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


Row = tuple[str, ...]


def render(figures: Figures) -> str:
    """Return the document in Markdown."""
    environment = _environment()
    total, counted = figures.requests(), figures.requests(outcome=COUNTED)
    names = [tenant.tenant_id for tenant in figures.tenants]
    environment.globals.update(table=_table, sum_line=_sum_line, in_force=lambda name: _in_force(figures, name))
    return environment.get_template("document.md.j2").render(
        title=TITLE,
        figures=figures,
        total=total,
        counted=counted,
        pending=_pending(figures),
        rules=list(_rules(figures, total)),
        tenants=[(_text(item.tenant_id), _text(item.name)) for item in figures.tenants],
        tenant_names=[_text(name) for name in names],
        outcomes_by_tenant=list(_outcomes_by_tenant(figures, names)),
        sums_by_tenant=[(name, figures.requests(name), figures.requests(name, outcome=COUNTED)) for name in names],
        sources=list(_sources(figures)),
        field_names=[name for name, _ in _FIELDS],
        fields=list(_fields(figures)),
        bases=list(_bases(figures)),
        windows=list(_windows(figures)),
        agent_lists=list(_agent_lists(figures)),
        networks=[
            (
                _text(item.network_list or "none: not looked up"),
                str(item.first_day),
                str(item.last_day),
                _number(item.loads),
            )
            for item in figures.networks
        ],
        safe_addresses=[
            (_text(item.tenant_id), str(item.expires_on), _number(item.addresses))
            for item in figures.safe_addresses
        ],
        hash_keys=[(_text(item.key_id), _time(item.first_used_at)) for item in figures.hash_keys],
        delivery=[
            (_ADS[item.delivery], *_numbers(item.impressions, item.by_bytes, item.by_download, item.by_ad_server))
            for item in figures.delivery
        ],
        plays=_numbers(
            figures.plays.starts,
            figures.plays.first_quartile,
            figures.plays.midpoint,
            figures.plays.third_quartile,
            figures.plays.complete,
        ),
        consumers=[
            (
                _text(item.tenant_id),
                f"{item.month:%Y-%m}",
                *_numbers(item.downloads, item.listeners, item.households),
            )
            for item in figures.consumers
        ],
        versions=_versions(figures),
    )


def render_html(markdown: str) -> str:
    """Return a self-contained page of the document, for the screen and for paper."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return _environment().get_template("page.html.j2").render(title=TITLE, body=body)


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("earmark.counting.methodology", ""),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=_number, share=_share, spans=_spans, text=_text)
    return environment


def _pending(figures: Figures) -> dict[str, list[date]]:
    days: dict[str, list[date]] = defaultdict(list)
    for tenant_id, day in figures.pending:
        days[tenant_id].append(day)
    return days


def _rules(figures: Figures, total: int) -> Iterator[dict[str, Any]]:
    """Yield each rule with its number, what it discarded and what is left after it."""
    left = total
    for number, rule in enumerate(rules(), start=1):
        discarded = figures.requests(outcome=rule.code)
        left -= discarded
        yield {**asdict(rule), "number": number, "discarded": discarded, "left": left}


def _outcomes_by_tenant(figures: Figures, names: Sequence[str]) -> Iterator[Row]:
    for code in (*(rule.code for rule in rules()), COUNTED):
        yield f"`{code}`", *(_number(figures.requests(name, outcome=code)) for name in names)
    yield "all requests", *(_number(figures.requests(name)) for name in names)


def _sum_line(total: int, counted: int) -> str:
    return f"{_number(total)} requests = {_number(counted)} counted + {_number(total - counted)} discarded"


def _sources(figures: Figures) -> Iterator[Row]:
    for tenant_id, source, loaded in _by_source(figures):
        days = [item for item in figures.source_days if (item.tenant_id, item.source) == (tenant_id, source)]
        rows, downloads = sum(item.rows for item in loaded), sum(item.downloads for item in loaded)
        yield (
            _text(tenant_id),
            _text(source),
            str(min(item.day for item in days)),
            str(max(item.day for item in days)),
            _kind(rows, downloads),
            _number(sum(item.requests for item in days)),
        )


def _fields(figures: Figures) -> Iterator[Row]:
    for tenant_id, source, loaded in _by_source(figures):
        rows = sum(item.rows for item in loaded)
        yield _text(tenant_id), _text(source), *(_extent(sum(map(field, loaded)), rows) for _, field in _FIELDS)


def _by_source(figures: Figures) -> Iterator[tuple[str, str, list[LoadedDay]]]:
    """Yield each tenant and source of the period with its loaded days."""
    for tenant_id, source in sorted({(item.tenant_id, item.source) for item in figures.source_days}):
        loaded = [item for item in figures.loaded_days if (item.tenant_id, item.source) == (tenant_id, source)]
        yield tenant_id, source, loaded


def _kind(rows: int, downloads: int) -> str:
    if not rows:
        return "not kept any more"
    return "requests" if not downloads else "downloads" if downloads == rows else "requests and downloads"


def _bases(figures: Figures) -> Iterator[Row]:
    came_so_far = ("threshold_unknown", "below_threshold", "duplicate", COUNTED)
    for basis, meaning in _BASES.items():
        of_basis = [item for item in figures.outcomes if item.threshold_basis == basis]
        judged = sum(item.requests for item in of_basis if item.outcome in came_so_far)
        counted = sum(item.requests for item in of_basis if item.outcome == COUNTED)
        yield f"`{basis}`", meaning, _number(judged), _number(counted)


def _windows(figures: Figures) -> Iterator[Row]:
    in_force = {item.tenant_id: item.settings["download_window"] for item in figures.tenants}
    for item in figures.windows:
        counts = _numbers(item.downloads, item.calendar_day, item.rolling_first, item.rolling_last)
        yield _text(item.tenant_id), f"`{in_force[item.tenant_id]}`", *counts


def _agent_lists(figures: Figures) -> Iterator[Row]:
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


def _versions(figures: Figures) -> list[Row]:
    versions = figures.versions
    built = "not noted"
    if versions.rules and versions.rules_built_at:
        built = f"{_text(versions.rules)}, built {_time(versions.rules_built_at)} UTC"
    return [
        ("earmark", _text(versions.earmark)),
        ("commit of the source", "not known to an installed program"),
        ("SQL of the rules", built),
        ("last migration", _text(versions.migration)),
        ("PostgreSQL", _text(versions.server)),
        ("time-series engine", _text(versions.engine)),
        ("this document", f"{_time(figures.made_at)} UTC"),
    ]


def _in_force(figures: Figures, name: str) -> str:
    """Return the value of a variable or setting; where tenants differ, that of each."""
    if name in figures.variables:
        return _value(name, figures.variables[name])
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


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int | None = None) -> str:
    """Return a table, or that there is nothing; columns from ``numbers_from`` on stand to the right."""
    if not rows:
        return "None."
    first_number = len(header) if numbers_from is None else numbers_from
    rule = ["---" if column < first_number else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _text(value: str) -> str:
    """Return text of others so that nothing in it is taken for Markdown or HTML."""
    return _MARKS.sub(r"\\\g<0>", " ".join(value.split()))


def _number(value: int) -> str:
    return f"{value:,}"


def _numbers(*values: int) -> Row:
    return tuple(map(_number, values))


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
