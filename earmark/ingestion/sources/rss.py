"""RSS feeds of podcasts: one row in ``podcasts``, one row an item in ``episodes``.

Ids are the same whenever and wherever a feed is loaded. podcast_id is the feed's ``podcast:guid``; without one
it is the UUIDv5 that the Podcasting 2.0 namespace prescribes for the feed's URL (``atom:link rel="self"``, else
``itunes:new-feed-url``, else ``link``, else the title). episode_id is the UUIDv5, within the podcast, of the
item's guid, else of its enclosure key, else of its link, else of its title. Feeds that are not well-formed are
read as far as they make sense; entities are not expanded and nothing is fetched.
"""

import math
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import polars as pl
from lxml import etree

from earmark.ingestion.errors import DamagedFileError, NotThisSourceError
from earmark.ingestion.formats import DOCUMENT, LINE, Format, Head, Shape
from earmark.ingestion.sources.source import ORIGINAL, Context, Source
from earmark.ingestion.urls import enclosure_key

# Namespace of podcast:guid: https://podcasting2.org/docs/podcast-namespace/tags/guid
PODCAST_NAMESPACE: Final = uuid.UUID("ead4c236-bf58-58c6-a2c6-a6b28d128cb6")
_ITUNES: Final = "http://www.itunes.com/dtds/podcast-1.0.dtd"
_ATOM: Final = "http://www.w3.org/2005/Atom"
_KEPT_OF_ITEM: Final = 8192
MAX_ITEMS: Final = 100_000
MAX_ELEMENTS: Final = 200_000  # held at once: 200 bytes each
MAX_ENTITIES: Final = 500_000
_LONG_TAG: Final = re.compile(rb"<[^<>]{1000000}")
_PIECE: Final = 64 << 10
_READ: Final = "item-read"
# One that XML does not define: it is kept as a node of its own.
_OWN_ENTITY: Final = re.compile(rb"&(?!lt;|gt;|amp;|quot;|apos;|#)[A-Za-z_:][^\s;&<]{0,64};")
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
    channel, episodes = _read(document.removeprefix(b"\xef\xbb\xbf").lstrip(), context.name)
    if channel is None:
        raise NotThisSourceError(f"{context.name}: holds no RSS channel: give the podcast's RSS 2.0 feed")
    podcast = _podcast(channel)
    for episode in episodes:
        episode["podcast_id"] = podcast["podcast_id"]
        if episode["natural"]:
            episode["episode_id"] = str(uuid.uuid5(_as_uuid(podcast["podcast_id"]), episode["natural"]))
    return {"podcasts": _frame([podcast], _PODCAST_COLUMNS), "episodes": _frame(episodes, _EPISODE_COLUMNS)}


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
            elif element.tag == "item" and next(element.iterancestors("item"), None) is None:
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
    for element in root.iter("item"):  # not closed, where the feed breaks off
        if next(element.iterancestors("item"), None) is None:
            _take(element, episodes, name)
    return next(root.iter("channel"), None), episodes


def _take(item: Any, episodes: list[dict[str, Any]], name: str) -> None:  # noqa: ANN401  (lxml has no types)
    for element in item.iter("item"):
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
        ORIGINAL,
    ),
)


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pl.DataFrame:
    schema = {name: pl.Int64 if name == LINE else pl.String for name in columns}
    return pl.DataFrame([{name: row.get(name) for name in columns} for row in rows], schema=schema)


def _podcast(channel: Any) -> dict[str, Any]:  # noqa: ANN401  (lxml has no types)
    self_link = next(
        (link.get("href") for link in channel.findall(f"{{{_ATOM}}}link") if link.get("rel") == "self"), None
    )
    feed_url = self_link or _itunes(channel, "new-feed-url")
    link = _text(channel, "link")
    title = _text(channel, "title") or feed_url or link
    guid = _prefixed(channel, "podcast", "guid")
    if guid is None:
        guid_of = feed_url or link or title or ""
        podcast_id = str(uuid.uuid5(PODCAST_NAMESPACE, re.sub(r"^[a-z]+://|/+$", "", guid_of)))
    else:
        podcast_id = guid.lower()
    return {
        LINE: 1,
        "podcast_id": podcast_id,
        "title": title,
        "feed_url": feed_url,
        "podcast_guid": guid,
        "author": _itunes(channel, "author"),
        "language": _text(channel, "language"),
        "link": link,
    }


def _episode(number: int, item: Any) -> dict[str, Any]:  # noqa: ANN401
    enclosure = item.find("enclosure")
    attributes = {} if enclosure is None else enclosure.attrib
    url = (attributes.get("url") or "").strip() or None
    guid = _text(item, "guid")
    title = _text(item, "title")
    published = _text(item, "pubDate")
    duration = _itunes(item, "duration")
    natural = guid or (enclosure_key(url) if url else None) or _text(item, "link") or title
    seconds = parse_duration(duration) if duration else None
    published_at = parse_date(published) if published else None
    return {
        LINE: number,
        "natural": natural,
        "guid": guid,
        "title": title,
        "published_at": published_at,
        "duration_seconds": seconds,
        "enclosure_url": url,
        "enclosure_bytes": _length(attributes.get("length")),
        "enclosure_type": attributes.get("type") or None,
        "link": _text(item, "link"),
        "season": _itunes(item, "season"),
        "episode": _itunes(item, "episode"),
        # What could not be read is kept as it stands.
        "unread_duration": duration if seconds is None else None,
        "unread_date": published if published_at is None else None,
        ORIGINAL: etree.tostring(item, encoding="unicode", with_tail=False)[:_KEPT_OF_ITEM].replace("\0", ""),
    }


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


def _text(element: Any, tag: str) -> str | None:  # noqa: ANN401
    return _text_of(element.find(tag))


def _itunes(element: Any, name: str) -> str | None:  # noqa: ANN401
    return _text(element, f"{{{_ITUNES}}}{name}") or _prefixed(element, "itunes", name)


def _prefixed(element: Any, prefix: str, name: str) -> str | None:  # noqa: ANN401
    """Find ``prefix:name`` whatever address the feed gives the namespace, also where it gives none.

    Several addresses are in use. A prefix that nothing declares is part of the name as lxml has it, which
    ``etree.QName`` does not take.
    """
    for child in element:
        tag = child.tag
        if isinstance(tag, str) and (
            tag == f"{prefix}:{name}" or (child.prefix == prefix and tag.endswith(f"}}{name}"))
        ):
            return _text_of(child)
    return None


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
