"""The nginx configuration that is delivered, run by the real nginx: from a request to a conversion."""

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from earmark.addresses.privacy import HashKey
from earmark.ingestion.landing import load_landing
from earmark.settings import PROJECT_ROOT

CONFIGURATION = PROJECT_ROOT / "deploy/collect/nginx.conf"
KEY = HashKey("k1", b"0123456789abcdef0123456789abcdef")
Dbt = Any  # the class of conftest.py, which tests cannot import
REFERENCE = {
    "tenants.csv": "tenant_id,name\nacme,Acme\n",
    "acme/sponsors/s.csv": "sponsor_id,name\nS1,Brand\n",
    "acme/campaigns/c.csv": "campaign_id,sponsor_id,name,starts_at,ends_at,currency\n"
    "C1,S1,Spring,2020-01-01,2099-01-01,EUR\n",
    "acme/insertion_orders/i.csv": "insertion_order_id,campaign_id,promo_code,vanity_url,currency\n"
    "I1,C1,SHOW10,collect.example.com/go/podcast,EUR\n",
}

pytestmark = [
    pytest.mark.built,
    pytest.mark.skipif(
        shutil.which("nginx") is None, reason="no nginx on this machine: what it collects is not tried"
    ),
]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def ask(port: int, path: str, host: str = "collect.example.com", **headers: str) -> tuple[int, str | None]:
    """Return the status and where it leads to."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Host": host, **headers})
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=10) as answer:
            return answer.status, None
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Location"]


def is_open(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    for name, text in REFERENCE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for source in ("pixel", "prefix"):
        (folder / "acme" / source).mkdir()
    return folder


@pytest.fixture
def port(landing: Path) -> Iterator[int]:
    """Return the port that nginx listens on, with the landing folder below its prefix."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = CONFIGURATION.read_text()
    assert text.count("listen 8080") == 2
    place = landing.parent
    (place / "nginx.conf").write_text(text.replace("listen 8080", f"listen 127.0.0.1:{port}"))
    command = ["nginx", "-p", f"{place}/", "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off; user root;"]
    with subprocess.Popen(command) as nginx:
        try:
            wait_for(lambda: is_open(port) or nginx.poll() is not None)
            assert nginx.poll() is None
            yield port
        finally:
            nginx.terminate()


def lines(landing: Path) -> int:
    return sum(path.read_text().count("\n") for path in landing.glob("acme/p*/*.log"))


def test_from_a_request_to_a_conversion(landing: Path, port: int, dbt: Dbt, connection: psycopg.Connection):
    assert ask(port, "/go/podcast") == (302, "https://shop.example.com/?utm_source=podcast")
    order = "action=purchase&order_number=1001&value=59.90&currency=EUR&discount_code=SHOW10"
    assert ask(port, f"/pixel.gif?{order}", Referer="https://shop.example.com/thanks") == (200, None)
    media = "media.example.com/a%20b.mp3?x=%2F"
    assert ask(port, f"/r/{media}", Range="bytes=0-99") == (302, f"https://{media}")
    # What is not listed leads nowhere, and leaves no line.
    assert ask(port, "/go/other") == (404, None)
    assert ask(port, "/r/elsewhere.example.net/a.mp3") == (404, None)
    assert ask(port, "/pixel.gif", host="elsewhere.example.net") == (404, None)
    wait_for(lambda: lines(landing) == 3)

    results = load_landing(connection, str(landing), key=KEY)
    assert [result.refused for result in results] == [None] * len(results)
    dbt.build()
    conversions = connection.execute(
        "select order_number, value, claimed_campaign_id from marts.fct_conversions"
    ).fetchall()
    assert [(number, str(value), campaign) for number, value, campaign in conversions] == [("1001", "59.90", "C1")]
    (visits,) = connection.execute(
        "select count(*) from raw.attribution_events where type = 'vanity_url' and household_key is not null"
    ).fetchone() or (0,)
    assert visits == 1
    asked = connection.execute("select enclosure_key, byte_range, listener_key is null from raw.listener_events")
    assert asked.fetchall() == [("media.example.com/a%20b.mp3", "bytes=0-99", False)]
