"""From a file dropped into the landing folder to refreshed marts, through the sensors of a running Dagster.

Starts ``earmark ui`` on a home of its own with demo data, drops small log files one after the other, each with
requests of a day of its own, and waits for each to appear in ``marts.rpt_episode_daily``. Prints the median and
the 95th percentile, in seconds, whole and by stage. With ``--load`` another tenant's files are loaded all the
while from the command line, 20,000 requests each.

    python benchmarks/landing_to_marts.py [--drops 20] [--load]
"""

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from earmark.warehouse import embedded

LINE = (
    '198.18.{m}.{n} - - [{at:%d/%b/%Y:%H:%M:%S} +0000] "GET /benchmark.mp3 HTTP/1.1" 200 9000000 "-" '
    '"AntennaPod/3.4.0 (Linux; Android 14)"\n'
)
EARMARK = Path(sys.executable).parent / "earmark"

# When each stage of the newest run was over, in seconds since 1970.
STAGES = """
    with run as (
        select run_id, extract(epoch from create_timestamp) as asked
        from dagster.runs where pipeline_name = 'load_and_refresh' order by id desc limit 1
    ), told as (
        select e.dagster_event_type as what, e.asset_key, extract(epoch from e.timestamp) as at
        from dagster.event_logs as e, run where e.run_id = run.run_id
    )
    select
        (select asked from run)::float as "sensor",
        (select min(at) from told where what = 'PIPELINE_STARTING')::float as "queue",
        (select min(at) from told where what = 'PIPELINE_START')::float as "process",
        (select max(at) from told where what = 'ASSET_MATERIALIZATION' and asset_key like '["raw"%')::float
            as "load",
        (select min(at) from told where what = 'ASSET_MATERIALIZATION' and asset_key not like '["raw"%')::float
            as "first model",
        (select max(at) from told where what in ('PIPELINE_SUCCESS', 'PIPELINE_FAILURE'))::float as "run ended"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--drops", type=int, default=20)
    parser.add_argument("--load", action="store_true", help="another tenant's files are loaded all the while")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="earmark-bench-") as folder:
        home = Path(folder)
        environment = {**os.environ, "EARMARK_HOME": str(home)}
        subprocess.run([EARMARK, "run", "--json"], env=environment, check=True, stdout=subprocess.DEVNULL)
        log = (home / "ui.log").open("wb")
        ui = subprocess.Popen(
            [EARMARK, "ui", "--port", "3999"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        stop = threading.Event()
        other = threading.Thread(target=load_another, args=(home, environment, stop))
        try:
            with psycopg.connect(embedded.running(home).conninfo(), autocommit=True) as connection:
                drop(home, connection, 0)  # the first also waits for Dagster to start
                if arguments.load:
                    other.start()
                drops = [drop(home, connection, number) for number in range(1, arguments.drops + 1)]
        finally:
            stop.set()
            if other.ident:
                other.join()
            os.killpg(ui.pid, signal.SIGINT)
            ui.wait(60)
            embedded.stop(home)
    print(
        f"file dropped to marts refreshed, {len(drops)} times{', with a second load' if arguments.load else ''}:"
    )
    for stage in ("in the mart", *drops[0]):
        seconds = [times[stage] for times in drops]
        percentile = statistics.quantiles(seconds, n=20, method="inclusive")[-1]
        print(f"  {stage:<12} median {statistics.median(seconds):5.2f} s, 95 of 100 within {percentile:5.2f} s")


def drop(home: Path, connection: psycopg.Connection, number: int) -> dict[str, float]:
    """Drop a file for a day of its own; return how long its marts took and, of that, each stage."""
    time.sleep(random.uniform(0, 5))  # noqa: S311  (or all come at the same moment of the sensors' round)
    day = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=number)
    dropped = time.time()
    write_log(home / "landing" / "harbourline" / "nginx" / f"benchmark-{number}.log", day, 100)
    query = (
        "select sum(downloads) from marts.rpt_episode_daily where day = %s and episode_key = 'url:/benchmark.mp3'"
    )
    wait(lambda: connection.execute(query, (day.date(),)).fetchone() == (100,), f"drop {number} in the marts")
    seen = time.time()
    ended: list[float] = []

    def has_ended() -> bool:
        ended[:] = connection.execute(STAGES).fetchone() or ()
        return bool(ended) and None not in ended

    wait(has_ended, f"the end of the run of drop {number}")
    names = ("sensor", "queue", "process", "load", "first model", "other models")
    ends = [*ended[:-1], seen]
    stages = {name: end - begin for name, begin, end in zip(names, [dropped, *ends], ends, strict=False)}
    print(f"  drop {number}: {seen - dropped:.1f} s", flush=True)
    return {"in the mart": seen - dropped, **stages, "run ended": ended[-1] - dropped}


def load_another(home: Path, environment: dict[str, str], stop: threading.Event) -> None:
    """Load files of another tenant, one after the other, until told to stop."""
    number = 0
    while not stop.is_set():
        number += 1
        path = home / f"other-{number}.log"
        write_log(path, datetime(2025, 12, 1, tzinfo=UTC) + timedelta(seconds=number), 20_000)
        command = [EARMARK, "load", str(path), "--tenant", "sparrowhawk", "--source", "nginx", "--json"]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def write_log(path: Path, first: datetime, lines: int) -> None:
    draft = path.with_suffix(".part")
    draft.write_text(
        "".join(LINE.format(m=n // 250 % 250, n=n % 250, at=first + timedelta(seconds=n)) for n in range(lines))
    )
    draft.rename(path)


def wait(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 300
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"{what}: waited for in vain")
        time.sleep(0.05)


if __name__ == "__main__":
    main()
