"""The command line as a user meets it: the main job, its second run, and clear errors instead of tracebacks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.settings import PROJECT_ROOT

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
    second = json.loads(earmark("run", "--json", **settings).stdout)
    assert second["load"]["files"] == 0
    assert second["campaigns"] == first["campaigns"]

    status = json.loads(earmark("status", "--json", **settings).stdout)
    assert sum(line["days_pending"] for line in status["datasets"]) == 0
    assert earmark("build", **settings).stdout.startswith("nothing to do")
    window = ("--event-time-start", "2026-06-20", "--event-time-end", "2026-06-21")
    assert "refreshed for 2026-06-20" in earmark("build", *window, **settings).stdout


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


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "told"),
    [
        (["load", "x.log"], {}, 2, "PATH needs --tenant"),
        (["load", "--tenant", "acme"], {}, 2, "go with PATH"),
        (["load", "nowhere.log", "-t", "acme"], {}, 1, "nowhere.log"),
        (["build", "--event-time-start", "2026-01-01"], {}, 2, "go together"),
        (["build", "--event-time-start", "soon", "--event-time-end", "2026-01-01"], {}, 1, "is no time"),
        (["tenant", "add", "No Such Name"], {}, 1, "is no tenant id"),
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
    for command in ("run", "load", "build", "status", "migrate", "demo-data", "ui", "db", "tenant"):
        assert len(earmark(command, "--help").stdout) > 200


def test_the_readme_names_every_mart_and_its_columns() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
    import yaml

    marts = yaml.safe_load((PROJECT_ROOT / "models/marts/_marts__models.yml").read_text(encoding="utf-8"))
    for model in marts["models"]:
        assert f"`{model['name']}`" in readme
        for column in model["columns"]:
            assert f"`{column['name']}`" in readme, (model["name"], column["name"])
