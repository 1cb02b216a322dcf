"""Real logs against counts made independently: raw rows, every rule, and downloads by episode and UTC day.

The references classify user agents by another list than ours; where that shows, the test names the user agent.
"""

import csv
import json
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from earmark.addresses.privacy import HashKey
from earmark.ingestion.landing import load_path
from earmark.ingestion.summary import LoadSummary
from earmark.warehouse.database import Database
from earmark.warehouse.refresh import Refresh

KEY = HashKey("k1", b"0123456789abcdef")
DISCARDED_FOR_AGENT = ("no_user_agent", "bot", "not_a_player", "apple_watch", "forged_user_agent")
RULES = {"utc_calendar_day": "calendar_day", "24h_window_from_first_request": "rolling_first"}
# The references want so many bytes in a window: one, or a minute at 64 or 128 kbit/s, here a tenant's setting.
BITRATES = {1: None, 480_000: 64_000, 960_000: 128_000}

# Ours minus the reference's, by episode and UTC day. curl/7.16.3 (...) boxee/1.5.1 is a media player to us and
# curl to the reference; S3Console is none to us; Lavf, FFmpeg's library, is a player to us and a bot to it.
BOXEE = {("26", "2013-12-03"): 1}
S3_CONSOLE_AND_LAVF = {
    ("0.mp3", "2016-11-06"): -1, ("0.mp3", "2016-12-11"): 1,
    ("3.mp3", "2017-02-01"): 1, ("4.mp3", "2017-02-15"): 1,
}  # fmt: skip
# Nothing but a probe of two bytes.
PROBES = {("05", "2013-12-05"): -1, ("15", "2013-12-04"): -1}
# Two broken answers of status 200, each from the first byte: the reference adds them up, we put them together.
BROKEN_TWICE = {
    480_000: {("15", "2013-12-03"): -1},
    960_000: {(episode, "2013-12-03"): -1 for episode in ("22", "23", "24", "25")},
}
BROKEN_TWICE_OVER_MIDNIGHT = {("03", "2013-12-03"): -1}
# No bitrate is known of these, but the size: the whole file is needed. The reference takes any byte.
WHOLE_FILE = {
    ("0.mp3", "2016-11-08"): -1, ("0.mp3", "2016-12-28"): -1,
    ("0.mp3", "2017-02-06"): -1, ("1.mp3", "2017-02-06"): -2,
}  # fmt: skip
EXPLAINED = {
    ("gitminutes_nginx", 1, "calendar_day"): PROBES | BOXEE,
    ("gitminutes_nginx", 1, "rolling_first"): PROBES | BOXEE,
    ("gitminutes_nginx", 480_000, "calendar_day"): BROKEN_TWICE[480_000] | BOXEE,
    ("gitminutes_nginx", 480_000, "rolling_first"): BROKEN_TWICE[480_000] | BOXEE,
    ("gitminutes_nginx", 960_000, "calendar_day"): BROKEN_TWICE[960_000],
    ("gitminutes_nginx", 960_000, "rolling_first"): BROKEN_TWICE[960_000] | BROKEN_TWICE_OVER_MIDNIGHT,
    ("batman_s3", 1, "calendar_day"): WHOLE_FILE | S3_CONSOLE_AND_LAVF,
    ("batman_s3", 1, "rolling_first"): WHOLE_FILE | S3_CONSOLE_AND_LAVF,
    ("batman_s3", 480_000, "calendar_day"): S3_CONSOLE_AND_LAVF,
    ("batman_s3", 480_000, "rolling_first"): S3_CONSOLE_AND_LAVF,
    ("batman_s3", 960_000, "calendar_day"): S3_CONSOLE_AND_LAVF,
    ("batman_s3", 960_000, "rolling_first"): S3_CONSOLE_AND_LAVF,
}
EPISODE = {"gitminutes_nginx": r"/episodes/(\d\d)\.mp3$", "batman_s3": r"([^/]+\.mp3)$"}


@pytest.mark.parametrize("log", sorted(EPISODE))
def test_counts_before_and_after_each_rule(address: Database, shared_data: Path, log: str) -> None:
    folder = shared_data / "logs" / log
    funnel = json.loads((folder / "reference_funnel_dev.json").read_text())
    with address.connect() as connection:
        for least, bitrate in BITRATES.items():
            connection.execute(
                "insert into tenancy.tenants (tenant_id, name, assumed_bitrate_bps) values (%s, 'Show', %s)",
                (f"least-{least}", bitrate),
            )
            connection.commit()
            loaded = LoadSummary.of(load_path(connection, str(folder), key=KEY, tenant_id=f"least-{least}"))
    rows = loaded.datasets["listener_events"]
    assert rows.read == funnel["raw_rows"]
    assert rows.duplicate == funnel["raw_rows"] - funnel.get("after_request_id_dedupe", funnel["raw_rows"])
    assert rows.rejected == 0

    for _ in Refresh(address).run():
        pass
    with address.connect() as connection:
        for least in BITRATES:
            outcomes: Counter[str] = Counter(
                dict(
                    connection.execute(
                        "select outcome, sum(requests)::int from marts.fct_request_outcomes_daily"
                        " where tenant_id = %s group by 1",
                        (f"least-{least}",),
                    ).fetchall()
                )
            )
            assert sum(outcomes.values()) == rows.loaded
            assert rows.loaded - outcomes["not_media"] == funnel["episode_requests"]
            assert funnel["episode_requests"] - outcomes["not_get"] == funnel["GET"]
            assert funnel["GET"] - outcomes["bad_status"] == funnel["GET_200_206"]
            by_agent = sum(outcomes[name] for name in DISCARDED_FOR_AGENT)
            assert abs(funnel["GET_200_206"] - by_agent - funnel["after_bot_filter"]) <= 2
            probes = funnel.get("two_byte_probe_rows_bytes_sent<=2")
            assert probes is None or outcomes["two_byte_probe"] == probes
            for rule, window in RULES.items():
                found = _differences(connection, folder, EPISODE[log], least, rule)
                assert found == EXPLAINED[log, least, window], (least, rule)


def _differences(
    connection: psycopg.Connection, folder: Path, episode: str, least: int, rule: str
) -> dict[tuple[str, str], int]:
    """Return ours minus the reference's by episode and day, where they differ.

    The reference dates a download by its first request, we by the one that reaches the threshold: with windows of
    24 hours the day may be the next one. Such pairs (one less, one more of the episode on the next day) are none.
    """
    with (folder / "reference_counts_by_episode_day_dev.csv").open() as file:
        reference = {
            (row["episode"], row["utc_day"]): int(row["downloads"])
            for row in csv.DictReader(file)
            if row["dedupe_rule"] == rule and row["min_bytes"] == str(least)
        }
    ours = {
        (name, day): downloads
        for name, day, downloads in connection.execute(
            sql.SQL(
                "select substring(episode_key from %s), day::text, sum({})::int"
                " from marts.rpt_download_windows_daily where tenant_id = %s group by 1, 2"
            ).format(sql.Identifier(RULES[rule])),
            (episode, f"least-{least}"),
        )
    }
    assert reference
    found = Counter({key: ours.get(key, 0) - reference.get(key, 0) for key in reference.keys() | ours.keys()})
    if rule != "utc_calendar_day":
        for name, day in sorted(found):
            next_day = str(date.fromisoformat(day) + timedelta(days=1))
            if found[name, day] < 0 < found[name, next_day]:
                found[name, day] += 1
                found[name, next_day] -= 1
    return {key: difference for key, difference in found.items() if difference}


def test_the_hits_of_one_show_are_seven_downloads(address: Database, shared_data: Path) -> None:
    hits = shared_data / "logs" / "op3_hits" / "op3_hits.csv"
    with address.connect() as connection:
        connection.execute("insert into tenancy.tenants (tenant_id, name) values ('show', 'Show')")
        connection.commit()
        load_path(connection, str(hits), key=KEY, tenant_id="show")
    for _ in Refresh(address).run():
        pass
    with address.connect() as connection:
        row = connection.execute(
            "select count(*) from marts.fct_downloads where episode_key like '%serve.podhome.fm%'"
        ).fetchone()
    assert row == (7,)


def test_a_hosts_figures_are_explained_by_the_rules_it_lacks(
    address: Database, shared_data: Path, tmp_path: Path
) -> None:
    """The hits of one show against a made-up host that counts HEAD requests, and each request of a listener."""
    folder = "https://serve.podhome.fm/episode/99cfd30f-e40c-426a-3557-08dc4ea63bb0"
    files = {
        "heads": "63851340872787683054574074-0a1f-4951-8f2a-9084678c6604v1",
        "requests": "638495254771093692991414d9-8840-4c2e-bdd2-aa4a70486b23v1",
        "same": "6385073280234160488c23a72a-d2f2-49e8-a460-df0535340d29v1",
    }
    episodes, figures = tmp_path / "episodes.csv", tmp_path / "host.csv"
    episodes.write_text(
        "episode_id,podcast_id,guid,enclosure_url\n"
        + "".join(f"{name},rweekly,guid of {name},{folder}/{file}.mp3\n" for name, file in files.items())
    )
    figures.write_text(
        "episode_id,metric_date,metric_name,value\n"
        "guid of heads,2024-05-25,downloads,6\n"
        "guid of requests,2024-05-25,downloads,5\n"
        "guid of same,2024-05-25,downloads,2\n"
        "guid of heads,2024-05-24,downloads,40\n"
    )
    with address.connect() as connection:
        connection.execute("insert into tenancy.tenants values ('show', 'Show')")
        connection.commit()
        for path, dataset, source in (
            (episodes, "episodes", None),
            (shared_data / "logs" / "op3_hits" / "op3_hits.csv", None, None),
            (figures, "listener_metrics", "podhome"),
        ):
            load_path(connection, str(path), key=KEY, tenant_id="show", dataset=dataset, source=source)
    for _ in Refresh(address).run():
        pass
    with address.connect() as connection:
        days = connection.execute(
            "select episode_key, day::text, theirs, ours, is_flagged, explained_by, explained"
            " from marts.rpt_reconciliation_daily order by 2, 1"
        ).fetchall()
        months = connection.execute(
            "select source, month::text, theirs, ours, share_flagged, explained_by, explained"
            " from marts.rpt_reconciliation"
        ).fetchall()
    assert days == [
        ("heads", "2024-05-24", 40, 0, True, None, None),  # the hits are of one day
        ("heads", "2024-05-25", 6, 3, True, "not_get", 3),
        ("requests", "2024-05-25", 5, 1, True, "duplicate", 4),
        ("same", "2024-05-25", 2, 2, False, None, None),
    ]
    assert months == [("podhome", "2024-05-01", 53, 6, 0.75, "duplicate", 4)]
