"""dbt, run inside this process: its start-up costs more than most refreshes, so it is paid once a process.

What lives here: parsing the project and running a command as a stream of events. What to run is decided in
``refresh``.
"""

import hashlib
import json
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from earmark.errors import EarmarkError
from earmark.settings import PROJECT_ROOT
from earmark.warehouse.database import Database

PROFILES: Final = PROJECT_ROOT / "dbt_project"
# A project can be parsed without a database; the profile then needs only something to read.
NO_DATABASE: Final = Database("localhost", 5432, "earmark", "earmark").environment()
_RESULT_EVENTS: Final = frozenset({"LogModelResult", "LogTestResult", "LogSeedResult", "LogSnapshotResult"})

Event = dict[str, Any]


class DbtError(EarmarkError):
    """dbt failed. The text lists what failed and why, as dbt says it."""


@dataclass(slots=True)
class Invocation:
    """A dbt command that runs in a thread of this process.

    Iterate ``events`` to the end: it raises DbtError where the command failed; ``failures`` lists what did.
    """

    arguments: Sequence[str]
    manifest: Any = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)  # the password is in it
    failures: list[str] = field(default_factory=list)

    def events(self) -> Iterator[Event]:
        """Yield dbt's structured log events as they come, as dictionaries; not those of level debug.

        Raises:
            DbtError: the command failed, or a model or test did.

        """
        from dbt.cli.main import dbtRunner, dbtRunnerResult
        from dbt_common.events.base_types import EventMsg
        from dbt_common.events.functions import msg_to_dict

        pending: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        outcome: list[dbtRunnerResult] = []

        def pass_on(message: EventMsg) -> None:
            if message.info.level != "debug":  # of those come forty for one that says something
                pending.put(msg_to_dict(message))

        def work() -> None:
            try:
                runner = dbtRunner(manifest=self.manifest, callbacks=[pass_on])
                outcome.append(runner.invoke(list(self.arguments)))
            finally:
                pending.put(None)

        with _environment(self.environment):
            thread = threading.Thread(target=work, name="dbt", daemon=True)
            thread.start()
            while (event := pending.get()) is not None:
                self._note_failure(event)
                yield event
            thread.join()
        result = outcome[0] if outcome else None
        if result is None or not result.success:
            if result is not None and result.exception is not None:
                self.failures.append(str(result.exception).strip())
            raise DbtError("\n".join(self.failures) or "dbt failed; see logs/dbt.log")

    def _note_failure(self, event: Event) -> None:
        name = event["info"]["name"]
        if name == "RunResultError":
            self.failures.append(event["data"].get("msg") or event["info"]["msg"])
        elif name == "RunResultFailure":
            self.failures.append(event["info"]["msg"].strip())


def is_result(event: Event) -> bool:
    """Whether the event says that a model, seed or test is done."""
    return event["info"]["name"] in _RESULT_EVENTS


def parse(environment: Mapping[str, str]) -> Any:  # noqa: ANN401  (dbt's Manifest; importing dbt is slow)
    """Parse the project for a database and return dbt's manifest.

    It is kept, in a file and in this process, and taken again until a file of the project is newer: dbt's own
    partial parse takes a second to find that nothing has changed, which is half of a refresh.

    Raises:
        DbtError: the project does not parse; the text is dbt's own.

    """
    from dbt.version import __version__

    address = sorted((name, value) for name, value in environment.items() if name != "POSTGRES_PASSWORD")
    digest = hashlib.sha256(json.dumps([__version__, str(PROJECT_ROOT), address]).encode()).hexdigest()
    path = _target() / f"manifest-{digest[:16]}.msgpack"
    if _is_current(path):
        return _read(path, path.stat().st_mtime_ns)
    manifest = _parse_anew(environment)
    _write_whole(path, manifest.to_msgpack())
    return manifest


@lru_cache(maxsize=1)
def _read(path: Path, _written_at: int) -> Any:  # noqa: ANN401  (dbt's Manifest)
    from dbt.contracts.graph.manifest import Manifest

    return Manifest.from_msgpack(path.read_bytes())


def _parse_anew(environment: Mapping[str, str]) -> Any:  # noqa: ANN401  (dbt's Manifest)
    from dbt.cli.main import dbtRunner

    with _environment(environment):
        result = dbtRunner().invoke(["parse", *common_arguments()])
    if not result.success:
        raise DbtError(str(result.exception).strip())
    data = result.result.writable_manifest().to_dict(omit_none=False)
    _write_whole(_definitions(), json.dumps(data, default=str).encode())
    return result.result


def common_arguments() -> list[str]:
    """Return the arguments of every command: where things are, and no output of dbt's own."""
    return [
        "--project-dir",
        str(PROJECT_ROOT),
        "--profiles-dir",
        str(PROFILES),
        "--target-path",
        str(_target()),
        "--log-level",
        "none",
        "--no-use-colors",
        "--no-version-check",
        "--no-write-json",
    ]


def ensure_manifest() -> Path:
    """Return the path of a manifest of the project, of the form of dbt's ``manifest.json``.

    It is parsed anew where a file of the project is newer, and exchanged whole: dbt writes its own in place, and
    a reader may meet half of it. The database's name in it is that of whoever parsed last.

    Raises:
        DbtError: the project does not parse; the text is dbt's own.

    """
    if not _is_current(_definitions()):
        _parse_anew(NO_DATABASE)
    return _definitions()


def _definitions() -> Path:
    return _target() / "definitions.json"


def _is_current(path: Path) -> bool:
    parts = [PROJECT_ROOT / "dbt_project.yml"]
    for folder in (PROFILES, PROJECT_ROOT / "models", PROJECT_ROOT / "seeds"):
        parts += [folder, *folder.rglob("*")]
    return path.exists() and path.stat().st_mtime > max(part.stat().st_mtime for part in parts)


def _write_whole(path: Path, data: bytes) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.replace(path)


def as_dict(manifest: Any) -> dict[str, Any]:  # noqa: ANN401  (dbt's Manifest)
    """Return a manifest as plain data, of the form of dbt's ``manifest.json``."""
    data: dict[str, Any] = manifest.writable_manifest().to_dict(omit_none=False)
    return data


def _target() -> Path:
    # Not dbt's own folder: whoever runs dbt by hand writes there at the same time.
    return PROJECT_ROOT / os.environ.get("DBT_TARGET_PATH", "target/earmark")


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
