"""Ranges of addresses (CIDR) with a label each, and which of them an address belongs to.

The ranges are cut into pieces that do not overlap, once; an address is then found by bisection on its number.
"""

import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from socket import AF_INET6, inet_pton
from typing import Final

import polars as pl

from earmark.addresses.privacy import IPV4

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAPPED: Final = 0xFFFF  # the upper 96 bits of an IPv4-mapped IPv6 address
_OCTETS: Final = ("a", "b", "c", "d")


def parse_address(text: str) -> Address | None:
    """Read an address; IPv4-mapped IPv6 is IPv4, a zone is left out; None where it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class Ranges:
    """Labelled ranges of IPv4 and IPv6 addresses; of those that hold an address, the most specific one counts."""

    __slots__ = ("_count", "_labels4", "_pieces", "_starts4")

    def __init__(self, labels: Mapping[Network, str]) -> None:
        self._count = len(labels)
        self._pieces = {
            version: _pieces(item for item in labels.items() if item[0].version == version) for version in (4, 6)
        }
        starts, found = self._pieces[4]
        # A piece may begin behind the last address.
        self._starts4 = pl.Series(starts, dtype=pl.Int64)
        self._labels4 = pl.Series(found, dtype=pl.String)

    def __len__(self) -> int:
        return self._count

    def label(self, address: Address) -> str | None:
        """Return the label of the range that an address belongs to; None where there is none."""
        return self._find(address.version, int(address))

    def _find(self, version: int, number: int) -> str | None:
        starts, labels = self._pieces[version]
        return labels[bisect_right(starts, number) - 1]

    def labels(self, texts: pl.Series) -> pl.Series:
        """Return the label of each address of a column; null where it is in no range or is no address."""
        none = pl.Series([None], dtype=pl.String).new_from_index(0, len(texts))
        if not self._count or texts.is_empty():
            return none
        plain = texts.str.contains(IPV4).fill_null(value=False)
        numbers = _numbers(texts.filter(plain))
        found = none.scatter(
            plain.arg_true(), self._labels4.gather(self._starts4.search_sorted(numbers, side="right") - 1)
        )
        others = (~plain & texts.is_not_null()).arg_true()
        if others.is_empty():
            return found
        labels = [self._label_of_text(text) for text in texts.gather(others).to_list()]
        return found.scatter(others, pl.Series(labels, dtype=pl.String))

    def _label_of_text(self, text: str) -> str | None:
        try:
            number = int.from_bytes(inet_pton(AF_INET6, text))  # twenty times as fast as ipaddress
        except (OSError, ValueError):
            number = 0
        if number >> 32 not in (0, _MAPPED):
            return self._find(6, number)
        address = parse_address(text)
        return None if address is None else self.label(address)


def _numbers(texts: pl.Series) -> pl.Series:
    octets = texts.str.split_exact(".", 3).struct.rename_fields(list(_OCTETS)).struct.unnest()
    a, b, c, d = (pl.col(name).cast(pl.Int64) for name in _OCTETS)
    return octets.select((((a * 256 + b) * 256 + c) * 256 + d).alias("number")).to_series()


def _pieces(networks: Iterable[tuple[Network, str]]) -> tuple[list[int], list[str | None]]:
    """Cut ranges, of which one may lie within another, into pieces: where each begins, and its label."""
    starts: list[int] = [0]
    labels: list[str | None] = [None]

    def begin(at: int, label: str | None) -> None:
        if starts[-1] == at:
            labels[-1] = label
        elif labels[-1] != label:
            starts.append(at)
            labels.append(label)

    around: list[tuple[int, str]] = []  # the ranges that we are in: last address, label
    in_order = sorted((int(item.network_address), item.prefixlen, int(item.broadcast_address), label)
                      for item, label in networks)  # fmt: skip
    for start, _, end, label in in_order:
        while around and around[-1][0] < start:
            last, _ = around.pop()
            begin(last + 1, around[-1][1] if around else None)
        begin(start, label)
        around.append((end, label))
    while around:
        last, _ = around.pop()
        begin(last + 1, around[-1][1] if around else None)
    return starts, labels
