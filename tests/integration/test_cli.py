"""The command line as a user meets it: the main job, its second run, and clear errors instead of tracebacks."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import psycopg
import pytest

from earmark.addresses.privacy import HashKey
from earmark.cli import main
from earmark.journeys.settings import check_settings
from earmark.settings import PROJECT_ROOT, load_settings
from earmark.warehouse import fit, refresh
from earmark.warehouse.database import Database
from orchestration.command_line import dagster_environment

EARMARK = Path(sys.executable).parent / "earmark"


def earmark(*arguments: str, expect: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [EARMARK, *arguments],
        env={**os.environ, "COLUMNS": "200", **settings},
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT_ROOT,
    )
    assert done.returncode == expect, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    earmark("demo-data", str(folder), "--days", "14", "--events", "3000", "--tenants", "1")
    return folder


def test_the_main_job_and_its_second_run(database: str, landing: Path) -> None:
    settings = {"DATABASE_URL": database, "EARMARK_LANDING": str(landing)}
    first = json.loads(earmark("run", "--json", **settings).stdout)
    assert first["load"]["refused"] == []
    assert all(
        total["read"] == total["loaded"] + total["duplicate"] + total["rejected"]
        for total in first["load"]["datasets"].values()
    )
    assert first["campaigns"]
    assert first["fit"]["fitted"] > 0
    assert "rpt_model_comparison" in first["fit"]["models"]
    second = json.loads(earmark("run", "--json", **settings).stdout)
    assert second["load"]["files"] == 0
    assert second["campaigns"] == first["campaigns"]
    assert second["fit"]["fitted"] is None

    status = json.loads(earmark("status", "--json", **settings).stdout)
    assert sum(line["days_pending"] for line in status["datasets"]) == 0
    assert earmark("build", **settings).stdout.startswith("nothing to do")
    window = ("--event-time-start", "2026-06-20", "--event-time-end", "2026-06-21")
    assert "refreshed for 2026-06-20" in earmark("build", *window, **settings).stdout

    # A refresh of the same rows is no news to the stage.
    assert json.loads(earmark("fit", "--json", **settings).stdout)["fitted"] is None
    assert earmark("fit", **settings).stdout.startswith("nothing to do")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("drop table marts.rpt_model_comparison")
        assert earmark("fit", **settings).stdout.strip().endswith(" models built")
        models = connection.execute("select count(distinct model) from marts.rpt_model_comparison").fetchone()
        seed = connection.execute("select count(*) from seeds.attribution_models").fetchone()
        assert models == seed
    told = earmark("build", "--select", "rpt_model_comparison", expect=1, **settings).stderr
    assert "rpt_model_comparison: no refresh builds this, but the stage fit: earmark fit" in told


def test_dagster_is_told_of_a_build_that_failed_and_that_its_tables_cannot_be_written_is_said(
    database: str, tmp_path: Path
) -> None:
    settings = {"DATABASE_URL": database, "EARMARK_HOME": str(tmp_path), "EARMARK_HASH_KEY": "f" * 32}
    log = tmp_path / "access.log"
    log.write_text('198.18.0.1 - - [06/Jan/2026:08:00:00 +0000] "GET /a.mp3 HTTP/1.1" 200 9 "-" "Overcast/3.0"\n')
    earmark("tenant", "add", "acme", **settings)
    environment = dagster_environment(load_settings(), Database.from_url(database))
    program = "import dagster as dg\nwith dg.DagsterInstance.get() as instance: instance.get_run_ids()"
    subprocess.run([sys.executable, "-c", program], env={**os.environ, **environment}, check=True)
    with psycopg.connect(database, autocommit=True) as connection:
        earmark("load", str(log), "--tenant", "acme", **settings)
        told = "select count(*) from dagster.event_logs where dagster_event_type = 'ASSET_MATERIALIZATION'"
        assert connection.execute(told).fetchone() == (1,)
        connection.execute("alter table raw.episodes rename to elsewhere")
        earmark("build", expect=1, **settings)
        built = connection.execute(told).fetchone()
        assert built is not None
        assert built[0] > 1
        connection.execute("alter table raw.elsewhere rename to episodes")
        connection.execute("drop table dagster.asset_keys")
        warned = earmark("build", **settings).stderr
        assert "Dagster's UI does not show this, for its tables cannot be written" in warned
        assert connection.execute("select count(*) from marts.rpt_episode_daily").fetchone() == (1,)


@pytest.mark.parametrize("command", ["build", "run", "fit"])
def test_wrong_settings_of_attribution_are_told_before_dbt_runs(
    database: str,
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "tenants.csv").write_text("tenant_id,name\nacme,Acme\n")
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("EARMARK_LANDING", str(tmp_path / "landing"))
    monkeypatch.setattr(sys, "argv", ["earmark", command])
    for stage in (fit, refresh):
        monkeypatch.setattr(stage, "check_settings", partial(check_settings, tmp_path))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    told = capsys.readouterr().err
    assert "seeds/attribution_models.csv is missing; put it back" in told
    assert "dbt_project.yml cannot be read" in told
    with psycopg.connect(database) as connection:
        assert connection.execute("select count(*) from ingest.builds").fetchone() == (0,)


def test_one_file_with_a_tenant(database: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text('198.18.0.1 - - [06/Jan/2026:08:00:00 +0000] "GET /a.mp3 HTTP/1.1" 200 9 "-" "Overcast/3.0"\n')
    told = earmark("load", str(log), "--tenant", "nobody", expect=1, DATABASE_URL=database).stderr
    assert "nobody" in told
    assert "earmark tenant add" in told
    earmark("tenant", "add", "acme", DATABASE_URL=database)
    loaded = json.loads(earmark("load", str(log), "-t", "acme", "--json", DATABASE_URL=database).stdout)
    assert loaded["datasets"]["listener_events"]["loaded"] == 1
    again = json.loads(earmark("load", str(log), "-t", "acme", "--json", DATABASE_URL=database).stdout)
    assert again["loaded_before"] == 1


def test_rejects_are_shown_and_a_file_of_nothing_else_fails(database: str, tmp_path: Path) -> None:
    earmark("tenant", "add", "acme", DATABASE_URL=database)
    bad = "campaign_id,spend_date,amount\nc,01/02/2024,1\nc,02/02/2024,\n"
    file = tmp_path / "spend.csv"
    arguments = ("load", str(file), "-t", "acme", "-d", "spend")
    file.write_text(bad)
    told = earmark(*arguments, expect=1, DATABASE_URL=database).stderr
    assert 'rejected 2 rows of spend, not_date: spend_date is "01/02/2024"' in told
    assert f"{file}, line 2: c,01/02/2024,1" in told
    assert f"error {file}: none of its rows could be loaded" in told
    file.write_text(bad + "c,2024-02-03,1\n")
    loaded = json.loads(earmark(*arguments, "--json", DATABASE_URL=database).stdout)
    assert [(row["reason"], row["rows"], row["line_number"]) for row in loaded["rejects"]] == [("not_date", 2, 2)]
    file.write_text("campaign_id,spend_date,amount\n")
    assert "holds no row" in earmark(*arguments, expect=1, DATABASE_URL=database).stderr


def test_how_a_tenants_downloads_are_counted(database: str, tmp_path: Path) -> None:
    settings = {"DATABASE_URL": database}
    earmark("tenant", "add", "acme", **settings)
    log = tmp_path / "access.log"
    log.write_text('198.18.0.1 - - [06/Jan/2026:08:00:00 +0000] "GET /a.mp3 HTTP/1.1" 200 9 "-" "Overcast/3.0"\n')
    earmark("load", str(log), "-t", "acme", "-s", "nginx", **settings)
    with psycopg.connect(database, autocommit=True) as connection:
        day = "select day::text, changed_by::text from ingest.changes where producer = 'tenancy.tenants'"
        before = connection.execute(day).fetchall()
        pairs = ("download_window=rolling_first", "discards_vpns=no", "assumed_bitrate_bps=128000")
        told = earmark("tenant", "set", "acme", *pairs, "counted_sources=nginx, op3", **settings)
        assert "counts all days of acme again" in told.stdout
        assert "nothing of op3 is loaded for acme yet" in told.stderr
        changed = connection.execute(day).fetchall()
        assert before == []
        assert [day for day, _ in changed] == ["-infinity"]
        assert "nothing changed" in earmark("tenant", "set", "acme", *pairs, **settings).stdout
        assert connection.execute(day).fetchall() == changed
    shown = json.loads(earmark("tenant", "show", "acme", "--json", **settings).stdout)
    assert shown == {
        "tenant_id": "acme",
        "settings": {
            "download_window": "rolling_first",
            "counts_unknown_threshold": True,
            "assumed_bitrate_bps": 128000,
            "max_daily_downloads_per_address": 1000,
            "discards_data_centers": True,
            "discards_vpns": False,
            "counted_sources": ["nginx", "op3"],
        },
        "safe_addresses": [],
    }
    cleared = ("assumed_bitrate_bps=none", "counted_sources=none")
    after = json.loads(earmark("tenant", "set", "acme", *cleared, "--json", **settings).stdout)
    assert after["changed"]
    assert (after["settings"]["assumed_bitrate_bps"], after["settings"]["counted_sources"]) == (None, None)
    assert "rolling_first" in earmark("tenant", "show", "acme", **settings).stdout


def test_a_safe_address_is_stored_as_its_hash_alone(database: str) -> None:
    settings = {"DATABASE_URL": database, "EARMARK_HASH_KEY": "0123456789abcdef"}
    earmark("tenant", "add", "acme", **settings)
    exception = ("--until", "2099-12-31", "--reason", "office of Acme")
    for address in ("192.0.2.7", "2001:db8:1:2:3::4", "2001:db8:1:2::5"):
        told = earmark("tenant", "safe-address", "acme", address, *exception, **settings).stdout
        assert "counts all days of acme again" in told
    hasher = HashKey("k1", b"0123456789abcdef").for_tenant("acme")
    v4, v6 = hasher.household("192.0.2.7").hex(), hasher.household("2001:db8:1:2::/64").hex()
    safe = json.loads(earmark("tenant", "show", "acme", "--json", **settings).stdout)["safe_addresses"]
    assert {row["household_key"] for row in safe} == {v4, v6}
    assert {(row["reason"], row["expires_on"]) for row in safe} == {("office of Acme", "2099-12-31")}
    with psycopg.connect(database) as connection:
        texts = str(connection.execute("select t::text from tenancy.safe_addresses as t").fetchall())
    assert "192.0.2" not in texts
    assert "2001:db8" not in texts
    assert v4 in earmark("tenant", "show", "acme", **settings).stdout
    earmark("tenant", "safe-address", "acme", "192.0.2.7", "--remove", **settings)
    told = earmark("tenant", "safe-address", "acme", "192.0.2.7", "--remove", expect=1, **settings).stderr
    assert "not among the safe ones" in told
    other = {**settings, "EARMARK_HASH_KEY": "another secret of bytes"}
    told = earmark("tenant", "safe-address", "acme", "192.0.2.7", *exception, expect=1, **other).stderr
    assert "'k1' is another secret" in told


def test_networks_are_fetched_and_used(database: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("198.51.100.0/24\n")
    settings = {
        "DATABASE_URL": database,
        "EARMARK_HOME": str(tmp_path / "home"),
        "EARMARK_NETWORK_URLS": f"x4bnet_vpn=file://{tmp_path}/list.txt,oracle=file://{tmp_path}/none",
    }
    told = earmark("networks", "fetch", "x4bnet_vpn", "oracle", expect=1, **settings)
    assert "not fetched oracle: file://" in told.stderr
    assert "in use: x4bnet_vpn@" in told.stdout
    fetched = json.loads(earmark("networks", "fetch", "x4bnet_vpn", "--json", **settings).stdout)
    assert [(item["name"], item["ranges"]) for item in fetched["lists"]] == [("x4bnet_vpn", 1)]
    log = tmp_path / "access.log"
    line = '{} - - [06/Jan/2026:08:00:00 +0000] "GET /a.mp3 HTTP/1.1" 200 9 "-" "Overcast/3.0" "{}"\n'
    log.write_text(line.format("192.0.2.1", "198.51.100.7") + line.format("198.51.100.8", "-"))
    earmark("tenant", "add", "acme", **settings)
    earmark("load", str(log), "-t", "acme", EARMARK_TRUSTED_PROXIES="192.0.2.0/24", **settings)
    with psycopg.connect(database) as connection:
        assert connection.execute("select network from raw.listener_events").fetchall() == [("vpn",), ("vpn",)]
        assert connection.execute("select network_list from ingest.loads").fetchall() == [(fetched["version"],)]
    (tmp_path / "home" / "networks" / "mine.csv").write_text("network,kind\n192.0.2.0/24,home\n")
    told = earmark("load", str(log), "-t", "acme", expect=1, **settings).stderr
    assert "mine.csv, line 2: kind is 'home': allowed are data_center and vpn" in " ".join(told.split())


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "told"),
    [
        (["load", "x.log"], {}, 2, "PATH needs --tenant"),
        (["load", "--tenant", "acme"], {}, 2, "go with PATH"),
        (["load", "nowhere.log", "-t", "acme"], {}, 1, "nowhere.log"),
        (["build", "--event-time-start", "2026-01-01"], {}, 2, "go together"),
        (["build", "--event-time-start", "soon", "--event-time-end", "2026-01-01"], {}, 1, "is no time"),
        (["tenant", "add", "No Such Name"], {}, 1, "is no tenant id"),
        (["tenant", "show", "nobody"], {}, 1, "there is no tenant 'nobody': the tenants are none yet"),
        (["tenant", "set", "nobody", "discards_vpns=no"], {}, 1, "there is no tenant 'nobody'"),
        (["tenant", "set", "acme", "window=x"], {}, 2, "there is no setting 'window': the settings are"),
        (["tenant", "set", "acme", "discards_vpns"], {}, 2, "is no name=value"),
        (["tenant", "set", "acme", "download_window=day"], {}, 2, "'day': allowed is calendar_day, rolling_first"),
        (["tenant", "set", "acme", "assumed_bitrate_bps=7999"], {}, 2, "8000 to 2000000, or none"),
        (["tenant", "set", "acme", "max_daily_downloads_per_address=none"], {}, 2, "a whole number from 1 to"),
        (["tenant", "set", "acme", "counted_sources=a,,b"], {}, 2, "names of sources, comma-separated"),
        (["tenant", "set", "acme", "discards_vpns=no", "discards_vpns=yes"], {}, 2, "is given twice"),
        (["tenant", "safe-address", "acme", "192.0.2.1"], {}, 2, "--until and --reason are needed"),
        (
            ["tenant", "safe-address", "acme", "192.0.2.1", "--remove", "--reason", "x"],
            {},
            2,
            "--remove goes alone",
        ),
        (["networks", "fetch", "azure"], {}, 1, "there is no list azure: the lists are aws"),
        (["status"], {"EARMARK_DBT_THREADS": "many"}, 1, "EARMARK_DBT_THREADS holds 'many'"),
        (["status"], {"DATABASE_URL": "postgresql://ann:s3cret@127.0.0.1:1/x"}, 1, "Cannot reach database x"),
        (["db", "stop"], {}, 1, "there is no embedded one to handle"),
    ],
)
def test_a_users_mistake_ends_in_one_clear_line(
    database: str, arguments: list[str], settings: dict[str, str], code: int, told: str
) -> None:
    done = earmark(*arguments, expect=code, **{"DATABASE_URL": database, **settings})
    assert told in " ".join(done.stderr.split())
    assert "s3cret" not in done.stderr


def test_an_empty_database_is_told_to_migrate(server: object, database: str) -> None:
    url = database.replace(database.split("/")[-1].split("?")[0], "postgres")
    told = earmark("status", expect=1, DATABASE_URL=url).stderr
    assert "earmark migrate" in told


def test_migrate_shows_and_prints_without_changing(database: str) -> None:
    states = json.loads(earmark("migrate", "--status", "--json", DATABASE_URL=database).stdout)
    assert {item["state"] for item in states} == {"applied"}
    assert "nothing to do" in earmark("migrate", "--dry-run", DATABASE_URL=database).stdout
    assert "up to date" in earmark("migrate", DATABASE_URL=database).stdout


def test_help_teaches() -> None:
    assert "earmark run" in earmark("--help").stdout
    for command in (
        "run",
        "load",
        "build",
        "fit",
        "status",
        "migrate",
        "demo-data",
        "ui",
        "db",
        "tenant",
        "networks",
    ):
        assert len(earmark(command, "--help").stdout) > 200
