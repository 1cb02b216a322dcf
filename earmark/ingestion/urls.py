r"""The key of an episode's audio file: its URL as a feed gives it and as a log shows it must give the same key.

The key is ``host/path``: without scheme, user, port and fragment; the host in lower case without a leading
``www.``; measurement prefixes removed, however many there are, also where the next URL is percent-encoded;
Amazon S3's forms of one object made one (``bucket/key``, where a ``+`` is a space); nginx's ``\xNN`` read as the
byte that it stands for; percent-encoding made canonical (RFC 3986 section 6.2.2: unreserved characters, and in the
path sub-delimiters, are decoded, all else that is no plain text encoded, in upper case); dot segments and doubled
slashes removed; the host as IDNA has it (UTS 46). A log that shows no host gives ``/path``.

What a log adds to what was asked for (CloudFront's second percent-encoding) its source takes off: here ``%2520``
is a file whose name holds ``%20``.

A path that names an audio or video file is the file: its query says who asks, and is left out. Otherwise the query
may say which episode is meant (``/download?id=12``): it is kept, sorted, without the parameters that are known to
track, to sign or to expire.
"""

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

import idna
import polars as pl

# What stands before the next URL, one pattern a measurement service. A new service is one line here.
_SERVICES: Final = (
    r"(?:ci\.|staging\.)?op3\.dev/e(?:,[^/]*|/pg=[^/]+)?",
    r"(?:[a-z0-9]+\.)?podtrac\.com/(?:pts/)?redirect\.[a-z0-9]+",
    r"play\.podtrac\.com/[a-z0-9-]+",
    r"(?:chtbl\.com|chrt\.fm|podcast-rss-prefix\.spotify\.com)/track/[^/]+",
    r"(?:pdst\.fm|prfx\.byspotify\.com)/e",  # Podsights, now Spotify
    r"pdcn\.co/e",  # Podcorn
    r"(?:pscrb\.fm|verifi\.podscribe\.com)/rss/p",
    r"mgln\.ai/(?:e/[^/]+|track)",  # Magellan AI
    r"arttrk\.com/p/[^/]+",  # ArtsAI
    r"growx\.podkite\.com/https?/[^/]+",
    r"(?:claritaspod\.com/measure|clrtpod\.com/m)",
    r"(?:tracking\.)?swap\.fm/track/[^/]+",
    r"(?:[a-z0-9]+\.)?gum\.fm(?:/s-[^/]+|/r1/[0-9a-f]+)?",  # Gumball
    r"media\.blubrry\.com/[^/]+(?:/p)?",
    r"r\.(?:zen\.ai|zencastr\.com)/r",
    r"pfx\.(?:vpixl|veritonicmetrics)\.com/[^/]+",
    r"adbarker\.com/stream/[^/]+",
    r"p\.podderapp\.com/\d+",
    r"t\.glystn\.com/v2/track/[^/]+",
    r"letscast\.fm/track",
    r"bktrks\.co/t/[^/]+",
    r"(?:rss\.)?pdrl\.fm/(?:r/[^/]+/[^/]+|[^/]+)",
    r"a\.pdcst\.to/[^/]+",  # Voxalyze
    r"ipfspodcasting\.net/e",
    r"cohst\.app/pdcst/[^/]+",
    r"pdcds\.co/[^/]+",
    r"prefix\.up\.audio/s",
    r"m\.pfxes\.com/[^/]+",
    r"enrichment\.soundstack\.com/[^/]+",
    r"analytics\.podcastplusplus\.com/e",
    r"track\.fstry\.me/p/[^/]+",
    r"tr\.ausha\.co/[0-9a-z]+",
)
# The next URL has a host of its own; it may begin with http(s)://, or with https/ at some services.
_PREFIXES: Final = re.compile(
    rf"^(?:www\.)?(?:{'|'.join(_SERVICES)})/+(?=(?:https?[:/]/*)?[^/]+\.[^/]+/|https?%3A(?://?|%2F))",
    re.IGNORECASE,
)
_SCHEME: Final = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//|^https?[:/]/*(?=[^/]+\.[^/]+/)", re.IGNORECASE)
_ENCODED_COLON: Final = re.compile(r"^(https?)%3A(?=/)", re.IGNORECASE)
_ENCODED: Final = re.compile(r"^https?%3A%2F", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"^(?:[^/@]*@)?([^/:]+)(?::\d*)?(?=/|$)")
# Longer ones are not remembered: what a process keeps must not grow with the files that it has read.
_REMEMBERED: Final = 1000
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_NOT_PLAIN: Final = re.compile(r"[^!-~]+")
_S3_HOST: Final = re.compile(
    r"^(?:(?P<bucket>.+)\.)?s3(?:-website)?(?:[.-](?:dualstack\.)?[a-z]{2}(?:-[a-z]+)+-\d)?\.amazonaws\.com$"
)
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

# As media_extensions in dbt_project.yml: what names a media file here must do so in the models.
MEDIA_EXTENSIONS: Final = (
    *("mp3", "m4a", "m4b", "aac", "ogg", "oga", "opus", "wav", "flac"),
    *("mp4", "m4v", "mov", "webm", "mkv", "3gp"),
)
_MEDIA: Final = rf"(?i)\.(?:{'|'.join(MEDIA_EXTENSIONS)})$"
_IS_MEDIA: Final = re.compile(_MEDIA)

# Parameters that say who asks, from where or until when, and never which file. Whole names, in lower case. What is
# in doubt stays: a request that finds no episode is seen, two episodes that become one are not.
_NOT_IDENTIFYING: Final = frozenset(
    (
        # Where the listener comes from, and what the player is.
        *("_from", "source", "ref", "referrer", "referer", "dest-id", "aid", "feed", "in_playlist", "updated"),
        *("awcollectionid", "listeningsessionid", "listenerid", "sessionid", "session_id", "phpsessid"),
        *("ua", "user_agent", "player", "platform", "app", "client", "device", "device_id", "idfa", "gaid", "ip"),
        # Campaigns and clicks.
        *("fbclid", "gclid", "gbraid", "wbraid", "dclid", "msclkid", "yclid", "twclid", "ttclid", "igshid"),
        *("mc_cid", "mc_eid", "mkt_tok", "_ga", "_gl", "_hsenc", "_hsmi", "li_fat_id"),
        # Signatures and how long they hold.
        *("policy", "signature", "key-pair-id", "hash-algorithm", "sig", "hmac", "md5", "token", "access_token"),
        *("auth", "auth_token", "verify", "hdnea", "hdnts", "hdntl", "awsaccesskeyid", "googleaccessid"),
        *("expires", "expire", "expiry", "expiration", "exp", "timetoken", "request_event_id"),
        # Against caches.
        *("_", "cb", "cachebuster", "cache_buster", "nocache", "rnd", "rand", "ts", "timestamp"),
    )
)
_NOT_IDENTIFYING_PREFIXES: Final = ("utm_", "x-amz-", "x-goog-", "response-", "aw_0_", "mtm_", "pk_", "piwik_")

# What a path may hold besides; in a query they part parameters.
_PLAIN_IN_PATH: Final = _UNRESERVED | frozenset("!$&'()*+,;=")
_LOGGED_BYTE: Final = re.compile(r"\\x([0-9A-Fa-f]{2})")
_DOUBLED: Final = re.compile(r"//+")


def _unescape_in_path(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _PLAIN_IN_PATH else match[0].upper()


def _path(text: str) -> str:
    """Return a path as all spellings of it are written; it ends in a slash where it ended in a dot segment."""
    text = _DOUBLED.sub("/", _NOT_PLAIN.sub(_escape, _ESCAPE.sub(_unescape_in_path, text)))
    if "/." not in text:
        return text
    kept: list[str] = []
    for segment in (segments := text.split("/"))[1:]:
        if segment == "..":
            kept = kept[:-1]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", "..") or not kept:
        kept.append("")
    return "/".join([segments[0], *kept])


def _host(text: str) -> str:
    """Return a host as DNS has it; as it stands where it is no name."""
    if text.isascii() and "%" not in text:
        return text.lower()
    text = unquote(text)
    if text.isascii():
        return text.lower()
    try:
        return idna.encode(text, uts46=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return text.lower()


def _unescape(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if character in _UNRESERVED else match[0].upper()


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogatepass"))


def _normalised(text: str) -> str:
    return _NOT_PLAIN.sub(_escape, _ESCAPE.sub(_unescape, text))


def enclosure_key(url: str) -> str | None:
    """Return the key of a URL; None where the URL is empty."""
    rest, _, query = _LOGGED_BYTE.sub(r"%\1", url.strip()).partition("#")[0].partition("?")
    known = _without_query if len(rest) <= _REMEMBERED else _without_query.__wrapped__
    key, own = known(rest)
    return _with_query(key, own or query) if key else None


@lru_cache(maxsize=4096)  # of requests that differ in their query alone
def _without_query(rest: str) -> tuple[str, str]:
    """Return the key of a URL without its query, and the query of the URL within it where that is encoded."""
    query = ""
    if rest.startswith("/") and not rest.startswith("//"):
        return _path(rest), query
    rest = _SCHEME.sub("", rest, count=1)
    while (prefix := _PREFIXES.match(rest)) is not None:
        rest = _ENCODED_COLON.sub(r"\1:", rest[prefix.end() :])
        if _ENCODED.match(rest):
            # A query within is the file's own, one behind it the service's.
            rest, _, query = unquote(rest).partition("#")[0].partition("?")
        rest = _SCHEME.sub("", rest, count=1)
    authority = _AUTHORITY.match(rest)
    if authority is None:
        return _path(rest), query
    host = _host(authority[1]).removesuffix(".").removeprefix("www.")
    path = rest[authority.end() :]
    s3 = _S3_HOST.match(host)
    path = _path(path.replace("+", "%20") if s3 is not None else path)
    if s3 is not None:
        return (s3["bucket"] + path if s3["bucket"] else path.lstrip("/")), query
    return _normalised(host) + path, query


def _with_query(key: str, query: str) -> str:
    if not query or _IS_MEDIA.search(key):
        return key
    # Feeds that escape twice write &amp;
    parts = (part.removeprefix("amp;") for part in query.split("&"))
    kept = sorted(_normalised(part) for part in parts if part and _identifies(part))
    return f"{key}?{'&'.join(kept)}" if kept else key


def _identifies(parameter: str) -> bool:
    name = parameter.partition("=")[0]
    known = _names_an_episode if len(name) <= _REMEMBERED else _names_an_episode.__wrapped__
    return known(name)


@lru_cache(maxsize=1024)
def _names_an_episode(name: str) -> bool:
    name = unquote(name).lower()
    return name not in _NOT_IDENTIFYING and not name.startswith(_NOT_IDENTIFYING_PREFIXES)


def enclosure_keys(urls: pl.Series) -> pl.Series:
    """Return the keys of a column of URLs; each distinct URL is looked at once.

    URLs of media files are looked at without their query: a log holds each of them many times.
    """
    bare = urls.str.extract(r"^([^?#]*)", 1)
    names_file = bare.str.contains(_MEDIA)
    asked = pl.select(pl.when(names_file).then(bare).otherwise(urls)).to_series()
    distinct = asked.drop_nulls().unique()
    keys = pl.Series([enclosure_key(url) for url in distinct.to_list()], dtype=pl.String)
    if distinct.is_empty():
        return pl.Series([None] * len(urls), dtype=pl.String)
    return asked.replace_strict(distinct, keys, default=None, return_dtype=pl.String)
