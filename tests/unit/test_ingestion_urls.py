"""One key for one audio file, as feeds and logs name it."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestration.lib.ingestion.urls import enclosure_key, enclosure_keys

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
        ("", None),
        ("?", None),
    ],
)
def test_forms(url: str, key: str | None):
    assert enclosure_key(url) == key


@given(st.text(max_size=60))
def test_any_text_gives_a_key_without_query(text: str):
    key = enclosure_key(text)
    assert key is None or ("?" not in key and "#" not in key)


def test_columns():
    urls = pl.Series(["https://a.com/x?1", None, "https://a.com/x?2", ""])
    assert enclosure_keys(urls).to_list() == ["a.com/x", None, "a.com/x", None]
    assert enclosure_keys(pl.Series([None, None], dtype=pl.String)).to_list() == [None, None]
