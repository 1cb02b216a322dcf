"""Who listens, when, and the requests that this leaves in a log: all as columns, drawn with numpy.

Households with addresses, listeners with user agents, downloads of episodes, the requests that fetch them, the
ad impressions that a server inserts, and the exposures that follow. How rows look in a file is in ``files``.
Times are whole seconds since 1970-01-01 UTC.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from earmark.demo.catalog import Tenant
from earmark.demo.user_agents import (
    BOTS,
    NO_USER_AGENT,
    WATCH,
    Client,
    Manner,
    browsers,
    listener_clients,
)

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Bools: TypeAlias = npt.NDArray[np.bool_]
Columns: TypeAlias = dict[str, Ints]

DAY_SECONDS: Final = 86_400
# Requests and impressions that one download leaves on average, measured; turns `events` into downloads.
EVENTS_PER_DOWNLOAD: Final = 4.25
OTHER_HOUSEHOLDS: Final = 0.5  # households that never listen, a listening one
IPV6_SHARE: Final = 0.3
SHARED_SHARE: Final = 0.04  # households behind one of the shared (NAT) addresses
HOUSEHOLDS_A_SHARED_ADDRESS: Final = 20
RESERVED: Final = 1_024  # the last addresses of 198.18.0.0/15: bots and mobile carriers

# Country, share of households, hours from UTC, regions.
COUNTRIES: Final[tuple[tuple[str, float, int, tuple[str, ...]], ...]] = (
    ("US", 0.47, -5, ("CA", "NY", "TX", "FL", "IL", "WA", "MA", "CO")),
    ("GB", 0.12, 1, ("ENG", "SCT", "WLS")),
    ("CA", 0.08, -5, ("ON", "BC", "QC")),
    ("DE", 0.07, 2, ("BE", "BY", "NW")),
    ("AU", 0.06, 10, ("NSW", "VIC", "QLD")),
    ("SE", 0.05, 2, ("AB", "M")),
    ("NL", 0.05, 2, ("NH", "ZH")),
    ("IN", 0.04, 5, ("KA", "MH")),
    ("BR", 0.03, -3, ("SP", "RJ")),
    ("ZA", 0.03, 2, ("GP", "WC")),
)
# Listening by local hour: the way to work, lunch, the way home; and by weekday from Monday.
HOURLY: Final = (
    1.2, 0.7, 0.5, 0.5, 0.8, 2.2, 4.6, 7.4, 7.8, 5.8, 4.8, 4.7,
    5.2, 4.8, 4.5, 4.8, 5.9, 7.0, 6.4, 5.2, 4.7, 4.3, 3.4, 2.2,
)  # fmt: skip
WEEKLY: Final = (1.08, 1.10, 1.09, 1.07, 1.02, 0.80, 0.84)


@dataclass(frozen=True, slots=True)
class Homes:
    """Every address holder of a tenant: listening households, other households, then bots.

    ``ipv4`` is an offset into 198.18.0.0/15, ``prefix`` the 32 bits behind 2001:db8::/32 of a /64 where ``ipv6``
    holds; ``country`` and ``region`` index ``COUNTRIES``.
    """

    listening: int
    other: int
    ipv6: Bools
    ipv4: Ints
    prefix: Ints
    country: Ints
    region: Ints

    @property
    def households(self) -> int:
        """How many households there are, listening or not; they come first."""
        return self.listening + self.other


@dataclass(frozen=True, slots=True)
class Listening:
    """All that happened at one tenant's servers.

    ``requests`` holds t, home, device, client, target, method, status, sent, first, last, size, referrer (first
    and last are the byte range, -1 without one); ``impressions`` t, home, device, client, episode, unit, sent,
    size; ``downloads`` t, home, listener, episode, reach; ``exposures`` t, home, campaign, order, unit, dai.
    Episodes, targets, units and orders are indexes into the lists of those names.
    """

    homes: Homes
    clients: tuple[Client, ...]
    targets: tuple[str, ...]
    episodes: tuple[tuple[int, int], ...]
    units: tuple[tuple[int, int], ...]
    requests: Columns
    impressions: Columns
    downloads: Columns
    exposures: Columns


def mix(*columns: Ints) -> npt.NDArray[np.uint64]:
    """Hash columns row by row into 64 bits (the finaliser of SplitMix64, Steele and others 2014)."""
    state = np.zeros(len(columns[0]), dtype=np.uint64)
    for column in columns:
        state = (state ^ column.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def listen(tenant: Tenant, start: date, days: int, events: int, rng: np.random.Generator) -> Listening:
    """Draw all listening of a tenant: about ``events`` requests and impressions in ``days`` days."""
    opens = int(datetime(start.year, start.month, start.day, tzinfo=UTC).timestamp())
    closes = opens + days * DAY_SECONDS
    wanted = events / EVENTS_PER_DOWNLOAD
    episodes = tuple(
        (show, place) for show, podcast in enumerate(tenant.podcasts) for place in range(len(podcast.episodes))
    )
    people = listener_clients()
    clients = (*people, WATCH, NO_USER_AGENT, *(client for _, client in BOTS))
    audiences, listeners = _audience_sizes(tenant, opens, days, wanted)
    household = _households(listeners, rng)
    homes = _homes(int(household[-1]) + 1, 4 * len(BOTS) + 1, rng)
    downloads = _downloads(tenant, audiences, listeners, opens, days, wanted, rng)
    downloads["home"] = household[downloads["listener"]]
    _time_of_day(downloads, tenant, episodes, homes, opens, rng)
    sizes = np.array([tenant.podcasts[s].episodes[e].bytes for s, e in episodes], dtype=np.int64)
    downloads["size"] = sizes[downloads["episode"]]
    _client_and_reach(downloads, people, listeners, rng)
    targets = _targets(tenant, episodes)
    requests = _requests(downloads, clients, targets, sizes, homes, (opens, closes), rng)
    units = tuple(
        (number, place) for number, campaign in enumerate(tenant.campaigns) for place in range(len(campaign.units))
    )
    impressions = _impressions(tenant, episodes, units, downloads, rng)
    impressions["t"] = np.minimum(impressions["t"], closes - 1)
    return Listening(
        homes=homes,
        clients=clients,
        targets=targets,
        episodes=episodes,
        units=units,
        requests=_distinct(requests, homes),
        impressions=impressions,
        downloads=downloads,
        exposures=_exposures(tenant, episodes, units, downloads, impressions),
    )


# ---------------------------------------------------------------------------------------------- the audience


def _decay(lags: Floats) -> Floats:
    """Return the share of an episode's downloads that come ``lags`` days after its release."""
    past = np.maximum(lags, 0.0)
    spike = 0.62 * np.exp(-past) * (1 - np.exp(-1.0))
    week = 0.26 * np.exp(-past / 5) * (1 - np.exp(-1 / 5))
    tail = 0.12 * (1 + past) ** -0.9 / 8.4  # 8.4: the sum of (1 + lag) ** -0.9 over a year
    shares: Floats = np.where(lags < 0, 0.0, spike + week + tail)
    return shares


def _mass(tenant: Tenant, show: int, opens: int, days: int) -> Floats:
    """Return episodes x days: the share of each episode's downloads that falls on each day of the period."""
    released = np.array(
        [int(e.published_at.timestamp()) // DAY_SECONDS for e in tenant.podcasts[show].episodes],
        dtype=np.int64,
    )
    day = opens // DAY_SECONDS + np.arange(days, dtype=np.int64)
    weekday = np.array(WEEKLY)[(day + 3) % 7]  # 1970-01-01 was a Thursday
    lags = (day[None, :] - released[:, None]).astype(np.float64)
    mass: Floats = _decay(lags) * weekday[None, :]
    return mass


def _audience_sizes(tenant: Tenant, opens: int, days: int, wanted: float) -> tuple[list[int], int]:
    """Return the subscribers of each show and the listeners in all: 55 in 100 subscribers hear an episode."""
    sizes = []
    for show, podcast in enumerate(tenant.podcasts):
        whole_episodes = max(0.25, float(_mass(tenant, show, opens, days).sum()))
        sizes.append(max(4, int(podcast.share * wanted / whole_episodes / 0.55)))
    return sizes, max(8, int(sum(sizes) / 1.7), int(1.1 * max(sizes)))


def _households(listeners: int, rng: np.random.Generator) -> Ints:
    """Return the household of each listener; most have one."""
    sizes = rng.choice(4, size=listeners, p=[0.6, 0.25, 0.1, 0.05]) + 1
    return np.repeat(np.arange(listeners, dtype=np.int64), sizes)[:listeners]


def _homes(listening: int, bots: int, rng: np.random.Generator) -> Homes:
    other = int(OTHER_HOUSEHOLDS * listening) + 1
    households = listening + other
    total = households + bots
    usable = 2**17 - RESERVED
    ipv6 = rng.random(total) < IPV6_SHARE
    ipv6[households:] = False
    shared = ~ipv6 & (rng.random(total) < SHARED_SHARE)
    shared[households:] = False
    pool = max(2, int(shared.sum()) // HOUSEHOLDS_A_SHARED_ADDRESS)
    addresses = rng.permutation(np.arange(256, usable, dtype=np.int64))
    alone = np.flatnonzero(~ipv6[:households] & ~shared[:households])
    ipv6[alone[len(addresses) - pool :]] = True  # no more IPv4 addresses to give
    alone = alone[: len(addresses) - pool]
    ipv4 = np.zeros(total, dtype=np.int64)
    ipv4[alone] = addresses[pool : pool + len(alone)]
    ipv4[shared] = addresses[rng.integers(0, pool, size=int(shared.sum()))]
    ipv4[households:] = usable + np.arange(bots)
    # A odd multiplier permutes the 32-bit numbers: no prefix is given twice.
    prefix = (np.arange(total, dtype=np.int64) * 2_654_435_761 + int(rng.integers(2**32))) % 2**32
    country = rng.choice(len(COUNTRIES), size=total, p=[share for _, share, _, _ in COUNTRIES])
    regions = np.array([len(names) for _, _, _, names in COUNTRIES], dtype=np.int64)
    region = (rng.random(total) ** 1.6 * regions[country]).astype(np.int64)
    return Homes(listening, other, ipv6, ipv4, prefix, country.astype(np.int64), region)


# --------------------------------------------------------------------------------------------- the downloads


def _downloads(
    tenant: Tenant,
    audiences: list[int],
    listeners: int,
    opens: int,
    days: int,
    wanted: float,
    rng: np.random.Generator,
) -> Columns:
    """Draw who downloads which episode on which day: a listener downloads an episode once."""
    activity = rng.normal(0.0, 0.7, size=listeners)
    who, what, when = [], [], []
    before = 0
    for show, podcast in enumerate(tenant.podcasts):
        subscribers = rng.choice(listeners, size=audiences[show], replace=False)
        mass = _mass(tenant, show, opens, days)
        expected = podcast.share * wanted * mass.sum(axis=1) / mass.sum()
        for episode in np.flatnonzero(expected > 0).tolist():
            count = min(int(rng.poisson(expected[episode])), len(subscribers))
            if not count:
                continue
            # The largest keys with Gumbel noise: a weighted draw without replacement.
            keys = activity[subscribers] + rng.gumbel(size=len(subscribers))
            chosen = np.argpartition(-keys, count - 1)[:count]
            per_day = rng.multinomial(count, mass[episode] / mass[episode].sum())
            who.append(rng.permutation(subscribers[chosen]))
            what.append(np.full(count, before + episode, dtype=np.int64))
            when.append(np.repeat(np.arange(days, dtype=np.int64), per_day))
        before += len(podcast.episodes)
    return {
        "listener": np.concatenate(who).astype(np.int64),
        "episode": np.concatenate(what),
        "day": np.concatenate(when),
    }


def local_seconds(country: Ints, rng: np.random.Generator) -> Ints:
    """Draw the second of the UTC day at which somebody in each country is active."""
    hourly = np.array(HOURLY) / sum(HOURLY)
    offsets = np.array([hours for _, _, hours, _ in COUNTRIES], dtype=np.int64)
    local = rng.choice(24, size=len(country), p=hourly)
    hour: Ints = (local - offsets[country]) % 24
    return hour * 3600 + rng.integers(0, 3600, size=len(country))


def _time_of_day(
    downloads: Columns,
    tenant: Tenant,
    episodes: tuple[tuple[int, int], ...],
    homes: Homes,
    opens: int,
    rng: np.random.Generator,
) -> None:
    """Set the time: by the local clock, and on the day of release nobody before it and apps at once."""
    released = np.array(
        [int(tenant.podcasts[s].episodes[e].published_at.timestamp()) for s, e in episodes],
        dtype=np.int64,
    )[downloads["episode"]]
    count = len(released)
    midnight = opens + downloads["day"] * DAY_SECONDS
    t = midnight + local_seconds(homes.country[downloads["home"]], rng)
    at_once = rng.random(count) < 0.45
    wait = rng.exponential(np.where(at_once, 4_000.0, 14_000.0)).astype(np.int64)
    on_day = (released >= midnight) & (released < midnight + DAY_SECONDS)
    after = np.minimum(released + 30 + wait, midnight + DAY_SECONDS - 1)
    downloads["t"] = np.where(on_day & (at_once | (t < released)), after, t)


def _client_and_reach(
    downloads: Columns, people: tuple[Client, ...], listeners: int, rng: np.random.Generator
) -> None:
    """Set the client (some listeners have two) and how many bytes from the start were delivered."""
    weights = np.array([client.weight for client in people])
    weights /= weights.sum()
    first = rng.choice(len(people), size=listeners, p=weights)
    second = np.where(rng.random(listeners) < 0.25, rng.choice(len(people), size=listeners, p=weights), first)
    listener = downloads["listener"]
    count = len(listener)
    downloads["client"] = np.where(rng.random(count) < 0.85, first[listener], second[listener]).astype(np.int64)
    size = downloads["size"]
    broken_off = rng.random(count) < 0.15
    part = np.maximum((size * rng.beta(0.8, 1.0, size=count)).astype(np.int64), 2_048)
    downloads["reach"] = np.where(broken_off, np.minimum(part, size), size)


# ---------------------------------------------------------------------------------------------- the requests


def _targets(tenant: Tenant, episodes: tuple[tuple[int, int], ...]) -> tuple[str, ...]:
    """Return the paths that are asked for: episodes, then of each show its feed, its cover, and a dead link."""
    audio = [tenant.podcasts[show].episodes[place].path for show, place in episodes]
    others = (
        (f"/feeds/{p.slug}.xml", f"/{p.slug}/cover-3000.jpg", f"/{p.slug}/{p.slug}-trailer.mp3")
        for p in tenant.podcasts
    )
    return (*audio, *(path for paths in others for path in paths))


def _columns(downloads: Columns, **columns: Ints | int) -> Columns:
    """Return requests of whole files by GET with 200, one a download, with the columns given instead."""
    count = len(downloads["t"])
    made: dict[str, Ints | int] = {
        "t": downloads["t"],
        "home": downloads["home"],
        "device": downloads["listener"],
        "client": downloads["client"],
        "target": downloads["episode"],
        "method": 0,
        "status": 200,
        "sent": downloads["size"],
        "first": -1,
        "last": -1,
        "size": downloads["size"],
    }
    made.update(columns)
    return {
        name: column if isinstance(column, np.ndarray) else np.full(count, column, dtype=np.int64)
        for name, column in made.items()
    }


def _take(columns: Columns, chosen: Ints | Bools) -> Columns:
    return {name: column[chosen] for name, column in columns.items()}


def _stack(tables: list[Columns]) -> Columns:
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _requests(
    downloads: Columns,
    clients: tuple[Client, ...],
    targets: tuple[str, ...],
    sizes: Ints,
    homes: Homes,
    period: tuple[int, int],
    rng: np.random.Generator,
) -> Columns:
    fetched = _fetches(downloads, clients, rng)
    around = _around(downloads, clients, targets, sizes, rng)
    people = _stack([*fetched, *around])
    bots = _bots(int(0.035 * len(people["t"])), clients, sizes, len(targets), homes, period, rng)
    requests = _stack([people, *bots])
    requests["t"] = np.clip(requests["t"], period[0], period[1] - 1)
    shown = np.array([client.referrer == "site" for client in clients])
    requests["referrer"] = (shown[requests["client"]] & (rng.random(len(requests["t"])) < 0.7)).astype(np.int64)
    return requests


def _fetches(downloads: Columns, clients: tuple[Client, ...], rng: np.random.Generator) -> list[Columns]:
    """Return the requests that deliver each download's bytes, in its client's manner."""
    manner = np.array([client.manner for client in clients])[downloads["client"]]
    in_parts = (manner == Manner.PARTS) | (manner == Manner.PROBE_PARTS)
    probes = (manner == Manner.PROBE_WHOLE) | (manner == Manner.PROBE_PARTS)
    whole, parts = _take(downloads, ~in_parts), _take(downloads, in_parts)
    probed, headed = _take(downloads, probes), _take(downloads, manner == Manner.HEAD_WHOLE)
    return [
        _columns(whole, sent=whole["reach"], t=whole["t"] + 1),
        _parts(parts, rng),
        _columns(probed, status=206, sent=2, first=0, last=1),
        _columns(headed, method=1, sent=0),
    ]


def _parts(downloads: Columns, rng: np.random.Generator) -> Columns:
    """Return consecutive ranges; some begin a little before the last one ended."""
    chunk = np.maximum(2 * 2**20, -(-downloads["size"] // 5))
    count = -(-downloads["reach"] // chunk)
    gap = (240 * rng.uniform(0.1, 1.5, size=len(count))).astype(np.int64)
    place = np.arange(int(count.sum()), dtype=np.int64) - np.repeat(np.cumsum(count) - count, count)
    whole = {name: np.repeat(column, count) for name, column in downloads.items()}
    chunk, gap = np.repeat(chunk, count), np.repeat(gap, count)
    overlaps = (place > 0) & (rng.random(len(place)) < 0.08)
    first = place * chunk - np.where(overlaps, 65_536, 0)
    last = np.minimum((place + 1) * chunk, whole["size"]) - 1
    return _columns(
        whole,
        t=whole["t"] + 1 + place * gap,
        status=206,
        first=first,
        last=last,
        sent=np.minimum(last + 1, whole["reach"]) - first,
    )


def _around(
    downloads: Columns,
    clients: tuple[Client, ...],
    targets: tuple[str, ...],
    sizes: Ints,
    rng: np.random.Generator,
) -> list[Columns]:
    """Return what happens beside the downloads: repeats, resumed ones, probes alone, 304, 404, feeds, covers."""
    count = len(downloads["t"])

    def some(share: float, low: float, high: float) -> Columns:
        """Choose a share of the downloads and move them by ``low`` to ``high`` hours."""
        chosen = _take(downloads, rng.random(count) < share)
        hours = rng.uniform(low, high, size=len(chosen["t"]))
        return chosen | {"t": chosen["t"] + (3600 * hours).astype(np.int64)}

    repeated = some(0.03, 0.1, 30.0)
    resumed = some(0.04, 0.3, 40.0)
    middle = (resumed["size"] * rng.uniform(0.1, 0.9, size=len(resumed["t"]))).astype(np.int64)
    probe = some(0.012, 1.0, 200.0)
    any_episode = rng.integers(0, len(sizes), size=len(probe["t"]))
    unchanged = some(0.02, 1.0, 70.0)
    lost = some(0.007, 0.0, 2.0)
    dead = len(sizes) + 3 * rng.integers(0, (len(targets) - len(sizes)) // 3, size=len(lost["t"])) + 2
    feed = some(0.05, -1.0, 0.0)
    feeds = len(sizes) + 3 * rng.integers(0, (len(targets) - len(sizes)) // 3, size=len(feed["t"]))
    is_cover = rng.random(len(feed["t"])) < 0.2
    not_modified = ~is_cover & (rng.random(len(feed["t"])) < 0.5)
    feed_size = np.where(is_cover, 412_907, 61_440 + feeds % 97 * 311)
    bare = some(0.003, 0.0, 5.0)
    apple = np.array([client.user_agent.startswith("Podcasts/") for client in clients])
    watch = some(0.05, 0.0, 3.0)
    watch = _take(watch, apple[watch["client"]])
    return [
        _columns(repeated),
        _columns(resumed, status=206, first=middle, last=resumed["size"] - 1, sent=resumed["size"] - middle),
        _columns(probe, target=any_episode, size=sizes[any_episode], status=206, first=0, last=1, sent=2),
        _columns(unchanged, status=304, sent=0),
        _columns(lost, target=dead, status=404, sent=153, size=153),
        _columns(
            feed,
            target=feeds + is_cover,
            status=np.where(not_modified, 304, 200),
            sent=np.where(not_modified, 0, feed_size),
            size=feed_size,
        ),
        _columns(bare, client=clients.index(NO_USER_AGENT)),
        _columns(watch, client=clients.index(WATCH)),
    ]


def _bots(
    count: int,
    clients: tuple[Client, ...],
    sizes: Ints,
    targets: int,
    homes: Homes,
    period: tuple[int, int],
    rng: np.random.Generator,
) -> list[Columns]:
    """Return the requests of bots from a few addresses each, and of one browser that takes everything."""
    weights = np.array([weight for weight, _ in BOTS])
    bot = rng.choice(len(BOTS), size=count, p=weights / weights.sum())
    target = rng.integers(0, targets, size=count)
    target = np.where(target >= len(sizes), len(sizes) + (target - len(sizes)) // 3 * 3, target)
    size = np.append(sizes, np.full(targets - len(sizes), 61_440, dtype=np.int64))[target]
    heads = (bot == 0) | (rng.random(count) < 0.15)  # the first bot is a monitor
    crawled: Columns = {
        "t": rng.integers(period[0], period[1], size=count),
        "home": homes.households + 4 * bot + rng.integers(0, 4, size=count),
        "listener": np.zeros(count, dtype=np.int64),
        "client": len(clients) - len(BOTS) + bot,
        "episode": target,
        "size": size,
    }
    taken = count // 6
    begins = int(rng.integers(period[0], max(period[0] + 1, period[1] - 2 * DAY_SECONDS)))
    wanted = rng.integers(0, len(sizes), size=taken)
    scraped: Columns = {
        "t": begins + np.sort(rng.integers(0, 2 * DAY_SECONDS, size=taken)),
        "home": np.full(taken, homes.households + 4 * len(BOTS), dtype=np.int64),
        "listener": np.zeros(taken, dtype=np.int64),
        "client": np.full(taken, [c.user_agent for c in clients].index(browsers()[0]), dtype=np.int64),
        "episode": wanted,
        "size": sizes[wanted],
    }
    return [
        _columns(crawled, method=heads.astype(np.int64), sent=np.where(heads, 0, size)),
        _columns(scraped),
    ]


def _distinct(requests: Columns, homes: Homes) -> Columns:
    """Keep one of the requests that a log without request ids would show alike."""
    home = requests["home"]
    address = np.where(homes.ipv6[home], 2**20 + home, homes.ipv4[home])
    device = np.where(homes.ipv6[home], requests["device"], 0)
    shown = ("t", "client", "target", "method", "status", "sent", "referrer")
    rows = mix(address, device, *(requests[name] for name in shown))
    _, kept = np.unique(rows, return_index=True)
    return _take(requests, np.sort(kept))


# ----------------------------------------------------------------------------------------------------- the ads


def _day(day: date) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return int(midnight.timestamp()) // DAY_SECONDS


def _impressions(
    tenant: Tenant,
    episodes: tuple[tuple[int, int], ...],
    units: tuple[tuple[int, int], ...],
    downloads: Columns,
    rng: np.random.Generator,
) -> Columns:
    """Insert ads into the downloads of shows with DAI; one of 25 is cut short.

    A place goes to the highest bid of the campaigns in flight, and stays empty under a reserve.
    """
    dai = np.array([tenant.podcasts[show].dai for show, _ in episodes])
    bitrate = np.array([tenant.podcasts[s].episodes[e].bitrate for s, e in episodes], dtype=np.int64)
    shown = _take(downloads, dai[downloads["episode"]])
    made = []
    for position, reached in (("pre", 0.05), ("mid", 0.5)):
        there = _take(shown, shown["reach"] >= reached * shown["size"])
        day = there["t"] // DAY_SECONDS
        choice = np.full(len(day), -1, dtype=np.int64)
        best = np.full(len(day), 0.25)
        for number, (campaign, place) in enumerate(units):
            plan = tenant.campaigns[campaign]
            unit = plan.units[place]
            if unit.delivery != "dai" or unit.position != position:
                continue
            in_flight = (day >= _day(plan.starts_on)) & (day <= _day(plan.ends_on))
            bid = rng.random(len(day)) * in_flight
            choice = np.where(bid > best, number, choice)
            best = np.maximum(bid, best)
        sold = _take(there | {"unit": choice}, choice >= 0)
        seconds = np.array([tenant.campaigns[c].units[u].seconds for c, u in units])
        size = (seconds[sold["unit"]] * bitrate[sold["episode"]] / 8).astype(np.int64)
        cut = rng.random(len(size)) < 0.04
        sent = np.where(cut, (size * rng.random(len(size))).astype(np.int64), size)
        made.append(
            {
                "t": sold["t"] + 2,
                "home": sold["home"],
                "device": sold["listener"],
                "client": sold["client"],
                "episode": sold["episode"],
                "unit": sold["unit"],
                "sent": sent,
                "size": size,
            }
        )
    return _stack(made)


def _exposures(
    tenant: Tenant,
    episodes: tuple[tuple[int, int], ...],
    units: tuple[tuple[int, int], ...],
    downloads: Columns,
    impressions: Columns,
) -> Columns:
    """Return every delivery of a whole ad to a person, in the order of time within a unit."""
    position = {episode: number for number, episode in enumerate(episodes)}
    by_episode = np.argsort(downloads["episode"], kind="stable")
    sorted_episodes = downloads["episode"][by_episode]
    heard = _take(impressions, impressions["sent"] >= impressions["size"])
    tables = [
        {
            "t": heard["t"],
            "home": heard["home"],
            "unit": heard["unit"],
            "episode": heard["episode"],
            "dai": np.ones(len(heard["t"]), dtype=np.int64),
        }
    ]
    for number, (campaign, place) in enumerate(units):
        unit = tenant.campaigns[campaign].units[place]
        if unit.episode is None or unit.starts_at_second is None:
            continue
        show, episode = unit.episode
        wanted = position[unit.episode]
        low, high = np.searchsorted(sorted_episodes, [wanted, wanted + 1])
        got = _take(downloads, by_episode[low:high])
        ends = tenant.podcasts[show].episodes[episode].byte_at(unit.starts_at_second + unit.seconds)
        got = _take(got, got["reach"] >= ends)
        tables.append(
            {
                "t": got["t"],
                "home": got["home"],
                "unit": np.full(len(got["t"]), number, dtype=np.int64),
                "episode": got["episode"],
                "dai": np.zeros(len(got["t"]), dtype=np.int64),
            }
        )
    exposures = _stack(tables)
    campaign_of = np.array([campaign for campaign, _ in units], dtype=np.int64)
    order_of = np.array([tenant.campaigns[c].units[u].order for c, u in units], dtype=np.int64)
    exposures["campaign"] = campaign_of[exposures["unit"]]
    exposures["order"] = order_of[exposures["unit"]]
    return exposures
