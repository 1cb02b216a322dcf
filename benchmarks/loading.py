"""How fast events are loaded, against a plain COPY of the same rows and against other loaders.

    python benchmarks/loading.py [--database-url postgresql://...] [--rows 1000000] [--dlt-python /path/to/python]

Makes --rows listener events (about 370 bytes each, over 30 days) as CSV, NDJSON and Parquet, creates a database
of its own beside the one that is named (or that the settings mean), and prints thousand rows a second, the ratio
to the limit and the peak of memory. The limit is a server-side COPY of a clean CSV, its derived columns filled in,
straight into raw.listener_events with its key and index. Every other row does the whole work: read, check, hash,
deduplicate.
Only ratios of one run mean something. --repeat takes the best of several runs of ours and of the limit.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from earmark.addresses.privacy import HashKey
from earmark.ingestion import rows as rows_module
from earmark.ingestion.datasets import LISTENER_EVENTS
from earmark.ingestion.load import LoadRequest, load_file
from earmark.settings import load_settings
from earmark.warehouse.migrations import migrate
from earmark.warehouse.server import resolve

KEY = HashKey("benchmark", b"a secret of thirty-two bytes....")
DATABASE = "earmark_benchmark_loading"
PANDAS_ROWS = 50_000
AGENTS = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/{}",
    "AppleCoreMedia/1.0.0.21E236 (iPhone; U; CPU OS 17_4_1 like Mac OS X; en_us) Podcasts/1720.1 build {} CFNet",
    "Spotify/8.9.42.575 Android/33 (SM-G991B; build {}; en_US; WiFi; Play Services 24.18.16; ExoPlayer 2.19.1)",
    "Overcast/3.0 (+http://overcast.fm/; iOS podcast app; build {}; https://overcast.fm/podcasterinfo; iPhone)",
)


def make_block(count: int, seed: int, start: datetime, step: timedelta) -> pl.DataFrame:
    """Return events in time order, as a log has them: a client downloads a file in one to four requests."""
    pick = random.Random(seed)  # noqa: S311  (nothing secret)
    episodes = [str(uuid.UUID(int=random.Random(at).getrandbits(128), version=4)) for at in range(500)]  # noqa: S311
    clients: list[tuple[str, str, str, str]] = []
    while len(clients) < count:
        client = (
            f"203.{pick.randrange(64)}.{pick.randrange(256)}.{pick.randrange(1, 255)}",
            pick.choice(AGENTS).format(pick.randrange(10_000)),
            pick.choice(episodes),
            pick.choice(("US", "GB", "DE", "CA")),
        )
        clients += [client] * pick.randrange(1, 5)
    clients = clients[:count]
    times = [start + step * at for at in range(count)]
    edges = ("iad", "fra", "sin")
    return pl.DataFrame(
        {
            "event_id": [str(uuid.UUID(int=pick.getrandbits(128), version=4)) for _ in range(count)],
            "occurred_at": [f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z" for at in times],
            "event_type": ["download"] * count,
            "episode_id": [client[2] for client in clients],
            "ip": [client[0] for client in clients],
            "user_agent": [client[1] for client in clients],
            "method": ["GET"] * count,
            "status": [pick.choice((200, 206)) for _ in range(count)],
            "bytes_sent": [pick.randrange(60_000_000) for _ in range(count)],
            "country_code": [client[3] for client in clients],
            "properties": [
                json.dumps({"device": "phone", "edge": pick.choice(edges), "ms": pick.randrange(900)})
                for _ in times
            ],
        }
    )


def make_files(folder: Path, count: int) -> dict[str, Path]:
    """Write the events in every form; memory stays that of one block, so that it does not blur our own."""
    paths = {kind: folder / f"events.{kind}" for kind in ("csv", "ndjson", "parquet", "clean")}
    start = datetime(2024, 5, 1, tzinfo=UTC)
    step = timedelta(days=30) / count
    hasher = KEY.for_tenant("benchmark")
    frames = []
    with (
        paths["csv"].open("wb") as as_csv,
        paths["ndjson"].open("wb") as as_json,
        paths["clean"].open("wb") as clean,
    ):
        for at in range(0, count, 50_000):
            block = make_block(min(50_000, count - at), at, start + step * at, step)
            block.write_csv(as_csv, include_header=at == 0)
            names = [name for name in block.columns if name != "properties"]
            for row, properties in zip(
                block.select(names).iter_rows(named=True), block["properties"], strict=True
            ):
                as_json.write(json.dumps(row)[:-1].encode() + b', "properties": ' + properties.encode() + b"}\n")
            part = folder / f"part-{at}.parquet"
            block.write_parquet(part)
            frames.append(part)
            numbered = block.with_columns(pl.lit(1, pl.Int64).alias("_line"))
            prepared = rows_module.prepare(LISTENER_EVENTS, numbered, "generic", hasher, lambda _line: b"")
            prepared.rows.drop("_line", rows_module.MADE).select(
                pl.lit("benchmark").alias("tenant_id"), pl.lit(1).alias("load_id"), pl.all()
            ).write_csv(clean, include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.6f+00")
    pl.scan_parquet(frames).sink_parquet(paths["parquet"], row_group_size=100_000)
    for part in frames:
        part.unlink()
    paths["clean"].chmod(0o644)
    folder.chmod(0o755)
    return paths


def fresh_database(url: str) -> str:
    """Make the benchmark's own database anew; returns how to reach it."""
    name = sql.Identifier(DATABASE)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        connection.execute(sql.SQL("create database {} template template0 encoding 'UTF8'").format(name))
        connection.execute("checkpoint")
    own = make_conninfo(url, dbname=DATABASE, options="-c TimeZone=UTC")
    with psycopg.connect(own, autocommit=True) as connection:
        migrate(connection)
        connection.execute("insert into tenancy.tenants (tenant_id, name) values ('benchmark', 'Benchmark')")
    return own


def time_limit(url: str, paths: dict[str, Path]) -> float:
    """Seconds of a server-side COPY straight into the table."""
    with psycopg.connect(fresh_database(url)) as connection:
        connection.execute(
            "select timeseries.ensure_chunks('raw.listener_events', '2024-05-01+00'::timestamptz, '2024-06-01+00')"
        )
        connection.commit()
        columns = ("tenant_id", "load_id", *rows_module.staged_columns(LISTENER_EVENTS))
        began = time.perf_counter()
        connection.execute(
            sql.SQL("copy raw.listener_events ({}) from {} (format csv)").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), str(paths["clean"])
            )
        )
        connection.commit()
        return time.perf_counter() - began


def time_ours(url: str, path: Path) -> tuple[float, int]:
    """Seconds and peak memory (bytes) of our loader, in a process of its own."""
    own = fresh_database(url)
    answer = subprocess.run(
        [sys.executable, __file__, "--only-load", str(path), "--database-url", own],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    return float(answer[0]), int(answer[1])


def only_load(url: str, path: str) -> None:
    with psycopg.connect(url) as connection:
        began = time.perf_counter()
        report = load_file(connection, LoadRequest(path, "benchmark", "listener_events"), key=KEY)
        seconds = time.perf_counter() - began
    assert report.datasets[0].loaded == report.datasets[0].read, report
    print(seconds, peak_memory())


def peak_memory() -> int:
    """Bytes of this process at its largest. Linux's getrusage would also count what its parent held."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def time_pandas(url: str, paths: dict[str, Path]) -> float:
    """Seconds of pandas.to_sql on a slice: neither checked, hashed nor deduplicated."""
    import pandas as pd
    import sqlalchemy

    with psycopg.connect(fresh_database(url)) as connection:
        connection.execute(
            "select timeseries.ensure_chunks('raw.listener_events', '2024-05-01+00'::timestamptz, '2024-06-01+00')"
        )
        info = connection.info
        connection.commit()
        address = sqlalchemy.engine.URL.create(
            "postgresql+psycopg" if _has("sqlalchemy.dialects.postgresql.psycopg") else "postgresql+psycopg2",
            username=info.user,
            password=info.password or None,
            database=DATABASE,
            query={"host": info.host, "port": str(info.port)},
        )
    names = ["tenant_id", "load_id", *rows_module.staged_columns(LISTENER_EVENTS)]
    frame = pd.read_csv(paths["clean"], names=names, nrows=PANDAS_ROWS, dtype=str)
    frame["occurred_at"] = pd.to_datetime(frame["occurred_at"])
    for name in ("status", "bytes_sent", "load_id"):
        frame[name] = frame[name].astype("int64")
    frame["properties"] = frame["properties"].map(json.loads)
    for name in ("household_key", "listener_key"):
        frame[name] = frame[name].map(lambda text: bytes.fromhex(text[2:]))
    frame = frame.drop(columns=[name for name in names if frame[name].isna().all()])
    from sqlalchemy.dialects import postgresql

    types: dict[str, Any] = {"properties": postgresql.JSONB(), "event_id": postgresql.UUID(as_uuid=False)}
    types |= dict.fromkeys(("household_key", "listener_key"), postgresql.BYTEA())
    engine = sqlalchemy.create_engine(address)
    began = time.perf_counter()
    frame.to_sql("listener_events", engine, schema="raw", if_exists="append", index=False, dtype=types)
    return time.perf_counter() - began


def _has(module: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(module) is not None and importlib.util.find_spec("psycopg") is not None


DLT_SCRIPT = """
import sys, time, json, os
url, path, how = sys.argv[1:4]
os.environ.update(RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="ERROR")
os.environ.update(DATA_WRITER__FILE_MAX_ITEMS="200000")
import dlt
hints = dict(name="listener_events", write_disposition="merge", primary_key=["event_id"])
key = {"event_id": {"data_type": "text", "unique": True}} if how.endswith("key") else {}
if how == "ndjson":
    @dlt.resource(columns={"properties": {"data_type": "json"}}, **hints)
    def events():
        batch = []
        with open(path) as lines:
            for line in lines:
                batch.append(json.loads(line))
                if len(batch) == 10000:
                    yield batch
                    batch = []
        yield batch
else:
    import pyarrow.parquet as pq
    @dlt.resource(columns={"properties": {"data_type": "text"}, **key}, **hints)
    def events():
        for batch in pq.ParquetFile(path).iter_batches(100000):
            import pyarrow as pa
            yield pa.Table.from_batches([batch])
postgres = dlt.destinations.postgres(url)
pipeline = dlt.pipeline("bench", destination=postgres, dataset_name="dlt", pipelines_dir=sys.argv[4])
began = time.perf_counter()
pipeline.run(events(), **({} if how == "ndjson" else {"loader_file_format": "csv"}))
print("seconds", time.perf_counter() - began)
"""


def time_dlt(url: str, python: str, path: Path, how: str) -> float:
    """Seconds of dlt's merge into an empty table: deduplicated, neither checked nor hashed."""
    with psycopg.connect(fresh_database(url)) as connection:
        info = connection.info
        host = info.host if not info.host.startswith("/") else "localhost"
        address = f"postgresql://{info.user}:{info.password or 'x'}@{host}:{info.port}/{DATABASE}"
        if info.host.startswith("/"):
            address += f"?host={info.host}"
    with tempfile.TemporaryDirectory() as folder:
        answer = subprocess.run(
            [python, "-c", DLT_SCRIPT, address, str(path), how, folder],
            check=False,
            capture_output=True,
            text=True,
        )
    if answer.returncode:
        raise RuntimeError(answer.stderr.strip().split("\n")[-1][:300])
    return float(answer.stdout.rpartition("seconds")[2])


def report(name: str, count: int, seconds: float, limit: float, total: int, memory: int | None = None) -> None:
    speed = count / seconds
    peak = f"{memory / 2**20:8.0f} MB" if memory else f"{'':>11}"
    print(f"{name:<46} {speed / 1000:8.1f}  {speed / (total / limit):6.2f} {peak}", flush=True)


def attempt(name: str, run: Callable[[], float]) -> float | None:
    try:
        return run()
    except (RuntimeError, OSError, ImportError) as error:
        print(f"{name:<46} skipped: {str(error)[:200]}", flush=True)
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--dlt-python", help="a Python that can import dlt[postgres] and pyarrow")
    parser.add_argument("--skip-others", action="store_true", help="only ours and the limit")
    parser.add_argument("--only-load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_load:
        only_load(options.database_url, options.only_load)
        return
    url = options.database_url or resolve(load_settings()).conninfo()
    count = options.rows
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), count)
        sizes = ", ".join(f"{kind} {path.stat().st_size / count:.0f} B" for kind, path in paths.items())
        print(f"{count:,} events; a row is {sizes}\n{'':<46} thousand/s  ratio      peak")
        limit = min(time_limit(url, paths) for _ in range(options.repeat))
        report("limit: COPY of clean CSV into the table", count, limit, limit, count)
        for kind in ("csv", "parquet", "ndjson"):
            seconds, memory = min(time_ours(url, paths[kind]) for _ in range(options.repeat))
            report(f"earmark, {kind}", count, seconds, limit, count, memory)
        if options.skip_others:
            return
        seconds_or_none = attempt("pandas.to_sql", lambda: time_pandas(url, paths))
        if seconds_or_none:
            report(f"pandas.to_sql ({PANDAS_ROWS:,} rows)", min(PANDAS_ROWS, count), seconds_or_none, limit, count)
        for name, kind, how in (
            ("dlt merge, NDJSON, default", "ndjson", "ndjson"),
            ("dlt merge, Arrow and CSV files, no index", "parquet", "arrow"),
            ("dlt merge, Arrow and CSV files, unique key", "parquet", "arrow key"),
        ):
            if not options.dlt_python:
                print(f"{name:<46} skipped: give --dlt-python")
                continue
            chosen = paths[kind]
            seconds_or_none = attempt(
                name, lambda chosen=chosen, how=how: time_dlt(url, options.dlt_python, chosen, how)
            )
            if seconds_or_none:
                report(name, count, seconds_or_none, limit, count)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(DATABASE)))


if __name__ == "__main__":
    main()
