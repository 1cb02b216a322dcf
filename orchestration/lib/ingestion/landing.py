"""The landing folder: ``root/<tenant>/<dataset or source>/...``, on any fsspec address.

Which files are there, which of them are new, and loading them one by one: each in its own transaction, reference
data before events, a bad file in nobody's way. ``root/tenants.csv`` (tenant_id, name) registers tenants. What is
done with one file is in ``load``.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from orchestration.lib.ingestion import files, shown
from orchestration.lib.ingestion.datasets import DATASETS
from orchestration.lib.ingestion.errors import (
    DatabaseLoadError,
    HashKeyError,
    LoadError,
    UnknownDatasetError,
    UnreachableFileError,
)
from orchestration.lib.ingestion.load import LoadReport, LoadRequest, load_file
from orchestration.lib.ingestion.privacy import HashKey
from orchestration.lib.ingestion.rows import Lookups
from orchestration.lib.ingestion.sources import SOURCES, find_source

TENANTS_FILE: Final = "tenants.csv"
_TENANT: Final = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")
_PARTS: Final = 3  # tenant, dataset or source, file


@dataclass(frozen=True, slots=True)
class LandedFile:
    """A file of the landing folder. ``parts`` is its path below the root, cut at the slashes."""

    state: files.FileState
    parts: tuple[str, ...]

    def request(self) -> LoadRequest:
        """Say what the file is by where it stands.

        Raises:
            UnknownDatasetError: it stands in no folder of a tenant and a dataset or source.

        """
        uri = self.state.uri
        if len(self.parts) < _PARTS:
            raise UnknownDatasetError(
                f"{uri}: stands outside of the layout <tenant>/<dataset or source>/<file> of the landing folder: "
                "move it there"
            )
        tenant, what = self.parts[0], self.parts[1]
        if what in DATASETS:
            return LoadRequest(uri, tenant, dataset=what)
        if find_source(what) is not None:
            return LoadRequest(uri, tenant, source=what)
        sources = ", ".join(name for source in SOURCES for name in (source.name, *source.aliases))
        raise UnknownDatasetError(
            f"{uri}: folder {what!r} is named after no dataset ({', '.join(DATASETS)}) and no source ({sources})"
        )

    @property
    def rank(self) -> tuple[int, tuple[str, ...]]:
        """Order of loading: reference data first, as datasets are listed, then by name."""
        source = find_source(self.parts[1]) if len(self.parts) >= _PARTS else None
        dataset = source.datasets[0] if source else (self.parts[1] if len(self.parts) >= _PARTS else "")
        order = list(DATASETS)
        return (order.index(dataset) if dataset in order else len(order), self.parts)


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file: a report, or why it was refused."""

    uri: str
    report: LoadReport | None = None
    refused: str | None = None


def find_files(root: str) -> list[LandedFile]:
    """List the files of a landing folder in the order of loading; hidden and unfinished ones are left out.

    Raises:
        UnreachableFileError: the folder is not there or cannot be listed.

    """
    return sorted((file for file in _below(root) if file.parts != (TENANTS_FILE,)), key=lambda file: file.rank)


def new_files(connection: psycopg.Connection, root: str) -> list[LandedFile]:
    """Return those files of a landing folder that were not tried yet as they stand now.

    A file that was refused is tried again when it has changed, or when its tenant has been registered since.
    """
    return _untried(connection, find_files(root))


def load_landing(
    connection: psycopg.Connection,
    root: str,
    *,
    key: HashKey,
    lookups: Lookups | None = None,
    only: Sequence[LandedFile] | None = None,
    on_result: Callable[[FileResult], None] = lambda _result: None,
) -> list[FileResult]:
    """Register the tenants of the folder and load its new files (or ``only`` these), each in its own transaction.

    Raises:
        UnreachableFileError: the folder is not there.
        HashKeyError: the hash key is another than before; no file can be loaded.
        DatabaseLoadError: the database is lost; files loaded until then stay loaded.

    """
    register_tenants(connection, root)
    results = []
    for file in (
        _untried(connection, find_files(root)) if only is None else sorted(only, key=lambda item: item.rank)
    ):
        result = _load(connection, file, key, lookups)
        results.append(result)
        on_result(result)
    return results


def load_path(
    connection: psycopg.Connection,
    path: str,
    *,
    key: HashKey,
    tenant_id: str,
    lookups: Lookups | None = None,
    dataset: str | None = None,
    source: str | None = None,
    on_result: Callable[[FileResult], None] = lambda _result: None,
) -> list[FileResult]:
    """Load a file, or every file below a folder, outside of the landing layout.

    Raises:
        UnreachableFileError: there is no such file or folder.
        HashKeyError: the hash key is another than before.
        DatabaseLoadError: the database is lost.

    """
    path = shown.remember(path)
    system, plain = files.filesystem(path)
    states = [file.state for file in _below(path)] if system.isdir(plain) else [files.state(path)]
    results = []
    for state in states:
        try:
            request = LoadRequest(state.uri, tenant_id, dataset, source)
            report = load_file(connection, request, key=key, lookups=lookups)
            result = FileResult(state.uri, report)
        except (HashKeyError, DatabaseLoadError):
            raise
        except LoadError as error:
            result = FileResult(state.uri, refused=str(error))
        results.append(result)
        on_result(result)
    return results


def register_tenants(connection: psycopg.Connection, root: str) -> list[str]:
    """Register the tenants of ``root/tenants.csv``, if there is one; returns the ids that are new or renamed.

    Raises:
        UnreachableFileError: the file cannot be read.
        LoadError: it has other columns, or an id that cannot be one; no tenant of it is registered.

    """
    uri = f"{root.rstrip('/')}/{TENANTS_FILE}"
    system, path = files.filesystem(uri)
    if not system.exists(path):
        return []
    try:
        text = system.cat_file(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreachableFileError(f"{uri}: cannot be read as UTF-8 text ({error})") from error
    tenants = _tenants(uri, text)
    with connection.transaction():
        return [
            tenant_id
            for tenant_id, name in tenants.items()
            if connection.execute(
                "insert into tenancy.tenants as t (tenant_id, name) values (%s, %s)"
                " on conflict (tenant_id) do update set name = excluded.name where t.name <> excluded.name",
                (tenant_id, name),
            ).rowcount
        ]


def _tenants(uri: str, text: str) -> dict[str, str]:
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    if "tenant_id" not in (reader.fieldnames or ()):
        raise LoadError(f"{uri}: needs a header with the columns tenant_id,name")
    tenants = {}
    for row in reader:
        tenant_id = (row["tenant_id"] or "").strip()
        if not _TENANT.match(tenant_id) or "\0" in (row.get("name") or ""):
            raise LoadError(
                f"{uri}, line {reader.line_num}: tenant_id is {tenant_id!r}: allowed are lower-case letters, "
                "digits, _ and -, at most 63, the first a letter or digit"
            )
        tenants[tenant_id] = (row.get("name") or "").strip() or tenant_id
    return tenants


def _load(connection: psycopg.Connection, file: LandedFile, key: HashKey, lookups: Lookups | None) -> FileResult:
    uri = file.state.uri
    try:
        report = load_file(connection, file.request(), key=key, lookups=lookups)
    except (HashKeyError, DatabaseLoadError):
        # Not the file's fault: it is tried again.
        raise
    except LoadError as error:
        _record(connection, file.state, "refused", str(error))
        return FileResult(uri, refused=str(error))
    _record(connection, file.state, "loaded", None)
    return FileResult(uri, report)


def _record(connection: psycopg.Connection, state: files.FileState, status: str, message: str | None) -> None:
    with connection.transaction():
        connection.execute(
            "insert into ingest.files (uri, bytes, modified_at, status, message) values (%s, %s, %s, %s, %s)"
            " on conflict (uri) do update set bytes = excluded.bytes, modified_at = excluded.modified_at,"
            " status = excluded.status, message = excluded.message, seen_at = now()",
            (state.uri, state.bytes, state.modified_at, status, message),
        )


def _untried(connection: psycopg.Connection, found: Iterable[LandedFile]) -> list[LandedFile]:
    found = list(found)
    with connection.transaction():
        rows = connection.execute(
            "select uri, bytes, modified_at from ingest.files as f where uri = any(%s) and not exists ("
            " select from tenancy.tenants as t where f.status = 'refused' and t.created_at > f.seen_at"
            " and t.tenant_id = any(string_to_array(f.uri, '/')))",
            ([file.state.uri for file in found],),
        ).fetchall()
    tried = set(rows)
    return [file for file in found if (file.state.uri, file.state.bytes, file.state.modified_at) not in tried]


def _below(root: str) -> list[LandedFile]:
    system, path = files.filesystem(root)
    system.invalidate_cache()
    try:
        if not system.isdir(path):
            raise UnreachableFileError(f"{root}: there is no such folder")
        infos = system.find(path, detail=True).values()
    except OSError as error:
        raise UnreachableFileError(f"{root}: cannot be listed ({error})") from error
    top = path.rstrip("/")
    is_local = "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,))
    found = []
    for info in infos:
        parts = tuple(info["name"].removeprefix(top).strip("/").split("/"))
        if info["type"] != "file" or not all(files.is_finished(part) for part in parts):
            continue
        uri = info["name"] if is_local else f"{root.rstrip('/')}/{'/'.join(parts)}"
        found.append(LandedFile(files.state_of(uri, info), parts))
    return sorted(found, key=lambda file: file.parts)
