"""The datasets that can be loaded: their fields, which of them a row must have, and what a load replaces.

This module is the contract between files and the tables of schema ``raw``. How a file is read is not here
(``sources``), nor how rows get into the database (``load``).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """The type of a field, and how its text is read."""

    TEXT = "text"
    UUID = "uuid"  # any text; what is not a UUID is turned into one by a stable hash
    TIMESTAMP = "timestamp"  # ISO 8601, an offset or Z; without one it is UTC
    DATE = "date"  # YYYY-MM-DD, a UTC day
    INTEGER = "integer"  # not negative
    NUMBER = "number"
    DECIMAL = "decimal"  # money: kept exactly
    BOOLEAN = "boolean"  # true/false, t/f, yes/no, 1/0
    CURRENCY = "currency"  # three letters, ISO 4217
    SHA256 = "sha256"  # 64 hexadecimal digits
    LIST = "list"  # a JSON array of text, or text parted by |
    JSON = "json"  # a JSON object


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a dataset: a column of its table, and of the files that hold it.

    ``choices`` lists the allowed values where they are few. ``client`` marks what identifies a client: it is
    hashed before it reaches the database and has no column of its own. ``derived`` marks a column that files do
    not hold and loading computes.
    """

    name: str
    kind: Kind = Kind.TEXT
    required: bool = False
    choices: tuple[str, ...] = ()
    default: str | None = None
    client: bool = False
    derived: bool = False

    @property
    def is_id(self) -> bool:
        """Whether it names something: then null, nan and the like are no value, and 1001.0 is 1001."""
        return self.name in _IDS

    @property
    def is_trimmed(self) -> bool:
        """Whether spaces around its text are none of its own."""
        return self.kind is Kind.TEXT and not self.client and self.name not in _AS_SENT

    @property
    def prefix(self) -> str:
        """What may stand before the value without being part of it: shops show order 1001 as #1001."""
        return "#" if self.name == "order_number" else ""

    @property
    def is_end(self) -> bool:
        """Whether it is a time until which something lasts: a bare day lasts to its end."""
        return self.name == "ends_at"

    @property
    def is_amount(self) -> bool:
        """Whether it is a number as people write it, with a decimal comma or point."""
        return self.kind in (Kind.DECIMAL, Kind.NUMBER, Kind.INTEGER)


_IDS: Final = frozenset(
    (
        *("event_id", "episode_id", "episode_guid", "ad_unit_id", "play_id", "sponsor_id", "campaign_id"),
        *("cookie_id", "order_number", "discount_code", "podcast_id", "podcast_guid", "guid"),
        *("insertion_order_id", "promo_code"),
    )
)
# Text that somebody's program sent: kept as it came.
_AS_SENT: Final = frozenset(("url", "user_agent", "referrer", "byte_range", "method"))


class Keeps(StrEnum):
    """What a load does with a row whose key is there already."""

    FIRST = "first"  # events: the row is a duplicate
    LATEST = "latest"  # reference data and reported figures: a row that differs replaces the old one


@dataclass(frozen=True, slots=True)
class Dataset:
    """A table of schema ``raw`` and the fields of the files that fill it.

    ``key`` are the columns that identify a row within its tenant. ``time`` is the column of event time, by which
    the table is cut; None for reference data. ``day`` is the column that says which UTC day a row belongs to,
    where it is another. ``url`` is the field that ``enclosure_key`` is made of. ``any_of`` lists groups of fields
    of which a row must have at least one. ``adds`` is the figure that is added up where several rows of a file
    have one key and differ in what is not kept as a column; with ``adds_alike`` also where only the figure
    differs, as each row is an amount that was booked. Fields that are not listed are kept in ``properties``.
    """

    name: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    keeps: Keeps
    time: str | None = None
    day: str | None = None
    url: str | None = None
    any_of: tuple[tuple[str, ...], ...] = ()
    adds: str | None = None
    adds_alike: bool = False

    @property
    def table(self) -> str:
        """The table's name in schema ``raw``."""
        return self.name

    @property
    def day_column(self) -> str | None:
        """The column that says which UTC day a row belongs to; None for what has none."""
        return self.day or self.time

    @property
    def has_source(self) -> bool:
        """Whether the table keeps the source of each row."""
        return self.time is not None

    @property
    def has_network(self) -> bool:
        """Whether the table keeps the kind of network that an address belongs to."""
        return any(field.name == "network" for field in self.fields)

    @property
    def has_amounts(self) -> bool:
        """Whether it holds figures as people write them: not so the requests of a log."""
        return any(field.kind in (Kind.DECIMAL, Kind.NUMBER) for field in self.fields)

    @property
    def has_orders(self) -> bool:
        """Whether its events may be lines of one order."""
        return any(field.name == "order_number" for field in self.fields)

    @property
    def is_of_events(self) -> bool:
        """Whether rows are identified by an event id."""
        return "event_id" in self.key

    def field(self, name: str) -> Field:
        """Return the field of that name; KeyError where there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)


def _field(
    name: str,
    kind: Kind = Kind.TEXT,
    *,
    required: bool = False,
    choices: tuple[str, ...] = (),
    default: str | None = None,
) -> Field:
    return Field(name, kind, required=required, choices=choices, default=default)


CLIENT_FIELDS: Final = (
    Field("ip", client=True),
    Field("forwarded_for", client=True),  # X-Forwarded-For: counts where ip is a trusted proxy
    Field("household_key", derived=True),
    Field("listener_key", derived=True),
    Field("key_id", derived=True),
)

LISTENER_EVENTS = Dataset(
    name="listener_events",
    fields=(
        # Without an id, one is made from the row itself and its place among equal rows of its file.
        _field("event_id", Kind.UUID),
        _field("occurred_at", Kind.TIMESTAMP, required=True),
        _field(
            "event_type",
            required=True,
            choices=("request", "download", "play", "ad_impression"),
        ),
        _field("episode_id"),
        _field("episode_guid"),
        _field("url"),
        Field("enclosure_key", derived=True),
        _field("ad_unit_id"),
        # A player's beacons: the play that they belong to, and how much of the ad was played (percent).
        _field("play_id"),
        _field("quartile", Kind.INTEGER),
        _field("method"),
        _field("status", Kind.INTEGER),
        # Bytes of the body that were sent, without headers: nginx $body_bytes_sent, Apache %b, S3 Bytes Sent (in
        # these logs - means none: 0). CloudFront's sc-bytes holds the headers: it is cut to the body's length
        # where the log tells that. Null: not known.
        _field("bytes_sent", Kind.INTEGER),
        # The size of the whole file: S3 Object Size, the length of CloudFront's whole answers (200). Other logs
        # do not tell it.
        _field("object_bytes", Kind.INTEGER),
        # As the header Range has it, bytes=0-99: what was asked for (OP3) or answered (CloudFront). Null where it
        # was the whole file, and in logs that do not tell (combined, S3): they know bytes_sent alone.
        _field("byte_range"),
        *CLIENT_FIELDS,
        Field("network", derived=True),
        _field("user_agent"),
        _field("referrer"),
        _field("country_code"),
        _field("region_code"),
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("event_id", "occurred_at"),
    keeps=Keeps.FIRST,
    time="occurred_at",
    url="url",
    any_of=(("episode_id", "episode_guid", "url", "ad_unit_id"),),
)

ATTRIBUTION_EVENTS = Dataset(
    name="attribution_events",
    fields=(
        _field("event_id", Kind.UUID),
        _field("occurred_at", Kind.TIMESTAMP, required=True),
        _field(
            "action",
            required=True,
            choices=("view", "signup", "lead", "purchase", "install", "offline_purchase"),
        ),
        _field(
            "type",
            required=True,
            choices=("pixel", "promo_code", "vanity_url", "survey", "offline"),
        ),
        _field("sponsor_id"),
        _field("campaign_id"),
        *CLIENT_FIELDS,
        _field("user_agent"),
        _field("cookie_id"),
        _field("hashed_email", Kind.SHA256),
        _field("order_number"),
        _field("value", Kind.DECIMAL),
        _field("currency", Kind.CURRENCY),
        _field("discount_code"),
        _field("url"),
        _field("is_new_customer", Kind.BOOLEAN),
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("event_id", "occurred_at"),
    keeps=Keeps.FIRST,
    time="occurred_at",
)

LISTENER_METRICS = Dataset(
    name="listener_metrics",
    fields=(
        _field("episode_id", required=True),
        _field("metric_date", Kind.DATE, required=True),
        _field("metric_name", required=True),
        _field("value", Kind.NUMBER, required=True),
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("episode_id", "metric_date", "metric_name", "source"),
    keeps=Keeps.LATEST,
    time="metric_date",
    adds="value",
)

PODCASTS = Dataset(
    name="podcasts",
    fields=(
        _field("podcast_id", required=True),
        _field("title", required=True),
        _field("feed_url"),
        _field("podcast_guid"),
        _field("author"),
        _field("language"),
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("podcast_id",),
    keeps=Keeps.LATEST,
)

EPISODES = Dataset(
    name="episodes",
    fields=(
        _field("episode_id", required=True),
        _field("podcast_id", required=True),
        _field("guid"),
        _field("title"),
        _field("published_at", Kind.TIMESTAMP),
        _field("duration_seconds", Kind.NUMBER),
        _field("enclosure_url"),
        Field("enclosure_key", derived=True),
        _field("enclosure_bytes", Kind.INTEGER),
        _field("enclosure_type"),
        _field("bitrate_bps", Kind.INTEGER),
        _field("id3_bytes", Kind.INTEGER),
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("episode_id",),
    keeps=Keeps.LATEST,
    url="enclosure_url",
)

SPONSORS = Dataset(
    name="sponsors",
    fields=(
        _field("sponsor_id", required=True),
        _field("name", required=True),
        _field("domain"),
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("sponsor_id",),
    keeps=Keeps.LATEST,
)

CAMPAIGNS = Dataset(
    name="campaigns",
    fields=(
        _field("campaign_id", required=True),
        _field("sponsor_id", required=True),
        _field("name", required=True),
        _field("starts_at", Kind.TIMESTAMP, required=True),
        _field("ends_at", Kind.TIMESTAMP, required=True),
        _field("conversion_actions", Kind.LIST, default="purchase"),
        _field("lookback_days", Kind.NUMBER, default="30"),
        _field("currency", Kind.CURRENCY, default="USD"),
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("campaign_id",),
    keeps=Keeps.LATEST,
)

INSERTION_ORDERS = Dataset(
    name="insertion_orders",
    fields=(
        _field("insertion_order_id", required=True),
        _field("campaign_id", required=True),
        _field("podcast_id"),
        _field("promo_code"),
        _field("vanity_url"),
        _field("booked_impressions", Kind.INTEGER),
        _field("cpm", Kind.DECIMAL),
        _field("currency", Kind.CURRENCY),  # null: the campaign's
        _field("starts_on", Kind.DATE),
        _field("ends_on", Kind.DATE),
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("insertion_order_id",),
    keeps=Keeps.LATEST,
)

AD_UNITS = Dataset(
    name="ad_units",
    fields=(
        _field("ad_unit_id", required=True),
        _field("campaign_id", required=True),
        _field("insertion_order_id"),
        _field("episode_id"),
        _field("position", required=True, choices=("pre", "mid", "post")),
        _field("delivery", required=True, choices=("baked_in", "dai")),
        _field("starts_at_second", Kind.NUMBER),
        _field("duration_seconds", Kind.NUMBER),
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("ad_unit_id",),
    keeps=Keeps.LATEST,
)

SPEND = Dataset(
    name="spend",
    fields=(
        _field("campaign_id", required=True),
        _field("podcast_id", default=""),
        _field("spend_date", Kind.DATE, required=True),
        _field("amount", Kind.DECIMAL, required=True),
        _field("currency", Kind.CURRENCY),  # null: the campaign's
        _field("properties", Kind.JSON, default="{}"),
    ),
    key=("campaign_id", "podcast_id", "spend_date"),
    keeps=Keeps.LATEST,
    day="spend_date",
    adds="amount",
    adds_alike=True,
)

DATASETS: Final[dict[str, Dataset]] = {
    dataset.name: dataset
    for dataset in (
        PODCASTS,
        EPISODES,
        SPONSORS,
        CAMPAIGNS,
        INSERTION_ORDERS,
        AD_UNITS,
        SPEND,
        LISTENER_EVENTS,
        ATTRIBUTION_EVENTS,
        LISTENER_METRICS,
    )
}
