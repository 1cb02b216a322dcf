"""How much memory loading takes at its most: the peak of a fresh process for each kind of file.

    python benchmarks/memory.py [--database-url postgresql://...] [--scale 0.2] [case ...]

Makes each file, loads it in a process of its own into a database of its own beside the one that is named (or that
the settings mean), and prints the process's peak, how long it took and what came of the file. The bound that
loading keeps is 500 MB, whatever the file and however many of them. At --scale 1 the files are as large as their
names say.
"""

import argparse
import gzip
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from earmark.addresses.privacy import HashKey
from earmark.ingestion.landing import FileResult, load_landing, load_path
from earmark.ingestion.summary import LoadSummary
from earmark.settings import load_settings
from earmark.warehouse.migrations import migrate
from earmark.warehouse.server import resolve

KEY = HashKey("benchmark", b"a secret of thirty-two bytes....")
DATABASE = "earmark_benchmark_memory"
BOUND = 500 << 20
MB = 1 << 20
LONGEST = 1800  # seconds
START = datetime(2024, 5, 1, tzinfo=UTC)
AGENT = "AppleCoreMedia/1.0.0.21E236 (iPhone; U; CPU OS 17_4_1 like Mac OS X; en_us)"
CSV_HEADER = "event_id,occurred_at,event_type,url,ip,user_agent,status,bytes_sent,note\n"


def when(at: int) -> datetime:
    """Return a time within 20 days, so that few chunks are made."""
    return START + timedelta(seconds=at % 1_700_000, microseconds=at)


def address(at: int) -> str:
    return f"198.{18 + at // 65536 % 2}.{at // 256 % 256}.{at % 256}"


def csv_line(at: int) -> str:
    return (
        f"request-{at},{when(at).isoformat()},request,https://cdn.example.com/{at % 997}.mp3,{address(at)},"
        f'"{AGENT} {at % 5000}",206,{at},"note {at}"\n'
    )


def event(at: int) -> dict[str, object]:
    return {
        "event_id": f"request-{at}",
        "occurred_at": when(at).isoformat(),
        "event_type": "request",
        "url": f"https://cdn.example.com/{at % 997}.mp3",
        "ip": address(at),
        "user_agent": f"{AGENT} {at % 5000}",
        "properties": {"edge": "fra", "ms": at % 900},
    }


def combined_line(at: int) -> str:
    return (
        f'{address(at)} - - [{when(at):%d/%b/%Y:%H:%M:%S} +0000] "GET /{at % 997}.mp3?x={at} HTTP/1.1" 206 {at}'
        f' "-" "{AGENT} {at % 5000}"\n'
    )


def s3_line(at: int) -> str:
    return (
        f"owner show-bucket [{when(at):%d/%b/%Y:%H:%M:%S} +0000] {address(at)} - {at:016X} REST.GET.OBJECT"
        f' ep{at % 97}.mp3 "GET /show-bucket/ep{at % 97}.mp3 HTTP/1.1" 206 - 113 9000 7 3 "-" "{AGENT}" -\n'
    )


EDGE_FIELDS = (
    "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem sc-status "
    "cs(Referer) cs(User-Agent) cs-uri-query x-edge-request-id x-host-header\n"
)


def edge_line(at: int) -> str:
    return (
        f"{when(at):%Y-%m-%d\t%H:%M:%S}\tSFO5\t{at}\t{address(at)}\tGET\td1.cloudfront.net\t/ep{at % 97}.mp3"
        f"\t206\t-\t{AGENT.replace(' ', '%20')}\t-\tid{at}\tcdn.example.com\n"
    )


def op3_line(at: int) -> str:
    return (
        f"{when(at):%Y-%m-%dT%H:%M:%S.000Z}\tuuid{at}\thash{at % 9999:032x}\tGET"
        f"\thttps://op3.dev/e/x.example/{at % 97}.mp3\t{AGENT}\n"
    )


OP3_HEADER = "time\tuuid\thashedIpAddress\tmethod\turl\tuserAgent\n"
FEED_START = (
    '<?xml version="1.0"?><rss version="2.0" xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd"><channel>'
    "<title>Show {}</title><link>https://show{}.example.com</link>"
)


def item(at: int) -> str:
    notes = f"<p>Notes of episode {at} with a <a href='https://example.com/{at}'>link</a>.</p>" * 10
    return (
        f"<item><title>Episode {at}</title><guid>g{at}</guid>"
        f"<pubDate>{when(at):%a, %d %b %Y %H:%M:%S} GMT</pubDate>"
        f'<enclosure url="https://cdn.example.com/{at}.mp3" length="12345" type="audio/mpeg"/>'
        f"<itunes:duration>1:02:03</itunes:duration><description><![CDATA[{notes}]]></description></item>\n"
    )


FEED_END = "</channel></rss>"


def many(root: Path, scale: float) -> None:
    """Make 5,000 small files of every source."""
    kinds: tuple[tuple[str, str, str, Callable[[int], str]], ...] = (
        ("listener_events", "csv", CSV_HEADER, csv_line),
        ("listener_events", "ndjson", "", lambda at: json.dumps(event(at)) + "\n"),
        ("nginx", "log", "", combined_line),
        ("apache", "log", "", lambda at: combined_line(at + 10_000_000)),
        ("s3", "log", "", s3_line),
        ("cloudfront", "log", EDGE_FIELDS, edge_line),
        ("op3", "tsv", OP3_HEADER, op3_line),
    )
    for at in range(int(5000 * scale)):
        folder, suffix, header, line = kinds[at % 8] if at % 8 < 7 else ("rss", "xml", "", item)
        path = root / "acme" / folder / f"{at}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = "".join(line(row) for row in range(at * 200, at * 200 + 200))
        if folder == "rss":
            rows = FEED_START.format(at, at) + rows + FEED_END
        data = (header + rows).encode()
        if at % 3 == 0:
            path = path.with_name(path.name + ".gz")
            data = gzip.compress(data, 1)
        path.write_bytes(data)


def fill(path: Path, size: float, pieces: Callable[[int], str], start: str = "", end: str = "") -> Path:
    """Write pieces until the file has a size."""
    with gzip.open(path, "wb", 1) if path.suffix == ".gz" else path.open("wb") as target:
        target.write(start.encode())
        written = at = 0
        while written < size:
            block = "".join(pieces(row) for row in range(at, at + 1000)).encode()
            target.write(block)
            written += len(block)
            at += 1000
        target.write(end.encode())
    return path


def bomb(path: Path, size: float, byte: bytes, start: bytes = b"") -> Path:
    with gzip.open(path, "wb", 9) if path.suffix == ".gz" else path.open("wb") as target:
        target.write(start)
        for _ in range(int(size // MB)):
            target.write(byte * MB)
    return path


def make_parquet(path: Path, rows: int, *, group: int | None = None, wide_text: int = 0) -> Path:
    """Write Parquet in one row group; ``wide_text`` adds a column of that many bytes a row."""
    import polars as pl

    parts = []
    for start in range(0, rows, 100_000):
        frame = pl.DataFrame([event(at) for at in range(start, min(rows, start + 100_000))])
        frame = frame.with_columns(pl.col("properties").struct.json_encode())
        if wide_text:
            frame = frame.with_columns(pl.lit("x" * wide_text).alias("blob"))
        part = path.with_suffix(f".{start}")
        frame.write_parquet(part)
        parts.append(part)
    pl.scan_parquet(parts).sink_parquet(path, row_group_size=group or rows)
    for part in parts:
        part.unlink()
    return path


def wide_csv(path: Path, size: float, columns: int) -> Path:
    header = "occurred_at,event_type,url," + ",".join(f"c{at}" for at in range(columns)) + "\n"
    return fill(path, size, lambda at: f"{when(at).isoformat()},play,/{at}.mp3" + "," * columns + "\n", header)


def array(at: int) -> str:
    return ("," if at else "") + json.dumps(event(at)) + "\n"


Make = Callable[[Path, float], Path]
CASES: dict[str, tuple[str, Make]] = {
    "csv": ("listener_events", lambda to, scale: fill(to / "a.csv", 500 * MB * scale, csv_line, CSV_HEADER)),
    "csv with odd quotes": (
        "listener_events",
        lambda to, scale: fill(
            to / "a.csv", 200 * MB * scale, lambda at: csv_line(at).replace('"note', '"no""te'), CSV_HEADER
        ),
    ),
    "csv, rejects only": (
        "listener_events",
        lambda to, scale: fill(to / "a.csv", 100 * MB * scale, lambda at: f"{at},x\n", CSV_HEADER),
    ),
    "csv of 5,000 columns": ("listener_events", lambda to, scale: wide_csv(to / "a.csv", 100 * MB * scale, 5000)),
    "csv of 100,000 columns": (
        "listener_events",
        lambda to, scale: wide_csv(to / "a.csv", 50 * MB * scale, 100_000),
    ),
    "ndjson": (
        "listener_events",
        lambda to, scale: fill(to / "a.ndjson", 500 * MB * scale, lambda at: json.dumps(event(at)) + "\n"),
    ),
    "ndjson, new keys in each line": (
        "listener_events",
        lambda to, scale: fill(
            to / "a.ndjson", 20 * MB * scale, lambda at: json.dumps({**event(at), f"key{at}": at}) + "\n"
        ),
    ),
    "ndjson, lines of 900 kB": (
        "listener_events",
        lambda to, scale: _long_lines(to / "a.ndjson", int(300 * scale)),
    ),
    "json array": (
        "listener_events",
        lambda to, scale: fill(to / "a.json", 300 * MB * scale, array, "[", "]"),
    ),
    "json array, 60 MB": (
        "listener_events",
        lambda to, scale: fill(to / "a.json", 60 * MB * scale, array, "[", "]"),
    ),
    "json array of tiny objects": (
        "listener_events",
        lambda to, scale: fill(to / "a.json", 60 * MB * scale, lambda _at: "{},", "[", "{}]"),
    ),
    "parquet, one row group": (
        "listener_events",
        lambda to, scale: make_parquet(to / "a.parquet", int(2_000_000 * scale)),
    ),
    "parquet, wide text": (
        "listener_events",
        lambda to, scale: make_parquet(to / "a.parquet", int(200_000 * scale), wide_text=60_000),
    ),
    "log": ("nginx", lambda to, scale: fill(to / "a.log", 500 * MB * scale, combined_line)),
    "log.gz": ("nginx", lambda to, scale: fill(to / "a.log.gz", 500 * MB * scale, combined_line)),
    "cloudfront": ("cloudfront", lambda to, scale: fill(to / "a.log", 500 * MB * scale, edge_line, EDGE_FIELDS)),
    "s3": ("s3", lambda to, scale: fill(to / "a.log", 500 * MB * scale, s3_line)),
    "op3": ("op3", lambda to, scale: fill(to / "a.tsv", 500 * MB * scale, op3_line, OP3_HEADER)),
    "log of short lines": (
        "nginx",
        lambda to, scale: fill(to / "a.log", 100 * MB * scale, lambda _at: "x\n", combined_line(1)),
    ),
    "gzip of 1 GB of zeros": ("nginx", lambda to, scale: bomb(to / "a.log.gz", 1024 * MB * scale, b"\0")),
    "gzip of 1 GB of one line": (
        "listener_events",
        lambda to, scale: bomb(to / "a.csv.gz", 1024 * MB * scale, b"x", CSV_HEADER.encode()),
    ),
    "gzip of 1 GB of line ends": (
        "listener_events",
        lambda to, scale: bomb(to / "a.csv.gz", 1024 * MB * scale, b"\n", CSV_HEADER.encode()),
    ),
    "a line of 1 GB": (
        "listener_events",
        lambda to, scale: bomb(to / "a.csv", 1024 * MB * scale, b"x", CSV_HEADER.encode()),
    ),
    "a quote of 200 MB": (
        "listener_events",
        lambda to, scale: fill(
            to / "a.csv", 200 * MB * scale, lambda _at: "x" * 100 + "\n", CSV_HEADER + csv_line(1) + '"'
        ),
    ),
    "feed of 200 MB": (
        "rss",
        lambda to, scale: fill(to / "a.xml", 200 * MB * scale, item, FEED_START.format(1, 1), FEED_END),
    ),
    "feed of 60 MB": (
        "rss",
        lambda to, scale: fill(to / "a.xml", 60 * MB * scale, item, FEED_START.format(1, 1), FEED_END),
    ),
    "feed of 60 MB of tags": (
        "rss",
        lambda to, scale: fill(
            to / "a.xml",
            60 * MB * scale,
            lambda _at: "<a/>",
            FEED_START.format(1, 1) + "<item>",
            "</item>" + FEED_END,
        ),
    ),
}


def _long_lines(path: Path, count: int) -> Path:
    with path.open("wb") as target:
        for at in range(count):
            target.write(json.dumps({**event(at), "blob": "x" * 900_000}).encode() + b"\n")
    return path


def peak_memory() -> int:
    """Bytes of this process at its largest. Linux's getrusage would also count what its parent held."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def only_load(url: str, path: str, what: str) -> None:
    marks = [peak_memory()]

    def mark(_result: FileResult) -> None:
        marks.append(peak_memory())

    with psycopg.connect(url) as connection:
        if what == "landing":
            results = load_landing(connection, path, key=KEY, on_result=mark)
        else:
            how = {"dataset" if what.endswith("events") else "source": what}
            results = load_path(connection, path, key=KEY, tenant_id="acme", on_result=mark, **how)
    summary = LoadSummary.of(results)
    told = summary.refused[0].replace(path, "file")[:110] if summary.refused else str(summary)
    quarters = [marks[len(marks) * at // 4] // MB for at in (0, 1, 2, 3)] if len(marks) > 8 else []
    print(json.dumps({"peak": peak_memory(), "told": told, "quarters": quarters}))


def fresh_database(url: str) -> str:
    """Make the benchmark's own database anew; returns how to reach it."""
    name = sql.Identifier(DATABASE)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        connection.execute(sql.SQL("create database {} encoding 'UTF8' template template0").format(name))
    own = make_conninfo(url, dbname=DATABASE)
    with psycopg.connect(own) as connection:
        migrate(connection)
        connection.execute("insert into tenancy.tenants (tenant_id, name) values ('acme', 'Acme')")
    return own


def measure(url: str, name: str, scale: float) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if name == "many small files":
            many(root, scale)
            path, what = root, "landing"
        else:
            what, make = CASES[name]
            path = make(root, scale)
        own = fresh_database(url)
        began = time.perf_counter()
        try:
            ran = subprocess.run(
                [sys.executable, __file__, "--only-load", str(path), what, "--database-url", own],
                check=False,
                capture_output=True,
                text=True,
                timeout=LONGEST,
            )
        except subprocess.TimeoutExpired:
            yield f"{name:<32} not done after {LONGEST} s"
            return
        seconds = time.perf_counter() - began
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or [""])[-1]
        yield f"{name:<32} ended with {ran.returncode} after {seconds:.0f} s: {last[:150]}"
        return
    answer = json.loads(ran.stdout.splitlines()[-1])
    over = "" if answer["peak"] < BOUND else "  OVER"
    quarters = f" (quarters {answer['quarters']})" if answer["quarters"] else ""
    yield f"{name:<32} {answer['peak'] / MB:6.0f} MB {seconds:6.1f} s{over}  {answer['told']}{quarters}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url")
    parser.add_argument("--scale", type=float, default=0.2)
    parser.add_argument("--only-load", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    if options.only_load:
        only_load(options.database_url, *options.only_load)
        return
    url = options.database_url or resolve(load_settings()).conninfo()
    for name in options.cases or ("many small files", *CASES):
        for line in measure(url, name, options.scale):
            print(line, flush=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(DATABASE)))


if __name__ == "__main__":
    main()
