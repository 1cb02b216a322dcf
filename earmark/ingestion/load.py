"""Loading one file, in one transaction: COPY, duplicates, days, ledger.

Either all of a file is in the database afterwards, with its rejects, its changed slices and its row in the
ledger, or nothing of it is. Parsing runs a block ahead of the COPY, in a thread of its own.

Events go straight into their table as long as the tenant has no other rows in the time that the file covers:
nothing can be a duplicate there but a row of the file itself, which the primary key finds. From the first block
on where that is not so, and for reference data always, rows go into a staging table first; what is known
already is deleted from it in one statement (never ``on conflict``: an anti-join stays fast on compressed
chunks) and the rest inserted.

What the rows of a file mean is in ``sources``; what a row must hold is in ``datasets`` and ``checks``.
"""

import io
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Final, LiteralString, cast

import polars as pl
import psycopg
from psycopg import sql

from earmark.addresses.privacy import Hasher, HashKey
from earmark.addresses.site import Lookups
from earmark.ingestion import files, rows
from earmark.ingestion.datasets import DATASETS, Dataset, Keeps
from earmark.ingestion.errors import (
    AmountsUnknownError,
    HashKeyError,
    NoRowsError,
    NotThisSourceError,
    UnforeseenError,
    UnknownDatasetError,
    UnknownTenantError,
)
from earmark.ingestion.formats import LINE, Format, Head, Reject, Shape, printable, read_blocks, read_head
from earmark.ingestion.refusals import database_refusal, reading
from earmark.ingestion.sources import GENERIC, SOURCES, Context, Source, combined, find_source
from earmark.ingestion.sources.generic import missing_fields
from earmark.ingestion.values import Amounts, Evidence

Progress = Callable[[int], None]

# Up to here the keys of a file are compared in memory (8 bytes each); beyond, in the database.
_KEYS_IN_MEMORY: Final = 8_000_000
_TIME_FORMAT: Final = "%Y-%m-%d %H:%M:%S%.6f+00"
_TICK: Final = timedelta(microseconds=1)
# TimescaleDB's columnstore policy locks chunks in an order of its own: where it meets a load, one is ended.
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """A file and what it is. Of ``dataset`` and ``source`` one may be None: it then follows from the other."""

    uri: str
    tenant_id: str
    dataset: str | None = None
    source: str | None = None
    below: str | None = None  # the folder that it was found in: no link is followed from there on
    log_format: str | None = None  # of an access log: nginx's log_format or Apache's LogFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What became of rows: read = loaded + duplicate + rejected. Times are those of loaded rows that have one."""

    read: int = 0
    loaded: int = 0
    duplicate: int = 0
    rejected: int = 0
    first_event_at: datetime | None = None
    last_event_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport(Counts):
    """What a load did to one dataset."""

    dataset: str
    load_id: int
    changed_days: int = 0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load did. ``already_loaded_as`` is the earlier load of the same bytes: nothing was written."""

    uri: str
    source: str
    datasets: tuple[DatasetReport, ...] = ()
    already_loaded_as: int | None = None


def load_file(
    connection: psycopg.Connection,
    request: LoadRequest,
    *,
    key: HashKey,
    lookups: Lookups | None = None,
    progress: Progress | None = None,
) -> LoadReport:
    """Load a file, all or nothing. ``progress`` is called with the number of rows read so far.

    ``lookups`` says which proxies are trusted and which networks are listed; without it none are.

    Raises:
        LoadError: the file cannot be loaded as what it is said to be; nothing of it was.

    """
    hasher = key.for_tenant(request.tenant_id)
    try:
        with ExitStack() as stack:
            with reading(request.uri, hasher.redact):
                copy = stack.enter_context(files.local_copy(request.uri, request.below))
                head = read_head(copy.path, request.uri)
                source, dataset, label = resolve(request, head)

            def attempt(amounts: Amounts | None = None) -> LoadReport:
                with connection.transaction():
                    load = _Load(connection, request, source, label, hasher, lookups or Lookups(), copy)
                    load.begin(key)
                    earlier = load.loaded_before(dataset)
                    if earlier is not None:
                        return LoadReport(request.uri, label, already_loaded_as=earlier)
                    load.copy(head, dataset, progress or (lambda _rows: None), amounts)
                    reports = load.finish()
                    files.refuse_changed(copy.state)
                return LoadReport(request.uri, label, reports)

            def attempt_as_written() -> LoadReport:
                try:
                    return attempt()
                except AmountsUnknownError:
                    # The file decides what its commas are, so it is read through before any row is.
                    with reading(request.uri, hasher.redact):
                        amounts = judge_amounts(copy.path, head, source, Context(request.uri, dataset))
                    return attempt(amounts)

            return _try_again(connection, attempt_as_written)
    except psycopg.Error as error:
        raise database_refusal(request.uri, error, lost=connection.closed) from error


def _try_again(connection: psycopg.Connection, attempt: Callable[[], LoadReport]) -> LoadReport:
    """Make an attempt, and again where PostgreSQL ended it for the sake of another transaction."""
    tries = _TRIES if connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE else 1
    for _ in range(tries - 1):
        try:
            return attempt()
        except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
            continue
    return attempt()


def check_hash_key(connection: psycopg.Connection, key: HashKey) -> None:
    """Make sure that a key is the one that was used before under its id, and remember it where there was none.

    Raises:
        HashKeyError: it is another.

    """
    connection.execute(
        "insert into ingest.hash_keys (key_id, fingerprint) values (%s, %s) on conflict do nothing",
        (key.key_id, key.fingerprint),
    )
    row = connection.execute(
        "select fingerprint from ingest.hash_keys where key_id = %s", (key.key_id,)
    ).fetchone()
    if row is None or bytes(row[0]) != key.fingerprint:
        raise HashKeyError(
            f"hash key {key.key_id!r} is another secret than the one used before under this id; nothing was "
            "loaded. Set the old secret again, or give the new one a new id"
        )


def resolve(request: LoadRequest, head: Head) -> tuple[Source, str, str]:
    """Decide what a file is: its source, the dataset, and the name that its rows bear as their source.

    Raises:
        UnknownDatasetError: there is no such dataset or source, or neither is given and the file does not tell.
        NotThisSourceError: the file does not look like what it is said to be.

    """
    if request.dataset is not None and request.dataset not in DATASETS:
        raise UnknownDatasetError(
            f"{request.uri}: there is no dataset {request.dataset!r}: the datasets are {', '.join(DATASETS)}"
        )
    if request.log_format is not None:
        return _by_format(request)
    named = find_source(request.source) if request.source is not None else None
    if named is None and request.source is not None and request.dataset is None:
        names = ", ".join(name for source in SOURCES for name in (source.name, *source.aliases))
        raise UnknownDatasetError(f"{request.uri}: there is no source {request.source!r}: the sources are {names}")
    source = named or _sniff(request, head)
    label = request.source or source.name
    if request.dataset is not None and request.dataset not in source.datasets:
        raise UnknownDatasetError(
            f"{request.uri}: source {label} holds {' and '.join(source.datasets)}, not {request.dataset}"
        )
    if request.dataset is None and len(source.datasets) > 1 and source.shape is not Shape.DOCUMENT:
        raise UnknownDatasetError(
            f"{request.uri}: looks like no log, export or feed that is known: {_described(head)}. If it is an "
            "access log, give its format as its server has it: --format, or a file _format in its landing folder. "
            f"If it holds rows of a dataset under its field names, say which: {', '.join(DATASETS)}"
        )
    dataset = request.dataset or source.datasets[0]
    _refuse_other(request, source, dataset, head)
    return source, dataset, label


def _by_format(request: LoadRequest) -> tuple[Source, str, str]:
    """Say what a file is whose log format is given."""
    label = request.source or combined.SOURCE.name
    if find_source(label) is not combined.SOURCE or request.dataset not in (None, *combined.SOURCE.datasets):
        names = ", ".join((combined.SOURCE.name, *combined.SOURCE.aliases))
        raise UnknownDatasetError(
            f"{request.uri}: a log format goes with the sources {names}, which hold "
            f"{' and '.join(combined.SOURCE.datasets)}"
        )
    return combined.SOURCE, combined.SOURCE.datasets[0], label


def parse(
    path: Path,
    head: Head,
    source: Source,
    label: str,
    context: Context,
    hasher: Hasher,
    lookups: Lookups,
    amounts: Amounts | None = None,
) -> Iterator[tuple[str, rows.Prepared]]:
    """Read a file block by block: the dataset of each, its rows as its table takes them, and its rejects."""
    for block in read_blocks(path, head, source.shape):
        if block.rejects:
            refused = [rows.redact(reject, hasher) for reject in block.rejects]
            yield context.dataset, rows.Prepared(pl.DataFrame(), refused, len(refused))
        if block.rows.is_empty():
            continue
        for name, frame in source.rows(block.rows, context).items():
            if frame.is_empty():
                continue
            yield (
                name,
                rows.prepare(
                    DATASETS[name],
                    frame,
                    label,
                    hasher,
                    block.original,
                    lookups=lookups,
                    ip_optional=source.is_log,
                    text_is_sound=block.text_is_sound,
                    amounts=amounts,
                ),
            )


def judge_amounts(path: Path, head: Head, source: Source, context: Context) -> Amounts:
    """Say by all amounts of a file whether it writes decimal commas or points."""
    evidence = Evidence()
    for block in read_blocks(path, head, source.shape):
        if block.rows.is_empty():
            continue
        for name, frame in source.rows(block.rows, context).items():
            for item in DATASETS[name].fields:
                if item.is_amount and item.name in frame.columns and frame[item.name].dtype == pl.String:
                    evidence.add(frame[item.name])
    return evidence.judge()


def _sniff(request: LoadRequest, head: Head) -> Source:
    for source in SOURCES:
        fits = request.dataset is None or request.dataset in source.datasets
        if fits and source is not GENERIC and source.sniff(head):
            return source
    return GENERIC


def _refuse_other(request: LoadRequest, source: Source, dataset: str, head: Head) -> None:
    is_empty = head.format is Format.DELIMITED and not head.text.strip()
    if is_empty and source.shape is not Shape.DOCUMENT:
        return
    if not source.sniff(head):
        start = head.lines(1)
        shown = f' It begins with: "{printable(start[0])}"' if start and source.shape is Shape.DOCUMENT else ""
        raise NotThisSourceError(
            f"{request.uri}: does not look like source {source.name}, which is {source.looks_like}.{shown} "
            "Put it into the folder of its own dataset or source, or name that"
        )
    if source is not GENERIC or head.format is Format.JSON:
        return
    missing = missing_fields(head, dataset)
    required = [item.name for item in DATASETS[dataset].fields if item.required]
    no_rows = head.format is Format.NDJSON
    if missing and (not no_rows or len(missing) == len(required)):
        columns = ", ".join(printable(name) for name in head.columns[:12]) or "none"
        raise NotThisSourceError(
            f"{request.uri}: has no column {', '.join(missing)}, which {dataset} needs; its columns: {columns}."
            " Rename its columns, or put it into the folder of its own dataset or source"
        )


def _described(head: Head) -> str:
    if head.format in (Format.NDJSON, Format.JSON):
        keys = ", ".join(printable(key) for key in head.keys()[:12])
        return f"JSON with the keys {keys}" if keys else "JSON without keys"
    start = head.lines(1)
    return f'it begins with "{printable(start[0])}"' if start else f"a file of {head.format}"


@dataclass(slots=True)
class _Tally:
    """What has become of one dataset's rows so far."""

    dataset: Dataset
    load_id: int
    read: int = 0
    rejected: int = 0
    straight: int = 0  # rows that went into the table
    staged: int = 0  # rows that went into the staging table
    goes_straight: bool = False
    first: datetime | None = None  # of the rows that went straight
    last: datetime | None = None
    days: set[date] = field(default_factory=set)
    made_ids: bool = False
    keys: list[pl.Series] = field(default_factory=list)

    def may_hold_twins(self) -> bool:
        """Say whether two staged rows may have the same key: their hashes tell, never wrongly no."""
        if self.staged > _KEYS_IN_MEMORY or (self.made_ids and self.straight):
            return True
        return bool(self.keys) and pl.concat(self.keys).n_unique() < self.staged


@dataclass(frozen=True, slots=True)
class _Times:
    """UTC days in order, and the first and last time."""

    days: tuple[date, ...] = ()
    first: datetime | None = None
    last: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Chunk:
    """One block, parsed: its rows, and as CSV for COPY into the table (``straight``) or the staging table."""

    dataset: Dataset
    rejects: list[Reject]
    read: int
    rows: pl.DataFrame = field(default_factory=pl.DataFrame)
    csv: bytes = b""
    straight: bool = False
    keys: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.UInt64))
    made_ids: bool = False
    days: frozenset[date] = frozenset()
    first: datetime | None = None
    last: datetime | None = None


class _Load:
    """One load within its transaction."""

    def __init__(
        self,
        connection: psycopg.Connection,
        request: LoadRequest,
        source: Source,
        label: str,
        hasher: Hasher,
        lookups: Lookups,
        file: files.LocalCopy,
    ) -> None:
        self._connection = connection
        self._request = request
        self._tenant = request.tenant_id
        self._source = source
        self._label = label
        self._hasher = hasher
        self._lookups = lookups
        self._file = file
        self._started = datetime.now(UTC)
        self._tallies: dict[str, _Tally] = {}

    # --- Before ---------------------------------------------------------------------------------------

    def begin(self, key: HashKey) -> None:
        """Take the lock of this file, and make sure of tenant and hash key."""
        self._connection.execute(
            "set local timezone to 'UTC'; set local work_mem to '64MB'; set local earmark.marks_days to 'yes'"
        )
        self._lock("file", self._file.digest.hex())
        found = self._connection.execute(
            "select 1 from tenancy.tenants where tenant_id = %s", (self._tenant,)
        ).fetchone()
        if found is None:
            raise UnknownTenantError(
                f"{self._request.uri}: there is no tenant {self._tenant!r}. Register it: earmark tenant add "
                f"{self._tenant}, or a line in tenants.csv (columns tenant_id,name) of the landing folder"
            )
        check_hash_key(self._connection, key)

    def loaded_before(self, dataset: str) -> int | None:
        """Return the load that brought these bytes before, if the tables still stand as it left them.

        Events are only ever added, so any earlier load counts. Reference data may have been replaced since by
        another file: then these bytes are news again.
        """
        row = self._connection.execute(
            "select max(load_id), max(dataset) from ingest.loads"
            " where digest = %s and tenant_id = %s and dataset = %s and source = %s"
            " and log_format is not distinct from %s",
            (self._file.digest, self._tenant, dataset, self._label, self._request.log_format),
        ).fetchone()
        earlier: int | None = row[0] if row else None
        if earlier is None or DATASETS[dataset].keeps is Keeps.FIRST:
            return earlier
        row = self._connection.execute(
            "select exists (select from ingest.loads where tenant_id = %s and dataset = any(%s) and digest <> %s"
            " and load_id > %s and rows_loaded > 0)",
            (self._tenant, list(self._datasets(dataset)), self._file.digest, earlier),
        ).fetchone()
        return None if row and row[0] else earlier

    def _datasets(self, dataset: str) -> tuple[str, ...]:
        return self._source.datasets if self._source.shape is Shape.DOCUMENT else (dataset,)

    # --- Copying --------------------------------------------------------------------------------------

    def copy(self, head: Head, dataset: str, progress: Progress, amounts: Amounts | None = None) -> None:
        """Copy the file into the database, block by block; the next block is parsed meanwhile.

        Raises:
            AmountsUnknownError: an amount holds a comma, and ``amounts`` does not say what it is.

        """
        for name in sorted(self._datasets(dataset)):
            # Files of one tenant and dataset are loaded one after the other: none misses the other's rows.
            self._lock("dataset", name)
        for name in self._datasets(dataset):
            item = DATASETS[name]
            straight = item.keeps is Keeps.FIRST
            self._tallies[name] = _Tally(item, self._open_ledger(name), goes_straight=straight)
            self._create_stage(item)
        read = 0
        with (
            closing(self._chunks(head, dataset, amounts)) as chunks,
            ThreadPoolExecutor(1, "earmark-parse") as parser,
        ):
            ahead: Future[_Chunk | None] = parser.submit(next, chunks, None)
            while (chunk := ahead.result()) is not None:
                ahead = parser.submit(next, chunks, None)
                self._copy_in(chunk)
                read += chunk.read
                progress(read)

    def _chunks(self, head: Head, dataset: str, amounts: Amounts | None) -> Generator[_Chunk]:
        with reading(self._request.uri, self._hasher.redact):
            context = Context(
                self._request.uri,
                dataset,
                log_format=self._request.log_format,
                trusts_proxies=bool(self._lookups.proxies),
            )
            for name, prepared in parse(
                self._file.path, head, self._source, self._label, context, self._hasher, self._lookups, amounts
            ):
                yield self._chunk(self._tallies[name], prepared)

    def _chunk(self, tally: _Tally, prepared: rows.Prepared) -> _Chunk:
        dataset, frame = tally.dataset, prepared.rows
        straight = tally.goes_straight
        plain = _Chunk(dataset, prepared.rejects, prepared.read, frame)
        if frame.is_empty():
            return plain
        made = dataset.is_of_events and bool(frame[rows.MADE].any())
        if not straight:
            return replace(plain, csv=_csv(frame), keys=_key_hashes(tally.dataset, frame), made_ids=made)
        times = frame["occurred_at"]
        return replace(
            plain,
            csv=_csv(self._table_rows(tally, frame)),
            straight=True,
            made_ids=made,
            days=frozenset(times.dt.date().unique().to_list()),
            first=cast("datetime", times.min()),
            last=cast("datetime", times.max()),
        )

    def _table_rows(self, tally: _Tally, frame: pl.DataFrame) -> pl.DataFrame:
        own = {"tenant_id": self._tenant, "load_id": tally.load_id}
        return frame.select(
            *(pl.lit(value).alias(name) for name, value in own.items()), pl.all().exclude(LINE, rows.MADE)
        )

    def _copy_in(self, chunk: _Chunk) -> None:
        tally = self._tallies[chunk.dataset.name]
        tally.read += chunk.read
        tally.rejected += len(chunk.rejects)
        tally.made_ids = tally.made_ids or chunk.made_ids
        if not chunk.rows.is_empty():
            tally.goes_straight = tally.goes_straight and self._copy_straight(tally, chunk)
            if not tally.goes_straight:
                self._copy_staged(tally, chunk)
        if chunk.rejects:
            with self._connection.cursor().copy(_COPY_REJECTS) as copy:
                for reject in chunk.rejects:
                    copy.write_row(
                        (
                            *(tally.load_id, reject.line, reject.field, reject.reason, reject.detail),
                            rows.readable(reject.original or b""),
                        )
                    )

    def _copy_straight(self, tally: _Tally, chunk: _Chunk) -> bool:
        """Copy a block into the table itself; answers False, with nothing copied, where that may not be."""
        if chunk.first is None or chunk.last is None or self._meets_others(tally, chunk.first, chunk.last):
            return False
        self._ensure_chunks(tally.dataset, chunk.days - tally.days)
        columns = ("tenant_id", "load_id", *(name for name in _held(chunk.rows) if name not in (LINE, rows.MADE)))
        try:
            with self._connection.transaction():
                self._copy(_table(tally.dataset), columns, chunk.csv)
        except psycopg.errors.UniqueViolation:
            return False
        tally.straight += chunk.rows.height
        tally.days |= chunk.days
        tally.first = min(tally.first or chunk.first, chunk.first)
        tally.last = max(tally.last or chunk.last, chunk.last)
        return True

    def _meets_others(self, tally: _Tally, first: datetime, last: datetime) -> bool:
        """Say whether the tenant has rows of other loads in a time; that before it is known to have none."""
        unknown = [(first, last)]
        if tally.first is not None and tally.last is not None:
            unknown = [(first, tally.first - _TICK), (tally.last + _TICK, last)]
        return any(
            start <= end
            and self._connection.execute(
                sql.SQL("select from {} where tenant_id = %s and occurred_at between %s and %s limit 1").format(
                    _table(tally.dataset)
                ),
                (self._tenant, start, end),
            ).rowcount
            > 0
            for start, end in unknown
        )

    def _copy_staged(self, tally: _Tally, chunk: _Chunk) -> None:
        csv, keys = chunk.csv, chunk.keys
        if chunk.straight:
            with reading(self._request.uri, self._hasher.redact):
                csv, keys = _csv(chunk.rows), _key_hashes(tally.dataset, chunk.rows)
        tally.staged += chunk.rows.height
        if tally.staged <= _KEYS_IN_MEMORY:
            tally.keys.append(keys)
        else:
            tally.keys.clear()
        self._copy(_stage(tally.dataset), _held(chunk.rows), csv)

    def _copy(self, target: sql.Identifier, columns: Sequence[str], csv: bytes) -> None:
        statement = sql.SQL("copy {} ({}) from stdin (format csv)").format(target, _columns(columns))
        with self._connection.cursor().copy(statement) as copy:
            copy.write(csv)

    def _ensure_chunks(self, dataset: Dataset, days: Iterable[date]) -> None:
        for start, end in _runs(sorted(days)):
            self._connection.execute(
                "select timeseries.ensure_chunks(%s::regclass, %s, %s)",
                (f"raw.{dataset.table}", _midnight(start), _midnight(end)),
            )

    def _open_ledger(self, dataset: str) -> int:
        row = self._connection.execute(
            "insert into ingest.loads (tenant_id, dataset, source, uri, digest, file_bytes,"
            " rows_read, rows_loaded, rows_duplicate, rows_rejected, started_at, network_list, log_format)"
            " values (%s, %s, %s, %s, %s, %s, 0, 0, 0, 0, %s, %s, %s)"
            " returning load_id",
            (
                self._tenant,
                dataset,
                self._label,
                self._request.uri,
                self._file.digest,
                self._file.state.bytes,
                self._started,
                self._lookups.networks.version if DATASETS[dataset].has_network else None,
                self._request.log_format,
            ),
        ).fetchone()
        assert row is not None  # noqa: S101  (an insert returns its row)
        return int(row[0])

    def _create_stage(self, dataset: Dataset) -> None:
        made = sql.SQL(", false as {}").format(sql.Identifier(rows.MADE)) if dataset.is_of_events else sql.SQL("")
        if dataset.adds:
            made = sql.SQL(", 1::bigint as _rows")  # rows of the file that it stands for; null: one
        self._connection.execute(
            sql.SQL(
                "create temporary table {stage} on commit drop as"
                " select 0::bigint as {line}{made}, {columns} from {table} with no data"
            ).format(
                stage=_stage(dataset),
                line=sql.Identifier(LINE),
                made=made,
                columns=_columns(rows.staged_columns(dataset)),
                table=_table(dataset),
            )
        )

    # --- From staging into the tables -----------------------------------------------------------------

    def finish(self) -> tuple[DatasetReport, ...]:
        """Insert what is new of the staged rows, mark the days that changed and write the ledger.

        Raises:
            NoRowsError: there was none to read.

        """
        if not any(tally.read for tally in self._tallies.values()):
            raise NoRowsError(
                f"{self._request.uri}: holds no row; nothing was loaded. If it should, look at what wrote it; "
                "if nothing has happened in its time, remove it"
            )
        reports = tuple(self._finish(tally) for tally in self._tallies.values())
        for tally in self._tallies.values():
            # The caller may hold a transaction of its own around several loads.
            self._connection.execute(sql.SQL("drop table {}").format(_stage(tally.dataset)))
        return reports

    def _finish(self, tally: _Tally) -> DatasetReport:
        dataset = tally.dataset
        days, first, last = tally.days, tally.first, tally.last
        duplicate = inserted = 0
        if tally.staged:
            duplicate = self._part_twins(tally) if tally.may_hold_twins() else 0
            self._connection.execute(sql.SQL("analyze {} ({})").format(_stage(dataset), _columns(dataset.key)))
            duplicate += self._delete_known(dataset, self._times(dataset))
            staged = self._times(dataset)
            inserted = self._insert(tally, staged.days)
            days = days | set(staged.days)
            first = min((at for at in (first, staged.first) if at is not None), default=None)
            last = max((at for at in (last, staged.last) if at is not None), default=None)
        loaded = tally.straight + inserted
        if loaded and dataset.time is None:
            # A refresh that comes before autovacuum would take every event to every episode.
            self._connection.execute(sql.SQL("analyze {}").format(sql.Identifier("raw", dataset.table)))
        changed = sorted(days) if loaded else []  # none of reference data: its tables note their rows themselves
        if changed:
            self._connection.execute(
                "select ingest.mark_changed(%s, %s, %s)", (self._tenant, dataset.table, changed)
            )
        if loaded + duplicate + tally.rejected != tally.read:
            raise UnforeseenError(
                f"{self._request.uri}: {tally.read} rows read, but {loaded} loaded, {duplicate} duplicate and "
                f"{tally.rejected} rejected; nothing was loaded. Please report this"
            )
        is_timed = dataset.time is not None
        report = DatasetReport(
            dataset=dataset.name,
            load_id=tally.load_id,
            read=tally.read,
            loaded=loaded,
            duplicate=duplicate,
            rejected=tally.rejected,
            first_event_at=first if is_timed else None,
            last_event_at=last if is_timed else None,
            changed_days=len(changed),
        )
        self._close_ledger(report)
        return report

    def _close_ledger(self, report: DatasetReport) -> None:
        self._connection.execute(
            "update ingest.loads set rows_read = %s, rows_loaded = %s, rows_duplicate = %s, rows_rejected = %s,"
            " first_event_at = %s, last_event_at = %s, loaded_at = clock_timestamp() where load_id = %s",
            (
                report.read,
                report.loaded,
                report.duplicate,
                report.rejected,
                report.first_event_at,
                report.last_event_at,
                report.load_id,
            ),
        )

    def _part_twins(self, tally: _Tally) -> int:
        """Deal with staged rows of the same key; returns how many were duplicates."""
        dataset = tally.dataset
        if dataset.keeps is Keeps.LATEST and self._source.shape is not Shape.DOCUMENT:
            return self._settle_keys(tally)
        names = {"stage": _stage(dataset), "key": _columns(dataset.key), "line": sql.Identifier(LINE)}
        if tally.made_ids:
            # Ids made from content alone: the n-th equal row of the file is the n-th such event.
            self._connection.execute(
                sql.SQL(_NUMBER_EQUAL_ROWS).format(table=_table(dataset), **names), (self._tenant, tally.load_id)
            )
        if dataset.has_orders:
            self._connection.execute(sql.SQL(_NUMBER_LINES_OF_ORDERS).format(**names))
        order = sql.SQL("" if dataset.keeps is Keeps.FIRST else "desc")
        return self._connection.execute(sql.SQL(_DELETE_TWINS).format(order=order, **names)).rowcount

    def _settle_keys(self, tally: _Tally) -> int:
        """Add up or refuse rows of one key; returns how many were the same row again, which adds nothing.

        The first is for figures that are sums. A row that is there word for word twice is no second amount, unless
        somebody says so: it is refused there.
        """
        dataset = tally.dataset
        columns = rows.staged_columns(dataset)
        names = {
            "stage": _stage(dataset),
            "key": _columns(dataset.key),
            "columns": _columns(columns),
            "line": sql.Identifier(LINE),
            "same_key": sql.SQL(" and ").join(
                sql.SQL("s.{0} = g.{0}").format(sql.Identifier(name)) for name in dataset.key
            ),
        }
        if dataset.adds is None:
            again = self._connection.execute(sql.SQL(_DELETE_EQUAL).format(**names)).rowcount
            several = sql.SQL("count(*) > 1")
            self._refuse_rows(tally, _REFUSE_KEYS, {**names, "conflict": several}, why=_ONE_OF_THEM)
            return again
        self._refuse_rows(tally, _REFUSE_EQUAL, names, why=_SAME_AGAIN)
        others = [name for name in columns if name not in (*dataset.key, dataset.adds, "properties")]
        checks: list[sql.Composable] = [
            sql.SQL("count(distinct coalesce({}::text, '')) > 1").format(sql.Identifier(name)) for name in others
        ]
        if not dataset.adds_alike:
            checks.append(sql.SQL("count(distinct properties) < count(*)"))
        conflict = sql.SQL("count(*) > 1 and ({})").format(sql.SQL(" or ").join(checks))
        self._refuse_rows(tally, _REFUSE_KEYS, {**names, "conflict": conflict}, why=_NOT_TO_BE_ADDED)
        self._connection.execute(sql.SQL(_ADD_UP).format(adds=sql.Identifier(dataset.adds), **names))
        return 0

    def _refuse_rows(
        self,
        tally: _Tally,
        statement: LiteralString,
        names: Mapping[str, sql.Composable],
        *,
        why: str,
    ) -> None:
        key = tally.dataset.key
        shown = ", ".join(name for name in key if name != "source")
        tally.rejected += self._connection.execute(
            sql.SQL(statement).format(**names),
            {"load": tally.load_id, "field": key[0], "key": shown, "why": why},
        ).rowcount

    def _times(self, dataset: Dataset) -> _Times:
        """Return the UTC days of the staged rows, and the first and last time among them."""
        column = dataset.day_column
        if column is None:
            return _Times()
        name = sql.Identifier(column)
        is_day = column.endswith("_date")
        day = name if is_day else sql.SQL("({} at time zone 'UTC')::date").format(name)
        found = self._connection.execute(
            sql.SQL("select {day} as day, min({name}), max({name}) from {stage} group by 1 order by 1").format(
                day=day, name=name, stage=_stage(dataset)
            )
        ).fetchall()
        if not found:
            return _Times()
        first, last = found[0][1], found[-1][2]
        if is_day:
            first, last = _midnight(first), _midnight(last)
        return _Times(tuple(row[0] for row in found), first, last)

    def _delete_known(self, dataset: Dataset, times: _Times) -> int:
        """Delete staged rows that the table holds already; returns how many."""
        same = _same_key(dataset)
        if dataset.keeps is Keeps.LATEST:
            columns = rows.staged_columns(dataset)
            same = sql.SQL("{} and ({}) is not distinct from ({})").format(
                same, _columns(columns, "t"), _columns(columns, "s")
            )
        if dataset.time is not None:
            same = sql.SQL("{} and {}").format(same, _within(dataset.time))
        counted = sql.SQL("coalesce(s._rows, 1)" if dataset.adds else "1")
        row = self._connection.execute(
            sql.SQL(
                "with known as ("
                "delete from {stage} as s using {table} as t where t.tenant_id = %(tenant)s and {same}"
                " returning {counted} as number) select coalesce(sum(number), 0) from known"
            ).format(stage=_stage(dataset), table=_table(dataset), same=same, counted=counted),
            {"tenant": self._tenant, "first": times.first, "last": times.last},
        ).fetchone()
        return int(row[0]) if row else 0

    def _insert(self, tally: _Tally, days: Sequence[date]) -> int:
        dataset = tally.dataset
        table, stage = _table(dataset), _stage(dataset)
        if dataset.time is not None:
            self._ensure_chunks(dataset, days)
        if dataset.keeps is Keeps.LATEST:
            self._connection.execute(
                sql.SQL("delete from {table} as t using {stage} as s where t.tenant_id = %s and {same}").format(
                    table=table, stage=stage, same=_same_key(dataset)
                ),
                (self._tenant,),
            )
        columns = _columns(rows.staged_columns(dataset))
        inserted = self._connection.execute(
            sql.SQL(
                "insert into {table} (tenant_id, load_id, {columns}) select %s, %s, {columns} from {stage}"
            ).format(table=table, columns=columns, stage=stage),
            (self._tenant, tally.load_id),
        ).rowcount
        if dataset.adds is None:
            return inserted
        row = self._connection.execute(
            sql.SQL("select coalesce(sum(coalesce(_rows, 1)), 0) from {}").format(stage)
        ).fetchone()
        return int(row[0]) if row else 0

    def _lock(self, kind: LiteralString, name: str) -> None:
        self._connection.execute(
            "select pg_advisory_xact_lock(hashtextextended(%s, 0))",
            (f"earmark load {kind} {self._tenant} {name}",),
        )


_COPY_REJECTS: Final = "copy ingest.rejects (load_id, line_number, field, reason, detail, original) from stdin"
_NUMBER_EQUAL_ROWS: Final = """
with equal_rows as (
    select
        s.ctid,
        row_number() over (partition by {key} order by {line}) - 1 + exists(
            select from {table} as t
            where t.tenant_id = %s and t.event_id = s.event_id and t.occurred_at = s.occurred_at and t.load_id = %s
        )::integer as earlier
    from {stage} as s
    where s._made
)
update {stage} as s
set event_id = encode(substr(sha256(uuid_send(s.event_id) || int8send(e.earlier)), 1, 16), 'hex')::uuid
from equal_rows as e
where s.ctid = e.ctid and e.earlier > 0
"""
_DELETE_TWINS: Final = """
with ranked as (
    select ctid, row_number() over (partition by {key} order by {line} {order}) as place
    from {stage}
)
delete from {stage} as s using ranked as r where s.ctid = r.ctid and r.place > 1
"""


# Advertisers give an order's id to each of its lines: those of another value are lines, the others the same again.
_NUMBER_LINES_OF_ORDERS: Final = """
with valued as (
    select
        s.ctid,
        s.event_id,
        s.occurred_at,
        min(s.{line}) over (partition by s.event_id, s.occurred_at, s.value, s.currency) as first_line
    from {stage} as s
    where not coalesce(s._made, false) and s.order_number is not null and s.value is not null
),
numbered as (
    select ctid, dense_rank() over (partition by event_id, occurred_at order by first_line) - 1 as earlier
    from valued
)
update {stage} as s
set event_id = encode(substr(sha256(uuid_send(s.event_id) || int8send(n.earlier)), 1, 16), 'hex')::uuid
from numbered as n
where s.ctid = n.ctid and n.earlier > 0
"""
_DELETE_EQUAL: Final = """
with ranked as (
    select ctid, row_number() over (partition by {columns} order by {line}) as place
    from {stage}
)
delete from {stage} as s using ranked as r where s.ctid = r.ctid and r.place > 1
"""
_REFUSE_EQUAL: Final = """
with ranked as (
    select
        ctid,
        row_number() over (partition by {columns} order by {line}) as place,
        first_value({line}) over (partition by {columns} order by {line}) as first_line
    from {stage}
),
refused as (
    delete from {stage} as s using ranked as r where s.ctid = r.ctid and r.place > 1
    returning s.*, r.first_line
)
insert into ingest.rejects (load_id, line_number, field, reason, detail, original)
select
    %(load)s, r.{line}, %(field)s, 'row_twice',
    'line ' || r.{line} || ' says the same as line ' || r.first_line || ', of the same ' || %(key)s || %(why)s,
    (jsonb_strip_nulls(to_jsonb(r)) - array['_line', '_rows', 'first_line'])::text
from refused as r
"""
_REFUSE_KEYS: Final = """
with groups as (
    select {key}, (array_agg({line} order by {line}))[1:5] as lines, count(*) as number
    from {stage}
    group by {key}
    having {conflict}
),
refused as (
    delete from {stage} as s using groups as g where {same_key}
    returning s.*, g.lines as _lines, g.number as _number
)
insert into ingest.rejects (load_id, line_number, field, reason, detail, original)
select
    %(load)s, r.{line}, %(field)s, 'key_twice',
    'lines ' || array_to_string(r._lines, ', ') || case when r._number > 5 then ' and more' else '' end
    || ' are of the same ' || %(key)s || ' and differ' || %(why)s,
    (jsonb_strip_nulls(to_jsonb(r)) - array['_line', '_rows', '_lines', '_number'])::text
from refused as r
"""
_ADD_UP: Final = """
with groups as (
    select {key}, min({line}) as first_line, count(*) as number, sum({adds} order by {line}) as total
    from {stage}
    group by {key}
    having count(*) > 1
),
members as (
    select {key}, e.key as name, e.value as held, count(*) as number
    from {stage} as s cross join lateral jsonb_each(s.properties) as e (key, value)
    group by {key}, e.key, e.value
),
common as (
    select {key}, jsonb_object_agg(name, held) as properties
    from members inner join groups using ({key}, number)
    group by {key}
),
summed as (
    select g.*, coalesce(c.properties, '{{}}') as properties
    from groups as g left join common as c using ({key})
),
kept as (
    update {stage} as s set {adds} = g.total, _rows = g.number, properties = g.properties
    from summed as g
    where {same_key} and s.{line} = g.first_line
)
delete from {stage} as s using groups as g where {same_key} and s.{line} <> g.first_line
"""
_ONE_OF_THEM: Final = ": leave out what does not hold"
_SAME_AGAIN: Final = ": if it is a second amount, add the two up in one row or tell them apart by a further column"
_NOT_TO_BE_ADDED: Final = (
    " in what cannot be added up: give each currency a campaign of its own, leave out what does not hold, or tell "
    "the rows apart by a further column"
)


def _held(frame: pl.DataFrame) -> tuple[str, ...]:
    """Return the columns that hold anything: the others are left out of the COPY, which saves both sides work."""
    return tuple(name for name in frame.columns if frame[name].null_count() < frame.height)


def _csv(frame: pl.DataFrame) -> bytes:
    target = io.BytesIO()
    frame.select(_held(frame)).write_csv(target, include_header=False, datetime_format=_TIME_FORMAT)
    return target.getvalue()


def _key_hashes(dataset: Dataset, frame: pl.DataFrame) -> pl.Series:
    return frame.select(pl.struct(dataset.key).hash(seed=0)).to_series()


def _same_key(dataset: Dataset) -> sql.Composed:
    return sql.SQL(" and ").join(sql.SQL("t.{0} = s.{0}").format(sql.Identifier(name)) for name in dataset.key)


def _within(column: str) -> sql.Composed:
    """Bound the table's time by that of the staged rows, so that only their chunks are looked into."""
    kind = sql.SQL("date" if column.endswith("_date") else "timestamptz")
    return sql.SQL("t.{0} between %(first)s::{1} and %(last)s::{1}").format(sql.Identifier(column), kind)


def _stage(dataset: Dataset) -> sql.Identifier:
    return sql.Identifier("pg_temp", f"stage_{dataset.name}")


def _table(dataset: Dataset) -> sql.Identifier:
    return sql.Identifier("raw", dataset.table)


def _columns(names: Sequence[str], alias: LiteralString | None = None) -> sql.Composed:
    identifiers = (sql.Identifier(alias, name) if alias else sql.Identifier(name) for name in names)
    return sql.SQL(", ").join(identifiers)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _runs(days: Sequence[date]) -> Iterator[tuple[date, date]]:
    """Join days to half-open ranges without gaps, so that no chunk is made for a day without rows."""
    start: date | None = None
    for at, day in enumerate(days):
        start = start or day
        if at + 1 == len(days) or days[at + 1] != day + timedelta(days=1):
            yield start, day + timedelta(days=1)
            start = None
