"""A public list of user agents from its server to the classified agents: installed whole or not at all.

The lists here are made up; that the real one installs cannot be tested without a network.
"""

import csv
import functools
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import date
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import psycopg
import pytest

from earmark import cli
from earmark.counting import agent_lists
from earmark.settings import PROJECT_ROOT
from orchestration.defs.agent_lists import public_agent_list
from orchestration.defs.resources import Warehouse

Dbt = Any  # the class of conftest.py, which tests cannot import

LIST = {
    "bots": [{"name": "Podcrawl", "pattern": r"\bPodcrawl\b", "examples": ["Podcrawl/1.0", "My Podcrawl 2"]}],
    "apps": [{"name": "Newcast", "pattern": "^(?P<app>Newcast)/", "examples": ["Newcast/1 iPhone"]}],
    "libraries": [{"name": "Fetchlib", "pattern": "^fetchlib", "category": "bot", "examples": ["fetchlib/2"]}],
    "browsers": [{"name": "Surf", "pattern": r"Surf/\d", "examples": ["Mozilla/5.0 (X11) Surf/1"]}],
    "devices": [{"name": "A Phone", "pattern": "iPhone", "category": "mobile"}],
    "referrers": [{"name": "Player", "pattern": r"^https://player\.", "examples": ["https://player.example/"]}],
}

ODD_AGENTS = (
    "Mozilla/5.0",
    "Podcast\x07Player/1.0",
    "Podcast\\x00Player/1.0",
    "'Overcast/3.0'",
    '"Overcast/3.0"',
    "{user_agent}",
    "[object Object]",
    "() { :;}; /bin/bash -c id",
    "Mozilla/5.0 (Windows NT 10.0; iPhone) AppleWebKit/537.36 (KHTML, like Gecko) Safari/604.1",
    "atc/1.0 watchOS/7.1 model/Watch5,4 hwp/t8006",
    "\u64ad\u5ba2/1709.2.2 CFNetwork/1390 Darwin/22.0.0",
    "Podcast Player/1.0 (Linux;Android 12) ExoPlayerLib/2.18.1",
    "Mastodon/4.3.9 (http.rb/5.2.0; +https://example.social/)",
    "python-requests/2.31.0",
    "open.spotify.com",
    "notspotify.com",
)


class Told(NamedTuple):
    """What a command ended in and said."""

    code: int
    out: str
    err: str


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, LIST)
    return tmp_path


def write(folder: Path, entries: dict[str, list[dict[str, Any]]]) -> None:
    for kind, given in entries.items():
        (folder / f"{kind}.json").write_text(json.dumps({"entries": given}))


@pytest.fixture
def server_of_lists(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.startswith("/broken/"):
                self.send_error(503)
            else:
                super().do_GET()

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def earmark(
    database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Told]:
    """Return the command line on the test's database, in this process."""
    monkeypatch.setenv("DATABASE_URL", database)

    def run(*arguments: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["earmark", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return Told(int(ended.value.code or 0), told.out, told.err)

    return run


def stored(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "select l.effective_from, count(*) from ingest.agent_lists as l"
        " inner join ingest.agent_patterns as p on l.agent_list = p.agent_list group by 1 order by 1"
    ).fetchall()


def test_a_list_is_fetched_shown_and_dropped(
    earmark: Callable[..., Told], server_of_lists: str, folder: Path, connection: psycopg.Connection
) -> None:
    first = earmark("agents", "fetch", "--url", server_of_lists, "--from", "2026-03-01", "--json")
    assert first.code == 0, first.err
    installed = json.loads(first.out)
    assert installed["is_new"]
    assert installed["counts"] == dict.fromkeys(LIST, 1)
    assert re.fullmatch(r"opawg-2026-03-01-[0-9a-f]{8}", installed["agent_list"])
    patterns = dict(connection.execute("select name, pattern from ingest.agent_patterns").fetchall())
    assert patterns["Podcrawl"] == r"\yPodcrawl\y"
    assert patterns["Newcast"] == "^(Newcast)/"

    # The same again adds nothing: not later, and not where only an example came.
    write(folder, {**LIST, "apps": [{**LIST["apps"][0], "examples": []}]})
    for day in ("2026-03-01", "2026-04-01"):
        again = earmark("agents", "fetch", "--folder", str(folder), "--from", day)
        assert again.out == f"nothing new: {installed['agent_list']} has the same content\n"
    # Another content is a version of its own, and replaces one of the same day.
    for name in ("Newercast", "Newestcast"):
        write(folder, {**LIST, "apps": [{"name": name, "pattern": name}]})
        assert earmark("agents", "fetch", "--folder", str(folder), "--from", "2026-04-01").code == 0
    assert stored(connection) == [(date(2026, 3, 1), 6), (date(2026, 4, 1), 6)]

    shown = json.loads(earmark("agents", "list", "--json").out)
    assert [(row["effective_from"], row["effective_until"]) for row in shown] == [
        ("2026-03-01", "2026-04-01"),
        ("2026-04-01", None),
    ]
    assert shown[0]["source"] == server_of_lists
    assert earmark("agents", "drop", shown[0]["agent_list"]).code == 0
    assert [day for day, _ in stored(connection)] == [date(2026, 4, 1)]
    missing = earmark("agents", "drop", shown[0]["agent_list"])
    assert (missing.code, "there is no agent list" in missing.err) == (1, True)


def test_without_a_day_it_is_from_today_on(earmark: Callable[..., Told], folder: Path) -> None:
    earmark("agents", "fetch", "--folder", str(folder))
    assert agent_lists.today().isoformat() in earmark("agents", "list", "--json").out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--url", "{server}/broken"], 1, "/broken/bots.json: the server answered 503"),
        (["--url", "{server}/nowhere"], 1, "/nowhere/bots.json: the server answered 404"),
        (["--url", "http://127.0.0.1:1"], 1, "cannot be downloaded"),
        (["--url", "ftp://list.example"], 1, "is no http or https address"),
        (["--folder", "/nowhere"], 1, "/nowhere/bots.json: cannot be read"),
        (["--url", "{server}", "--folder", "/nowhere"], 2, "not both"),
        (["--from", "soon"], 2, "soon"),
    ],
)
def test_what_cannot_be_had_is_said(
    earmark: Callable[..., Told], server_of_lists: str, arguments: list[str], code: int, said: str
) -> None:
    told = earmark("agents", "fetch", *(argument.format(server=server_of_lists) for argument in arguments))
    assert told.code == code
    assert said in told.err
    assert "Traceback" not in told.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pattern": "(Newcast"}, r"apps.json, entry 1 \(Newcast\): field pattern '\(Newcast' cannot be used"),
        # Python has possessive quantifiers, PostgreSQL does not.
        ({"pattern": "^Newcast++/"}, r"apps.json, entry 1 \(Newcast\): .* is none for PostgreSQL"),
        # PostgreSQL's dot is also the end of a line.
        (
            {"pattern": "^New.cast", "examples": ["New\ncast"]},
            r"entry 1 \(Newcast\): of its example 'New\\ncast' PostgreSQL says apps.json, entry 1, Python nothing",
        ),
    ],
)
def test_a_list_that_cannot_be_used_leaves_the_one_before(
    earmark: Callable[..., Told], folder: Path, connection: psycopg.Connection, changes: dict[str, Any], said: str
) -> None:
    assert earmark("agents", "fetch", "--folder", str(folder), "--from", "2026-03-01").code == 0
    write(folder, {**LIST, "apps": [{"name": "Newcast", **changes}]})
    for day in ("2026-03-01", "2026-04-01"):
        told = earmark("agents", "fetch", "--folder", str(folder), "--from", day)
        assert told.code == 1
        assert re.search(said, told.err), told.err
    assert stored(connection) == [(date(2026, 3, 1), 6)]


def add_events(connection: psycopg.Connection, *events: tuple[str, str, str]) -> None:
    """Add events: tenant, time and user agent."""
    connection.execute("select timeseries.ensure_chunks('raw.listener_events', '2026-03-01Z', '2026-03-05Z')")
    for tenant, occurred_at, user_agent in events:
        connection.execute(
            "insert into tenancy.tenants (tenant_id, name) values (%s, 'T') on conflict do nothing", (tenant,)
        )
        connection.execute(
            "insert into raw.listener_events"
            " (tenant_id, event_id, occurred_at, event_type, source, user_agent, referrer, load_id)"
            " values (%s, gen_random_uuid(), %s, 'request', 'nginx', %s, 'https://open.spotify.com/', 1)",
            (tenant, occurred_at, user_agent),
        )
    connection.commit()


def marked_days(connection: psycopg.Connection, since: str) -> list[tuple[str, str]]:
    """Return the tenants and days that are news to a model that was built with a snapshot."""
    connection.execute(
        "insert into ingest.model_builds (model, seen, cluster, inputs)"
        " values ('a_model', %s::pg_snapshot, ingest.cluster(), '{ingest.agent_lists}')"
        " on conflict (model) do update set seen = excluded.seen",
        (since,),
    )
    connection.execute("select ingest.narrow()")
    connection.commit()
    return connection.execute(
        "select tenant_id, to_char(day, 'MM-DD')"
        " from ingest.unseen(%s::pg_snapshot, array['ingest.agent_lists']) order by 1, 2",
        (since,),
    ).fetchall()


def snapshot(connection: psycopg.Connection) -> str:
    row = connection.execute("select pg_current_snapshot()::text").fetchone()
    connection.commit()
    assert row is not None
    return str(row[0])


def test_the_days_of_a_list_are_counted_anew_and_no_others(connection: psycopg.Connection, folder: Path) -> None:
    days = ("2026-03-01", "2026-03-02", "2026-03-03", "2026-03-04")
    add_events(connection, *((tenant, f"{day} 12:00Z", "Newcast/1") for tenant in ("a", "b") for day in days))
    entries = agent_lists.parse(agent_lists.read_folder(folder))

    before = snapshot(connection)
    first = agent_lists.install(connection, entries, source="x", start=date(2026, 3, 3))
    assert first.days == 4
    assert marked_days(connection, before) == [("a", "03-03"), ("a", "03-04"), ("b", "03-03"), ("b", "03-04")]
    # One that is in effect before it changes the days between.
    before = snapshot(connection)
    other = [entry for entry in entries if entry.kind != "devices"]
    earlier = agent_lists.install(connection, other, source="x", start=date(2026, 3, 2))
    assert marked_days(connection, before) == [("a", "03-02"), ("b", "03-02")]
    before = snapshot(connection)
    assert agent_lists.drop(connection, earlier.agent_list) == 2
    assert marked_days(connection, before) == [("a", "03-02"), ("b", "03-02")]
    before = snapshot(connection)
    assert not agent_lists.install(connection, entries, source="x", start=date(2026, 3, 4)).is_new
    assert marked_days(connection, before) == []


def classified(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    connection.commit()
    return connection.execute(
        "select left(agent_list, 16), user_agent, category, agent_name, discard_as"
        " from intermediate.int_user_agents__classified order by 1, 2"
    ).fetchall()


def test_each_day_is_classified_by_its_list(dbt: Dbt, connection: psycopg.Connection, folder: Path) -> None:
    models = ("int_user_agents__classified", "int_referrers__classified")

    def build(*arguments: str, **variables: Any) -> None:
        dbt.build("--select", *models, *arguments, **variables)

    add_events(
        connection,
        ("t", "2026-03-01 23:00Z", "Newcast/1"),
        ("t", "2026-03-02 01:00Z", "Newcast/1"),
        ("t", "2026-03-02 01:00Z", "fetchlib/3"),
        ("t", "2026-03-02 01:00Z", "Java/17"),
    )
    dbt.build("--select", *(f"+{model}" for model in models))
    own = [
        ("earmark", "Java/17", "library", "Java and Kotlin", "not_a_player"),
        ("earmark", "Newcast/1", "app", "Other app", None),
        ("earmark", "fetchlib/3", "bot", "Generic: fetchers and downloaders", "bot"),
    ]
    assert classified(connection) == own

    entries = agent_lists.parse(agent_lists.read_folder(folder))
    installed = agent_lists.install(connection, entries, source="x", start=date(2026, 3, 2))
    connection.commit()
    build()
    name = installed.agent_list[:16]
    public = [
        (name, "Java/17", "library", "Java and Kotlin", "not_a_player"),
        (name, "Newcast/1", "app", "Newcast", None),
        (name, "fetchlib/3", "library", "Fetchlib", "not_a_player"),
    ]
    assert classified(connection) == [*own, *public]
    # From nothing it is the same, but for agents that only later days have.
    build(rebuild=list(models))
    assert classified(connection) == [own[1], *public]

    agent_lists.drop(connection, installed.agent_list)
    connection.commit()
    build()
    assert classified(connection) == own
    hosts = connection.execute("select * from intermediate.int_referrers__classified").fetchall()
    assert hosts == [("open.spotify.com", "Spotify", "app")]


def test_the_asset_installs_a_list(
    database: str, server_of_lists: str, folder: Path, connection: psycopg.Connection
) -> None:
    def materialize(**config: str) -> dg.ExecuteInProcessResult:
        return dg.materialize(
            [public_agent_list],
            resources={"warehouse": Warehouse(url=database)},
            run_config={"ops": {"public_agent_list": {"config": config}}},
        )

    told = materialize(url=server_of_lists, effective_from="2026-03-01").asset_materializations_for_node(
        "public_agent_list"
    )
    assert [item.asset_key.path for item in told] == [["ingest", "agent_lists"], ["ingest", "agent_patterns"]]
    assert told[1].metadata["apps"].value == 1
    assert materialize(folder=str(folder)).success
    assert stored(connection) == [(date(2026, 3, 1), 6)]
    (folder / "bots.json").write_text("[]")
    for config, said in (
        ({"effective_from": "soon"}, "effective_from: 'soon' is no day"),
        ({"folder": str(folder)}, "bots.json: holds no list"),
    ):
        with pytest.raises(dg.Failure, match=said):
            materialize(**config)


def test_the_seeds_mean_the_same_to_postgresql_and_python(connection: psycopg.Connection) -> None:
    agents = [*ODD_AGENTS]
    examples = PROJECT_ROOT.parent / "shared/data/user_agents/opawg_user_agent_examples.csv"
    if examples.is_file():  # the literal ones are always there
        with examples.open(encoding="utf-8", newline="") as lines:
            agents += [row["user_agent_example"] for row in csv.DictReader(lines)]
    for seed in ("user_agent_patterns", "device_patterns", "referrer_patterns"):
        with (PROJECT_ROOT / "seeds" / f"{seed}.csv").open(encoding="utf-8", newline="") as lines:
            patterns = [row["pattern"] for row in csv.DictReader(lines)]
        for pattern in patterns:
            query = "select a, a ~ %s from unnest(%s::text[]) as a"
            rows = connection.execute(query, (pattern, agents)).fetchall()
            assert [agent for agent, matches in rows if matches != bool(re.search(pattern, agent))] == [], pattern
