"""Lists of networks whose addresses are no listeners at home: data centres and VPNs.

A list is a CSV file with the columns ``network`` (CIDR), ``kind`` (data_center or vpn), ``operator`` and ``note``;
the last two are for people and may be missing. Addresses are looked up while a file is loaded, before they are
hashed: afterwards nothing could say where they belong. Fetching public lists is in ``public_networks``.
"""

import csv
import hashlib
import io
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from earmark.addresses.ranges import Network, Ranges
from earmark.errors import EarmarkError

KINDS: Final = ("data_center", "vpn")  # the first of them wins where two lists name the same range
COLUMNS: Final = ("network", "kind", "operator", "note")
_DIGEST: Final = 8  # hexadecimal digits of a list's sha256 in its version


class NetworkListError(EarmarkError):
    """A list of networks cannot be read. The text names the file, the line, the field and the fix."""


@dataclass(frozen=True, slots=True)
class Networks:
    """What addresses are looked up in. ``version`` names the lists and their content; None: there are none."""

    ranges: Ranges = field(default_factory=lambda: Ranges({}))
    version: str | None = None

    def kinds(self, addresses: pl.Series) -> pl.Series:
        """Return the kind of network of each address of a column; null where none is listed."""
        return self.ranges.labels(addresses)


def list_files(seed: Path, folder: Path) -> list[Path]:
    """Return the lists that there are: the project's own, then every ``*.csv`` of the folder."""
    return [path for path in (seed, *sorted(folder.glob("*.csv"))) if path.is_file()]


def read_networks(files: Iterable[Path]) -> Networks:
    """Read lists. A range within another one wins over it; equal ones: ``data_center`` before ``vpn``.

    A list without a range is left out of the version.

    Raises:
        NetworkListError: a file cannot be read, or a row of it is wrong.

    """
    kinds: dict[Network, str] = {}
    versions = []
    for path in files:
        try:
            content = path.read_bytes()
            rows = parse_list(str(path), content.decode("utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise NetworkListError(f"{path}: cannot be read as UTF-8 text ({error})") from error
        for network, kind in rows:
            if kinds.get(network) != KINDS[0]:
                kinds[network] = kind
        if rows:
            versions.append(f"{path.stem}@{hashlib.sha256(content).hexdigest()[:_DIGEST]}")
    return Networks(Ranges(kinds), ", ".join(versions) or None)


def parse_list(name: str, text: str) -> list[tuple[Network, str]]:
    """Read the text of a list: each range and its kind.

    Raises:
        NetworkListError: a column or a value is wrong.

    """
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    missing = [column for column in COLUMNS[:2] if column not in (reader.fieldnames or ())]
    if missing:
        raise NetworkListError(
            f"{name}, line 1: has no column {' and '.join(missing)}; the first line is: {','.join(COLUMNS)}"
        )
    rows = []
    for row in reader:
        where = f"{name}, line {reader.line_num}"
        kind = (row["kind"] or "").strip()
        if kind not in KINDS:
            raise NetworkListError(f"{where}: kind is {kind!r}: allowed are {' and '.join(KINDS)}")
        rows.append((_network(where, (row["network"] or "").strip()), kind))
    return rows


def _network(where: str, text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        fix = f"it goes beyond its prefix: write {ipaddress.ip_network(text, strict=False)}"
    except ValueError:
        fix = "write a range such as 192.0.2.0/24 or 2001:db8::/32"
    raise NetworkListError(f"{where}: network is {text[:80]!r}: {fix}")


def format_list(networks: Sequence[Network], kind: str, operator: str) -> str:
    """Return the text of a list, its ranges joined where they touch, in order."""
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(COLUMNS)
    for version in (4, 6):
        of_version = [network for network in networks if network.version == version]
        for network in ipaddress.collapse_addresses(of_version):  # type: ignore[type-var]
            writer.writerow((network, kind, operator, ""))
    return target.getvalue()
