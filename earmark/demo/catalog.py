"""The shows, sponsors and campaigns of the demo data: what is on sale, before anybody listens.

Everything is made up and planned without chance, apart from the lengths of episodes. Who listens is in
``listening``, who buys in ``responses``.
"""

import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import numpy as np

DAY: Final = timedelta(days=1)
FULL_HEADER_BYTES: Final = 96_000
AD_SECONDS: Final = {"pre": 30.0, "mid": 60.0, "post": 30.0}

# podcast:guid is a UUID of version 5 in this namespace over the feed's URL without its scheme:
# https://github.com/Podcastindex-org/podcast-namespace/blob/main/docs/tags/guid.md
PODCAST_NAMESPACE: Final = uuid.UUID("ead4c236-bf58-58c6-a2c6-a6b28d128cb6")

_TENANTS: Final = (
    ("harbourline", "Harbourline Audio"),
    ("saltmarsh", "Saltmarsh Network"),
    ("ninefold", "Ninefold Radio"),
    ("tallowstreet", "Tallow Street Media"),
)
_TITLES: Final = (
    "The Lantern Room", "Second Breakfast Ledger", "Knots & Crossings", "Dial Tone Stories",
    "Ask a Cartographer", "Slow Weather", "Borrowed Thunder", "Minutes of the Last Meeting",
    "Quiet Machines", "Half a Marathon", "The Glass Orchard", "Footnote Club",
    "Paper Moons", "Yesterday's Tide", "Low Stakes", "Unlabelled Boxes",
    "The Understudies", "Copper & Clay", "Long Way Round", "A Field Guide to Nothing",
    "North of Noon", "The Spare Key", "Salt & Static", "Small Hours Council",
)  # fmt: skip
_SPONSORS: Final = (
    "Brightloom Bedding", "Pebblewick Coffee", "Ledgerfox", "Stepwren",
    "Oatmere Kitchen", "Fernhollow Plants", "Quillspan", "Lumpkin Loop",
    "Wickerby Shoes", "Tansy & Thrum", "Parcelgnome", "Hushboat",
    "Marlowick Knives", "Cobblefin", "Tallyvane", "Nimblethistle",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode; ``bytes`` is its file with the ID3 header, ``bitrate`` in bits a second."""

    guid: str
    title: str
    published_at: datetime
    seconds: int
    bitrate: int
    bytes: int
    path: str
    enclosure_url: str

    def byte_at(self, second: float) -> int:
        """Return how many bytes of the file there are up to a second of the audio."""
        return FULL_HEADER_BYTES + int(second * self.bitrate / 8)


@dataclass(frozen=True, slots=True)
class Podcast:
    """One show; ``share`` is its part of the tenant's downloads (Zipf), ``dai`` says that it inserts ads."""

    slug: str
    title: str
    guid: str
    feed_url: str
    share: float
    dai: bool
    episodes: tuple[Episode, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """One insertion order: a campaign on one show, or (``podcast`` None) inserted wherever there is room."""

    order_id: str
    podcast: int | None
    promo_code: str
    vanity_url: str
    cpm: float


@dataclass(frozen=True, slots=True)
class AdUnit:
    """One ad in a place; ``episode`` is (podcast, episode) by index, None where it is inserted (DAI)."""

    unit_id: str
    order: int
    position: str
    delivery: str
    episode: tuple[int, int] | None
    starts_at_second: float | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign and its planted effect: ``lift`` conversions an exposure."""

    campaign_id: str
    sponsor: int
    name: str
    starts_on: date
    ends_on: date
    actions: tuple[str, ...]
    lookback_days: float
    lift: float
    orders: tuple[Order, ...]
    units: tuple[AdUnit, ...]


@dataclass(frozen=True, slots=True)
class Sponsor:
    """One advertiser. ``rate`` is its baseline: conversions a household in 30 days, ads or none."""

    sponsor_id: str
    name: str
    domain: str
    actions: tuple[str, ...]
    rate: float
    basket: float


@dataclass(frozen=True, slots=True)
class Tenant:
    """One tenant with all it sells; ``media_host`` serves its audio and writes its log."""

    tenant_id: str
    name: str
    media_host: str
    log_folder: str
    podcasts: tuple[Podcast, ...]
    sponsors: tuple[Sponsor, ...]
    campaigns: tuple[Campaign, ...]


def plan_tenant(number: int, start: date, days: int, rng: "np.random.Generator") -> Tenant:
    """Plan the tenant of that number (from 0) for ``days`` UTC days from ``start`` on."""
    key, name = _TENANTS[number % len(_TENANTS)]
    again = number // len(_TENANTS)
    tenant_id, name = (key, name) if not again else (f"{key}-{again + 1}", f"{name} {again + 1}")
    host = f"media.{tenant_id}.example"
    podcasts = _podcasts(number, tenant_id, host, start, days, rng)
    sponsors = _sponsors(number)
    return Tenant(
        tenant_id=tenant_id,
        name=name,
        media_host=host,
        log_folder=("nginx", "cloudfront")[number % 2],
        podcasts=podcasts,
        sponsors=sponsors,
        campaigns=_campaigns(number, sponsors, podcasts, start, days),
    )


# Weekdays of release (Monday is 0), the hour in UTC, minutes of an episode, kbit/s, DAI, weeks of old episodes.
_CADENCES: Final[tuple[tuple[tuple[int, ...], int, int, int, bool, int], ...]] = (
    ((1,), 9, 52, 128, False, 30),
    ((0, 1, 2, 3, 4), 5, 21, 96, True, 8),
    ((3,), 10, 64, 128, False, 30),
    ((0, 3), 7, 34, 96, True, 16),
    ((2,), 4, 46, 64, False, 30),
    ((5,), 8, 75, 128, True, 30),
)


def _slug(title: str) -> str:
    kept = "".join(letter if letter.isalnum() else " " for letter in title.lower().replace("'", ""))
    return "-".join(kept.split())


def _podcasts(
    number: int,
    tenant_id: str,
    host: str,
    start: date,
    days: int,
    rng: "np.random.Generator",
) -> tuple[Podcast, ...]:
    ranks = range(len(_CADENCES))
    weights = [1 / (rank + 1) ** 0.9 for rank in ranks]
    made = []
    for rank in ranks:
        title = _TITLES[(number * len(_CADENCES) + rank) % len(_TITLES)]
        slug = _slug(title)
        feed_url = f"https://feeds.{tenant_id}.example/{slug}.xml"
        guid = str(uuid.uuid5(PODCAST_NAMESPACE, feed_url.removeprefix("https://")))
        prefix = (
            f"https://op3.dev/e,pg={guid}/pdst.fm/e/",
            "https://dts.podtrac.com/redirect.mp3/op3.dev/e/",
            f"https://op3.dev/e,pg={guid}/",
            "https://",
        )[(number + rank // 2) % 4]
        made.append(
            Podcast(
                slug=slug,
                title=title,
                guid=guid,
                feed_url=feed_url,
                share=weights[rank] / sum(weights),
                dai=_CADENCES[rank][4],
                episodes=_episodes(rank, slug, f"{prefix}{host}", start, days, rng),
            )
        )
    return tuple(made)


def _episodes(
    rank: int,
    slug: str,
    url_before_path: str,
    start: date,
    days: int,
    rng: "np.random.Generator",
) -> tuple[Episode, ...]:
    weekdays, hour, minutes, kilobits, _, weeks_before = _CADENCES[rank]
    first = start - 7 * weeks_before * DAY
    released = [
        first + place * DAY
        for place in range(7 * weeks_before + days)
        if (first + place * DAY).weekday() in weekdays
    ]
    made = []
    for place, day in enumerate(released):
        seconds = max(120, int(minutes * 60 * rng.lognormal(0.0, 0.18)))
        number = place + 1
        path = f"/{slug}/{day:%Y}/{slug}-{number:04d}.mp3"
        made.append(
            Episode(
                guid=f"{slug}-{number:04d}",
                title=f"{number}: {_TOPICS[(7 * rank + 3 * place) % len(_TOPICS)]}",
                published_at=datetime(day.year, day.month, day.day, hour, tzinfo=UTC),
                seconds=seconds,
                bitrate=kilobits * 1000,
                bytes=FULL_HEADER_BYTES + seconds * kilobits * 125,
                path=path,
                enclosure_url=f"{url_before_path}{path}" + ("?source=feed" if rank % 2 else ""),
            )
        )
    return tuple(made)


_TOPICS: Final = (
    "What the Ferry Left Behind", "A Room with Two Clocks", "The Wrong Kind of Snow", "Letters to a Lighthouse",
    "Nobody Waters the Cactus", "Eleven Ways to Fold a Map", "The Last Payphone", "How to Lose a Bakery",
    "Under the Orchard", "Tin Roofs & Thunder", "The Committee Adjourns", "An Honest Umbrella",
    "Everything in Brackets", "A Short History of Buttons", "The Night Bus Home", "Half Past Never",
)  # fmt: skip


def _sponsors(number: int) -> tuple[Sponsor, ...]:
    # What is sold, the baseline rate, and the mean basket in USD.
    kinds: tuple[tuple[tuple[str, ...], float, float], ...] = (
        (("purchase", "offline_purchase"), 0.016, 118.0),
        (("purchase",), 0.022, 36.0),
        (("signup", "lead"), 0.018, 0.0),
        (("install",), 0.020, 0.0),
    )
    made = []
    for place, (actions, rate, basket) in enumerate(kinds):
        name = _SPONSORS[(number * len(kinds) + place) % len(_SPONSORS)]
        slug = _slug(name)
        made.append(Sponsor(f"sp-{slug}", name, f"{slug}.example", actions, rate, basket))
    return tuple(made)


# Sponsor, name, flight as parts of the period, lookback, lift, shows with baked-in ads (position), DAI positions.
_PLANS: Final[
    tuple[
        tuple[int, str, float, float, float, float, tuple[tuple[int, str], ...], tuple[str, ...]],
        ...,
    ]
] = (
    (0, "Spring", 0.05, 0.50, 30.0, 0.020, ((0, "mid"), (2, "pre")), ()),
    (0, "Summer", 0.50, 1.00, 30.0, 0.012, ((0, "pre"),), ("mid",)),
    (1, "Always on", 0.10, 0.90, 30.0, 0.000, ((2, "mid"), (4, "pre")), ("pre",)),
    (2, "Trial month", 0.20, 0.80, 14.0, 0.015, ((4, "mid"), (0, "post")), ("mid",)),
    (3, "App launch", 0.15, 0.70, 7.0, 0.000, (), ("pre", "mid")),
)


def _campaigns(
    number: int,
    sponsors: tuple[Sponsor, ...],
    podcasts: tuple[Podcast, ...],
    start: date,
    days: int,
) -> tuple[Campaign, ...]:
    made = []
    for place, (which, name, opens, closes, lookback, lift, baked_in, dai) in enumerate(_PLANS):
        sponsor = sponsors[which]
        starts_on = start + int(opens * days) * DAY
        ends_on = max(starts_on, start + (int(closes * days) - 1) * DAY)
        campaign_id = f"cmp-{number + 1}{place + 1:02d}"
        word = sponsor.domain.split("-", maxsplit=1)[0].removesuffix(".example").upper()
        shows: list[int | None] = [show for show, _ in baked_in]
        if dai:
            shows.append(None)
        orders = tuple(
            Order(
                order_id=f"io-{campaign_id.removeprefix('cmp-')}-{line + 1}",
                podcast=show,
                promo_code=f"{word}{10 + 5 * place}"
                if show is None
                else f"{podcasts[show].slug.replace('-', '')[:8].upper()}{10 + 5 * place}",
                vanity_url=f"https://{sponsor.domain}/"
                + ("listen" if show is None else podcasts[show].slug)
                + f"-{_slug(name)}",
                cpm=(24.0, 31.5, 18.0, 27.0, 15.5)[place] + 1.5 * line,
            )
            for line, show in enumerate(shows)
        )
        made.append(
            Campaign(
                campaign_id=campaign_id,
                sponsor=which,
                name=f"{sponsor.name} {name}",
                starts_on=starts_on,
                ends_on=ends_on,
                actions=sponsor.actions,
                lookback_days=lookback,
                lift=lift,
                orders=orders,
                units=_ad_units(campaign_id, baked_in, dai, podcasts, starts_on, ends_on),
            )
        )
    return tuple(made)


def _ad_units(
    campaign_id: str,
    baked_in: tuple[tuple[int, str], ...],
    dai: tuple[str, ...],
    podcasts: tuple[Podcast, ...],
    starts_on: date,
    ends_on: date,
) -> tuple[AdUnit, ...]:
    """Place one ad in every episode released in the flight on the shows booked, and one a DAI position."""
    made: list[AdUnit] = []
    prefix = f"ad-{campaign_id.removeprefix('cmp-')}"
    for line, (show, position) in enumerate(baked_in):
        for place, episode in enumerate(podcasts[show].episodes):
            if not starts_on <= episode.published_at.date() <= ends_on:
                continue
            length = AD_SECONDS[position]
            second = {
                "pre": 5.0,
                "mid": float(round(0.45 * episode.seconds)),
                "post": episode.seconds - length - 20.0,
            }[position]
            made.append(
                AdUnit(
                    unit_id=f"{prefix}-{len(made) + 1:03d}",
                    order=line,
                    position=position,
                    delivery="baked_in",
                    episode=(show, place),
                    starts_at_second=second,
                    seconds=length,
                )
            )
    before = len(made)
    made.extend(
        AdUnit(
            unit_id=f"{prefix}-{before + place + 1:03d}",
            order=len(baked_in),
            position=position,
            delivery="dai",
            episode=None,
            starts_at_second=None,
            seconds=AD_SECONDS[position],
        )
        for place, position in enumerate(dai)
    )
    return tuple(made)
