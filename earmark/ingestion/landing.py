"""The landing folder: ``root/<tenant>/<dataset or source>/...``, on any fsspec address.

Which files are there, which of them are new, and loading them one by one: each in its own transaction, reference
data before events, a bad file in nobody's way. ``root/tenants.csv`` (tenant_id, name) registers tenants. What is
done with one file is in ``load``. A file ``_format`` in a folder of access logs holds the format
of their server, as its configuration has it.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import psycopg

from earmark import secret_urls
from earmark.addresses.privacy import HashKey
from earmark.addresses.site import Lookups
from earmark.ingestion import files
from earmark.ingestion.datasets import DATASETS
from earmark.ingestion.errors import (
    Again,
    DamagedFileError,
    LoadError,
    NoRegularFileError,
    UnknownDatasetError,
    UnreachableFileError,
)
from earmark.ingestion.load import LoadReport, LoadRequest, load_file
from earmark.ingestion.log_formats import MAX_FORMAT, LogFormatError
from earmark.ingestion.refusals import database_refusal, reader, reading
from earmark.ingestion.sources import SOURCES, find_source

TENANTS_FILE: Final = "tenants.csv"
FORMAT_FILE: Final = "_format"
_TENANT: Final = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")
_PARTS: Final = 3  # tenant, dataset or source, file
_MAX_TENANTS: Final = 8 << 20  # bytes of the file that registers them


@dataclass(frozen=True, slots=True)
class LandedFile:
    """A file below ``root``. ``parts`` is its path from there, ``fault`` why it cannot be looked at, if so."""

    state: files.FileState
    parts: tuple[str, ...]
    root: str = ""
    fault: str | None = None

    def request(self) -> LoadRequest:
        """Say what the file is by where it stands.

        Raises:
            NoRegularFileError: it is no file that may be read.
            UnknownDatasetError: it stands in no folder of a tenant and a dataset or source.

        """
        uri = self.state.uri
        if self.fault is not None:
            raise NoRegularFileError(f"{uri}: {self.fault}")
        if len(self.parts) < _PARTS:
            raise UnknownDatasetError(
                f"{uri}: stands outside of the layout <tenant>/<dataset or source>/<file> of the landing folder: "
                "move it there"
            )
        tenant, what = self.parts[0], self.parts[1]
        if what in DATASETS:
            return LoadRequest(uri, tenant, dataset=what, below=self.root)
        if find_source(what) is not None:
            return LoadRequest(uri, tenant, source=what, below=self.root)
        sources = ", ".join(name for source in SOURCES for name in (source.name, *source.aliases))
        raise UnknownDatasetError(
            f"{uri}: folder {what!r} is named after no dataset ({', '.join(DATASETS)}) and no source ({sources})"
        )

    @property
    def dataset(self) -> str | None:
        """The dataset that its folder means, of a feed the first; None where it means none."""
        if len(self.parts) < _PARTS:
            return None
        source = find_source(self.parts[1])
        dataset = source.datasets[0] if source else self.parts[1]
        return dataset if dataset in DATASETS else None

    @property
    def rank(self) -> tuple[int, tuple[str, ...]]:
        """Order of loading: reference data first, as datasets are listed, then by name."""
        order = list(DATASETS)
        return (order.index(self.dataset) if self.dataset else len(order), self.parts)


@dataclass(frozen=True, slots=True)
class FileResult:
    """What became of one file: a report, or why it was refused; ``dataset`` is what it was taken for, if known."""

    uri: str
    report: LoadReport | None = None
    error: LoadError | None = None
    dataset: str | None = None

    @property
    def refused(self) -> str | None:
        """Why the file was refused, None where it was not."""
        return None if self.error is None else str(self.error)


def find_files(root: str) -> list[LandedFile]:
    """List the files of a landing folder in the order of loading; hidden and unfinished ones are left out.

    Raises:
        UnreachableFileError: the folder is not there or cannot be listed.

    """
    return sorted((file for file in _below(root) if file.parts != (TENANTS_FILE,)), key=lambda file: file.rank)


def new_files(connection: psycopg.Connection, root: str) -> list[LandedFile]:
    """Return those files of a landing folder that were not tried yet as they stand now.

    A file that was refused is tried again when it has changed, when its tenant has been registered since, or when
    what was wrong with it may be otherwise by now (``errors.Again``). Refusals of files that are gone are dropped.

    Raises:
        UnreachableFileError: the folder is not there or cannot be listed.
        DatabaseLoadError: the database is lost.

    """
    found = find_files(root)
    tenants = _uri(root, TENANTS_FILE)
    with _database(root), connection.transaction():
        connection.execute(
            "delete from ingest.files where status = 'refused' and starts_with(uri, %s) and uri <> all(%s)",
            (tenants.removesuffix(TENANTS_FILE), [tenants, *(file.state.uri for file in found)]),
        )
        rows = connection.execute(
            "select uri, bytes, modified_at from ingest.files as f where uri = any(%s)"
            " and (f.refused_by is null or f.refused_by = %s) and not exists ("
            " select from tenancy.tenants as t where f.status = 'refused' and t.created_at > f.seen_at"
            " and t.tenant_id = any(string_to_array(f.uri, '/')))",
            ([file.state.uri for file in found], reader()),
        ).fetchall()
    tried = set(rows)
    return [file for file in found if (file.state.uri, file.state.bytes, file.state.modified_at) not in tried]


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

    A file that is refused, whatever the reason, is a result like any other and noted in ``ingest.files``.

    Raises:
        UnreachableFileError: the folder is not there.
        HashKeyError: the hash key is another than before; no file can be loaded.
        DatabaseLoadError: the database is lost; files loaded until then stay loaded.
        NoRoomError: this machine has no room for temporary files.

    """
    refusal = register_tenants(connection, root)
    results = [] if refusal is None else [refusal]
    found = new_files(connection, root) if only is None else sorted(only, key=lambda item: item.rank)

    def note(file: LandedFile, result: FileResult) -> None:
        _record(connection, file.state, result.error)
        on_result(result)

    formats: dict[tuple[str, ...], str | None] = {}

    def request(file: LandedFile) -> LoadRequest:
        asked = file.request()
        folder = file.parts[:2]
        if folder not in formats:
            formats[folder] = _log_format(root, folder)
        return replace(asked, log_format=formats[folder])

    return results + _load_each(connection, found, request, key, lookups, note)


def load_path(
    connection: psycopg.Connection,
    path: str,
    *,
    key: HashKey,
    tenant_id: str,
    lookups: Lookups | None = None,
    dataset: str | None = None,
    source: str | None = None,
    log_format: str | None = None,
    on_result: Callable[[FileResult], None] = lambda _result: None,
) -> list[FileResult]:
    """Load a file, or every file below a folder, outside of the landing layout.

    The path itself may be a link; links below it are refused.

    Raises:
        UnreachableFileError: there is no such file or folder, or no file in it.
        NoRegularFileError: it is a pipe, a device or the like.
        HashKeyError: the hash key is another than before.
        DatabaseLoadError: the database is lost.
        NoRoomError: this machine has no room for temporary files.

    """
    path = secret_urls.remember(path)
    system, plain = files.filesystem(path)
    found = _below(path) if system.isdir(plain) else [LandedFile(files.state(path), ())]
    if not found:
        raise UnreachableFileError(f"{path}: holds no files, or hidden and unfinished ones alone")

    def request(file: LandedFile) -> LoadRequest:
        if file.fault is not None:
            raise NoRegularFileError(f"{file.state.uri}: {file.fault}")
        return LoadRequest(file.state.uri, tenant_id, dataset, source, file.root or None, log_format)

    return _load_each(connection, found, request, key, lookups, lambda _file, result: on_result(result))


def _load_each(
    connection: psycopg.Connection,
    found: Sequence[LandedFile],
    request: Callable[[LandedFile], LoadRequest],
    key: HashKey,
    lookups: Lookups | None,
    on_result: Callable[[LandedFile, FileResult], None],
) -> list[FileResult]:
    """Load files; a refusal is an answer, and only what would meet every other file too is raised."""
    results = []
    for file in found:
        uri, dataset = file.state.uri, file.dataset
        try:
            report = load_file(connection, request(file), key=key, lookups=lookups)
        except LoadError as error:
            if error.stops:
                raise
            result = FileResult(uri, error=error, dataset=dataset)
        else:
            result = FileResult(uri, report, dataset=dataset)
        on_result(file, result)
        results.append(result)
    return results


def register_tenants(connection: psycopg.Connection, root: str) -> FileResult | None:
    """Register the tenants of ``root/tenants.csv``, if there is one, or return its refusal.

    A bad file registers nobody, and does not concern those who are registered already. Its refusal is noted in
    ``ingest.files`` until it is mended.

    Raises:
        DatabaseLoadError: the database is lost.

    """
    uri = _uri(root, TENANTS_FILE)
    state = files.FileState(uri, 0, None)
    try:
        with reading(uri):
            system, path = files.filesystem(uri)
            tenants = {}
            if system.lexists(path):
                tenants = read_tenants(uri, root)
    except LoadError as error:
        if error.stops:
            raise
        _record(connection, state, error)
        return FileResult(uri, error=error)
    with _database(uri), connection.transaction():
        connection.execute("delete from ingest.files where uri = %s", (uri,))
        for tenant_id, name in tenants.items():
            connection.execute(
                "insert into tenancy.tenants as t (tenant_id, name) values (%s, %s)"
                " on conflict (tenant_id) do update set name = excluded.name where t.name <> excluded.name",
                (tenant_id, name),
            )
    return None


def read_tenants(uri: str, root: str) -> dict[str, str]:
    """Read a file of tenants: the name of each id.

    Raises:
        LoadError: it cannot be read, has other columns, or an id that cannot be one.

    """
    with files.local_copy(uri, root) as copy:
        if copy.state.bytes > _MAX_TENANTS:
            raise DamagedFileError(f"{uri}: is longer than {_MAX_TENANTS >> 20} MB: it holds a line a tenant")
        try:
            text = copy.path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise DamagedFileError(f"{uri}: cannot be read as UTF-8 text ({error})") from error
    return _tenants(uri, text)


def _log_format(root: str, folder: tuple[str, ...]) -> str | None:
    """Return the format of the logs in a folder, None where none is given there."""
    source = find_source(folder[1])
    if source is None or not source.is_log:
        return None
    uri = _uri(root, *folder, FORMAT_FILE)
    with reading(uri):
        system, path = files.filesystem(uri)
        if not system.lexists(path):
            return None
        with files.local_copy(uri, root) as copy:
            if copy.state.bytes > MAX_FORMAT:
                raise LogFormatError(f"{uri}: is longer than {MAX_FORMAT} bytes: it holds one log format")
            try:
                return copy.path.read_text("utf-8-sig").strip()
            except UnicodeDecodeError as error:
                raise LogFormatError(f"{uri}: cannot be read as UTF-8 text ({error})") from error


def _uri(root: str, *parts: str) -> str:
    system, path = files.filesystem(root)
    return "/".join(((path if files.is_local(system) else root).rstrip("/"), *parts))


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


@contextmanager
def _database(what: str) -> Iterator[None]:
    """Say of an error of the database what it means, as loading does."""
    try:
        yield
    except psycopg.Error as error:
        raise database_refusal(what, error, lost=True) from error


def _record(connection: psycopg.Connection, state: files.FileState, error: LoadError | None) -> None:
    """Note what became of a file as it stood."""
    # No code is of the name "", so that what may have passed is always tried again.
    refused_by = {Again.NEVER: None, Again.BY_OTHER_CODE: reader(), Again.ALWAYS: ""}
    with _database(state.uri), connection.transaction():
        connection.execute(
            "insert into ingest.files as f (uri, bytes, modified_at, status, message, refused_by)"
            " values (%s, %s, %s, %s, %s, %s)"
            " on conflict (uri) do update set bytes = excluded.bytes, modified_at = excluded.modified_at,"
            " status = excluded.status, message = excluded.message, refused_by = excluded.refused_by,"
            " seen_at = now()",
            (
                *(state.uri, state.bytes, state.modified_at),
                *(("loaded", None, None) if error is None else ("refused", str(error), refused_by[error.again])),
            ),
        )


def _below(root: str) -> list[LandedFile]:
    return [LandedFile(item.state, item.parts, root, item.fault) for item in files.listing(root)]
