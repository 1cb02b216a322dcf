"""The landing folder: what is found, what is new, and that a bad file is in nobody's way."""

import os
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from earmark.addresses.privacy import HashKey
from earmark.ingestion import files
from earmark.ingestion.errors import HashKeyError, UnreachableFileError
from earmark.ingestion.landing import (
    FileResult,
    find_files,
    load_landing,
    load_path,
    new_files,
    register_tenants,
)

KEY = HashKey("k1", b"0123456789abcdef0123456789abcdef")
EVENTS = "occurred_at,event_type,url\n2024-05-01,play,/{}.mp3\n"
CAMPAIGN = "campaign_id,sponsor_id,name,starts_at,ends_at\nc,s,n,2024-01-01,2024-02-01\n"
LOG = '192.0.2.1 - - [03/Dec/2013:20:37:20 +0000] "GET /ep.mp3 HTTP/1.1" 200 5 "-" "x"\n'


def put(root: Path, **texts: str) -> None:
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    landing = tmp_path / "landing"
    put(
        landing,
        tenants_dot_csv="tenant_id,name\nacme,Acme Audio\nbeta,\n",
        acme__listener_events__2024__a_dot_csv=EVENTS.format("a"),
        acme__nginx__access_dot_log=LOG,
        acme__campaigns__c_dot_csv=CAMPAIGN,
        beta__listener_events__a_dot_csv=EVENTS.format("a"),
        acme__listener_events__later_dot_csv_dot_part="half",
        acme__listener_events___dot_hidden="x",
        acme__listener_events__x_dot_tmp="x",
    )
    return landing


def below(root: Path, results: list[FileResult]) -> list[str]:
    return [str(Path(result.uri).relative_to(root)) for result in results]


def rows(connection: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    found = connection.execute(query.encode()).fetchall()
    connection.commit()
    return found


def test_unfinished_files_are_left_out_and_reference_data_comes_first(root: Path):
    assert ["/".join(file.parts) for file in find_files(str(root))] == [
        "acme/campaigns/c.csv",
        "acme/listener_events/2024/a.csv",
        "acme/nginx/access.log",
        "beta/listener_events/a.csv",
    ]


def test_a_landing_folder_is_loaded_once(connection: psycopg.Connection, root: Path):
    results = load_landing(connection, str(root), key=KEY)
    assert [result.refused for result in results] == [None] * 4
    assert rows(connection, "select tenant_id, name from tenancy.tenants order by 1") == [
        ("acme", "Acme Audio"),
        ("beta", "beta"),
    ]
    assert rows(connection, "select tenant_id, count(*) from raw.listener_events group by 1 order by 1") == [
        ("acme", 2),
        ("beta", 1),
    ]
    assert load_landing(connection, str(root), key=KEY) == []
    assert new_files(connection, str(root)) == []
    put(root, acme__listener_events__b_dot_csv=EVENTS.format("b"))
    assert below(root, load_landing(connection, str(root), key=KEY)) == ["acme/listener_events/b.csv"]


def test_bad_files_are_refused_with_the_fix_and_stop_nobody(connection: psycopg.Connection, root: Path):
    put(
        root,
        acme__listener_events__0bad_dot_csv="a,b\n1,2\n",
        acme__spent__x_dot_csv="a,b\n1,2\n",
        nobody__listener_events__x_dot_csv=EVENTS.format("n"),
        stray_dot_csv="x",
    )
    assert len(load_landing(connection, str(root), key=KEY)) == 8
    refused = rows(connection, "select uri, message from ingest.files where status = 'refused' order by 1")
    messages = {str(Path(uri).relative_to(root)): message for uri, message in refused}
    assert set(messages) == {
        "acme/listener_events/0bad.csv",
        "acme/spent/x.csv",
        "nobody/listener_events/x.csv",
        "stray.csv",
    }
    assert "has no column occurred_at, event_type" in messages["acme/listener_events/0bad.csv"]
    assert "folder 'spent' is named after no dataset" in messages["acme/spent/x.csv"]
    assert "no tenant 'nobody'" in messages["nobody/listener_events/x.csv"]
    assert "outside of the layout" in messages["stray.csv"]
    assert rows(connection, "select count(*) from ingest.files where status = 'loaded'") == [(4,)]


def test_a_refused_file_is_tried_again_when_it_changed_or_its_tenant_came(
    connection: psycopg.Connection, root: Path
):
    put(root, late__listener_events__x_dot_csv=EVENTS.format("n"), acme__spend__s_dot_csv="a,b\n")
    load_landing(connection, str(root), key=KEY)
    assert new_files(connection, str(root)) == []
    put(root, acme__spend__s_dot_csv="campaign_id,spend_date,amount\nc,2024-05-01,5\n")
    assert ["/".join(file.parts) for file in new_files(connection, str(root))] == ["acme/spend/s.csv"]
    put(root, tenants_dot_csv="tenant_id,name\nlate,Late\n")
    assert register_tenants(connection, str(root)) is None
    results = load_landing(connection, str(root), key=KEY)
    assert [result.refused for result in results] == [None, None]


def test_a_file_with_another_time_and_the_same_bytes_adds_nothing(connection: psycopg.Connection, root: Path):
    load_landing(connection, str(root), key=KEY)
    os.utime(root / "beta/listener_events/a.csv", (1, 1))
    (result,) = load_landing(connection, str(root), key=KEY)
    assert result.report is not None
    assert result.report.already_loaded_as is not None


def test_another_hash_key_stops_everything_and_records_nothing(connection: psycopg.Connection, root: Path):
    load_landing(connection, str(root), key=KEY)
    put(root, acme__listener_events__b_dot_csv=EVENTS.format("b"))
    with pytest.raises(HashKeyError):
        load_landing(connection, str(root), key=HashKey("k1", b"y" * 32))
    assert len(new_files(connection, str(root))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nx\n", "needs a header with the columns tenant_id,name"),
        ("tenant_id,name\nok,Ok\nNot OK,x\n", "line 3: tenant_id is 'Not OK': allowed are"),
    ],
)
def test_a_bad_tenants_file(connection: psycopg.Connection, tmp_path: Path, text: str, message: str):
    put(tmp_path, tenants_dot_csv=text)
    refusal = register_tenants(connection, str(tmp_path))
    assert refusal is not None
    assert message in str(refusal.refused)
    assert rows(connection, "select count(*) from tenancy.tenants") == [(0,)]


def test_a_root_that_is_not_there():
    with pytest.raises(UnreachableFileError, match="there is no such folder"):
        find_files("/nowhere/landing")


def test_any_filesystem(connection: psycopg.Connection):
    root = f"memory://landing-{uuid.uuid4().hex}"
    system, path = files.filesystem(root)
    system.pipe_file(f"{path}/tenants.csv", b"tenant_id,name\nacme,Acme\n")
    system.pipe_file(f"{path}/acme/listener_events/a.csv", EVENTS.format("a").encode())
    (result,) = load_landing(connection, root, key=KEY)
    assert (result.uri, result.refused) == (f"{root}/acme/listener_events/a.csv", None)
    assert new_files(connection, root) == []


def test_load_path_takes_a_file_or_a_folder(connection: psycopg.Connection, root: Path):
    register_tenants(connection, str(root))
    folder = root / "acme" / "listener_events"
    put(folder, bad_dot_csv="a,b\n1,2\n")
    results = load_path(connection, str(folder), key=KEY, tenant_id="acme", dataset="listener_events")
    assert [result.refused is None for result in results] == [True, False]
    (only,) = load_path(connection, str(root / "acme/nginx/access.log"), key=KEY, tenant_id="acme", source="nginx")
    assert only.report is not None
    assert only.report.datasets[0].loaded == 1
    with pytest.raises(UnreachableFileError):
        load_path(connection, str(root / "none"), key=KEY, tenant_id="acme", source="nginx")


def test_a_format_beside_the_logs(connection: psycopg.Connection, root: Path):
    line = '203.0.113.8 {} - - [03/Dec/2013:20:37:2{} +0000] "GET /ep.mp3 HTTP/1.1" 200 5\n'
    log = line.format("192.0.2.1", 0) + line.format("192.0.2.2", 1).replace("113.8", "113.9")
    put(root, acme__nginx__two_dot_log=log)
    refused = [result.refused for result in load_landing(connection, str(root), key=KEY) if result.refused]
    assert len(refused) == 1
    assert "two addresses" in refused[0]
    put(root, acme__nginx___format='%A %h %l %u %t "%r" %>s %b\n', acme__nginx__access_dot_log=log)
    assert [result.refused for result in load_landing(connection, str(root), key=KEY)] == [None] * 2
    households = [KEY.for_tenant("acme").household(f"192.0.2.{at}") for at in (1, 2)]
    found = rows(
        connection, "select distinct household_key from raw.listener_events where bytes_sent = 5 order by 1"
    )
    assert [bytes(key) for (key,) in found] == sorted(households)
    assert rows(connection, "select log_format from ingest.loads where log_format is not null") == [
        ('%A %h %l %u %t "%r" %>s %b',)
    ]
    put(root, acme__nginx___format="nonsense", acme__nginx__new_dot_log=LOG)
    (result,) = load_landing(connection, str(root), key=KEY)
    assert "does not say" in str(result.refused)


def test_the_same_bytes_by_another_format_are_loaded_again(connection: psycopg.Connection, tmp_path: Path):
    connection.execute("insert into tenancy.tenants (tenant_id, name) values ('acme', 'Acme')")
    connection.commit()
    path = tmp_path / "access.log"
    path.write_text('192.0.2.1 203.0.113.9 [03/Dec/2013:20:37:20 +0000] "GET /ep.mp3 HTTP/1.1" 200 5\nrubbish\n')
    loaded = []
    for log_format in ('%h %A %t "%r" %>s %b', '%h %A %t "%r" %>s %b', '%h %A %t "%r" %>s %B'):
        (result,) = load_path(connection, str(path), key=KEY, tenant_id="acme", log_format=log_format)
        assert result.report is not None
        loaded.append([(item.loaded, item.duplicate, item.rejected) for item in result.report.datasets])
    assert loaded == [[(1, 0, 1)], [], [(0, 1, 1)]]
