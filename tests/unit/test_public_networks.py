"""Public lists are fetched from a server of the test's own; what fails leaves the old file."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from earmark.addresses.networks import list_files, read_networks
from earmark.addresses.public_networks import PUBLIC_LISTS, FetchError, fetch_lists

AWS = {
    "syncToken": "1700000000",
    "createDate": "2023-11-14-22-13-20",
    "prefixes": [
        {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "AMAZON"},
        {"ip_prefix": "3.5.140.0/22", "region": "ap-northeast-2", "service": "S3"},
        {"ip_prefix": "15.230.39.0/25", "region": "us-east-2", "service": "EC2"},
        {"ip_prefix": "15.230.39.128/25", "region": "us-east-2", "service": "EC2"},
    ],
    "ipv6_prefixes": [{"ipv6_prefix": "2600:1f14::/35", "region": "us-west-2", "service": "EC2"}],
}
GOOGLE = {
    "syncToken": "1700000000",
    "prefixes": [
        {"ipv4Prefix": "34.80.0.0/15", "service": "Google Cloud", "scope": "asia-east1"},
        {"ipv6Prefix": "2600:1900:4030::/44", "service": "Google Cloud", "scope": "asia-east1"},
    ],
}
ORACLE = {
    "last_updated_timestamp": "2023-11-14T00:00:00.000000",
    "regions": [{"region": "uk-london-1", "cidrs": [{"cidr": "132.145.0.0/17", "tags": ["OCI"]}]}],
}
DOCUMENTS = {
    "aws": json.dumps(AWS),
    "google_cloud": json.dumps(GOOGLE),
    "oracle": json.dumps(ORACLE),
    "digitalocean": "5.101.96.0/21,NL,NL-NH,Amsterdam,1105 AT\n2400:6180::/48,SG,SG-01,Singapore,627753\n",
    "x4bnet_datacenter": "1.12.0.0/14\n3.5.0.0/16\n",
    "x4bnet_datacenter_ipv6": "2001:310::/32\n",
    "x4bnet_vpn": "3.5.140.0/24\n5.8.16.0/24\n",
    "x4bnet_vpn_ipv6": "2001:67c::/48\n",
}


class Served:
    """What the server answers: documents by name; a name that is missing is a 404, None a broken connection."""

    def __init__(self) -> None:
        self.documents: dict[str, str | None] = dict(DOCUMENTS)
        self.url = ""

    @property
    def urls(self) -> dict[str, str]:
        """Return where each list is served."""
        return {name: f"{self.url}/{name}" for name in PUBLIC_LISTS}


@pytest.fixture
def served() -> Iterator[Served]:
    state = Served()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = state.documents.get(self.path.strip("/"), "")
            if document is None:
                self.close_connection = True
                return
            self.send_response(200 if document else 404)
            self.send_header("Content-Length", str(len(document.encode())))
            self.end_headers()
            self.wfile.write(document.encode())

        def log_message(self, *_given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_list_is_fetched_and_looked_up(served: Served, tmp_path: Path):
    results = fetch_lists(tmp_path, served.urls, list(PUBLIC_LISTS))
    assert {result.name: result.ranges for result in results} == {
        # Equal ranges are one, neighbours are joined.
        "aws": 3,
        "google_cloud": 2,
        "oracle": 1,
        "digitalocean": 2,
        "x4bnet_datacenter": 2,
        "x4bnet_datacenter_ipv6": 1,
        "x4bnet_vpn": 2,
        "x4bnet_vpn_ipv6": 1,
    }
    assert [result.failed for result in results] == [None] * 8
    assert (tmp_path / "aws.csv").read_text().splitlines()[:2] == [
        "network,kind,operator,note",
        "3.5.140.0/22,data_center,Amazon Web Services,",
    ]
    assert not list(tmp_path.glob("*.part"))
    networks = read_networks(list_files(tmp_path / "none.csv", tmp_path))
    addresses = pl.Series(["3.5.141.1", "3.5.140.1", "5.8.16.7", "2600:1900:4030::1", "132.145.1.1", "198.18.0.1"])
    assert networks.kinds(addresses).to_list() == ["data_center", "vpn", "vpn", "data_center", "data_center", None]
    # The same content has the same version, whenever it is fetched.
    fetch_lists(tmp_path, served.urls, list(PUBLIC_LISTS))
    assert read_networks(list_files(tmp_path / "none.csv", tmp_path)).version == networks.version


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "cannot be fetched"),
        (None, "cannot be fetched"),
        ("<html>Sign in to continue</html>", "is not the list that is expected there"),
        ('{"prefixes": []}', "is not the list that is expected there"),
        ('{"prefixes": [], "ipv6_prefixes": []}', "holds no range"),
        (DOCUMENTS["aws"].replace("3.5.140.0/22", "3.5.140.0/222"), "is not the list that is expected there"),
    ],
)
def test_what_cannot_be_fetched_leaves_its_old_file(
    served: Served, tmp_path: Path, document: str | None, told: str
):
    fetch_lists(tmp_path, served.urls)
    before = (tmp_path / "aws.csv").read_bytes()
    served.documents["aws"] = document
    served.documents["oracle"] = DOCUMENTS["oracle"].replace("132.145.0.0/17", "132.146.0.0/17")
    results = {result.name: result for result in fetch_lists(tmp_path, served.urls)}
    assert told in str(results["aws"].failed)
    assert served.urls["aws"] in str(results["aws"].failed)
    assert (tmp_path / "aws.csv").read_bytes() == before
    assert [name for name, result in results.items() if result.failed] == ["aws"]
    assert "132.146.0.0/17" in (tmp_path / "oracle.csv").read_text()


def test_only_the_lists_that_are_named(served: Served, tmp_path: Path):
    assert [result.name for result in fetch_lists(tmp_path, served.urls, ["oracle"])] == ["oracle"]
    assert [path.name for path in tmp_path.iterdir()] == ["oracle.csv"]


def test_lists_of_vpns_are_fetched_only_by_name(served: Served, tmp_path: Path):
    fetched = {result.name for result in fetch_lists(tmp_path, served.urls)}
    assert set(PUBLIC_LISTS) - fetched == {"x4bnet_vpn", "x4bnet_vpn_ipv6"}
    fetch_lists(tmp_path, served.urls, ["x4bnet_vpn"])
    assert "3.5.140.0/24,vpn" in (tmp_path / "x4bnet_vpn.csv").read_text()


def test_nothing_at_all_is_an_error(served: Served, tmp_path: Path):
    served.documents = {}
    with pytest.raises(FetchError, match=r"no list could be fetched: aws: http://.*; google_cloud: "):
        fetch_lists(tmp_path, served.urls)


@pytest.mark.parametrize(("urls", "names"), [({"azure": "https://x/y"}, None), ({}, ["azure"])])
def test_an_unknown_name_is_told_the_lists(tmp_path: Path, urls: dict[str, str], names: list[str] | None):
    with pytest.raises(FetchError, match="there is no list azure: the lists are aws, google_cloud, oracle"):
        fetch_lists(tmp_path, urls, names)


def test_a_mirror_may_be_any_address_of_fsspec(tmp_path: Path):
    (tmp_path / "vpn.txt").write_text("5.8.16.0/24\n")
    url = f"file://{tmp_path}/vpn.txt"
    (result,) = fetch_lists(tmp_path / "networks", {"x4bnet_vpn": url}, ["x4bnet_vpn"])
    assert (result.ranges, result.failed) == (1, None)
