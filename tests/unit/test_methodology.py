"""The methodology document: its rules are those of the model, its text is that of its figures."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from earmark.counting.agent_lists import Version
from earmark.counting.methodology.document import render, render_html
from earmark.counting.methodology.figures import (
    AdDelivery,
    AdPlays,
    Consumers,
    Figures,
    HashKeyUse,
    LoadedDay,
    MethodologyError,
    NetworkLists,
    Outcomes,
    SafeAddresses,
    SourceDay,
    Tenant,
    Versions,
    Windows,
    check,
)
from earmark.counting.methodology.rules import COUNTED, rules

DAY = date(2026, 1, 5)
AT = datetime(2026, 2, 1, 12, tzinfo=UTC)
SETTINGS: dict[str, Any] = {
    "download_window": "calendar_day",
    "counts_unknown_threshold": True,
    "assumed_bitrate_bps": None,
    "max_daily_downloads_per_address": 1000,
    "discards_data_centers": True,
    "discards_vpns": True,
    "counted_sources": None,
}


def outcome(tenant_id: str, name: str, requests: int, basis: str = "feed", agents: str = "earmark") -> Outcomes:
    return Outcomes(tenant_id, name, basis, agents, requests)


def loaded(tenant_id: str, source: str, rows: int, **given: int) -> LoadedDay:
    fields = ("downloads", "address", "user_agent", "method", "status", "bytes_sent", "object_bytes", "byte_range")
    return LoadedDay(tenant_id, source, DAY, rows, *(given.get(name, 0) for name in fields))


@pytest.fixture
def figures() -> Figures:
    return Figures(
        tenants=[
            Tenant("acme", "Acme", SETTINGS),
            Tenant("beta", "Beta", {**SETTINGS, "max_daily_downloads_per_address": 5}),
        ],
        first=date(2026, 1, 1),
        last=date(2026, 1, 31),
        made_at=AT,
        variables={"threshold_seconds": 60, "media_extensions": ["mp3", "m4a"]},
        trusted_proxies=2,
        outcomes=[
            outcome("acme", COUNTED, 1200),
            outcome("acme", COUNTED, 34, "unknown", "opawg-1"),
            outcome("acme", "bot", 766),
            outcome("acme", "threshold_unknown", 10, "unknown"),
            outcome("beta", "vpn", 90),
            outcome("beta", COUNTED, 100),
        ],
        source_days=[SourceDay("acme", "nginx", DAY, 2010), SourceDay("beta", "op3", DAY, 190)],
        loaded_days=[
            loaded("acme", "nginx", 2010, address=2010, status=2010, bytes_sent=1005),
            loaded("beta", "op3", 190, downloads=190),
        ],
        kept_from=None,
        pending=[],
        windows=[Windows("acme", 1234, 1234, 1200, 1100), Windows("beta", 100, 100, 99, 98)],
        agents=[Version("opawg-1", date(2026, 1, 20), None, "https://example.com", AT, {"apps": 3})],
        own_patterns=251,
        unknown_agents=12,
        networks=[NetworkLists("aws@12345678", 3, date(2025, 12, 31), DAY), NetworkLists(None, 1, DAY, DAY)],
        safe_addresses=[SafeAddresses("acme", date(2026, 6, 1), 2)],
        hash_keys=[HashKeyUse("k1", AT)],
        delivery=[AdDelivery("baked_in", 50, 30, 20, 0), AdDelivery("dai", 7, 3, 0, 4)],
        not_delivered=11,
        plays=AdPlays(9, 8, 7, 6, 5),
        consumers=[Consumers("acme", date(2026, 1, 1), 1234, 800, 700)],
        versions=Versions("0.1.0", "18.1", "postgres 18.1", "0010_left_over.sql", "abc", AT),
    )


def test_rules_follow_each_other_in_the_sections() -> None:
    stages = [rule.stage for rule in rules()]
    assert [stage for number, stage in enumerate(stages) if stage not in stages[:number]] == list(type(stages[0]))
    assert stages == sorted(stages, key=list(type(stages[0])).index)


def test_the_waterfall_adds_up_in_the_text(figures: Figures) -> None:
    check(figures)
    text = render(figures)
    assert "**2,200 requests = 1,334 counted + 866 discarded.**" in text
    assert "- acme: 2,010 requests = 1,234 counted + 776 discarded." in text
    assert "| 6 | Bot | `bot` | 766 | 34.82 % | 1,434 |" in text
    assert "| 17 | Counted already | `duplicate` | 0 | 0.00 % | 1,334 |" in text
    assert "| all requests | 2,010 | 190 |" in text
    one = render(
        replace(figures, tenants=figures.tenants[:1], outcomes=figures.outcomes[:4], windows=figures.windows[:1])
    )
    assert "**2,010 requests = 1,234 counted + 776 discarded.**" in one
    assert "The same by tenant" not in one


def test_what_is_in_force_stands_beside_its_rule(figures: Figures) -> None:
    text = render(figures)
    for number, rule in enumerate(rules(), start=1):
        part = text.split(f"### {number}. {rule.title}: `{rule.code}`")[1].split("#")[0]
        assert rule.text in part
        assert all(f"`{name}` = " in part for name in rule.settings)
        assert f"- Discarded: {figures.requests(outcome=rule.code):,} requests" in part
    assert "`max_daily_downloads_per_address` = 1,000 (acme), 5 (beta)." in text
    assert "`media_extensions` = mp3, m4a." in text
    assert "`counted_sources` = all sources." in text
    assert "| `unknown` | nothing: no bytes or no size are known | 44 | 34 |" in text
    assert "| `feed` | the bitrate that follows from size and duration in the feed | 1,300 | 1,300 |" in text


def test_sources_lists_and_the_rest(figures: Figures) -> None:
    text = render(figures)
    assert "| acme | nginx | 2026-01-05 | 2026-01-05 | requests | 2,010 |" in text
    assert "| beta | op3 | 2026-01-05 | 2026-01-05 | downloads | 190 |" in text
    assert "| acme | nginx | all | none | none | all | 50.00 % | none | none |" in text
    assert "| earmark | our own patterns | 2026-01-01 | 2026-01-19 | 2,166 |" in text
    assert "| opawg-1 | https://example.com | 2026-01-20 | 2026-01-31 | 34 |" in text
    assert "| aws@12345678 | 2025-12-31 | 2026-01-05 | 3 |" in text
    assert "| none: not looked up | 2026-01-05 | 2026-01-05 | 1 |" in text
    assert "| acme | 2026-06-01 | 2 |" in text
    assert "trusted proxies: 2." in text
    assert "| baked into the file | 50 | 30 | 20 | 0 |" in text
    assert "12 of 1,334 downloads (0.90 %)" in text
    assert "| acme | `calendar_day` | 1,234 | 1,234 | 1,200 | 1,100 |" in text
    assert "implements the IAB Tech Lab" in text
    assert "certif" not in text.lower()
    assert "Warning" not in text
    without = render(replace(figures, loaded_days=[], kept_from=date(2026, 2, 1), safe_addresses=[]))
    assert "| acme | nginx | 2026-01-05 | 2026-01-05 | not kept any more | 2,010 |" in without
    assert "Loaded rows before 2026-02-01 are deleted" in without
    assert "in the period or later:\n\nNone." in without


def test_days_that_wait_are_named(figures: Figures) -> None:
    days = [("acme", date(2026, 1, day)) for day in (3, 4, 5, 9)]
    text = render(replace(figures, pending=[*days, ("beta", DAY)]))
    assert "> **Warning: " in text
    assert "were counted by; not yet on the days that the warning names." in text
    assert "> - acme: 2026-01-03 to 2026-01-05, 2026-01-09\n> - beta: 2026-01-05\n" in text


class Tags(HTMLParser):
    """The tags of a page, and the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_names_of_others_are_text_and_the_page_loads_nothing(figures: Figures) -> None:
    name = "A|B <script>alert(1)</script> [x](http://example.com) &amp; _y_ a_b\n# c"
    text = render(replace(figures, tenants=[replace(figures.tenants[0], name=name), figures.tenants[1]]))
    assert r"| acme | A\|B \<script\>alert(1)" in text
    page = render_html(text)
    assert (
        "<td>A|B &lt;script&gt;alert(1)&lt;/script&gt; [x](http://example.com) &amp;amp; _y_ a_b # c</td>" in page
    )
    found = Tags()
    found.feed(page)
    assert not {"script", "a", "img", "link", "iframe"} & set(found.tags)
    assert found.attributes <= {"lang", "charset", "name", "content", "class", "style"}
    assert "url(" not in page
    assert "@import" not in page
    assert found.tags.count("table") == len(re.findall(r"^\| ---", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"outcomes": [outcome("acme", "moon", 1)]}, "requests ended as moon, which this version has no rule for"),
        ({"windows": []}, "acme: 1234 requests counted, but rpt_download_windows_daily has 0 downloads"),
        ({"loaded_days": []}, "acme, source nginx, 2026-01-05: 0 requests are loaded, but 2010 have an outcome"),
        ({"source_days": []}, "acme, source nginx, 2026-01-05: 2010 requests are loaded, but 0 have an outcome"),
    ],
)
def test_figures_that_do_not_add_up_are_no_document(figures: Figures, change: dict[str, Any], told: str) -> None:
    with pytest.raises(MethodologyError, match=told):
        check(replace(figures, **change))


def test_days_without_loaded_rows_or_with_news_are_not_compared(figures: Figures) -> None:
    check(replace(figures, loaded_days=[], kept_from=date(2026, 1, 6)))
    check(replace(figures, source_days=[], pending=[("acme", DAY), ("beta", DAY)]))
