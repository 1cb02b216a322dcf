"""Formats of access logs as servers are told them: nginx's ``log_format`` and Apache's ``LogFormat``.

Such a string says where the client's address, the time, the request, bytes, ranges and forwarded addresses stand,
quoted or not. It becomes a pattern for lines, or, where it is a JSON object, the keys that hold what. What parts
mean for a request is said by a role; what roles become is in ``sources/access_log``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from earmark.ingestion.errors import Again, LoadError

MAX_FORMAT: Final = 8192

# What a variable of nginx or a directive of Apache is for us. The first of a role that a format has counts.
_NGINX: Final[Mapping[str, str]] = {
    "remote_addr": "ip",
    "realip_remote_addr": "connecting",
    "proxy_protocol_addr": "forwarded_for",
    "http_x_forwarded_for": "forwarded_for",
    "proxy_add_x_forwarded_for": "forwarded_for",
    "http_cf_connecting_ip": "forwarded_for",
    "http_true_client_ip": "forwarded_for",
    "http_fastly_client_ip": "forwarded_for",
    "http_x_real_ip": "forwarded_for",
    "time_local": "time_clf",
    "time_iso8601": "time_iso",
    "msec": "time_epoch",
    "request": "request",
    "request_method": "method",
    "request_uri": "uri",
    "uri": "path",
    "document_uri": "path",
    "args": "query",
    "query_string": "query",
    "status": "status",
    "body_bytes_sent": "body_bytes",
    "bytes_sent": "all_bytes",
    "http_referer": "referrer",
    "http_user_agent": "user_agent",
    "host": "host",
    "http_host": "host",
    "server_name": "host",
    "scheme": "scheme",
    "http_range": "asked_range",
    "sent_http_content_range": "content_range",
    "sent_http_content_length": "content_length",
    "geoip_country_code": "country_code",
    "geoip2_data_country_code": "country_code",
    "http_cf_ipcountry": "country_code",
}
_HEADERS: Final[Mapping[str, str]] = {
    "x-forwarded-for": "forwarded_for",
    "cf-connecting-ip": "forwarded_for",
    "true-client-ip": "forwarded_for",
    "fastly-client-ip": "forwarded_for",
    "x-real-ip": "forwarded_for",
    "referer": "referrer",
    "user-agent": "user_agent",
    "host": "host",
    "range": "asked_range",
    "cf-ipcountry": "country_code",
}
_APACHE: Final[Mapping[str, str]] = {
    "h": "ip",
    "a": "ip",
    "t": "time_bracketed",
    "r": "request",
    "m": "method",
    "U": "path",
    "q": "query",
    "s": "status",
    "b": "body_bytes",
    "B": "body_bytes",
    "O": "all_bytes",
    "v": "host",
    "V": "host",
}
_EPOCHS: Final[Mapping[str, str]] = {"sec": "time_epoch", "%s": "time_epoch", "msec": "time_ms", "usec": "time_us"}
_WHOLE_URIS: Final = frozenset(("%U%q", "$uri$is_args$args", "$document_uri$is_args$args"))
TIMES: Final = ("time_clf", "time_bracketed", "time_iso", "time_epoch", "time_ms", "time_us", "time_own")

# How a value of a role looks where no quotes stand around it. All else: anything up to what follows.
_FORMS: Final[Mapping[str, str]] = {
    "ip": r"\S+",
    "time_clf": r"[^\]\"]+?",
    "time_bracketed": r"\[[^\]]+\]",
    "time_iso": r"\S+?",
    "time_epoch": r"\d+(?:\.\d+)?",
    "time_ms": r"\d+",
    "time_us": r"\d+",
    "status": r"\d{3}|-",
    "body_bytes": r"\d+|-",
    "all_bytes": r"\d+|-",
    "method": r"[A-Za-z-]+",
    "host": r"\S+?",
    "query": r"\S*?",
}
_QUOTED: Final = r'(?:[^"\\]|\\.)*'
_NGINX_PART: Final = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_APACHE_PART: Final = re.compile(r"%(?:[<>!0-9,]*)(?:\{([^}]*)\})?[<>]?(\^t[io]|[A-Za-z%])")
_DIRECTIVE_NGINX: Final = re.compile(r"^\s*log_format\s+\S+\s+(?:escape=\w+\s+)?(.*?);?\s*$", re.DOTALL)
_DIRECTIVE_APACHE: Final = re.compile(r"^\s*LogFormat\s+\"((?:[^\"\\]|\\.)*)\"(?:\s+\S+)?\s*$", re.DOTALL)
_PIECE: Final = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)


class LogFormatError(LoadError):
    """A format of a log cannot be used. The text says why and what to do."""

    again = Again.ALWAYS  # it is no part of the file


@dataclass(frozen=True, slots=True)
class LogFormat:
    """A format: the pattern of its lines with a group a role, or of JSON the path of each role's key."""

    pattern: str | None
    paths: Mapping[str, str] = field(default_factory=dict)
    roles: frozenset[str] = frozenset()
    time_format: str | None = None  # of role time_own, as strptime has it


def parse_format(text: str) -> LogFormat:
    """Read a format: the string itself or the whole directive, as it stands in the server's configuration.

    Raises:
        LogFormatError: it is none, or does not say where address, time or request stand.

    """
    text = text.strip().removeprefix("\ufeff")
    if not text or len(text) > MAX_FORMAT:
        raise LogFormatError(
            f"the log format is {'empty' if not text else f'longer than {MAX_FORMAT} characters'}"
        )
    text = _without_directive(text)
    is_apache = "%" in text and _NGINX_PART.search(text) is None
    read = _json_format if text.startswith("{") else _line_format
    found = read(text, is_apache=is_apache)
    _require(found.roles)
    return found


def _require(roles: frozenset[str]) -> None:
    missing = []
    if not roles & {"ip", "forwarded_for"}:
        missing.append("the client's address ($remote_addr, %h, %a, or a forwarded header)")
    if not roles & set(TIMES):
        missing.append("the time ($time_local, $time_iso8601, $msec, %t)")
    if not roles & {"request", "uri", "path"}:
        missing.append("the request ($request, $request_uri, %r, %U)")
    if missing:
        raise LogFormatError(
            f"the log format does not say where {' and '.join(missing)} stand: give nginx's log_format or "
            "Apache's LogFormat as it stands in the server's configuration"
        )


def _without_directive(text: str) -> str:
    nginx = _DIRECTIVE_NGINX.match(text)
    if nginx is not None:
        pieces = [one or two for one, two in _PIECE.findall(nginx[1])]
        return re.sub(r"\\(['\"\\])", r"\1", "".join(pieces) or nginx[1])
    apache = _DIRECTIVE_APACHE.match(text)
    if apache is not None:
        return re.sub(r"\\([\"\\])", r"\1", apache[1]).replace("\\t", "\t")
    pieces = _PIECE.findall(text)
    if text.startswith("'") and text.endswith("'") and _PIECE.sub("", text).isspace() | (not _PIECE.sub("", text)):
        return "".join(one or two for one, two in pieces)
    return text.replace('\\"', '"').replace("\\t", "\t") if not text.startswith("{") else text


def _line_format(text: str, *, is_apache: bool) -> LogFormat:
    part = _APACHE_PART if is_apache else _NGINX_PART
    pattern = ["^"]
    roles: dict[str, None] = {}
    time_format = None
    at = 0
    for found in part.finditer(text):
        literal = text[at : found.start()]
        pattern.append(_literal(literal))
        at = found.end()
        if is_apache and found[2] == "%":
            pattern.append("%")
            continue
        role, own_time = _role(found, is_apache=is_apache)
        quoted = literal.endswith('"') and text[at : at + 1] == '"'
        form = _QUOTED if quoted else _FORMS.get(role or "", r".*?")
        if role == "time_own" and role in roles:
            raise LogFormatError("the log format has its time in several parts: give it in one, such as %t")
        if role is None or role in roles:
            pattern.append(f"(?:{form})")
            continue
        if own_time is not None:
            time_format = own_time
            form = r"[^\"]+?"
        roles[role] = None
        pattern.append(f"(?P<{role}>{form})")
    pattern += [_literal(text[at:].rstrip()), r"\s*$"]
    return LogFormat("".join(pattern), {}, frozenset(roles), time_format)


def _literal(text: str) -> str:
    # Rust's patterns and Python's escape alike but for what Python need not escape.
    return re.sub(r"([.^$*+?()\[\]{}|\\/#&~-])", r"\\\1", text)


def _role(found: re.Match[str], *, is_apache: bool) -> tuple[str | None, str | None]:
    """Return the role of a variable, None where it has none: nobody knows whether it says who the client is.

    With it the format of a time, where the log has its own.
    """
    if is_apache:
        return _apache_role(found[1], found[2])
    return _NGINX.get(found[1] or found[2]), None


def _apache_role(argument: str | None, letter: str) -> tuple[str | None, str | None]:
    if argument is None:
        return _APACHE.get(letter), None
    if letter == "t":
        name = argument.removeprefix("begin:").removeprefix("end:")
        return (_EPOCHS[name], None) if name in _EPOCHS else ("time_own", name)
    if letter in ("h", "a"):
        return ("connecting" if argument == "c" else "ip"), None
    if letter == "i":
        return _HEADERS.get(argument.lower()), None
    if letter == "o":
        return {"content-range": "content_range", "content-length": "content_length"}.get(argument.lower()), None
    return None, None


def _json_format(text: str, *, is_apache: bool) -> LogFormat:
    part = _APACHE_PART if is_apache else _NGINX_PART
    # Values of numbers stand without quotes: no JSON until the variables are text.
    quoted = re.sub(rf"(:\s*)({part.pattern})(\s*[,}}])", r'\1"\2"\5', text)
    quoted = quoted.replace('\\"%', '"%').replace('\\"', '"') if not _is_object(quoted) else quoted
    try:
        value = orjson.loads(quoted)
    except orjson.JSONDecodeError as error:
        raise LogFormatError(
            f"the log format begins with {{ and is no JSON object ({error}): give it as it stands in the server's "
            "configuration"
        ) from error
    paths: dict[str, str] = {}
    time_format = None
    for path, template in _leaves(value):
        if template.strip() in _WHOLE_URIS:
            paths.setdefault("uri", path)
            continue
        found = part.fullmatch(template.strip()) or part.fullmatch(template.strip().strip("[]"))
        if found is None:
            continue
        role, own_time = _role(found, is_apache=is_apache)
        if role is not None and role not in paths:
            paths[role] = path
            time_format = own_time or time_format
    return LogFormat(None, paths, frozenset(paths), time_format)


def _is_object(text: str) -> bool:
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def _leaves(value: object, path: str = "$") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            leaf for key, item in value.items() for leaf in _leaves(item, f"{path}[{orjson.dumps(key).decode()}]")
        ]
    return [(path, value)] if isinstance(value, str) else []


def format_of_keys(keys: tuple[str, ...]) -> LogFormat | None:
    """Return the format of JSON lines whose keys are named as nginx's variables; None where they are not."""
    paths: dict[str, str] = {}
    for name, role in _NGINX.items():
        if name in keys:
            paths.setdefault(role, f'$["{name}"]')
    if "time_iso" not in paths:
        time = next((name for name in ("@timestamp", "timestamp", "time") if name in keys), None)
        if time is not None and not paths.keys() & set(TIMES):
            paths["time_any"] = f'$["{time}"]'
    roles = frozenset(paths)
    has_time = bool(roles & {*TIMES, "time_any"})
    # A request and a status: rows of other kinds may well have a remote_addr.
    if has_time and "status" in roles and roles & {"request", "uri", "path"} and roles & {"ip", "forwarded_for"}:
        return LogFormat(None, paths, roles)
    return None
