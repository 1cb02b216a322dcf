"""A file behind a signed URL is loaded, and what opens it is nowhere in the database."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from earmark.addresses.privacy import HashKey
from earmark.ingestion.landing import load_path

SECRET = "hUnt3r2zz"
LINE = '198.18.0.1 - - [06/Jan/2026:08:00:00 +0000] "GET /a.mp3 HTTP/1.1" 200 9 "-" "Overcast/3.0"\n'


class Signed(SimpleHTTPRequestHandler):
    """Serves a folder to whoever has the signature."""

    def do_GET(self) -> None:  # noqa: D102  (the name is the library's)
        if f"sig={SECRET}" in self.path:
            super().do_GET()
        else:
            self.send_error(403)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Signed, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_signed_url_is_loaded_and_kept_without_its_signature(
    connection: psycopg.Connection, site: str, tmp_path: Path
) -> None:
    (tmp_path / "access.log").write_text(LINE + "not a line of a log at all\n")
    (tmp_path / "other.log").write_text("x" * 40)
    connection.execute("insert into tenancy.tenants (tenant_id, name) values ('acme', 'Acme')")
    connection.commit()
    key = HashKey("k1", b"0123456789abcdef")
    results = []
    for name in ("access.log", "access.log", "other.log"):
        url = f"{site}/{name}?sig={SECRET}&expires=1"
        results += load_path(connection, url, key=key, tenant_id="acme", source="nginx")
    assert SECRET not in str(results)
    assert [result.uri.split("?")[1] for result in results] == ["sig=***&expires=***"] * 3
    assert results[0].report is not None
    assert results[1].report is not None
    assert results[1].report.already_loaded_as is not None  # the same file, whoever signed it
    tables = connection.execute(
        "select table_schema, table_name from information_schema.tables where table_schema in ('raw', 'ingest')"
    ).fetchall()
    for schema, table in tables:
        rows = connection.execute(
            sql.SQL("select t::text from {} as t").format(sql.Identifier(schema, table))
        ).fetchall()
        assert SECRET not in str(rows), table
    assert connection.execute("select uri from ingest.loads").fetchall() == [
        (f"{site}/access.log?sig=***&expires=***",)
    ]
