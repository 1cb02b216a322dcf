"""Real logs and feeds come out as their references say. The data is not in the project: see ``shared_data``."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from earmark.addresses.privacy import HashKey
from earmark.ingestion.errors import LoadError
from earmark.ingestion.load import LoadReport, LoadRequest, load_file

KEY = HashKey("k1", b"0123456789abcdef0123456789abcdef")
Load = Callable[..., LoadReport]


@pytest.fixture
def load(connection: psycopg.Connection) -> Load:
    connection.execute("insert into tenancy.tenants (tenant_id, name) values ('acme', 'Acme')")
    connection.commit()

    def run(path: Path, dataset: str | None = None, source: str | None = None) -> LoadReport:
        return load_file(connection, LoadRequest(str(path), "acme", dataset, source), key=KEY)

    return run


def folder(shared_data: Path, name: str) -> Path:
    path = shared_data / name
    if not path.is_dir():
        pytest.skip(f"no real data: {path} is missing")
    return path


def total(reports: list[LoadReport]) -> tuple[int, int, int, int]:
    parts = [part for report in reports for part in report.datasets]
    return (
        sum(part.read for part in parts),
        sum(part.loaded for part in parts),
        sum(part.duplicate for part in parts),
        sum(part.rejected for part in parts),
    )


def one(connection: psycopg.Connection, query: str) -> Any:
    return connection.execute(query.encode()).fetchone()[0]


def test_gitminutes(connection: psycopg.Connection, load: Load, shared_data: Path):
    data = folder(shared_data, "logs/gitminutes_nginx")
    reference = json.loads((data / "reference_funnel_dev.json").read_text())
    logs = sorted(data.glob("access.log*"))
    assert total([load(path, source="nginx") for path in logs]) == (reference["raw_rows"], 4413, 0, 0)
    episodes = r"from raw.listener_events where enclosure_key ~ '^/episodes/\d+\.mp3$'"
    assert one(connection, f"select count(*) {episodes}") == reference["episode_requests"]
    assert one(connection, f"select count(*) {episodes} and method = 'GET'") == reference["GET"]
    valid = f"{episodes} and method = 'GET' and status in (200, 206)"
    assert one(connection, f"select count(*) {valid}") == reference["GET_200_206"]
    # The clients, as far as no bots are taken out yet: never fewer than the reference finds without them.
    assert (
        one(connection, f"select count(distinct listener_key) {valid}") >= reference["distinct_ip_ua_after_filter"]
    )
    assert total([load(path, source="nginx") for path in logs]) == (0, 0, 0, 0)


def test_batman(connection: psycopg.Connection, load: Load, shared_data: Path):
    data = folder(shared_data, "logs/batman_s3")
    reference = json.loads((data / "reference_funnel_dev.json").read_text())
    reports = [load(path, source="s3") for path in sorted(data.glob("*.log"))]
    unique = reference["after_request_id_dedupe"]
    assert total(reports) == (reference["raw_rows"], unique, reference["raw_rows"] - unique, 0)
    episodes = r"from raw.listener_events where enclosure_key ~ '^episodes\.batmanslittlebird\.com/\d+\.mp3$'"
    assert one(connection, f"select count(*) {episodes}") == reference["episode_requests"]
    assert one(connection, f"select count(*) {episodes} and method = 'GET'") == reference["GET"]
    valid = f"{episodes} and method = 'GET' and status in (200, 206)"
    assert one(connection, f"select count(*) {valid}") == reference["GET_200_206"]


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("kerkdienstgemist_icecast.log", "combined", (1, 1, 0, 0)),
        # Four lines repeat a request id with the query left out or fields added: the same requests.
        ("kerkdienstgemist_s3_access.log", "s3", (30, 26, 4, 0)),
        ("prx_podcast_cloudfront_standard.log", "cloudfront", (1, 1, 0, 0)),
        ("webreadr_cloudfront.log", "cloudfront", (2, 2, 0, 0)),
    ],
)
def test_lines_of_other_logs(
    load: Load, shared_data: Path, name: str, source: str, expected: tuple[int, int, int, int]
):
    report = load(folder(shared_data, "logs/cloudfront") / name, "listener_events")
    assert report.source == source
    assert total([report]) == expected


def test_op3_hits_are_the_same_in_json_and_csv(connection: psycopg.Connection, load: Load, shared_data: Path):
    data = folder(shared_data, "logs/op3_hits")
    assert total([load(path, source="op3") for path in sorted(data.glob("hits-*.json"))]) == (21, 21, 0, 0)
    assert total([load(data / "op3_hits.csv", source="op3")]) == (21, 0, 21, 0)
    assert one(connection, "select count(distinct household_key) from raw.listener_events") > 1


def test_feeds(connection: psycopg.Connection, load: Load, shared_data: Path):
    data = folder(shared_data, "feeds")
    manifest = list(csv.DictReader((data / "manifest.csv").open(encoding="utf-8")))
    reports = {}
    for row in manifest:
        report = load(data / Path(row["file"]).name, source="rss")
        podcasts, episodes = report.datasets
        reports[row["show"]] = report
        assert (podcasts.loaded, episodes.read) == (1, int(row["items"])), row["file"]
        assert (episodes.loaded, episodes.duplicate, episodes.rejected) == (int(row["items"]), 0, 0), row["file"]
        of_feed = f"from raw.episodes where load_id = {episodes.load_id}"
        assert one(connection, f"select count(enclosure_url) {of_feed}") == int(row["enclosures"]), row["file"]
        assert one(connection, f"select count(guid) {of_feed}") == int(row["guids"]), row["file"]
        assert one(connection, f"select count(published_at) {of_feed}") == int(row["pubdates"]), row["file"]
        # 34 items of one feed say 0 seconds: not known.
        durations = f"select count(coalesce(duration_seconds::text, properties->>'unread_duration')) {of_feed}"
        assert one(connection, durations) == int(row["durations"]), row["file"]
    assert len(reports) == len(manifest)
    titles = {row[0] for row in connection.execute("select title from raw.podcasts").fetchall()}
    assert titles == {row["show"] for row in manifest}
    assert one(connection, "select count(*) from raw.episodes where enclosure_key ~ 'podtrac|op3.dev'") == 0


def test_what_is_no_data_is_refused(connection: psycopg.Connection, load: Load, shared_data: Path):
    names = [
        *((path, "nginx") for path in folder(shared_data, "logs/gitminutes_nginx").glob("reference*")),
        *((path, "s3") for path in folder(shared_data, "logs/batman_s3").glob("reference*")),
        *(
            (path, "op3")
            for path in folder(shared_data, "logs/op3_hits").glob("*.json")
            if "hits-" not in path.name
        ),
        (folder(shared_data, "feeds") / "manifest.csv", "rss"),
    ]
    assert len(names) >= 11
    for path, source in names:
        for how in ({"source": source}, {"dataset": "listener_events"}):
            with pytest.raises(LoadError, match=path.name):
                load(path, **how)
    assert one(connection, "select count(*) from ingest.loads") == 0
