"""The sources: one small module each. A new one is listed here; the first whose ``sniff`` says yes is taken."""

from typing import Final

from earmark.ingestion.sources import (
    alb,
    caddy,
    cloudflare,
    cloudfront,
    collect,
    combined,
    fastly,
    generic,
    google,
    op3,
    rss,
    s3,
    shops,
    w3c,
)
from earmark.ingestion.sources.source import Context, Source

SOURCES: Final[tuple[Source, ...]] = (
    cloudfront.SOURCE,
    w3c.SOURCE,
    s3.SOURCE,
    alb.SOURCE,
    caddy.SOURCE,
    cloudflare.SOURCE,
    fastly.SOURCE,
    google.ENTRIES,
    google.STORAGE,
    combined.SOURCE,
    op3.SOURCE,
    rss.SOURCE,
    collect.PIXEL,
    collect.PREFIX,
    shops.SHOPIFY,
    shops.WOOCOMMERCE,
    generic.SOURCE,
)
GENERIC: Final = generic.SOURCE


def find_source(name: str) -> Source | None:
    """Return the source of that name or alias, None where there is none."""
    return next((source for source in SOURCES if name in (source.name, *source.aliases)), None)


__all__ = ["GENERIC", "SOURCES", "Context", "Source", "find_source"]
