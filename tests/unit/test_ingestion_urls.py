"""One key for one audio file, as feeds and logs name it."""

from pathlib import Path
from random import Random
from urllib.parse import quote

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from earmark.ingestion.urls import MEDIA_EXTENSIONS, enclosure_key, enclosure_keys
from earmark.settings import PROJECT_ROOT

KEY = "cdn.example.com/show/ep1.mp3"
PREFIXES = [
    "op3.dev/e/",
    "op3.dev/e,pg=4f1b-22/",
    "dts.podtrac.com/redirect.mp3/",
    "www.podtrac.com/pts/redirect.mp3/",
    "podtrac.com/pts/redirect.m4a/",
    "chtbl.com/track/ABC123/",
    "pdst.fm/e/",
    "chrt.fm/track/ABC123/",
    "pscrb.fm/rss/p/",
    "mgln.ai/e/42/",
    "prfx.byspotify.com/e/",
    "arttrk.com/p/ABC12/",
    "verifi.podscribe.com/rss/p/",
    "growx.podkite.com/https/ABC123/",
    "media.blubrry.com/show_name/",
    "play.podtrac.com/ABC-Show/",
    "dts.podtrac.com/pts/redirect.mp3/",
    "podcast-rss-prefix.spotify.com/track/ABC123/",
    "pdcn.co/e/",
    "claritaspod.com/measure/",
    "clrtpod.com/m/",
    "2.gum.fm/",
    "s.gum.fm/s-631f86ba3727560f9608b68b/",
    "s.gum.fm/r1/631f86ba3727560f9608b68b/",
    "adbarker.com/stream/asdfASDf1345/",
    "pfx.vpixl.com/6qj4J/",
    "pfx.veritonicmetrics.com/vt123/",
    "tracking.swap.fm/track/ABCDE12345/",
    "op3.dev/e/pg=4f1b-22/",
    "r.zencastr.com/r/",
    "pdrl.fm/r/86c73b/6f0827/",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("scheme", ["https://", "http://", "//", ""])
def test_each_prefix_is_stripped(prefix: str, scheme: str):
    assert enclosure_key(f"{scheme}{prefix}{KEY}") == KEY
    assert enclosure_key(f"{scheme}{prefix}https://{KEY}?updated=1#t") == KEY


@given(st.lists(st.tuples(st.sampled_from(PREFIXES), st.sampled_from(["", "https://", "http://"])), max_size=8))
def test_however_deep(chain: list[tuple[str, str]]):
    url = KEY
    for prefix, scheme in chain:
        url = prefix + scheme + url
    assert enclosure_key("https://" + url) == KEY


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://CDN.Example.com:443/Show/Ep1.mp3", "cdn.example.com/Show/Ep1.mp3"),
        ("https://www.example.com/a.mp3", "example.com/a.mp3"),
        ("https://user:pw@example.com/a.mp3", "example.com/a.mp3"),
        ("https://example.com/%7Ebob/%2fa%20b%c3%a9.mp3", "example.com/~bob/%2Fa%20b%C3%A9.mp3"),
        ("/episodes/01.mp3?x=1", "/episodes/01.mp3"),
        ("/episodes/01.mp3", "/episodes/01.mp3"),
        ("https://bucket.s3.amazonaws.com/k.mp3", "bucket/k.mp3"),
        ("https://bucket.s3.eu-west-1.amazonaws.com/k.mp3", "bucket/k.mp3"),
        ("https://s3.amazonaws.com/bucket/k.mp3", "bucket/k.mp3"),
        ("https://s3-us-west-2.amazonaws.com/bucket/k.mp3", "bucket/k.mp3"),
        ("http://audio.example.com.s3-website-us-east-1.amazonaws.com/k.mp3", "audio.example.com/k.mp3"),
        ("https://op3.dev/e/", "op3.dev/e/"),
        ("https://pdst.fm/e/notahost", "pdst.fm/e/notahost"),
        ("https://example.com", "example.com"),
        ("https://example.com/a b\u00e9.mp3", "example.com/a%20b%C3%A9.mp3"),
        ("https://pdst.fm/e/https%3A%2F%2Fcdn.example.org%2Fep%2520one.mp3", "cdn.example.org/ep%20one.mp3"),
        ("https://pdst.fm/e/https%3A//cdn.example.org/ep%20one.mp3", "cdn.example.org/ep%20one.mp3"),
        (
            "https://chtbl.com/track/AB1/https%3a%2f%2fpdst.fm%2fe%2fhttps%253A%252F%252Fa.org%252Fx.mp3?aid=1",
            "a.org/x.mp3",
        ),
        ("https://pdst.fm/e/https%3A%2F%2Fa.org%2Fget%3Fid%3D7%26utm_source%3Dx?aid=1", "a.org/get?id=7"),
        ("https://example.org/redirect/https%3A%2F%2Fa.org", "example.org/redirect/https%3A%2F%2Fa.org"),
        ("", None),
        ("?", None),
        ("?id=1", None),
    ],
)
def test_forms(url: str, key: str | None):
    assert enclosure_key(url) == key


@pytest.mark.parametrize(
    ("url", "key"),
    [
        # The path names a file: the query does not count.
        ("https://example.com/a.mp3?id=12", "example.com/a.mp3"),
        ("https://example.com/a.MP3?id=12", "example.com/a.MP3"),
        ("/a.m4a?id=12", "/a.m4a"),
        # It does not: what identifies stays, in order; what tracks, signs or expires goes.
        ("https://example.com/download?id=12", "example.com/download?id=12"),
        ("https://example.com/download?12", "example.com/download?12"),
        ("/download?id=12", "/download?id=12"),
        ("https://example.com/get?show=b&ep=%37&EP=a", "example.com/get?EP=a&ep=7&show=b"),
        ("https://example.com/get?ep=7&amp;utm_source=x", "example.com/get?ep=7"),
        ("https://example.com/get?utm_source=a&UTM_Medium=b&ep=7&fbclid=c", "example.com/get?ep=7"),
        ("https://example.com/ep?aid=rss_feed&awCollectionId=1&awEpisodeId=2", "example.com/ep?awEpisodeId=2"),
        ("https://example.com/ep?dest-id=1&_from=x&source=y&ref=z", "example.com/ep"),
        ("https://d1.example.com/ep?Policy=a&Signature=b~&Key-Pair-Id=c&Expires=9", "d1.example.com/ep"),
        ("https://b.s3.amazonaws.com/ep?X-Amz-Signature=a&X-Amz-Expires=9&versionId=2", "b/ep?versionId=2"),
        ("https://example.com/ep?", "example.com/ep"),
        ("https://example.com/ep?&&", "example.com/ep"),
        ("https://op3.dev/e/pdst.fm/e/example.com/get?ep=7&_from=x#t=5", "example.com/get?ep=7"),
    ],
)
def test_which_part_of_the_query_identifies(url: str, key: str):
    assert enclosure_key(url) == key
    assert enclosure_keys(pl.Series([url])).to_list() == [key]


@pytest.mark.parametrize(
    ("spellings", "key"),
    [
        (["/a/%C3%BC.mp3", r"/a/\xC3\xBC.mp3", "/a/\u00fc.mp3", "/a/%c3%bc.mp3"], "/a/%C3%BC.mp3"),
        (["h.org/a+b(1)&c=d,e;f.mp3", "h.org/a%2Bb%281%29%26c%3Dd%2Ce%3Bf.mp3"], "h.org/a+b(1)&c=d,e;f.mp3"),
        (["h.org/a/b.mp3", "h.org//a///b.mp3", "h.org/x/../a/./b.mp3", "H.ORG/a/%2e/b.mp3"], "h.org/a/b.mp3"),
        (
            ["https://b\u00fccher.example/a.mp3", "https://XN--BCHER-KVA.example/a.mp3"],
            "xn--bcher-kva.example/a.mp3",
        ),
        (["https://k.s3.amazonaws.com/a+b.mp3", "https://k.s3.amazonaws.com/a%20b.mp3"], "k/a%20b.mp3"),
        (["h.org/get?a=1%262&b=%2B", "h.org/get?b=%2b&a=1%262"], "h.org/get?a=1%262&b=%2B"),
        (["h.org/%2E%2E/"], "h.org/"),
    ],
)
def test_spellings_of_one_url_are_one_key(spellings: list[str], key: str):
    assert {enclosure_key(text) for text in spellings} == {key}


NAMES = st.text(alphabet="abz09-_~ %+&=()!,;:@/?#\u00fc\u20ac", min_size=1, max_size=12).filter(
    lambda name: name.strip("./") and "//" not in name and name[0] != "/"
)


@given(NAMES, NAMES, st.randoms(use_true_random=False))
def test_a_file_has_one_key_however_it_is_spelt_and_two_files_have_two(one: str, other: str, random: Random):
    def spelt(name: str) -> str:
        def byte(value: int) -> str:
            character = chr(value)
            if character == "/" or (character.isalnum() and value < 128 and random.random() < 0.7):
                return character
            if character in "-_~+&=()!,;" and random.random() < 0.5:
                return character
            return (
                rf"\x{value:02X}"
                if value > 126 and random.random() < 0.3
                else (f"%{value:02x}" if random.random() < 0.5 else f"%{value:02X}")
            )

        path = "".join(byte(value) for value in name.encode())
        host = random.choice(["h.example", "H.Example", "www.h.example.", "h.example:443"])
        return f"https://{host}{random.choice(['/', '//', '/./', '/x/../'])}{path}.mp3"

    assert enclosure_key(spelt(one)) == enclosure_key(spelt(one))
    assert (enclosure_key(spelt(one)) == enclosure_key(spelt(other))) == (one == other)


def test_media_are_what_the_models_take_for_media():
    project = yaml.safe_load((PROJECT_ROOT / "dbt_project.yml").read_text(encoding="utf-8"))
    assert list(MEDIA_EXTENSIONS) == project["vars"]["media_extensions"]


@given(st.text(max_size=60))
def test_any_text_gives_a_key_of_plain_text(text: str):
    key = enclosure_key(text)
    assert key is None or ("#" not in key and key.isascii() and key.isprintable() and " " not in key)


@given(st.text(alphabet="a/.:?&=%2F#mp3", max_size=40))
def test_a_column_gives_the_same_keys(text: str):
    if "%23" not in text:
        assert enclosure_keys(pl.Series([text])).to_list() == [enclosure_key(text)]


def test_columns():
    urls = pl.Series(["https://a.com/x?1", None, "https://a.com/x.mp3?2", "", "https://a.com/x?1"])
    assert enclosure_keys(urls).to_list() == ["a.com/x?1", None, "a.com/x.mp3", None, "a.com/x?1"]
    assert enclosure_keys(pl.Series([None, None], dtype=pl.String)).to_list() == [None, None]


def enclosures(folder: Path) -> list[str]:
    """Return the enclosure URL of every item of every feed."""
    parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True)
    found = []
    for path in sorted([*folder.glob("*.xml"), *folder.glob("*.rss")]):
        root = etree.fromstring(path.read_bytes().lstrip(), parser)
        found += [
            element.get("url", "").strip() for item in root.iter("item") for element in item.iter("enclosure")
        ]
    return [url for url in found if url]


def test_the_enclosures_of_real_feeds_keep_apart_and_are_found_again(shared_data: Path):
    urls = enclosures(shared_data / "feeds")
    assert len(urls) > 1000
    keys = enclosure_keys(pl.Series(urls)).to_list()
    assert len(set(keys)) == len(set(urls))
    for at, (url, key) in enumerate(zip(urls, keys, strict=True)):
        first, second = PREFIXES[at % len(PREFIXES)], PREFIXES[(at * 7 + 3) % len(PREFIXES)]
        bare = url.partition("://")[2]
        joint = "&" if "?" in url else "?"
        path = key[key.index("/") :]
        requested = [
            (f"{url}{joint}utm_source=x&_from=app&Signature=y#t=10", key),
            (f"https://{first}{bare}", key),
            (f"https://{first}{second}{url}{joint}aid=rss_feed", key),
            (f"https://{first}{quote(url, safe='')}?dest-id=1", key),
            (f"{path}{'&' if '?' in path else '?'}token=z", path),
        ]
        assert [enclosure_key(text) for text, _ in requested] == [expected for _, expected in requested], url
