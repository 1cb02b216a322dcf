"""Where in the lines of an access log the client's address stands, found over the lines of a file.

The combined and the common form begin with the client; servers are told to put a virtual host, an address of their
own or forwarded addresses before it, and what carries logs (syslog, Docker, Kubernetes) puts more. The layout is
found once a file. Where two addresses stand side by side and the file does not tell which is the client's, it is
refused: a format says (``log_formats``).
"""

import ipaddress
from dataclasses import dataclass
from typing import Final

import polars as pl

from earmark.addresses.privacy import bare_address
from earmark.addresses.ranges import parse_address
from earmark.ingestion.errors import Again, LoadError

SAMPLE: Final = 2000  # lines that are looked at
_FEW: Final = 3  # addresses that all end in .0 are masked: by chance one file in sixteen million

_OCTETS: Final = r"\d{1,3}(?:\.\d{1,3}){3}"
_V6: Final = r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._-]+)?"
ADDRESS: Final = rf"(?:{_OCTETS}(?::\d+)?|{_V6}|\[{_V6}\](?::\d+)?)"
_LISTED: Final = rf"(?:{ADDRESS}|unknown|_[A-Za-z0-9._-]+)"
_LIST: Final = rf'"?{_LISTED}(?: *, *{_LISTED})*"?'
_NAME: Final = r"(?:[A-Za-z0-9._-]*[A-Za-z_][A-Za-z0-9._-]*(?::\d+)?|-|_)"
_QUOTED: Final = r'(?:[^"\\]|\\.)*'
_BETWEEN: Final = r"(?P<between>\S+ .*?)\s?"
_REST: Final = (
    rf'\[(?P<time_clf>[^\]]+)\] "(?P<request>{_QUOTED})" (?P<status>\d{{3}}|-) (?P<body_bytes>\d+|-)'
    rf'(?: "(?P<referrer>{_QUOTED})" "(?P<user_agent>{_QUOTED})")?(?P<log_extra>.*)$'
)
_HEADS: Final = {
    "plain": rf"(?:(?P<host>{_NAME}) (?P<ip>{ADDRESS})|(?P<client>[^\s,]+))",
    "forwarded": rf'(?P<forwarded_for>{_LIST}|"?-"?) (?P<ip>{ADDRESS})',
    "second": rf"(?:{ADDRESS}) (?P<ip>{ADDRESS})",
    "first": rf"(?P<ip>{ADDRESS}) (?:{ADDRESS})",
    "listed": rf'(?P<forwarded_for>{_LIST}|"?-"?)',
}
_STAMP: Final = r"\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:?\d\d)"
_PREFIXES: Final = (
    rf"{_STAMP} (?:stdout|stderr) [FP] ",  # container runtimes (CRI)
    r"(?:<\d{1,3}>)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ [^\s:\[]+(?:\[\d+\])?: ",  # syslog (RFC 3164)
    rf"(?:<\d{{1,3}}>)?{_STAMP} \S+ [^\s:\[]+(?:\[\d+\])?: ",  # the same with times as in ISO 8601
    r"<\d{1,3}>\d{1,2} \S+ \S+ \S+ \S+ \S+ (?:-|(?:\[[^\]]*\])+) ",  # syslog (RFC 5424)
    rf"[A-Za-z0-9][A-Za-z0-9_.-]* +\| +(?:{_STAMP} )?",  # docker compose
    rf"\[pod/[^\]]+\] (?:{_STAMP} )?",  # kubectl logs --prefix
    rf"{_STAMP} ",  # docker logs -t
)
_PREFIX: Final = rf"(?:{'|'.join(_PREFIXES)})"
# A line that may be one of an access log; what stands before its time is not looked at.
LOOKS_SO: Final = rf'\S+ .*\[[^\]]+\] "{_QUOTED}" (?:\d{{3}}|-) (?:\d+|-)'
_BEFORE: Final = rf'^(?:{_PREFIX})?(?P<before>\S+ .*?)\s?\[[^\]]+\] "{_QUOTED}" (?:\d{{3}}|-) (?:\d+|-)'

# Addresses of networks within: no client on the internet has one. Documentation ranges are none of them.
_WITHIN: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "127.0.0.0/8",
        "fc00::/7",
        "fe80::/10",
        "::1/128",
    )
)
_LAST_WELL_KNOWN: Final = 1023


class LayoutError(LoadError):
    """The lines of a log do not tell which of their addresses is the client's."""

    again = Again.ALWAYS  # a format beside it, or proxies that are trusted, may tell


@dataclass(frozen=True, slots=True)
class Layout:
    """Where what stands in a line. ``masked`` says that all addresses of the file lack their end."""

    name: str
    pattern: str
    masked: bool = False


def find_layout(lines: pl.Series, name: str, *, trusts: bool) -> Layout:
    """Find the layout of a log over its lines.

    Raises:
        LayoutError: the lines do not tell.

    """
    sample = lines.head(SAMPLE)
    before = sample.str.extract_groups(_BEFORE).struct.field("before")
    known = before.drop_nulls()
    has_prefix = sample.str.contains(rf"^{_PREFIX}\S").sum() * 2 > len(sample)
    pairs = known.str.contains(rf"^{ADDRESS} {ADDRESS} \S+")
    lists = known.str.contains(rf'^"?{_LISTED} *,')
    behind = known.str.contains(rf"^{_LIST} {ADDRESS} \S+") & lists
    head = "plain"
    if behind.any() or (pairs.any() and known.str.contains(rf'^"?-"? {ADDRESS} ').any()):
        head = "forwarded"
    elif lists.any():
        head = "listed"
        if not trusts and int(lists.sum()) * 2 > len(known):
            raise LayoutError(
                f"{name}: its lines begin with several forwarded addresses, and which of them is the client's "
                "depends on which are your proxies; nothing was loaded. Name these in EARMARK_TRUSTED_PROXIES "
                "(addresses and CIDR ranges) and load it again"
            )
    elif int(pairs.sum()) * 2 > len(known):
        head = _of_two(lines, name, has_prefix=has_prefix)
    prefix = _PREFIX if has_prefix else ""
    pattern = f"^{prefix}{_HEADS[head]} {_BETWEEN}{_REST}"
    return Layout(head, pattern, masked=_masked(sample, pattern))


def _of_two(lines: pl.Series, name: str, *, has_prefix: bool) -> str:
    """Say which of two addresses at the beginning of each line is the client's."""
    prefix = _PREFIX if has_prefix else ""
    found = (
        lines.str.extract_groups(rf"^{prefix}(?P<one>{ADDRESS}) (?P<two>{ADDRESS}) \S")
        .struct.unnest()
        .drop_nulls()
    )
    one, two = (found[side].unique() for side in ("one", "two"))
    if all(_has_well_known_port(text) for text in one.to_list()):
        return "second"
    within = [all(_is_within(text) for text in side.to_list()) for side in (one, two)]
    if within[0] != within[1]:
        return "second" if within[0] else "first"
    counts = len(one), len(two)
    if min(counts) == 1 < max(counts):
        return "second" if counts[0] == 1 else "first"
    raise LayoutError(
        f"{name}: two addresses stand at the beginning of its lines, and nothing tells which is the client's; "
        "nothing was loaded. Give the format as the server has it, nginx's log_format or Apache's LogFormat: "
        "earmark load --format '...', or a file _format beside it in the landing folder"
    )


def _has_well_known_port(text: str) -> bool:
    port = text.rpartition(":")[2]
    return (text.count(":") == 1 or text.startswith("[")) and port.isdigit() and int(port) <= _LAST_WELL_KNOWN


def _is_within(text: str) -> bool:
    address = parse_address(bare_address(text))
    return address is not None and any(
        address.version == network.version and address in network for network in _WITHIN
    )


def _masked(sample: pl.Series, pattern: str) -> bool:
    groups = sample.str.extract_groups(pattern).struct.unnest()
    named = [groups[name] for name in ("ip", "client") if name in groups.columns]
    if not named:
        return False
    clients = pl.concat([series.alias("ip") for series in named]).drop_nulls().unique()
    numbers = clients.filter(clients.str.contains(rf"^{_OCTETS}$"))
    return len(numbers) >= _FEW and bool(numbers.str.ends_with(".0").all())
