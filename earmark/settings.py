"""Settings, read from the environment and a ``.env`` file at the project's root.

What lives here: every variable that earmark reads, its type, its default and what a wrong value is told.
What does not: opening anything. ``lib.warehouse`` connects.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from earmark import database_url as address
from earmark.errors import EarmarkError

PROJECT_ROOT: Final = Path(__file__).resolve().parents[1]

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]

_ALLOWED: Final = {
    "POSTGRES_HOST": "one host name or IP address, or the folder of a Unix socket",
    "POSTGRES_DATABASE": "the name of a database",
    "POSTGRES_USER": "the name of a role",
    "POSTGRES_PASSWORD": "text without control characters",
    "POSTGRES_SSLROOTCERT": "the path of a file",
    "POSTGRES_SSLCERT": "the path of a file",
    "POSTGRES_SSLKEY": "the path of a file",
    "POSTGRES_PORT": "a whole number from 1 to 65535",
    "POSTGRES_SSLMODE": "disable, allow, prefer, require, verify-ca or verify-full",
    "EARMARK_ENGINE": "auto, timescaledb or postgres",
    "EARMARK_POOL_MIN_SIZE": "a whole number from 0 to 100, at most EARMARK_POOL_MAX_SIZE",
    "EARMARK_POOL_MAX_SIZE": "a whole number from 1 to 100, at least EARMARK_POOL_MIN_SIZE",
    "EARMARK_DBT_THREADS": "a whole number from 1 to 64",
    "EARMARK_HASH_KEY": "at least 16 characters, better 32 random bytes in hexadecimal",
    "EARMARK_HASH_KEY_ID": "1 to 32 letters, digits, - or _",
    "EARMARK_HOME": "a folder",
    "EARMARK_LANDING": "a folder or a URL such as s3://bucket/landing, without a password and without a query: "
    "credentials are given as its driver takes them (AWS_ACCESS_KEY_ID and so on)",
    "EARMARK_NETWORK_URLS": "name=URL pairs, comma-separated, such as aws=https://mirror.example.com/aws.json",
    "EARMARK_TRUSTED_PROXIES": "addresses and CIDR ranges, comma-separated, such as 10.0.0.0/8,2001:db8::1",
}


_SHOWN: Final = 60  # characters of a wrong value that are repeated; a longer one is something else pasted there


class SettingsError(EarmarkError, ValueError):
    """A setting has a wrong value. The text names the variable, what it holds (no secret) and what is allowed."""


class Settings(BaseSettings):
    """All settings. ``DATABASE_URL`` wins over ``POSTGRES_*``; with neither, the embedded server is used."""

    model_config = SettingsConfigDict(
        env_file=PROJECT_ROOT / ".env",
        env_ignore_empty=True,
        extra="ignore",
        hide_input_in_errors=True,
    )

    database_url: SecretStr | None = None
    database_read_url: SecretStr | None = None

    postgres_host: str | None = None
    postgres_port: Annotated[int, Field(ge=1, le=65535)] = 5432
    postgres_database: str = "earmark"
    postgres_user: str = "earmark"
    postgres_password: SecretStr | None = None
    postgres_sslmode: SslMode | None = None
    postgres_sslrootcert: str | None = None
    postgres_sslcert: str | None = None
    postgres_sslkey: str | None = None

    # How tables are cut by time. auto: TimescaleDB where it is there, fully licensed, else plain PostgreSQL.
    engine: Annotated[Literal["auto", "timescaledb", "postgres"], Field(alias="EARMARK_ENGINE")] = "auto"
    pool_min_size: Annotated[int, Field(alias="EARMARK_POOL_MIN_SIZE", ge=0, le=100)] = 1
    pool_max_size: Annotated[int, Field(alias="EARMARK_POOL_MAX_SIZE", ge=1, le=100)] = 4
    dbt_threads: Annotated[int, Field(alias="EARMARK_DBT_THREADS", ge=1, le=64)] = 4
    home: Annotated[Path, Field(alias="EARMARK_HOME")] = PROJECT_ROOT / ".earmark"
    landing: Annotated[str | None, Field(alias="EARMARK_LANDING")] = None
    hash_key: Annotated[SecretStr | None, Field(alias="EARMARK_HASH_KEY", min_length=16)] = None
    hash_key_id: Annotated[str, Field(alias="EARMARK_HASH_KEY_ID", pattern=r"^[A-Za-z0-9_-]{1,32}$")] = "k1"

    # Proxies of one's own, whose X-Forwarded-For says who the client is.
    trusted_proxies: Annotated[
        tuple[IPv4Network | IPv6Network, ...], NoDecode, Field(alias="EARMARK_TRUSTED_PROXIES")
    ] = ()

    # Where public lists of networks are, if not at their owners': mirrors.
    network_urls: Annotated[dict[str, str], NoDecode, Field(alias="EARMARK_NETWORK_URLS")] = {}

    @field_validator("network_urls", mode="before")
    @classmethod
    def _are_pairs(cls, value: str | dict[str, str]) -> dict[str, str]:
        if not isinstance(value, str):
            return value
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        if not all(name and "://" in url for name, _, url in pairs):
            raise ValueError("not name=URL pairs")
        return {name.strip(): url.strip() for name, _, url in pairs}

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _are_networks(cls, value: str | tuple[IPv4Network | IPv6Network, ...]) -> tuple[object, ...]:
        if not isinstance(value, str):
            return value
        return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())

    @field_validator("database_url", "database_read_url")
    @classmethod
    def _is_a_postgres_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            url = value.get_secret_value()
            if not url.startswith(("postgresql://", "postgres://")) or "dbname" not in address.parse(url):
                raise address.AddressError(f"it is not of the form {address.FORM}")
        return value

    @field_validator("postgres_host")
    @classmethod
    def _is_a_host(cls, value: str | None) -> str | None:
        if value is not None:
            address.check_host(value)
        return value

    @field_validator(
        "postgres_database",
        "postgres_user",
        "postgres_sslrootcert",
        "postgres_sslcert",
        "postgres_sslkey",
        "landing",
    )
    @classmethod
    def _is_text(cls, value: str | None) -> str | None:
        if value is not None and not address.is_text(value):
            raise ValueError("holds control characters")
        return value

    @field_validator("postgres_database", "postgres_user")
    @classmethod
    def _is_no_url(cls, value: str) -> str:
        if "://" in value:
            raise ValueError("is a URL")
        return value

    @field_validator("postgres_password", "hash_key")
    @classmethod
    def _is_secret_text(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not address.is_text(value.get_secret_value()):
            raise ValueError("holds control characters")
        return value

    @field_validator("home")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        return _absolute(str(value))

    @field_validator("landing")
    @classmethod
    def _is_a_folder_or_url(cls, value: str | None) -> str | None:
        if value is None or "://" in value:
            if value is not None and re.search(r"://[^@]*:[^@]*@|[?#]", value):
                raise ValueError("holds credentials or a query")
            return value
        return str(_absolute(value))

    @field_validator("pool_max_size")
    @classmethod
    def _holds_the_smallest(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("pool_min_size", 0):
            raise ValueError("smaller than EARMARK_POOL_MIN_SIZE")
        return value

    @property
    def uses_embedded_server(self) -> bool:
        """Whether no server is named, so that the embedded one is meant."""
        return self.database_url is None and self.postgres_host is None

    @property
    def landing_root(self) -> str:
        """The landing folder, by default ``landing`` in ``home``: a path or an fsspec URL."""
        return self.landing or str(self.home / "landing")


def load_settings() -> Settings:
    """Read the settings.

    Raises:
        SettingsError: a variable has a wrong value.

    """
    try:
        return Settings()
    except ValidationError as error:
        lines = _explain(error)
    except (SourceError, UnicodeError) as error:
        lines = [f"{PROJECT_ROOT / '.env'} cannot be read as text in UTF-8 ({type(error).__name__})."]
    except OSError as error:
        lines = [f"{error.filename or PROJECT_ROOT / '.env'} cannot be read ({error.strerror})."]
    # Out of the handlers: not even as its context does the error carry what was read.
    raise SettingsError("\n".join(lines))


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, read once."""
    return load_settings()


def _absolute(path: str) -> Path:
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, OSError):  # ~nobody, or a loop of links
        raise ValueError("no path") from None


def _explain(error: ValidationError) -> list[str]:
    lines = []
    for detail in error.errors(include_input=True, include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else "the settings"
        known = Settings.model_fields.get(name.lower())
        variable = (known.alias if known and known.alias else name).upper()
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, address.AddressError) and variable not in _ALLOWED:
            fix = str(cause)
        else:
            fix = f"allowed: {_ALLOWED.get(variable, 'another value')}"
        lines.append(f"{variable} holds {_shown(variable, detail.get('input'))}; {fix}.")
    return lines


def _shown(variable: str, held: object) -> str:
    """Return a wrong value, unless it is a secret or looks like one that was put into the wrong variable."""
    text = repr(held)
    if (
        _is_secret(variable)
        or isinstance(held, SecretStr)
        or len(text) > _SHOWN
        or re.search(r"[@?=\\]|://", text)
    ):
        return "a value that is not shown"
    return text


def _is_secret(variable: str) -> bool:
    return any(word in variable for word in ("URL", "PASSWORD", "KEY")) and not variable.endswith("_ID")
