"""The key of an episode's audio file: its URL as a feed gives it and as a log shows it must give the same key.

The key is ``host/path``: without scheme, user, port, query and fragment; the host in lower case without a
leading ``www.``; measurement prefixes removed, however many there are; Amazon S3's forms of one object made one
(``bucket/key``); percent-encoding normalised as in RFC 3986 section 6.2.2 (letters, digits and ``-._~``
decoded, the rest in upper case). A log that shows no host gives ``/path``.
"""

import re
from typing import Final

import polars as pl

# What stands before the next URL, one pattern a measurement service. A new service is one line here.
_SERVICES: Final = (
    r"op3\.dev/e(?:,[^/]*)?",
    r"(?:[a-z0-9]+\.)?podtrac\.com/(?:pts/)?redirect\.[a-z0-9]+",
    r"chtbl\.com/track/[^/]+",
    r"chrt\.fm/track/[^/]+",
    r"pdst\.fm/e",
    r"pdcn\.co/e",
    r"pscrb\.fm/rss/p",
    r"verifi\.podscribe\.com/rss/p",
    r"mgln\.ai/(?:e/[^/]+|track)",
    r"prfx\.byspotify\.com/e",
    r"arttrk\.com/p/[^/]+",
    r"growx\.podkite\.com/https?/[^/]+",
    r"claritaspod\.com/measure",
    r"(?:tracking\.)?swap\.fm/track/[^/]+",
    r"(?:[a-z0-9]+\.)?gum\.fm(?:/s-[^/]+)?",
    r"media\.blubrry\.com/[^/]+(?:/p)?",
    r"r\.zen\.ai/r",
)
# The next URL has a host of its own; it may begin with http(s)://, or with https/ at some services.
_PREFIXES: Final = re.compile(
    rf"^(?:www\.)?(?:{'|'.join(_SERVICES)})/+(?=(?:https?[:/]/*)?[^/]+\.[^/]+/)", re.IGNORECASE
)
_SCHEME: Final = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//|^https?[:/]/*(?=[^/]+\.[^/]+/)", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"^(?:[^/@]*@)?([^/:]+)(?::\d*)?(?=/|$)")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_S3_HOST: Final = re.compile(
    r"^(?:(?P<bucket>.+)\.)?s3(?:-website)?(?:[.-](?:dualstack\.)?[a-z]{2}(?:-[a-z]+)+-\d)?\.amazonaws\.com$"
)
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def _unescape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def enclosure_key(url: str) -> str | None:
    """Return the key of a URL; None where the URL is empty."""
    rest = url.strip().partition("#")[0].partition("?")[0]
    if not rest:
        return None
    if rest.startswith("/") and not rest.startswith("//"):
        return _ESCAPE.sub(_unescape, rest)
    rest = _SCHEME.sub("", rest, count=1)
    while (prefix := _PREFIXES.match(rest)) is not None:
        rest = _SCHEME.sub("", rest[prefix.end() :], count=1)
    authority = _AUTHORITY.match(rest)
    if authority is None:
        return _ESCAPE.sub(_unescape, rest) or None
    host = authority[1].lower().removesuffix(".").removeprefix("www.")
    path = _ESCAPE.sub(_unescape, rest[authority.end() :])
    s3 = _S3_HOST.match(host)
    if s3 is not None:
        return (s3["bucket"] + path) if s3["bucket"] else path.lstrip("/")
    return host + path


def enclosure_keys(urls: pl.Series) -> pl.Series:
    """Return the keys of a column of URLs; each distinct URL is looked at once."""
    bare = urls.str.extract(r"^([^?#]*)", 1)
    distinct = bare.drop_nulls().unique()
    keys = pl.Series([enclosure_key(url) for url in distinct.to_list()], dtype=pl.String)
    if distinct.is_empty():
        return pl.Series([None] * len(urls), dtype=pl.String)
    return bare.replace_strict(distinct, keys, default=None, return_dtype=pl.String)
