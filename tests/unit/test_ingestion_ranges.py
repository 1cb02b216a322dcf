"""Which range an address belongs to, whom a proxy speaks for, and what a list of networks may hold."""

import ipaddress
import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.addresses.networks import NetworkListError, list_files, parse_list, read_networks
from earmark.addresses.proxies import Proxies
from earmark.addresses.ranges import Ranges

HEAD = "network,kind,operator,note\n"
TRUSTED = [ipaddress.ip_network(text) for text in ("10.0.0.0/8", "2001:db8:1::/48", "192.0.2.9")]
PROXIES = Proxies(TRUSTED)


def most_specific(labels: dict, address) -> str | None:
    """Say in other words, by looking at every range, whose an address is."""
    address = getattr(address, "ipv4_mapped", None) or address
    holding = [network for network in labels if network.version == address.version and address in network]
    return labels[max(holding, key=lambda network: network.prefixlen)] if holding else None


@given(st.randoms(use_true_random=False))
def test_the_most_specific_range_wins(pick: random.Random):
    labels = {}
    for at in range(30):
        # Few bits, so that ranges lie within each other, begin together and touch.
        four = (pick.choice((0, 255)) << 24 | pick.getrandbits(6) << 18, pick.randrange(33))
        labels[ipaddress.ip_network(four, strict=False)] = f"four {at}"
        six = (pick.choice((0, 0xFFFF)) << 112 | pick.getrandbits(6) << 58, pick.randrange(129))
        labels[ipaddress.ip_network((ipaddress.IPv6Address(six[0]), six[1]), strict=False)] = f"six {at}"
    addresses = [
        ipaddress.ip_address(int(edge) + step)
        for network in labels
        for edge, step in ((network[0], 0), (network[-1], 0), (network[0], -1), (network[-1], 1))
        if 0 <= int(edge) + step < 2**network.max_prefixlen
    ]
    # A small number is read as IPv4, and so is its IPv4-mapped form.
    expected = [most_specific(labels, address) for address in addresses]
    assert Ranges(labels).labels(pl.Series([str(address) for address in addresses])).to_list() == expected


def test_what_is_no_address_is_in_no_range():
    ranges = Ranges({ipaddress.ip_network("0.0.0.0/0"): "all"})
    texts = pl.Series(["192.0.2.1", "::ffff:192.0.2.1", None, "", "op3:be723a50c9306d98", "2001:db8::1", "x"])
    assert ranges.labels(texts).to_list() == ["all", "all", None, None, None, None, None]
    assert Ranges({}).labels(texts).to_list() == [None] * 7


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("203.0.113.1, 198.51.100.7", "198.51.100.7"),  # what stands to the left may be made up
        ("198.51.100.7, 10.1.2.3", "198.51.100.7"),
        ("198.51.100.7,10.1.2.3 , 2001:db8:1::5,192.0.2.9", "198.51.100.7"),
        ("198.51.100.7:4711, 10.1.2.3:80", "198.51.100.7"),
        ("[2001:db8:2::7]:4711", "2001:db8:2::7"),
        ('"[2001:db8:2::7]"', "2001:db8:2::7"),
        ("2001:db8:2::7", "2001:db8:2::7"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("198.51.100.7, ::ffff:10.0.0.1", "198.51.100.7"),
        ("198.51.100.7, unknown", None),
        ("198.51.100.7, _hidden, 10.1.2.3", None),
        ("198.51.100.7, 198.51.100", None),
        ("10.0.0.7, 10.0.0.1", "10.0.0.7"),
        (",", None),
    ],
)
def test_whom_a_trusted_proxy_speaks_for(forwarded: str, client: str | None):
    assert PROXIES.client(forwarded) == client


def test_only_trusted_proxies_are_believed():
    frame = pl.DataFrame(
        {
            "ip": ["10.0.0.1", "203.0.113.5", "10.0.0.1", None, "10.0.0.1", "10.0.0.1", "host.example"],
            "forwarded_for": [
                "198.51.100.7",
                "198.51.100.7",
                None,
                "198.51.100.7",
                "-",
                "unknown",
                "198.51.100.7",
            ],
        }
    )
    found = PROXIES.resolve(frame)["ip"].to_list()
    assert found == ["198.51.100.7", "203.0.113.5", "10.0.0.1", None, "10.0.0.1", None, "host.example"]
    assert Proxies().resolve(frame).equals(frame)
    assert PROXIES.resolve(frame.drop("forwarded_for")).equals(frame.drop("forwarded_for"))


def test_lists_are_put_together(tmp_path: Path):
    seed = tmp_path / "network_ranges.csv"
    seed.write_text(HEAD)
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / "mine.csv").write_text(HEAD + "3.0.0.0/8,vpn,,\n3.5.0.0/16,data_center,Cloud,\n")
    (tmp_path / "networks" / "other.csv").write_text("kind, network\nvpn, 3.5.0.0/16\nvpn,2001:db8::/32\n")
    (tmp_path / "networks" / "other.csv.part").write_text("half a fi")
    files = list_files(seed, tmp_path / "networks")
    assert [path.name for path in files] == ["network_ranges.csv", "mine.csv", "other.csv"]
    networks = read_networks(files)
    found = networks.kinds(pl.Series(["3.4.0.1", "3.5.0.1", "2001:db8:1:2::7", "198.18.0.1"])).to_list()
    assert found == ["vpn", "data_center", "vpn", None]
    assert networks.version is not None
    assert [part.partition("@")[0] for part in networks.version.split(", ")] == ["mine", "other"]
    assert read_networks([seed]).version is None
    again = read_networks(reversed(files))
    assert again.kinds(pl.Series(["3.5.0.1"])).to_list() == ["data_center"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "x.csv, line 1: has no column network and kind; the first line is: network,kind,operator,note"),
        ("network,operator\n", "has no column kind"),
        (HEAD + "3.5.0.0/16,cloud,,\n", "x.csv, line 2: kind is 'cloud': allowed are data_center and vpn"),
        (HEAD + "3.5.0.0/16\n", "line 2: kind is ''"),
        (
            HEAD + "3.5.0.0/16,vpn,,\n3.5.0.1/16,vpn,,\n",
            "line 3: network is '3.5.0.1/16': it goes beyond its prefix",
        ),
        (HEAD + "3.5.0.1/16,vpn,,\n", "write 3.5.0.0/16"),
        (HEAD + "somewhere,vpn,,\n", "network is 'somewhere': write a range such as 192.0.2.0/24"),
    ],
)
def test_a_wrong_list_is_told_line_field_and_fix(text: str, told: str):
    with pytest.raises(NetworkListError) as error:
        parse_list("x.csv", text)
    assert told in str(error.value)


def test_a_list_that_is_no_text_is_refused(tmp_path: Path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NetworkListError, match=r"x\.csv: cannot be read as UTF-8"):
        read_networks([path])
