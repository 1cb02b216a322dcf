"""Which address is the client's where requests come through proxies of one's own: a load balancer, a CDN.

``X-Forwarded-For`` is a list to which each proxy appends the address that connected to it. Anyone can send one, so
it counts only where the connecting address is a proxy that the settings name (``EARMARK_TRUSTED_PROXIES``).
"""

from collections.abc import Iterable
from typing import Final

import polars as pl

from earmark.addresses.privacy import bare_address
from earmark.addresses.ranges import Network, Ranges, parse_address

_TRUSTED: Final = "trusted"


class Proxies:
    """The proxies that are trusted to say whom they speak for."""

    __slots__ = ("_ranges",)

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._ranges = Ranges(dict.fromkeys(networks, _TRUSTED))

    def __bool__(self) -> bool:
        return len(self._ranges) > 0

    def client(self, forwarded: str) -> str | None:
        """Return the client that a trusted proxy's ``X-Forwarded-For`` tells; None where it is unknown.

        The list is read from right to left. The first address that is no trusted proxy is the client; where all
        are trusted it is the leftmost, a client within. ``unknown`` or a name such as ``_hidden`` (RFC 7239,
        section 6) ends the search: whoever stands to the left of it may have been written by anyone.
        """
        leftmost = None
        for part in reversed(forwarded.split(",")):
            text = part.strip()
            if not text:
                continue
            address = parse_address(bare_address(text))
            if address is None:
                return None
            leftmost = str(address)
            if self._ranges.label(address) is None:
                break
        return leftmost

    def resolve(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Put the client's address in place of the proxy's in column ``ip``, by column ``forwarded_for``.

        Rows without the header and rows that come from elsewhere stay as they are.
        """
        if not len(self._ranges) or not {"ip", "forwarded_for"} <= set(frame.columns):
            return frame
        headers = frame["forwarded_for"].cast(pl.String).str.strip_chars()
        headers = headers.set(headers.is_in(["", "-"]), None)
        if headers.null_count() == len(headers):
            return frame
        ips = frame["ip"].filter(headers.is_not_null()).drop_nulls().unique()
        trusted = ips.filter(self._ranges.labels(ips).is_not_null())
        behind = headers.is_not_null() & frame["ip"].is_in(trusted.implode()).fill_null(value=False)
        if not behind.any():
            return frame
        told = headers.filter(behind)
        distinct = told.unique()
        clients = pl.Series([self.client(text) for text in distinct.to_list()], dtype=pl.String)
        found = told.replace_strict(distinct, clients, return_dtype=pl.String)
        return frame.with_columns(frame["ip"].scatter(behind.arg_true(), found))
