"""The methodology document of a real database: its figures are those of the marts, and what is wrong is told."""

import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from earmark.counting.methodology.figures import MethodologyError, gather
from earmark.counting.methodology.rules import COUNTED, rules
from earmark.settings import PROJECT_ROOT
from earmark.warehouse.database import Database

Dbt = Any  # the class of conftest.py, which tests cannot import
MAIN = "from earmark.cli import main; main()"
FIRST = datetime(2026, 1, 5, 8, tzinfo=UTC)
APP = "Overcast/3.0 (+http://overcast.fm/; iOS podcast app)"


@pytest.fixture
def dbt(dbt_on_any_engine: Dbt) -> Dbt:
    return dbt_on_any_engine


@pytest.fixture
def warehouse(any_engine: Database) -> Iterator[psycopg.Connection]:
    with any_engine.connect(autocommit=True) as opened:
        opened.execute(
            "insert into tenancy.tenants (tenant_id, name, download_window, counts_unknown_threshold) values"
            " ('acme', 'Acme | Sons', 'calendar_day', false), ('beta', 'Beta', 'rolling_last', true),"
            " ('quiet', 'Quiet', 'calendar_day', true)"
        )
        opened.execute("select timeseries.ensure_chunks('raw.listener_events', '2026-01-01Z', '2026-02-01Z')")
        yield opened


def add_requests(warehouse: psycopg.Connection) -> None:
    """Add requests of two tenants over three days, with many outcomes."""
    variants: list[dict[str, object]] = [
        {"bytes_sent": 2_000_000}, {"bytes_sent": 2_000_000}, {"bytes_sent": 10}, {}, {"status": 404},
        {"method": "HEAD"}, {"user_agent": "Googlebot/2.1"}, {"user_agent": None}, {"network": "data_center"},
        {"enclosure_key": "cdn.example.com/feed.xml"}, {"byte_range": "bytes=0-1", "status": 206, "bytes_sent": 2},
    ]  # fmt: skip
    for day in range(3):
        for number, fields in enumerate(variants):
            for tenant in ("acme", "beta"):
                listener = bytes([1 if number < 2 else number]) * 16
                at = FIRST + timedelta(days=day, hours=-4 * day, minutes=number)
                add_request(warehouse, at, tenant_id=tenant, listener_key=listener, **fields)


def add_request(warehouse: psycopg.Connection, at: datetime, **fields: object) -> None:
    row = {
        "tenant_id": "acme", "event_id": uuid.uuid4(), "occurred_at": at, "event_type": "request", "source": "cdn",
        "enclosure_key": "cdn.example.com/e.mp3", "method": "GET", "status": 200, "user_agent": APP, "load_id": 1,
        "household_key": bytes([1]) * 16, "listener_key": bytes([1]) * 16, "object_bytes": 1_000_000, **fields,
    }  # fmt: skip
    warehouse.execute(
        f"insert into raw.listener_events ({', '.join(row)}) values ({', '.join(f'%({name})s' for name in row)})",
        row,
    )


def earmark(database: Database | None, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run this worktree's command line as a user does."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "methodology", *arguments],
        env={**os.environ, "COLUMNS": "200", **({"DATABASE_URL": database.url()} if database else {})},
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT_ROOT,
    )
    assert done.returncode == expect, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def mart(warehouse: psycopg.Connection, tenants: list[str]) -> dict[str, int]:
    rows = warehouse.execute(
        "select outcome, sum(requests)::int from marts.fct_request_outcomes_daily"
        " where tenant_id = any(%s) group by 1",
        (tenants,),
    ).fetchall()
    return dict(rows)


def waterfall(text: str) -> dict[str, int]:
    """Return the figures of the first table with reason codes."""
    rows = re.findall(r"^\| \d* \| [^|]+ \| `(\w+)` \| ([\d,]+) \|", text, re.MULTILINE)
    return {code: int(number.replace(",", "")) for code, number in rows}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from", "2026-02-01", "--to", "2026-01-01"], "--from 2026-02-01 is after --to 2026-01-01"),
        (["--from", "yesterday"], "'yesterday' does not match the format"),
        (["-o", "a.pdf"], "end the name in .md or .html"),
        (["--format", "pdf"], "allowed are markdown and html"),
    ],
)
def test_a_wrong_command_line_is_told_before_anything_starts(arguments: list[str], told: str) -> None:
    assert told in earmark(None, *arguments, expect=2).stderr


def test_the_document_says_what_the_marts_say(
    dbt: Dbt, warehouse: psycopg.Connection, any_engine: Database, tmp_path: Path
) -> None:
    told = earmark(any_engine, expect=1).stderr
    assert "the models are not built yet; run: earmark build" in told
    add_requests(warehouse)
    warehouse.execute(
        "insert into ingest.loads (tenant_id, dataset, source, uri, digest, file_bytes, rows_read, rows_loaded,"
        " rows_duplicate, rows_rejected, first_event_at, last_event_at, started_at, network_list)"
        " values ('acme', 'listener_events', 'cdn', 'a', '', 1, 1, 1, 0, 0, %s, %s, now(), 'aws@12345678')",
        (FIRST, FIRST),
    )
    warehouse.execute(
        "insert into tenancy.safe_addresses (tenant_id, household_key, reason, expires_on)"
        " values ('acme', %s, 'the secret office', '2026-03-01')",
        (bytes([200]) * 16,),
    )
    dbt.build()

    for tenants in (["acme"], ["beta"], ["acme", "beta"]):
        chosen = [part for tenant in tenants for part in ("--tenant", tenant)]
        text = earmark(any_engine, *chosen).stdout
        expected = mart(warehouse, tenants)
        total = sum(expected.values())
        assert waterfall(text) == {code: expected.get(code, 0) for code in [*(r.code for r in rules()), COUNTED]}
        counted = expected[COUNTED]
        assert f"**{total} requests = {counted} counted + {total - counted} discarded.**" in text
        assert total == 33 * len(tenants)
        assert "Warning" not in text
    everybody = earmark(any_engine).stdout
    assert waterfall(everybody) == waterfall(text)
    assert "| quiet | Quiet |" in everybody

    # What a tenant has set shows in its own document, and so does what the sources show.
    acme, beta = earmark(any_engine, "-t", "acme").stdout, earmark(any_engine, "-t", "beta").stdout
    assert waterfall(acme)["threshold_unknown"] > 0
    assert waterfall(beta)["threshold_unknown"] == 0
    windows = warehouse.execute(
        "select sum(downloads), sum(calendar_day), sum(rolling_first), sum(rolling_last)"
        " from marts.rpt_download_windows_daily where tenant_id = 'beta'"
    ).fetchone()
    assert windows is not None
    assert len(set(windows[1:])) > 1
    assert f"| beta | `rolling_last` | {' | '.join(map(str, windows))} |" in beta
    assert "| acme | cdn | 2026-01-05 | 2026-01-07 | requests | 33 |" in acme
    assert "| acme | cdn | all | 90.91 % | all | all | 36.36 % | all | 9.09 % |" in acme
    assert "| aws@12345678 | 2026-01-05 | 2026-01-05 | 1 |" in acme
    assert "aws@" not in beta
    assert "| acme | 2026-03-01 | 1 |" in acme
    assert "secret office" not in acme
    assert bytes([200] * 16).hex() not in acme

    # One day, as a page.
    page = tmp_path / "page.html"
    assert "2026-01-06 to 2026-01-06" in earmark(
        any_engine, "--from", "2026-01-06", "--to", "2026-01-06", "-o", str(page)
    ).stdout.replace("\n", " ")
    assert "<strong>22 requests = " in page.read_text()
    earmark(any_engine, "--format", "markdown", "-o", str(page))
    assert page.read_text().startswith("# ")

    days = "there are some from 2026-01-05 to 2026-01-07"
    assert days in earmark(any_engine, "--from", "2026-02-01", expect=1).stderr
    assert "no requests of quiet are counted yet" in earmark(any_engine, "-t", "quiet", expect=1).stderr
    assert "the tenants are acme, beta, quiet" in earmark(any_engine, "-t", "nobody", expect=1).stderr
    assert "cannot be written" in earmark(any_engine, "-o", str(tmp_path / "no" / "a.md"), expect=1).stderr

    # A row that nobody noted: the figures do not add up, and there is no document.
    unseen = FIRST + timedelta(hours=1)
    with warehouse.transaction():
        warehouse.execute("set local earmark.marks_days = 'yes'")
        add_request(warehouse, unseen)
    refused = earmark(any_engine, "-o", str(tmp_path / "none.md"), expect=1).stderr
    assert "acme, source cdn, 2026-01-05: 12 requests are loaded, but 11 have an outcome" in refused
    assert not (tmp_path / "none.md").exists()
    with pytest.raises(MethodologyError, match="12 requests are loaded"):
        gather(warehouse, ["acme"])
    assert gather(warehouse, ["beta"]).requests() == 33
    assert gather(warehouse, ["acme"], first=date(2026, 1, 6)).requests() == 22

    # Noted, it waits for a refresh, and the document says so.
    warehouse.execute("update raw.listener_events set referrer = 'x' where occurred_at = %s", (unseen,))
    waiting = earmark(any_engine)
    assert "> - acme: 2026-01-05\n" in waiting.stdout
    assert "wait for a refresh" in waiting.stderr
    assert "Warning" not in earmark(any_engine, "--from", "2026-01-06").stdout
    assert "**33 requests = " in earmark(any_engine, "-t", "acme").stdout
