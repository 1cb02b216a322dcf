"""How the address of a database is written: the one place where one is taken apart.

libpq and URL libraries name the piece that they stumble over, and that can be a password: one that holds an @ or
a / is cut there, and its end is taken for a host or a port. So what is doubtful is refused here, before a driver
sees it, in words that repeat nothing of it.
"""

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import quote, quote_plus, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from earmark.errors import EarmarkError

FORM: Final = "postgresql://user:password@host:port/database"

# What may stand in a URL as it is. An @ stands in it once at most, as the end of user and password.
_PLAIN: Final = r"(?:[^\s\x00-\x1f\x7f%@:/?#\[\]\\\"<>^`{|}]|%[0-9A-Fa-f]{2})"
_URL: Final = re.compile(
    r"postgres(?:ql)?://"
    rf"(?:(?P<user>{_PLAIN}*)(?::(?P<password>(?:{_PLAIN}|:)*))?@)?"
    rf"(?P<host>\[[0-9A-Fa-f:.]+(?:%25\w+)?\]|{_PLAIN}*)(?::(?P<port>\d*))?"
    rf"(?:/(?P<dbname>{_PLAIN}*))?"
    r"(?:\?(?P<options>[^\s\x00-\x1f\x7f@#]*))?"
)
_OPTION: Final = re.compile(rf"([a-z_]+)=((?:{_PLAIN}|[:/])*)")
_HOST_NAME: Final = re.compile(r"(?!.{254})(?:[A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?")
_ZONE: Final = re.compile(r"%\w+$")
_PORTS: Final = range(1, 65536)
_CONNECTION: Final = frozenset({"host", "port", "user", "password", "dbname"})
# libpq's options that hold no secret. Those with one (sslpassword) could not be handed on to dbt and psql unseen.
_TAKEN: Final = (
    "application_name channel_binding client_encoding connect_timeout fallback_application_name gssdelegation "
    "gssencmode gsslib hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname "
    "load_balance_hosts max_protocol_version min_protocol_version options passfile require_auth requirepeer "
    "ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey "
    "sslmode sslnegotiation sslrootcert sslsni target_session_attrs tcp_user_timeout"
)
_OPTIONS: Final = frozenset(_TAKEN.split())
_SHORTEST: Final = 3  # of a password that is looked for in texts: a shorter one is in every other word


class AddressError(EarmarkError, ValueError):
    """An address is wrong. The text says in what way and repeats nothing of it."""


def parse(address: str) -> dict[str, str]:
    """Take a URL or a connection string of libpq apart, by libpq's names: host, port, user, password, dbname, ...

    Raises:
        AddressError: it is not well-formed, doubtful, or has an option that is not known or not taken.

    """
    if not is_text(address):
        raise AddressError("it holds characters that no address may hold")
    if re.match(r"postgres(ql)?://", address):
        parts = _parse_url(address)
    else:
        try:
            parts = {name: str(value) for name, value in conninfo_to_dict(address).items()}
        except psycopg.Error:
            raise AddressError(f"it is not of the form {FORM}") from None
    unknown = parts.keys() - _CONNECTION - _OPTIONS
    if unknown:
        raise AddressError("it has an option that libpq does not know, or one that is not taken here")
    if parts.get("host"):
        check_host(parts["host"])
    if "port" in parts and (not parts["port"].isdecimal() or int(parts["port"][:6]) not in _PORTS):
        raise AddressError("its port is no whole number from 1 to 65535")
    if not all(is_text(value) for value in parts.values()):
        raise AddressError("it holds characters that no address may hold")
    return parts


def check_host(host: str) -> None:
    """Refuse what is neither a host's name nor an IP address nor the folder of a socket.

    Raises:
        AddressError: it is not; several hosts in one are not either.

    """
    if not is_text(host):
        raise AddressError("its host holds characters that no host may hold")
    if host.startswith("/"):
        if "," in host or "://" in host:
            raise AddressError("its host is no folder of a socket")
        return
    if ":" in host:
        try:
            ip_address(_ZONE.sub("", host))
        except ValueError:
            raise AddressError("its host is no name and no IP address") from None
    elif not _HOST_NAME.fullmatch(host):
        raise AddressError("its host is no name and no IP address (one host only)")


def scrub(text: str, password: str | None) -> str:
    """Return a driver's text without the password, however it was written there."""
    if password is None or len(password) < _SHORTEST:
        return text
    data = password.encode(errors="surrogateescape")
    forms = {password, quote(data), quote(data, safe=""), quote_plus(data), repr(password)[1:-1]}
    forms |= {password.replace("\\", r"\\").replace("'", r"\'")}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def _parse_url(url: str) -> dict[str, str]:
    found = _URL.fullmatch(url)
    if found is None:
        raise AddressError(
            f"it is not of the form {FORM}, where in user and password all but letters, digits and -._~ is "
            "written percent-encoded: @ as %40, / as %2F, % as %25"
        )
    parts = {
        name: unquote(value.strip("[]") if name == "host" else value, errors="surrogateescape")
        for name, value in found.groupdict().items()
        if value and name != "options"
    }
    for pair in filter(None, (found["options"] or "").split("&")):
        option = _OPTION.fullmatch(pair)
        if option is None:
            raise AddressError("what follows the ? in it is not of the form name=value&name=value")
        parts[option[1]] = unquote(option[2], errors="surrogateescape")
    return parts


def is_text(text: str) -> bool:
    """Whether it has no control characters and can be written in UTF-8."""
    return not re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", text)
