"""A file that cannot be read, for whatever reason, is its own refusal: noted with its cause, in nobody's way."""

import errno
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import polars as pl
import psycopg
import pytest

from earmark.addresses.privacy import HashKey
from earmark.ingestion import files, landing, load, refusals
from earmark.ingestion.errors import (
    DatabaseLoadError,
    NoRegularFileError,
    NoRoomError,
    UnreachableFileError,
)
from earmark.ingestion.landing import load_landing, load_path, new_files, register_tenants
from earmark.ingestion.summary import LoadSummary

KEY = HashKey("k1", b"0123456789abcdef0123456789abcdef")
EVENTS = "occurred_at,event_type,url\n2024-05-01,play,/{}.mp3\n"
BARE_FEED = (
    '<rss version="2.0"><channel><title>Show</title><link>https://show.example</link>'
    "<itunes:author>An Author</itunes:author><podcast:guid>917393E3-1B1E-5CEF-ACE4-EDAA54E1F810</podcast:guid>"
    "<item><title>One</title><guid>1</guid><itunes:duration>30:00</itunes:duration></item></channel></rss>"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a landing folder of two good files, one before and one after whatever a test puts there."""
    folder = tmp_path / "landing"
    for name in ("a", "z"):
        put(folder / "acme" / "listener_events" / f"{name}.csv", EVENTS.format(name))
    put(folder / "tenants.csv", "tenant_id,name\nacme,Acme\n")
    return folder


def put(path: Path, text: str = EVENTS.format("x")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(connection: psycopg.Connection, root: Path) -> dict[str, str]:
    """Load the folder, see that the good files are loaded, and return the refusals as the ledger has them."""
    told = {
        result.uri: result.refused for result in load_landing(connection, str(root), key=KEY) if result.refused
    }
    assert rows(connection, "select count(*) from raw.listener_events where url in ('/a.mp3', '/z.mp3')") == [(2,)]
    noted = dict(rows(connection, "select uri, message from ingest.files where status = 'refused'"))
    assert noted == told
    locks = "select count(*) from pg_locks inner join pg_database on database = pg_database.oid"
    held = f"{locks} where datname = current_database() and locktype = 'advisory'"
    assert rows(connection, held) == [(0,)]
    assert connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
    return {uri.removeprefix(f"{root}/"): message for uri, message in noted.items()}


def rows(connection: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    found = connection.execute(query.encode()).fetchall()
    connection.commit()
    return found


def test_a_feed_whose_prefixes_nothing_declares_is_read(connection: psycopg.Connection, root: Path):
    put(root / "acme" / "rss" / "feed.xml", BARE_FEED)
    assert refused(connection, root) == {}
    assert rows(connection, "select author, podcast_guid from raw.podcasts") == [
        ("An Author", "917393E3-1B1E-5CEF-ACE4-EDAA54E1F810")
    ]
    assert rows(connection, "select duration_seconds from raw.episodes") == [(1800,)]


UNFORESEEN = (
    *(ValueError("bad 192.0.2.77 here"), KeyError("x"), MemoryError(), RecursionError("too deep")),
    *(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), AssertionError(), StopIteration()),
    *(pl.exceptions.PanicException("not implemented"), pl.exceptions.ComputeError("odd")),
)


@pytest.mark.parametrize("where", ["read_head", "resolve", "read_blocks", "rows.prepare"])
def test_whatever_reading_a_file_raises_is_its_refusal(
    connection: psycopg.Connection, root: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    errors = {f"acme/listener_events/m{at}.csv": error for at, error in enumerate(UNFORESEEN)}
    for name in errors:
        put(root / name, EVENTS.format(name))
    place, name = (load.rows, "prepare") if where == "rows.prepare" else (load, where)
    real, real_copy = getattr(place, name), files.local_copy
    reads: list[str] = []

    def copy(uri: str, below: str | None = None) -> Any:
        reads.append(uri.removeprefix(f"{root}/"))
        return real_copy(uri, below)

    def fail(*given: Any, **named: Any) -> Any:
        if reads[-1] in errors:
            raise errors[reads[-1]]
        return real(*given, **named)

    monkeypatch.setattr(files, "local_copy", copy)
    monkeypatch.setattr(place, name, fail)
    found = refused(connection, root)
    assert found.keys() == errors.keys()
    for uri, message in found.items():
        # What a generator must not raise comes as another error.
        assert type(errors[uri]).__name__ in message or isinstance(errors[uri], StopIteration)
        assert message.startswith(f"{root}/{uri}: cannot be read (")
        assert "192.0.2.77" not in message
    assert rows(connection, "select count(*) from ingest.loads where uri like '%/m%.csv'") == [(0,)]
    assert new_files(connection, str(root)) == []
    # What our own code could not read is tried again by other code.
    monkeypatch.setattr(landing, "reader", lambda: "another")
    assert {"/".join(file.parts) for file in new_files(connection, str(root))} == errors.keys()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), OSError(errno.ENOSPC, "No space left")])
def test_what_is_not_the_files_fault_stops_and_is_not_noted(
    connection: psycopg.Connection, root: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    def fail(*_given: object) -> NoReturn:
        raise error

    monkeypatch.setattr(load, "read_head", fail)
    with pytest.raises(NoRoomError if isinstance(error, OSError) else type(error)):
        load_landing(connection, str(root), key=KEY)
    assert rows(connection, "select count(*) from ingest.files") == [(0,)]
    assert len(new_files(connection, str(root))) == 2


def test_a_mistake_in_talking_to_the_database_stops(
    connection: psycopg.Connection, root: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_given: object) -> NoReturn:
        raise psycopg.errors.SyntaxError("syntax error")

    monkeypatch.setattr(load._Load, "_copy", fail)
    with pytest.raises(DatabaseLoadError, match="syntax error"):
        load_landing(connection, str(root), key=KEY)


@pytest.mark.parametrize(
    "error", [psycopg.errors.CheckViolation, psycopg.errors.NumericValueOutOfRange, psycopg.errors.OutOfMemory]
)
def test_rows_that_the_database_does_not_take_are_their_files_refusal(
    connection: psycopg.Connection, root: Path, monkeypatch: pytest.MonkeyPatch, error: type[psycopg.Error]
):
    put(root / "acme" / "listener_events" / "m.csv", EVENTS.format("bad"))
    real = load._Load._copy

    def fail(self: load._Load, target: Any, columns: Any, csv: bytes) -> None:
        if b"bad.mp3" in csv:
            raise error("value 192.0.2.77 is bad")
        real(self, target, columns, csv)

    monkeypatch.setattr(load._Load, "_copy", fail)
    (message,) = refused(connection, root).values()
    assert error.__name__ in message or "ran out of memory" in message


def test_a_message_names_the_file_and_no_address(connection: psycopg.Connection, root: Path):
    put(root / "acme" / "listener_events" / "10.0.0.9.csv", "192.0.2.77,x\n192.0.2.78,y\n")
    put(root / "acme" / "rss" / "10.0.0.9.xml", "192.0.2.77 - - what is this")
    for uri, message in refused(connection, root).items():
        assert message.startswith(f"{root}/{uri}: ")
        assert "192.0.2.77" not in message
        assert "<ip:" in message


def make_odd(folder: Path, outside: Path) -> dict[str, str]:
    """Put everything that is no regular file into a folder; returns what each is to be called."""
    os.mkfifo(folder / "fifo.csv")
    (folder / "dangling.csv").symlink_to(folder / "nowhere")
    (folder / "loop.csv").symlink_to(folder / "loop.csv")
    (folder / "inside.csv").symlink_to(folder / "a.csv")
    (folder / "outside.csv").symlink_to(outside)
    (folder / "device.csv").symlink_to("/dev/zero")
    (folder / "folder").symlink_to(outside.parent, target_is_directory=True)
    (folder / "up").symlink_to("..", target_is_directory=True)
    links = ("dangling.csv", "loop.csv", "inside.csv", "outside.csv", "device.csv", "folder", "up")
    return {"fifo.csv": "is a pipe", **dict.fromkeys(links, "is a symbolic link")}


def test_links_pipes_and_devices_are_refused_by_name(
    connection: psycopg.Connection, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = root / "acme" / "listener_events"
    expected = make_odd(folder, put(tmp_path / "secret" / "s.csv", EVENTS.format("secret")))
    monkeypatch.chdir(folder)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.csv")
    expected["socket.csv"] = "is a socket"
    found = refused(connection, root)
    assert found.keys() == {f"acme/listener_events/{name}" for name in expected}
    for name, text in expected.items():
        assert f"acme/listener_events/{name}: {text}" in found[f"acme/listener_events/{name}"]
    assert rows(connection, "select count(*) from raw.listener_events where url like '%secret%'") == [(0,)]


def test_a_device_is_refused(root: Path):
    device = root / "acme" / "listener_events" / "null.csv"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    (item,) = (item for item in files.listing(str(root)) if item.parts[-1] == "null.csv")
    assert item.fault == "is a device, not a file"
    with pytest.raises(NoRegularFileError, match="is a device"), files.local_copy(str(device), str(root)):
        pass


@pytest.mark.parametrize("what", ["file", "folder", "pipe"])
def test_what_becomes_a_link_or_pipe_after_it_was_listed_is_not_followed(root: Path, tmp_path: Path, what: str):
    put(tmp_path / "secret" / "a.csv", "secret")
    (listed,) = (item for item in files.listing(str(root)) if item.parts[-1] == "a.csv")
    folder = root / "acme" / "listener_events"
    if what == "folder":
        folder.rename(root / "acme" / "was")
        folder.symlink_to(tmp_path / "secret", target_is_directory=True)
    else:
        (folder / "a.csv").unlink()
        if what == "pipe":
            os.mkfifo(folder / "a.csv")
        else:
            (folder / "a.csv").symlink_to(tmp_path / "secret" / "a.csv")
    with (
        pytest.raises(NoRegularFileError, match=r"is a (symbolic link|pipe)"),
        files.local_copy(listed.state.uri, str(root)),
    ):
        pass


def test_the_file_that_was_looked_at_is_the_one_that_is_read(root: Path):
    path = root / "acme" / "listener_events" / "a.csv"
    with files.local_copy(str(path), str(root)) as copy:
        path.unlink()
        put(path, "another")
        assert copy.path.read_text() == EVENTS.format("a")


NAMES = {
    "new\nline.csv": "holds a line end or another control character",
    "bell\x07.csv": "holds a line end or another control character",
    "next\x85line\u2028.csv": "holds a line end or another control character",
    os.fsdecode(b"latin-\xe9.csv"): "is not UTF-8",
}


def test_names_that_cannot_be_written_down_are_refused(connection: psycopg.Connection, root: Path):
    for name in NAMES:
        put(root / "acme" / "listener_events" / name)
    put(root / "acme" / os.fsdecode(b"n\xe9") / "x.csv")
    deep = root / "acme" / "listener_events"
    for _ in range(9):
        deep = deep / ("d" * 240)
    put(deep / "x.csv")
    found = refused(connection, root)
    assert len(found) == len(NAMES) + 2
    for text in (*NAMES.values(), "2000 are allowed: shorten it"):
        assert any(text in message for message in found.values())
    for message in found.values():
        assert message.isprintable()
        message.encode()
    assert new_files(connection, str(root)) == []


def test_what_may_not_be_read_is_tried_again(
    connection: psycopg.Connection, root: Path, monkeypatch: pytest.MonkeyPatch
):
    closed = str(put(root / "acme" / "listener_events" / "closed.csv"))
    put(root / "acme" / "nginx" / "x.log")
    real_open, real_scan = os.open, os.scandir

    def refuse_open(path: Any, *given: Any, **named: Any) -> int:
        if path == "closed.csv":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, *given, **named)

    def refuse_scan(path: Any = ".") -> Any:
        if str(path).endswith("nginx"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_scan(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse_open)
        patch.setattr(os, "scandir", refuse_scan)
        assert refused(connection, root) == {
            "acme/listener_events/closed.csv": f"{closed}: cannot be read (Permission denied)",
            "acme/nginx": f"{root}/acme/nginx: cannot be listed (Permission denied)",
        }
    assert {"/".join(file.parts) for file in new_files(connection, str(root))} == {
        "acme/listener_events/closed.csv",
        "acme/nginx/x.log",
    }
    line = '192.0.2.1 - - [01/May/2024:00:00:00 +0000] "GET /x.mp3 HTTP/1.1" 200 1 "-" "agent"'
    put(root / "acme" / "nginx" / "x.log", line + "\n")
    assert refused(connection, root) == {}


def test_a_file_that_vanishes_is_refused_and_then_forgotten(connection: psycopg.Connection, root: Path):
    gone = put(root / "acme" / "listener_events" / "gone.csv")
    found = landing.find_files(str(root))
    register_tenants(connection, str(root))
    gone.unlink()
    results = load_landing(connection, str(root), key=KEY, only=found)
    assert [result.refused for result in results if result.refused] == [f"{gone}: there is no such file"]
    assert new_files(connection, str(root)) == []
    assert rows(connection, "select count(*) from ingest.files where status = 'refused'") == [(0,)]


def test_empty_and_deep_folders_are_in_nobodys_way(connection: psycopg.Connection, root: Path):
    (root / "acme" / "spend").mkdir()
    (root / "empty").mkdir()
    deep = root / "acme" / "listener_events"
    for _ in range(200):
        deep = deep / "d"
    put(deep / "x.csv")
    assert refused(connection, root) == {}
    with pytest.raises(UnreachableFileError, match="holds no files"):
        load_path(connection, str(root / "empty"), key=KEY, tenant_id="acme")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nx\n", "needs a header with the columns tenant_id,name"),
        ("tenant_id,name\nok,Ok\nNot OK,x\n", "line 3: tenant_id is 'Not OK'"),
        ("tenant_id,name\nok,\ud8ff\n", "cannot be read as UTF-8"),
        ("tenant_id,name\nok,\0\n", "line 2"),
        ('tenant_id,name\nok,"' + "x" * 200_000, "field larger"),
        ("link", "is a symbolic link"),
        ("pipe", "is a pipe"),
    ],
)
def test_a_bad_file_of_tenants_stops_none_of_those_registered(
    connection: psycopg.Connection, root: Path, text: str, message: str
):
    register_tenants(connection, str(root))
    path = root / "tenants.csv"
    path.unlink()
    if text == "link":
        path.symlink_to(put(root.parent / "other.csv", "tenant_id,name\nacme,Another\n"))
    elif text == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = refused(connection, root)
    assert found.keys() == {"tenants.csv"}
    assert message in found["tenants.csv"]
    assert found["tenants.csv"].startswith(f"{path}")
    assert rows(connection, "select tenant_id from tenancy.tenants") == [("acme",)]
    path.unlink()
    put(path, "tenant_id,name\nacme,Acme\nbeta,Beta\n")
    assert load_landing(connection, str(root), key=KEY) == []
    assert rows(connection, "select count(*) from ingest.files where status = 'refused'") == [(0,)]


def test_a_link_that_the_user_names_is_followed_and_those_below_it_are_not(
    connection: psycopg.Connection, root: Path, tmp_path: Path
):
    register_tenants(connection, str(root))
    (tmp_path / "current.csv").symlink_to(root / "acme" / "listener_events" / "a.csv")
    (tmp_path / "logs").symlink_to(root / "acme" / "listener_events", target_is_directory=True)
    (root / "acme" / "listener_events" / "rotated.csv").symlink_to("a.csv")
    how: dict[str, Any] = {"key": KEY, "tenant_id": "acme", "dataset": "listener_events"}
    (result,) = load_path(connection, str(tmp_path / "current.csv"), **how)
    assert result.refused is None
    told = {
        Path(result.uri).name: result.refused for result in load_path(connection, str(tmp_path / "logs"), **how)
    }
    assert told["a.csv"] is None
    assert told["z.csv"] is None
    assert "is a symbolic link" in str(told["rotated.csv"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NoRegularFileError, match="is a pipe"):
        load_path(connection, str(tmp_path / "pipe"), **how)


def test_refusals_are_summed_up_by_dataset(connection: psycopg.Connection, root: Path):
    put(root / "acme" / "rss" / "bad.xml", "no feed")
    put(root / "acme" / "spent" / "bad.csv")
    summary = LoadSummary.of(load_landing(connection, str(root), key=KEY))
    assert len(summary.refused) == 2
    assert [len(counts.refused) for _, counts in sorted(summary.datasets.items())] == [0, 1]
    assert str(summary).endswith("2 files refused")


def test_the_command_line_shows_what_was_refused(database: str, root: Path):
    for at in range(22):
        (root / "acme" / "listener_events" / f"link{at}.csv").symlink_to("a.csv")
    environment = {
        **os.environ,
        "DATABASE_URL": database,
        "EARMARK_LANDING": str(root),
        "EARMARK_HASH_KEY": "x" * 32,
    }

    def earmark(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", "from earmark.cli import main; main()", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    loaded = earmark("load")
    assert loaded.returncode == 1
    assert loaded.stderr.count("link0.csv: is a symbolic link") == 1
    assert "Traceback" not in loaded.stderr
    status = earmark("status")
    assert status.stdout.count("is a symbolic link") == 20
    assert "and 2 more, in ingest.files" in status.stdout


def test_the_name_of_the_reading_code_is_stable_and_short():
    assert refusals.reader() == refusals.reader()
    assert len(refusals.reader()) == 12
