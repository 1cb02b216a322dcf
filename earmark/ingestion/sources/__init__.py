"""The sources: one small module each. A new one is listed here; the first whose ``sniff`` says yes is taken."""

from typing import Final

from earmark.ingestion.sources import cloudfront, collect, combined, generic, op3, rss, s3, shops
from earmark.ingestion.sources.source import Context, Source

SOURCES: Final[tuple[Source, ...]] = (
    cloudfront.SOURCE,
    s3.SOURCE,
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
