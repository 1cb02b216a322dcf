"""Settings: which server is meant, and what a wrong value is told. A password never shows."""

import pytest

from earmark.settings import SettingsError, load_settings
from earmark.warehouse.database import Database
from earmark.warehouse.server import resolve

URL = "postgresql://ann:s3cret%40@db.example.com:6543/pods?sslmode=require"


def test_database_url_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("POSTGRES_HOST", "elsewhere")
    database = resolve(load_settings())
    assert (database.host, database.port, database.name) == ("db.example.com", 6543, "pods")
    assert database.password == "s3cret@"
    assert dict(database.options) == {"sslmode": "require"}


def test_postgres_variables_and_ssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "db")
    monkeypatch.setenv("POSTGRES_PASSWORD", "s3cret")
    monkeypatch.setenv("POSTGRES_SSLMODE", "verify-full")
    monkeypatch.setenv("POSTGRES_SSLROOTCERT", "/etc/ca.pem")
    database = resolve(load_settings())
    assert database.environment()["POSTGRES_SSLMODE"] == "verify-full"
    assert "sslrootcert=/etc/ca.pem" in database.conninfo()


def test_a_read_replica_serves_reading_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("DATABASE_READ_URL", "postgresql://ann@replica/pods")
    settings = load_settings()
    assert resolve(settings).host == "db.example.com"
    assert resolve(settings, read_only=True).host == "replica"


def test_without_a_server_the_embedded_one_is_meant() -> None:
    assert load_settings().uses_embedded_server


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("POSTGRES_PORT", "abc", "POSTGRES_PORT holds 'abc'; allowed: a whole number from 1 to 65535"),
        ("POSTGRES_SSLMODE", "yes", "POSTGRES_SSLMODE holds 'yes'; allowed: disable, allow"),
        ("EARMARK_ENGINE", "oracle", "EARMARK_ENGINE holds 'oracle'; allowed: auto, timescaledb or postgres"),
        ("EARMARK_DBT_THREADS", "0", "EARMARK_DBT_THREADS holds '0'; allowed"),
        ("EARMARK_POOL_MAX_SIZE", "0", "EARMARK_POOL_MAX_SIZE holds '0'; allowed: a whole number from 1 to 100"),
        ("EARMARK_POOL_MIN_SIZE", "9", "at least EARMARK_POOL_MIN_SIZE"),
        ("EARMARK_TRUSTED_PROXIES", "10.0.0.0/8,lb.example.com", "10.0.0.0/8,lb.example.com'; allowed: addresses"),
        (
            "EARMARK_TRUSTED_PROXIES",
            "10.0.0.1/8",
            "EARMARK_TRUSTED_PROXIES holds '10.0.0.1/8'; allowed: addresses",
        ),
        ("EARMARK_NETWORK_URLS", "aws", "a value that is not shown; allowed: name=URL pairs"),
        ("EARMARK_HASH_KEY_ID", "a b", "EARMARK_HASH_KEY_ID holds 'a b'; allowed"),
    ],
)
def test_a_wrong_value_is_explained(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert told in str(error.value)


@pytest.mark.parametrize("value", ["mysql://ann:s3cret@db/pods", "postgresql://ann:s3cret@db", "s3cret"])
def test_a_wrong_url_is_explained_without_its_password(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DATABASE_URL", value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert "DATABASE_URL" in str(error.value)
    assert "postgresql://user:password@host:port/database" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_trusted_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().trusted_proxies == ()
    monkeypatch.setenv("EARMARK_TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1,2001:db8::/32")
    found = [str(network) for network in load_settings().trusted_proxies]
    assert found == ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]


def test_mirrors_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARMARK_NETWORK_URLS", "aws=https://mirror/a?b=c, oracle=file:///srv/oracle.json")
    assert load_settings().network_urls == {"aws": "https://mirror/a?b=c", "oracle": "file:///srv/oracle.json"}


def test_a_password_shows_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", URL)
    monkeypatch.setenv("EARMARK_HASH_KEY", "s3cret" * 4)
    settings = load_settings()
    assert "s3cret" not in f"{settings!r} {resolve(settings)!r} {resolve(settings)}"


@pytest.mark.parametrize(
    "database",
    [
        Database("db.example.com", 5432, "pods", "ann", "p@ss:/word", (("sslmode", "require"),)),
        Database("/run/sockets", 5433, "pods", "ann"),
    ],
)
def test_an_address_survives_its_url(database: Database) -> None:
    assert Database.from_url(database.url()) == database
    assert Database.from_url(database.conninfo()) == database


def test_settings_of_a_session_go_into_the_url() -> None:
    url = Database("db", 5432, "pods", "ann").url(search_path="dagster", synchronous_commit="off")
    assert dict(Database.from_url(url).options) == {"options": "-csearch_path=dagster -csynchronous_commit=off"}
