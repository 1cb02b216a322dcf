"""From a file dropped into the landing folder to refreshed marts, through the sensors of a running Dagster.

Starts ``earmark ui`` on a home of its own with demo data, drops ten small log files one after the other, each
with requests of a day of its own, and waits for each to appear in ``marts.rpt_episode_daily``. Prints the median
and the worst, in seconds.

    python benchmarks/landing_to_marts.py [--drops 10]
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg

from orchestration.lib.warehouse import embedded

LINE = (
    '198.18.7.{n} - - [{at:%d/%b/%Y:%H:%M:%S} +0000] "GET /benchmark.mp3 HTTP/1.1" 200 9000000 "-" '
    '"AntennaPod/3.4.0 (Linux; Android 14)"\n'
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--drops", type=int, default=10)
    drops = parser.parse_args().drops
    with tempfile.TemporaryDirectory(prefix="earmark-bench-") as folder:
        home = Path(folder)
        environment = {**os.environ, "EARMARK_HOME": str(home)}
        earmark = Path(sys.executable).parent / "earmark"
        subprocess.run([earmark, "run", "--json"], env=environment, check=True, stdout=subprocess.DEVNULL)
        log = (home / "ui.log").open("wb")
        ui = subprocess.Popen(
            [earmark, "ui", "--port", "3999"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            with psycopg.connect(embedded.running(home).conninfo(), autocommit=True) as connection:
                drop(home, connection, 0)  # the first also waits for Dagster to start
                seconds = [drop(home, connection, number) for number in range(1, drops + 1)]
        finally:
            os.killpg(ui.pid, signal.SIGINT)
            ui.wait(60)
            embedded.stop(home)
    print(f"file dropped to marts refreshed, {drops} times: ", end="")
    print(f"median {statistics.median(seconds):.1f} s, worst {max(seconds):.1f} s")


def drop(home: Path, connection: psycopg.Connection, number: int) -> float:
    """Drop a file for a day of its own; return how long its marts took."""
    day = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=number)
    target = home / "landing" / "harbourline" / "nginx" / f"benchmark-{number}.log"
    draft = target.with_suffix(".part")
    draft.write_text("".join(LINE.format(n=n, at=day + timedelta(seconds=n)) for n in range(100)))
    started = time.monotonic()
    draft.rename(target)
    query = (
        "select sum(downloads) from marts.rpt_episode_daily where day = %s and episode_key = 'url:/benchmark.mp3'"
    )
    while time.monotonic() - started < 300:
        row = connection.execute(query, (day.date(),)).fetchone()
        if row == (100,):
            seconds = time.monotonic() - started
            print(f"  drop {number}: {seconds:.1f} s", flush=True)
            return seconds
        time.sleep(0.1)
    raise SystemExit(f"drop {number} never reached the marts")


if __name__ == "__main__":
    main()
