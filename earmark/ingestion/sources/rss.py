"""RSS feeds of podcasts: one row in ``podcasts``, one row an item in ``episodes``.

Ids are the same whenever and wherever a feed is loaded. podcast_id is the feed's ``podcast:guid``; without one it
is the UUIDv5 that the Podcasting 2.0 namespace prescribes for the feed's URL (``atom:link rel="self"``, else
``itunes:new-feed-url``), its host in lower case; else that of title and author. The home page is no identity: two
shows may have the same. episode_id is the UUIDv5, within the podcast, of the item's guid, else of its enclosure
key, else of its link, else of its title. A guid that items with different files share is none: their ids are of
guid and file, and what it was is kept as ``shared_guid``.

The enclosure is the first that is audio or video, of ``enclosure``, ``media:content`` and
``podcast:alternateEnclosure``. What makes a feed ill-formed most, a bare ``&``, an entity that nothing declares, a
control character, is mended before it is parsed. Entities are not expanded and nothing is fetched.
"""

import math
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from html.entities import html5
from typing import Any, Final
from urllib.parse import urljoin

import polars as pl
from lxml import etree

from earmark.ingestion.errors import DamagedFileError, NotThisSourceError
from earmark.ingestion.formats import DOCUMENT, LINE, Format, Head, Shape
from earmark.ingestion.sources.source import ORIGINAL, Context, Source
from earmark.ingestion.urls import MEDIA_EXTENSIONS, enclosure_key

# Namespace of podcast:guid: https://podcasting2.org/docs/podcast-namespace/tags/guid
PODCAST_NAMESPACE: Final = uuid.UUID("ead4c236-bf58-58c6-a2c6-a6b28d128cb6")
# What the address of a namespace holds, in whatever spelling, and the prefix that it mostly has.
_FAMILIES: Final = (
    ("itunes.com/", "itunes"),
    ("podcastindex.org/namespace", "podcast"),
    ("podcast-namespace", "podcast"),
    ("yahoo.com/mrss", "media"),
    ("w3.org/2005/atom", "atom"),
    ("purl.org/rss/1.0/modules/content", "content"),
)
_PREFIXES: Final = frozenset(name for _, name in _FAMILIES)
_KEPT_OF_ITEM: Final = 8192
MAX_ITEMS: Final = 100_000
MAX_ELEMENTS: Final = 200_000  # held at once: 200 bytes each
MAX_ENTITIES: Final = 500_000
_LONG_TAG: Final = re.compile(rb"<[^<>]{1000000}")
_LONGEST_NAME: Final = 500
_PIECE: Final = 64 << 10
_READ: Final = "item-read"
# One that XML does not define: it is kept as a node of its own.
_OWN_ENTITY: Final = re.compile(rb"&(?!lt;|gt;|amp;|quot;|apos;|#)[A-Za-z_:][^\s;&<]{0,64};")
_CONTROLS: Final = bytes(set(range(32)) - {9, 10, 13})  # no XML may hold them
_MARK: Final = re.compile(rb"<!--|<!\[CDATA\[|<\?|<!DOCTYPE|&", re.IGNORECASE)
_CLOSED_BY: Final = {b"<!--": b"-->", b"<![cdata[": b"]]>", b"<?": b"?>"}
_REFERENCE: Final = re.compile(rb"&(?:#([0-9]{1,7})|#[xX]([0-9A-Fa-f]{1,6})|([A-Za-z_:][A-Za-z0-9_.:-]{0,63}));")
_DECLARED: Final = re.compile(rb"<!ENTITY\s+([A-Za-z_:][\w.:-]*)")
_PREDEFINED: Final = {b"lt": b"&#60;", b"gt": b"&#62;", b"amp": b"&#38;", b"quot": b"&#34;", b"apos": b"&#39;"}
_XML_ENCODING: Final = re.compile(r"^(<\?xml[^>]*?)\s+encoding\s*=\s*(?:\"[^\"]*\"|'[^']*')")
_NO_MEDIA: Final = re.compile(r"(?i)\.(?:jpe?g|png|gif|webp|svg|pdf|html?|txt|torrent|srt|vtt|json)$")
_MEDIA_NAME: Final = re.compile(rf"(?i)\.(?:{'|'.join(MEDIA_EXTENSIONS)})$")
# Bits a second that no file has. Lossy audio ends at 512,000; a video or lossless audio far above.
_LEAST_BITRATE: Final = 8_000
_MOST_BITRATE: Final = 20_000_000
_MOST_OF_LOSSY: Final = 1_000_000
_LOSSY: Final = re.compile(r"(?i)^audio/(?:x-)?(?:mpe?g|mp3|mp4|m4a|m4b|aac|ogg|opus|vorbis)")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CLOCK: Final = re.compile(r"^(?:(\d+):)?(\d+):(\d+(?:\.\d+)?)$")


def _sniff(head: Head) -> bool:
    return head.format is Format.XML and re.search(rb"<rss[\s>]", head.text, re.IGNORECASE) is not None


def _rows(frame: pl.DataFrame, context: Context) -> Mapping[str, pl.DataFrame]:
    document: bytes = frame[DOCUMENT][0]
    if any(at == MAX_ENTITIES for at, _ in enumerate(_OWN_ENTITY.finditer(document))):
        raise DamagedFileError(
            f"{context.name}: names more than {MAX_ENTITIES:,} entities such as &nbsp;, the most that are read: "
            "write the characters themselves"
        )
    if _LONG_TAG.search(document):
        raise DamagedFileError(f"{context.name}: has a tag longer than 1 MB: give the podcast's RSS 2.0 feed")
    channel, episodes = _read(mend(document), context.name)
    if channel is None:
        raise NotThisSourceError(f"{context.name}: holds no RSS channel: give the podcast's RSS 2.0 feed")
    podcast = _podcast(channel)
    base = _base(channel, podcast)
    for episode in episodes:
        _choose_enclosure(episode, base)
    _part_shared_guids(episodes)
    for episode in episodes:
        natural = episode["guid"] or episode["natural"]
        episode["podcast_id"] = podcast["podcast_id"]
        if natural:
            episode["episode_id"] = str(uuid.uuid5(_as_uuid(podcast["podcast_id"]), natural))
    return {"podcasts": _frame([podcast], _PODCAST_COLUMNS), "episodes": _frame(episodes, _EPISODE_COLUMNS)}


def mend(document: bytes) -> bytes:
    """Make of a feed what a parser takes, and change nothing else; references stand for what they stood for.

    libxml2 drops every ``&amp;`` that comes after an error it has recovered from, so the predefined entities
    become references to their characters. What is in comments, CDATA and the document type stays as it is.
    """
    if document.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = document.decode("utf-16", "replace").lstrip()
        document = _XML_ENCODING.sub(r"\1", text).encode()
    document = document.removeprefix(b"\xef\xbb\xbf").translate(None, _CONTROLS).lstrip()
    declared: set[bytes] = set()
    parts: list[bytes] = []
    taken = at = 0
    while (mark := _MARK.search(document, at)) is not None:
        opener = mark[0].lower()
        if opener == b"&":
            found = _REFERENCE.match(document, mark.start())
            parts += [document[taken : mark.start()], _mended(found, declared)]
            taken = at = found.end() if found is not None else mark.end()
            continue
        if opener == b"<!doctype":
            end = _end_of_doctype(document, mark.end())
            declared.update(_DECLARED.findall(document, mark.end(), end))
        else:
            closer = _CLOSED_BY[opener]
            end = document.find(closer, mark.end()) + len(closer)
            if end < mark.end():
                break  # never closed: the parser takes it to the end
        at = end
    return b"".join([*parts, document[taken:]])


def _mended(found: re.Match[bytes] | None, declared: set[bytes]) -> bytes:
    if found is None:
        return b"&#38;"
    decimal, hexadecimal, name = found.groups()
    if name is None:
        code = int(decimal) if decimal else int(hexadecimal, 16)
        is_character = code in (9, 10, 13) or 0x20 <= code < 0xD800 or 0xE000 <= code < 0xFFFE
        return found[0].replace(b"X", b"x", 1) if is_character or 0x10000 <= code < 0x110000 else b""
    if name in declared:
        return found[0]
    if name in _PREDEFINED:
        return _PREDEFINED[name]
    known = html5.get(f"{name.decode()};")
    return "".join(f"&#{ord(character)};" for character in known).encode() if known else b"&#38;" + found[0][1:]


def _end_of_doctype(document: bytes, at: int) -> int:
    close, subset = document.find(b">", at), document.find(b"[", at)
    if close < 0:
        return len(document)
    if 0 <= subset < close:
        close = document.find(b">", max(document.find(b"]", subset), subset))
    return close + 1 if close >= 0 else len(document)


def _base(channel: Any, podcast: Mapping[str, Any]) -> str | None:  # noqa: ANN401  (lxml has no types)
    """Return what relative URLs of a feed are relative to; None where it does not say."""
    own = channel.get("{http://www.w3.org/XML/1998/namespace}base")
    for url in (own, podcast["feed_url"], podcast["link"]):
        if url and _scheme(url) in ("http", "https"):
            return str(url)
    return None


def _resolved(url: str | None, base: str | None) -> str | None:
    """Resolve a relative URL; one that begins with a host but no scheme, as prefixes take it, stays."""
    if not url or base is None or _scheme(url):
        return url
    first, slash, _ = url.partition("/")
    is_host = bool(slash) and "." in first.strip(".")
    try:
        return url if is_host else urljoin(base, url)
    except ValueError:  # a host in brackets that is none
        return url


def _scheme(url: str) -> str:
    """Return the scheme of a URL in lower case, empty where it has none (RFC 3986, section 3.1)."""
    found = _SCHEME.match(url)
    return found[1].lower() if found else ""


def _choose_enclosure(episode: dict[str, Any], base: str | None) -> None:
    """Take of an item's files the first that is audio or video; the others are kept beside it."""
    files = []
    for file in episode["files"]:
        url = _resolved(file["url"], base)
        if url and _scheme(url) in ("", "http", "https"):
            files.append({**file, "url": url})
    media = [file for file in files if _is_media(file)]
    chosen = next(iter(media), None) or next((file for file in files if file["is_enclosure"]), None) or {}
    url = chosen.get("url")
    key = enclosure_key(url) if url else None
    if episode["duration_seconds"] is None and chosen.get("duration"):
        episode["duration_seconds"] = parse_duration(chosen["duration"])
    kind = chosen.get("type") or None
    size, doubt = believed_length(_length(chosen.get("length")), episode["duration_seconds"], kind)
    others = dict.fromkeys(other for file in media[1:] if (other := enclosure_key(file["url"])) not in (None, key))
    episode |= {
        "enclosure_url": url,
        "enclosure_bytes": size,
        "enclosure_type": kind,
        "doubted_length": doubt,
        "other_enclosures": " ".join(map(str, others)) or None,
        "link": _resolved(episode["link"], base),
        "key": key,
        "natural": key or episode["link"] or episode["title"],
    }


def _is_media(file: Mapping[str, Any]) -> bool:
    kind = (file["type"] or "").strip().lower()
    path = re.split("[?#]", file["url"])[0]
    if kind.startswith(("audio/", "video/")) or file["medium"] in ("audio", "video"):
        return True
    if kind and kind not in ("application/octet-stream", "binary/octet-stream"):
        return _MEDIA_NAME.search(path) is not None and not kind.startswith(("image/", "text/"))
    return _NO_MEDIA.search(path) is None if file["is_enclosure"] else _MEDIA_NAME.search(path) is not None


def believed_length(size: str | None, seconds: str | None, kind: str | None) -> tuple[str | None, str | None]:
    """Return a file's length in bytes and None, or None and why a length cannot be true with that duration."""
    if size is None or seconds is None:
        return size, None
    bitrate = int(size) * 8 / float(seconds)
    most = _MOST_OF_LOSSY if kind and _LOSSY.match(kind) else _MOST_BITRATE
    if _LEAST_BITRATE <= bitrate <= most:
        return size, None
    return None, f"{size} bytes for {seconds} seconds would be {bitrate:.0f} bits a second"


def _part_shared_guids(episodes: list[dict[str, Any]]) -> None:
    """Make episodes of their own of items that share a guid but no file."""
    files: dict[str, set[str | None]] = {}
    for episode in episodes:
        if episode["guid"]:
            files.setdefault(episode["guid"], set()).add(episode["natural"])
    for episode in episodes:
        guid = episode["guid"]
        if guid and len(files[guid]) > 1:
            episode |= {"guid": None, "shared_guid": guid, "natural": f"{guid}\n{episode['natural']}"}


def _read(document: bytes, name: str) -> tuple[Any, list[dict[str, Any]]]:
    """Return the channel without its items, and what the items say. Each item is forgotten once it is read."""
    # recover: real feeds are not well-formed. No entities, no network: a feed is a stranger's file.
    parser = etree.XMLPullParser(
        events=("start", "end"),
        recover=True,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    episodes: list[dict[str, Any]] = []
    elements = 0
    for at in range(0, len(document), _PIECE):
        parser.feed(document[at : at + _PIECE])
        for event, element in parser.read_events():
            if event == "start":
                elements += 1 + len(element.attrib)
                if elements > MAX_ELEMENTS:
                    raise DamagedFileError(
                        f"{name}: holds more than {MAX_ELEMENTS:,} elements and attributes in an item or beside "
                        "the items, the most that are read: give the podcast's RSS 2.0 feed"
                    )
            elif _is_item(element) and not any(_is_item(above) for above in element.iterancestors()):
                _take(element, episodes, name)
                elements = 0
                element.clear(keep_tail=False)
                element.tag = _READ
                for before in list(element.itersiblings(_READ, preceding=True)):
                    before.getparent().remove(before)
    try:
        root = parser.close()
    except etree.XMLSyntaxError:
        return None, episodes
    if root is None:
        return None, episodes
    for element in root.iter():  # not closed, where the feed breaks off
        if _is_item(element) and not any(_is_item(above) for above in element.iterancestors()):
            _take(element, episodes, name)
    return next((element for element in root.iter() if _name(element) == ("", "channel")), None), episodes


def _take(item: Any, episodes: list[dict[str, Any]], name: str) -> None:  # noqa: ANN401  (lxml has no types)
    for element in item.iter():
        if not _is_item(element):
            continue
        if len(episodes) >= MAX_ITEMS:
            raise DamagedFileError(
                f"{name}: holds more than {MAX_ITEMS:,} items, the most that are read of a feed: give its "
                "episodes as CSV or NDJSON to the folder episodes"
            )
        episodes.append(_episode(len(episodes) + 1, element))


_PODCAST_COLUMNS: Final = (
    *(LINE, "podcast_id", "title", "feed_url", "podcast_guid", "author", "language", "link", ORIGINAL),
)
_EPISODE_COLUMNS: Final = (
    *(LINE, "episode_id", "podcast_id", "guid", "title", "published_at", "duration_seconds", "enclosure_url"),
    *(
        "enclosure_bytes",
        "enclosure_type",
        "link",
        "season",
        "episode",
        "unread_duration",
        "unread_date",
        "doubted_length",
        "other_enclosures",
        "shared_guid",
        ORIGINAL,
    ),
)


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pl.DataFrame:
    schema = {name: pl.Int64 if name == LINE else pl.String for name in columns}
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=schema)


def _podcast(channel: Any) -> dict[str, Any]:  # noqa: ANN401  (lxml has no types)
    links = (child for child in channel if _name(child) == ("atom", "link"))
    self_link = next((link.get("href") for link in links if (link.get("rel") or "").lower() == "self"), None)
    link = _text(channel, "link")
    feed_url = _resolved((self_link or "").strip() or _text(channel, "new-feed-url", "itunes"), link)
    author = _text(channel, "author", "itunes")
    title = _text(channel, "title") or feed_url or link
    guid = _text(channel, "guid", "podcast")
    if guid is None:
        named = " ".join(f"{title or ''}\n{author or ''}".casefold().split(" "))
        podcast_id = str(uuid.uuid5(PODCAST_NAMESPACE, canonical_feed(feed_url) if feed_url else named))
    else:
        podcast_id = guid.lower()
    return {
        LINE: 1,
        "podcast_id": podcast_id,
        "title": title,
        "feed_url": feed_url,
        "podcast_guid": guid,
        "author": author,
        "language": _text(channel, "language"),
        "link": link,
    }


def canonical_feed(url: str) -> str:
    """Return a feed's address as guids are made of it: no scheme, port or last slash, host in lower case."""
    rest = re.sub(r"^[A-Za-z]+:/*|/+$", "", url.strip().partition("#")[0])
    host, slash, path = rest.partition("/")
    return re.sub(r":(?:80|443)$", "", host.lower()) + slash + path


def _episode(number: int, item: Any) -> dict[str, Any]:  # noqa: ANN401
    published = _text(item, "pubdate")
    duration = _text(item, "duration", "itunes") or _text(item, "duration")
    seconds = parse_duration(duration) if duration else None
    published_at = parse_date(published) if published else None
    return {
        LINE: number,
        "files": list(_files(item)),
        "guid": _text(item, "guid"),
        "title": _text(item, "title") or _text(item, "title", "itunes"),
        "published_at": published_at,
        "duration_seconds": seconds,
        "link": _text(item, "link"),
        "season": _text(item, "season", "itunes"),
        "episode": _text(item, "episode", "itunes"),
        # What could not be read is kept as it stands.
        "unread_duration": duration if seconds is None else None,
        "unread_date": published if published_at is None else None,
        ORIGINAL: etree.tostring(item, encoding="unicode", with_tail=False)[:_KEPT_OF_ITEM].replace("\0", ""),
    }


def _files(item: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    """Yield what an item says of its files: enclosures first, then media:content, then alternate enclosures."""
    found: dict[tuple[str, str], list[Any]] = {}
    for element in item.iter():
        found.setdefault(_name(element), []).append(element)
    for element in found.get(("", "enclosure"), []):
        yield _file(element, "url", "length", is_enclosure=True)
    for element in found.get(("media", "content"), []):
        yield _file(element, "url", "filesize", duration=_attribute(element, "duration"))
    for element in found.get(("podcast", "alternateenclosure"), []):
        for source in element:
            if _name(source) == ("podcast", "source"):
                yield {**_file(source, "uri", ""), "type": _attribute(element, "type")}


def _file(
    element: Any,  # noqa: ANN401
    url: str,
    length: str,
    *,
    is_enclosure: bool = False,
    duration: str | None = None,
) -> dict[str, Any]:
    return {
        "url": (_attribute(element, url) or "").strip(),
        "length": _attribute(element, length),
        "type": _attribute(element, "type"),
        "medium": (_attribute(element, "medium") or "").lower(),
        "duration": duration,
        "is_enclosure": is_enclosure,
    }


def _attribute(element: Any, name: str) -> str | None:  # noqa: ANN401
    return next((value for key, value in element.attrib.items() if key.lower() == name), None)


def parse_duration(text: str) -> str | None:
    """Read ``H:MM:SS``, ``MM:SS``, seconds and decimals to seconds; None for all else and for 0 (not known)."""
    text = text.strip()
    clock = _CLOCK.match(text)
    if clock is not None:
        seconds = int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3])
    else:
        try:
            seconds = float(text)
        except ValueError:
            return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    return f"{seconds:g}" if seconds < 1e6 else None


def parse_date(text: str) -> str | None:
    """Read a date of RFC 822 or ISO 8601 to ISO 8601; None where it is neither."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(text.strip())
            found = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        return found.strftime("%Y-%m-%dT%H:%M:%SZ")
    return None


def _length(text: str | None) -> str | None:
    text = (text or "").strip()
    return text if text.isascii() and text.isdigit() and 0 < int(text) < 1 << 62 else None


def _as_uuid(podcast_id: str) -> uuid.UUID:
    try:
        return uuid.UUID(podcast_id)
    except ValueError:
        return uuid.uuid5(PODCAST_NAMESPACE, podcast_id)


def _text(element: Any, name: str, family: str = "") -> str | None:  # noqa: ANN401
    """Return the text of the first child of that name that has any."""
    return next((text for child in element if _name(child) == (family, name) and (text := _text_of(child))), None)


def _is_item(element: Any) -> bool:  # noqa: ANN401
    return _name(element) == ("", "item")


def _name(element: Any) -> tuple[str, str]:  # noqa: ANN401
    """Return the family of an element's namespace ("" for RSS's own) and its name, both in lower case."""
    tag = element.tag
    return _known_name(tag, element.prefix) if isinstance(tag, str) and len(tag) < _LONGEST_NAME else ("?", "")


@lru_cache(maxsize=4096)
def _known_name(tag: str, prefix: str | None) -> tuple[str, str]:
    """Tell a namespace by its address in any spelling, else by its prefix, also one that nothing declares."""
    address, _, name = tag.rpartition("}")
    if not address:
        written, _, name = tag.rpartition(":")
        return written.lower(), name.lower()
    for part, family in _FAMILIES:
        if part in address.lower():
            return family, name.lower()
    if prefix is None:  # the feed's own default
        return "", name.lower()
    return prefix.lower() if prefix.lower() in _PREFIXES else address, name.lower()


def _text_of(element: Any) -> str | None:  # noqa: ANN401
    text = "".join(element.itertext()).strip() if element is not None else ""
    return text or None


SOURCE: Final = Source(
    name="rss",
    datasets=("podcasts", "episodes"),
    shape=Shape.DOCUMENT,
    looks_like="the RSS 2.0 feed of a podcast",
    sniff=_sniff,
    rows=_rows,
)
