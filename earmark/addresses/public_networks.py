"""Fetching the lists that cloud providers and others publish, into ``<EARMARK_HOME>/networks/<name>.csv``.

Nothing of them is shipped: they change every week, and each site fetches them from their owners (or a mirror of
its own). How lists are read and looked up is in ``networks``.
"""

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import fsspec
import orjson

from earmark import secret_urls
from earmark.addresses.networks import KINDS, format_list
from earmark.addresses.ranges import Network
from earmark.errors import EarmarkError

_DATA_CENTER, _VPN = KINDS
_SECONDS: Final = 60  # for the whole of a download
# Environment variables such as HTTPS_PROXY count, as they do for curl.
_HTTP: Final = {"client_kwargs": {"trust_env": True, "timeout": aiohttp.ClientTimeout(total=_SECONDS)}}
_X4B: Final = "https://raw.githubusercontent.com/X4BNet/lists_vpn/main/output"


class FetchError(EarmarkError):
    """No list could be fetched, or there is none of that name. The text says of each why."""


@dataclass(frozen=True, slots=True)
class PublicList:
    """A published list: where it is, how its ranges are found in it, and what they are used for.

    ``by_default``: it is fetched without being named.
    """

    operator: str
    kind: str
    url: str
    ranges: Callable[[bytes], Iterator[str]]
    by_default: bool = True


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of one list: how many ranges it holds now, or why its file was left as it was."""

    name: str
    url: str
    ranges: int = 0
    failed: str | None = None


def _aws(document: bytes) -> Iterator[str]:
    lists = orjson.loads(document)
    yield from (item["ip_prefix"] for item in lists["prefixes"])
    yield from (item["ipv6_prefix"] for item in lists["ipv6_prefixes"])


def _google_cloud(document: bytes) -> Iterator[str]:
    for item in orjson.loads(document)["prefixes"]:
        yield item.get("ipv4Prefix") or item["ipv6Prefix"]


def _oracle(document: bytes) -> Iterator[str]:
    yield from (item["cidr"] for region in orjson.loads(document)["regions"] for item in region["cidrs"])


def _first_fields(document: bytes) -> Iterator[str]:
    """Read lines: a range, and after a comma what else is said of it."""
    for line in document.decode().splitlines():
        text = line.partition("#")[0].partition(",")[0].strip()
        if text:
            yield text


PUBLIC_LISTS: Final[dict[str, PublicList]] = {
    "aws": PublicList("Amazon Web Services", _DATA_CENTER, "https://ip-ranges.amazonaws.com/ip-ranges.json", _aws),
    "google_cloud": PublicList(
        "Google Cloud", _DATA_CENTER, "https://www.gstatic.com/ipranges/cloud.json", _google_cloud
    ),
    "oracle": PublicList(
        "Oracle Cloud", _DATA_CENTER, "https://docs.oracle.com/iaas/tools/public_ip_ranges.json", _oracle
    ),
    "digitalocean": PublicList(
        "DigitalOcean", _DATA_CENTER, "https://digitalocean.com/geo/google.csv", _first_fields
    ),
    "x4bnet_datacenter": PublicList("", _DATA_CENTER, f"{_X4B}/datacenter/ipv4.txt", _first_fields),
    "x4bnet_datacenter_ipv6": PublicList("", _DATA_CENTER, f"{_X4B}/datacenter/ipv6.txt", _first_fields),
    # Holds Apple's Private Relay, behind which listeners are: only whoever names it gets it.
    "x4bnet_vpn": PublicList("", _VPN, f"{_X4B}/vpn/ipv4.txt", _first_fields, by_default=False),
    "x4bnet_vpn_ipv6": PublicList("", _VPN, f"{_X4B}/vpn/ipv6.txt", _first_fields, by_default=False),
}


def fetch_lists(
    folder: Path, urls: Mapping[str, str] | None = None, names: Sequence[str] | None = None
) -> list[Fetched]:
    """Fetch the lists of ``names`` (or all that are fetched by default) into a folder.

    ``urls`` says for some where else they are.

    One that cannot be fetched leaves its file as it was. A file is replaced at once, never half.

    Raises:
        FetchError: none could be fetched, or a name is of no list.

    """
    urls = urls or {}
    unknown = sorted({*urls, *(names or ())} - set(PUBLIC_LISTS))
    if unknown:
        raise FetchError(f"there is no list {', '.join(unknown)}: the lists are {', '.join(PUBLIC_LISTS)}")
    folder.mkdir(parents=True, exist_ok=True)
    chosen = names or [name for name, item in PUBLIC_LISTS.items() if item.by_default]
    lists = {name: PUBLIC_LISTS[name] for name in chosen}
    results = [_fetch(folder, name, item, urls.get(name, item.url)) for name, item in lists.items()]
    if all(result.failed for result in results):
        raise FetchError("no list could be fetched: " + "; ".join(str(result.failed) for result in results))
    return results


def _fetch(folder: Path, name: str, item: PublicList, address: str) -> Fetched:
    url = secret_urls.remember(address)  # a mirror's may hold a token
    try:
        document = _download(secret_urls.real(url))
    except (OSError, ValueError, ImportError, aiohttp.ClientError) as error:
        reason = secret_urls.without_secrets(error, url) or type(error).__name__
        return Fetched(name, url, failed=f"{name}: {url} cannot be fetched ({reason})")
    try:
        networks = _networks(item.ranges(document))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"{name}: {url} is not the list that is expected there ({type(error).__name__}: {error})"
        return Fetched(name, url, failed=text)
    if not networks:
        return Fetched(name, url, failed=f"{name}: {url} holds no range")
    draft = folder / f"{name}.csv.{os.getpid()}.part"
    text = format_list(networks, item.kind, item.operator)
    draft.write_text(text, encoding="utf-8")
    draft.replace(folder / f"{name}.csv")
    return Fetched(name, url, ranges=text.count("\n") - 1)


def _download(url: str) -> bytes:
    options: dict[str, Any] = _HTTP if url.startswith(("http:", "https:")) else {}
    system, path = fsspec.core.url_to_fs(url, **options)
    content: bytes = system.cat_file(path)
    return content


def _networks(texts: Iterator[str]) -> list[Network]:
    found = {ipaddress.ip_network(text, strict=False) for text in texts}
    return sorted(found, key=lambda network: (network.version, network))
