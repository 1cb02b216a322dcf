"""The rules by which a request is discarded, in words, in the order in which they apply.

What they do is in ``models/requests/int_requests__outcomes.sql``; a test holds the two lists together. Source:
IAB Tech Lab Podcast Technical Measurement Guidelines v2.3, except where a rule says that it is ours.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Stage(StrEnum):
    """The sections of the document that the rules stand in; their order is that of the rules."""

    FILTER = "Filter"
    THRESHOLD = "Threshold"
    UNIQUES = "Uniques"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its reason code, what it discards, whose it is, and the settings that it goes by."""

    code: str
    title: str
    text: str
    stage: Stage
    source: str = "guidelines v2.3"
    settings: tuple[str, ...] = ()


_OURS: Final = "ours"
_PATTERNS: Final = "guidelines v2.3; the patterns are those of the agent lists"

RULES: Final = (
    Rule(
        "other_source",
        "From a source that does not count",
        "Where the tenant has said which of its sources count, requests of the others are kept for comparison "
        "only: a download that two systems log must not count twice.",
        Stage.FILTER,
        _OURS,
        ("counted_sources",),
    ),
    Rule(
        "not_media",
        "Not for an episode",
        "The request matches no known episode, and its path does not end like an audio or video file: a feed, an "
        "image, a page.",
        Stage.FILTER,
        _OURS,
        ("media_extensions",),
    ),
    Rule(
        "not_get",
        "Not a GET",
        "Only the method GET asks for the content of a file. A source that logs no method passes.",
        Stage.FILTER,
    ),
    Rule(
        "bad_status",
        "Nothing was delivered",
        "Only the answers 200 and 206 deliver content; 304, redirects and errors never do. A source that logs no "
        "status passes.",
        Stage.FILTER,
    ),
    Rule(
        "no_user_agent",
        "No user agent",
        "The request does not say what software sent it, and its source does not say so either.",
        Stage.FILTER,
    ),
    Rule(
        "bot",
        "Bot",
        "The software is known as a crawler, checker, transcriber or another machine, not as a listener's player.",
        Stage.FILTER,
        _PATTERNS,
    ),
    Rule(
        "not_a_player",
        "Not a player",
        "The software is a library or tool that fetches files but is not known to play them to anybody.",
        Stage.FILTER,
        _PATTERNS,
    ),
    Rule(
        "apple_watch",
        "Apple Watch",
        "The watch fetches again what the phone has fetched: the user agent starts with atc/ and contains "
        "watchOS, or contains (null)/(null) watchOS.",
        Stage.FILTER,
    ),
    Rule(
        "forged_user_agent",
        "Forged user agent",
        "The user agent is one that no player sends: a template that was never filled in, or the bare beginning "
        "of a browser's.",
        Stage.FILTER,
        "guidelines v2.3; the patterns are ours",
    ),
    Rule(
        "two_byte_probe",
        "Two-byte probe",
        "Players ask for the first two bytes to learn how large a file is: the range bytes=0-1 alone, or an "
        "answer 206 of at most two bytes.",
        Stage.FILTER,
        "guidelines v2.3; telling it by the bytes sent is ours",
    ),
    Rule(
        "data_center",
        "From a data centre",
        "The address is in a listed range of a hosting provider and is not a safe address.",
        Stage.FILTER,
        "guidelines v2.3; the ranges are those of the network lists",
        ("discards_data_centers",),
    ),
    Rule(
        "vpn",
        "From a VPN",
        "The address is in a listed range of a VPN and is not a safe address.",
        Stage.FILTER,
        "guidelines v2.3; the ranges are those of the network lists",
        ("discards_vpns",),
    ),
    Rule(
        "implausible_volume",
        "Implausible volume",
        "One address asked for more pairs of listener and episode in a UTC day than the limit. All of its "
        "requests of that day that passed the rules before this one are discarded. Safe addresses are not.",
        Stage.FILTER,
        "guidelines v2.3; the limit is ours",
        ("max_daily_downloads_per_address",),
    ),
    Rule(
        "threshold_unknown",
        "Threshold cannot be judged",
        "The source does not say how many bytes it sent, or nothing says how many make a download. Discarded "
        "where the tenant does not count such requests.",
        Stage.THRESHOLD,
        _OURS,
        ("counts_unknown_threshold",),
    ),
    Rule(
        "below_threshold",
        "Below the threshold",
        "What the listener was sent of the episode in the window, put together, is less than the header of the "
        "file and the seconds of audio in force; of an episode shorter than that, less than the whole file.",
        Stage.THRESHOLD,
        "guidelines v2.3; the bitrate is found as told below",
        ("threshold_seconds", "assumed_bitrate_bps"),
    ),
    Rule(
        "duplicate",
        "Counted already",
        "The same listener (address and user agent) has a download of the same episode in the window in force. "
        "Without an address nothing is a duplicate.",
        Stage.UNIQUES,
        "guidelines v2.3",
        ("download_window",),
    ),
)
COUNTED: Final = "counted"
