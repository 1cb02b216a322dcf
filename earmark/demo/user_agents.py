"""The user agents of the demo data: who asks for episodes, how often, and in what manner of requests.

Only tables live here. The strings are written after the patterns that real clients use.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Manner(IntEnum):
    """How a client fetches one episode."""

    WHOLE = 0  # one GET
    PROBE_WHOLE = 1  # bytes=0-1, then one GET
    HEAD_WHOLE = 2  # HEAD, then one GET
    PARTS = 3  # consecutive ranges while it plays
    PROBE_PARTS = 4  # bytes=0-1, then consecutive ranges


@dataclass(frozen=True, slots=True)
class Client:
    """One user agent: its share of the listeners, its manner, and the page that it sends as referrer."""

    user_agent: str
    weight: float
    manner: Manner
    referrer: str = "-"


# weight, manner, pattern, versions from the commonest to the rarest, referrer
_PATTERNS: Final[tuple[tuple[float, Manner, str, tuple[str, ...], str], ...]] = (
    (
        11.0,
        Manner.PROBE_WHOLE,
        "Podcasts/4025.{} model/iPhone16,1 hwp/t8130 build/22F76 (6; dt:305) AMS/1 TSE/0",
        ("600.1", "500.3", "300.8"),
        "-",
    ),
    (
        9.0,
        Manner.PROBE_WHOLE,
        "Podcasts/{} CFNetwork/1568.300.101 Darwin/24.2.0",
        ("1650.20", "1650.1", "1610.5", "1580.27"),
        "-",
    ),
    (
        7.0,
        Manner.PROBE_PARTS,
        "AppleCoreMedia/1.0.0.{} (iPhone; U; CPU OS 18_5 like Mac OS X; en_us)",
        ("22F76", "22E252", "22D82"),
        "-",
    ),
    (
        2.0,
        Manner.PROBE_PARTS,
        "AppleCoreMedia/1.0.0.{} (iPad; U; CPU OS 17_6_1 like Mac OS X; en_gb)",
        ("21G93", "21F90"),
        "-",
    ),
    (
        1.2,
        Manner.PROBE_PARTS,
        "AppleCoreMedia/1.0.0.{} (HomePod; U; CPU OS 18_4 like Mac OS X; en_us)",
        ("22L255", "22L569"),
        "-",
    ),
    (
        0.8,
        Manner.PROBE_PARTS,
        "AppleCoreMedia/1.0.0.{} (Apple TV; U; CPU OS 18_5 like Mac OS X; en_us)",
        ("22L572",),
        "-",
    ),
    (13.0, Manner.PARTS, "Spotify/9.0.{} iOS/18.5 (iPhone15,3)", ("44", "38", "32", "12"), "-"),
    (11.0, Manner.PARTS, "Spotify/9.0.{} Android/34 (SM-S918B)", ("44.478", "36.421"), "-"),
    (5.0, Manner.PARTS, "Spotify/8.9.{} Android/33 (Pixel 7a)", ("96.476", "18.512"), "-"),
    (2.0, Manner.PARTS, "Spotify/1.2.{} OSX_ARM64/OS X 14.5.0 [arm 2]", ("63.394", "53.440"), "-"),
    (1.0, Manner.PARTS, "Spotify/8.9.{} Sonos/0 (Sonos One)", ("96", "40"), "-"),
    (
        4.5,
        Manner.WHOLE,
        "Overcast/{} (+http://overcast.fm/; iOS podcast app)",
        ("3.0",),
        "-",
    ),
    (1.5, Manner.WHOLE, "Overcast/{} CFNetwork/1498.700.2 Darwin/23.6.0", ("2024.11", "1274"), "-"),
    (3.0, Manner.WHOLE, "Pocket%20Casts/{} CFNetwork/3826.500.131 Darwin/24.5.0", ("7.88.0.2", "7.81.0.1"), "-"),
    (2.5, Manner.WHOLE, "Pocket Casts/{} (Linux;Android 14) ExoPlayerLib/2.19.1", ("7.87", "7.72"), "-"),
    (1.0, Manner.WHOLE, "Shifty Jelly Pocket Casts, Android v{}", ("7.61", "7.45"), "-"),
    (2.5, Manner.HEAD_WHOLE, "AntennaPod/{}", ("3.7.1", "3.6.1", "3.4.0", "2.7.1"), "-"),
    (
        2.0,
        Manner.WHOLE,
        "CastBox/{} (Linux;Android 13) ExoPlayerLib/2.10.4",
        ("11.9.2-240830122", "11.2.5-231122041"),
        "-",
    ),
    (1.5, Manner.HEAD_WHOLE, "PodcastAddict/{} (+https://podcastaddict.com/; Android podcast app)", ("v5",), "-"),
    (
        0.8,
        Manner.HEAD_WHOLE,
        "Podcast Addict - Dalvik/2.1.0 (Linux; U; Android {}; SM-A546B Build/UP1A.231005.007)",
        ("14", "13"),
        "-",
    ),
    (
        1.4,
        Manner.PARTS,
        "AmazonMusic/{} iPhone15,2 CFNetwork/1568.300.101 Darwin/24.2.0",
        ("25.6.1", "24.14.0"),
        "-",
    ),
    (0.8, Manner.WHOLE, "PlayerFM/{} (Linux;Android 12) ExoPlayerLib/2.18.1", ("5.9.0.38", "5.4.0.12"), "-"),
    (0.6, Manner.WHOLE, "Podbean/Android App {} (http://podbean.com),d14b9a6e", ("9.6.2", "9.1.0"), "-"),
    (0.6, Manner.WHOLE, "Downcast/2.11.{} (iPhone; iOS 17.5; Scale/3.00)", ("1",), "-"),
    (0.5, Manner.WHOLE, "Castro 2024.{}/1386", ("6", "2"), "-"),
    (0.5, Manner.WHOLE, "Podverse/Android Mobile App/{}", ("4.16.2", "4.15.8"), "-"),
    (0.4, Manner.WHOLE, "Fountain/{} CFNetwork/1492.0.1 Darwin/23.3.0", ("1.1.20",), "-"),
    (
        0.5,
        Manner.WHOLE,
        "iTunes/12.{} (Windows; Microsoft Windows 10 x64) AppleWebKit/7613.2007",
        ("13.4", "12.9"),
        "-",
    ),
    (0.4, Manner.WHOLE, "gPodder/3.11.{} (http://gpodder.org/) Linux", ("4", "1"), "-"),
    (0.4, Manner.WHOLE, "Dalvik/2.1.0 (Linux; U; Android 11; {})", ("moto g(30) Build/RRC31.Q1-3-34-1-2",), "-"),
    (
        0.9,
        Manner.PARTS,
        "AlexaMediaPlayer/2.1.{} (Linux;Android 7.1.2) ExoPlayerLib/1.5.9",
        ("4676.0", "4676.1"),
        "-",
    ),
    (0.7, Manner.PARTS, "Echo/1.0({})", ("APNG", "MRM"), "-"),
    (0.6, Manner.PARTS, "Linux UPnP/1.0 Sonos/{} (ZPS38)", ("85.0-64200", "81.1-58074"), "-"),
    (
        0.6,
        Manner.PARTS,
        (
            "Mozilla/5.0 (X11; Linux aarch64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/114.0.{} "
            "Safari/537.36 CrKey/1.56.500000 DeviceType/SmartSpeaker"
        ),
        ("5735.130", "5735.60"),
        "-",
    ),
    (0.2, Manner.PARTS, "Roku/DVP-14.5 (14.5.{}.4205-29)", ("0",), "-"),
    (
        2.4,
        Manner.PARTS,
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/{}.0.0.0 Safari/537.36"
        ),
        ("137", "136", "135", "124"),
        "site",
    ),
    (
        1.4,
        Manner.PARTS,
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/{} Safari/605.1.15"
        ),
        ("18.5", "18.3", "17.6"),
        "site",
    ),
    (
        1.4,
        Manner.PARTS,
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/{} Mobile/15E148 Safari/604.1"
        ),
        ("18.5", "18.4"),
        "site",
    ),
    (
        1.2,
        Manner.PARTS,
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) "
            "Chrome/{}.0.0.0 Mobile Safari/537.36"
        ),
        ("137", "136", "130"),
        "site",
    ),
    (
        0.7,
        Manner.PARTS,
        "Mozilla/5.0 (X11; Linux x86_64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0",
        ("139", "128"),
        "site",
    ),
)

WATCH: Final = Client("atc/1.0 watchOS/11.5 model/Watch7,4 hwp/t8310 build/22T572 (6; dt:271)", 0.0, Manner.WHOLE)
NO_USER_AGENT: Final = Client("-", 0.0, Manner.WHOLE)

# Bots, monitors and scripts, with their shares of what is not a listener.
BOTS: Final[tuple[tuple[float, Client], ...]] = (
    (3.0, Client("Mozilla/5.0 (compatible; StatusCake; +https://www.statuscake.com)", 0.0, Manner.WHOLE)),
    (2.0, Client("Googlebot/2.1 (+http://www.google.com/bot.html)", 0.0, Manner.WHOLE)),
    (1.5, Client("Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", 0.0, Manner.WHOLE)),
    (1.5, Client("Overcast/1.0 Podcast Sync (+http://overcast.fm/)", 0.0, Manner.WHOLE)),
    (1.0, Client("iTMS", 0.0, Manner.WHOLE)),
    (1.0, Client("Mozilla/5.0 (compatible; PodUptime/1.0; +https://poduptime.com)", 0.0, Manner.WHOLE)),
    (1.0, Client("facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", 0.0, Manner.WHOLE)),
    (1.5, Client("python-requests/2.32.3", 0.0, Manner.WHOLE)),
    (1.0, Client("curl/8.7.1", 0.0, Manner.WHOLE)),
    (1.0, Client("Wget/1.21.4", 0.0, Manner.WHOLE)),
    (1.0, Client("Go-http-client/2.0", 0.0, Manner.WHOLE)),
    (0.5, Client("Python/3.11 aiohttp/3.9.5", 0.0, Manner.WHOLE)),
    (0.5, Client("okhttp/4.12.0", 0.0, Manner.WHOLE)),
)


def listener_clients() -> tuple[Client, ...]:
    """Return the clients of people, one a version; of a pattern's versions each is half as common as the last."""
    clients: list[Client] = []
    for weight, manner, pattern, versions, referrer in _PATTERNS:
        shares = [0.5**place for place in range(len(versions))]
        clients.extend(
            Client(pattern.format(version), weight * share / sum(shares), manner, referrer)
            for version, share in zip(versions, shares, strict=True)
        )
    return tuple(clients)


def browsers() -> tuple[str, ...]:
    """Return the user agents of browsers: what a sponsor's pixel sees of a household."""
    return tuple(client.user_agent for client in listener_clients() if client.referrer == "site")
