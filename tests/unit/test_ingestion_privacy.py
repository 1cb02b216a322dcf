"""Addresses become keyed hashes, and nothing of them stays."""

import hashlib
import hmac
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.addresses.emails import sha256_of_email, without_partial_emails
from earmark.addresses.privacy import HashKey, add_keys, canonical_address, hide_address, is_private

SECRET = bytes(range(32))
KEY = HashKey("2024a", SECRET)
HASHER = KEY.for_tenant("acme")


def expected(message: bytes, tenant: bytes = b"acme") -> bytes:
    """Say in other words, by the standard library's hmac, what a hash is."""
    tenant_key = hmac.new(SECRET, b"earmark tenant\x1f" + tenant, hashlib.sha256).digest()
    return hmac.new(tenant_key, message, hashlib.sha256).digest()[:16]


@pytest.mark.parametrize("text", ["at 20:37:198.51.100.4", "::ab::abcd:198.51.100.4cd:x", "::ffff:198.51.100.4"])
def test_an_address_behind_what_only_looks_like_ipv6_is_redacted(text: str):
    redacted = HashKey("k", bytes(32)).for_tenant("t").redact(text.encode())
    assert b"<ip:" in redacted
    assert b"198.51.100.4" not in redacted


def test_vectors():
    assert HASHER.household("192.0.2.1") == expected(b"household\x1f192.0.2.1")
    assert HASHER.listener("192.0.2.1", "Overcast/3.0") == expected(b"listener\x1f192.0.2.1\x1fOvercast/3.0")
    # Fixed for good: keys in a database must go on meaning the same.
    assert HASHER.household("192.0.2.1").hex() == expected(b"household\x1f192.0.2.1").hex()


@pytest.mark.parametrize(
    ("address", "canonical"),
    [
        ("192.0.2.1", "192.0.2.1"),
        (" 192.0.2.1 ", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:c000:0201", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0DB8:0001:0002::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("op3:be723a50c9306d98b9a2d07f2495736601d20629", "op3:be723a50c9306d98b9a2d07f2495736601d20629"),
        ("192.0.2.256", None),
        ("192.0.2", None),
        ("192.0.02.1", None),
        ("unknown", None),
        ("-", None),
        ("", None),
        ("192.0.2.1, 10.0.0.1", None),
    ],
)
def test_addresses_are_cut_before_they_are_hashed(address: str, canonical: str | None):
    assert canonical_address(address) == canonical


@given(st.ip_addresses())
def test_canonical_is_canonical(address):
    once = canonical_address(str(address))
    assert once is not None
    assert canonical_address(once.removesuffix("/64")) == once


def test_tenants_and_secrets_and_purposes_never_meet():
    hashes = {
        HASHER.household("192.0.2.1"),
        HASHER.listener("192.0.2.1", ""),
        HASHER.event("192.0.2.1"),
        KEY.for_tenant("other").household("192.0.2.1"),
        HashKey("2024a", SECRET[::-1]).for_tenant("acme").household("192.0.2.1"),
    }
    assert len(hashes) == 5
    assert HASHER.listener("192.0.2.1", "a\x1fb") != HASHER.listener("192.0.2.1\x1fa", "b\x1f")


def test_a_short_secret_is_refused_with_the_way_to_a_good_one():
    with pytest.raises(ValueError, match=r"secrets\.token_hex"):
        HashKey("k", b"short")


def test_the_secret_is_not_shown():
    assert "secret" not in repr(KEY)
    assert SECRET not in KEY.fingerprint


def test_keys_of_a_frame():
    frame = pl.DataFrame(
        {
            "ip": ["192.0.2.1", None, "::ffff:192.0.2.1", "nonsense", "2001:db8::1", "2001:db8::2"],
            "user_agent": ["a", "a", None, "a", "b", "b"],
        }
    )
    keyed = add_keys(frame, HASHER)
    assert keyed["household_key"].to_list() == [
        "\\x" + HASHER.household("192.0.2.1").hex(),
        None,
        "\\x" + HASHER.household("192.0.2.1").hex(),
        None,
        "\\x" + HASHER.household("2001:db8::/64").hex(),
        "\\x" + HASHER.household("2001:db8::/64").hex(),
    ]
    assert keyed["listener_key"][0] == "\\x" + HASHER.listener("192.0.2.1", "a").hex()
    assert keyed["listener_key"][2] == "\\x" + HASHER.listener("192.0.2.1", "").hex()
    assert keyed["listener_key"][4] == keyed["listener_key"][5]
    assert keyed["key_id"].to_list() == ["2024a", None, "2024a", None, "2024a", "2024a"]
    assert keyed["_bad_ip"].to_list() == [False, False, False, True, False, False]


def test_networks_are_looked_up_while_addresses_are_whole():
    asked = []

    def kinds(addresses: pl.Series) -> pl.Series:
        asked.extend(addresses.to_list())
        return pl.Series(
            ["vpn" if text == "2001:db8::1" else None for text in addresses.to_list()], dtype=pl.String
        )

    frame = pl.DataFrame({"ip": ["2001:db8::1", "2001:db8::2", "2001:db8::1", None]})
    keyed = add_keys(frame, HASHER, kinds)
    assert sorted(asked) == ["2001:db8::1", "2001:db8::2"]
    assert keyed["network"].to_list() == ["vpn", None, "vpn", None]
    assert keyed["household_key"].n_unique() == 2


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (b"192.0.2.1 - -", "192.0.2.1"),
        (b'{"ip":"192.0.2.1"}', "192.0.2.1"),
        (b"http://192.0.2.1:8080/x", "192.0.2.1"),
        (b"for=[2001:db8:1:2:3::4]:80", "2001:db8:1:2::/64"),
        (b"x=::ffff:192.0.2.1;", "192.0.2.1"),
        (b"192.0.2.1,198.51.100.7", "192.0.2.1"),
        (b"ip=192.0.2.1.", "192.0.2.1"),
        (b"\xff\x00192.0.2.1\xfe", "192.0.2.1"),
        (b"[03/Dec/2013:20:37:192.0.2.1 - -", "192.0.2.1"),
        (b"20:37:192.0.2.1", "192.0.2.1"),
    ],
)
def test_redaction_finds_addresses(text: bytes, address: str):
    redacted = HASHER.redact(text)
    assert b"<ip:" + HASHER.household(address).hex().encode() + b">" in redacted
    for raw in (b"192.0.2.1", b"198.51.100.7", b"2001:db8"):
        assert raw not in redacted


@pytest.mark.parametrize("text", [b"10:20:30", b"2024-05-01T10:20:30Z", b"a:b", b"1.2.3", b"999.1.1.1", b"0:1"])
def test_redaction_leaves_the_rest(text: bytes):
    assert HASHER.redact(text) == text


@given(st.ip_addresses(), st.sampled_from([b" ", b'"', b",", b"[", b"=", b"\n", b"/", b"<"]))
def test_no_address_survives_redaction(address, around: bytes):
    text = str(address).encode()
    assert text not in HASHER.redact(b"a" + around + text + around + b"z").replace(b"<ip:", b"")


def test_a_url_that_carries_the_clients_address_loses_it():
    frame = pl.DataFrame(
        {"ip": ["192.0.2.1", "192.0.2.9"], "url": ["https://a/b?c=192.0.2.1", "https://192.0.2.1/x"]}
    )
    hidden = hide_address(add_keys(frame, HASHER), ("url", "referrer"))["url"].to_list()
    assert hidden == [f"https://a/b?c=<ip:{HASHER.household('192.0.2.1').hex()}>", "https://192.0.2.1/x"]


def test_names_of_private_fields():
    for name in (
        "IP",
        "x-forwarded-for",
        "X_Forwarded_For",
        "forwarded_for",
        "clientIp",
        "remote_addr",
        "c-ip",
        "email",
        "hashedIpAddress",
        "ip_address",
    ):
        assert is_private(name), name
    for name in ("zip", "ship", "script", "tip_amount", "description", "device", "recipe"):
        assert not is_private(name), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("by ann.lee+x@post.example.org, today", "by <email>, today"),
        ("/p?mail=ann%40post.example.org&x=1", "/p?mail=<email>&x=1"),
        ("/p?mail=ann%2540post.example.org", "/p?mail=<email>"),
        ("/img/logo@2x.png", "/img/logo@2x.png"),
        ("Us@Them, a podcast", "Us@Them, a podcast"),
        ("https://user@cdn.example.org/a.mp3", "https://user@cdn.example.org/a.mp3"),
        ("jürgen@müller.example", "<email>"),
    ],
)
def test_emails_are_found_by_their_form(text: str, expected: str):
    hasher = HashKey("k1", b"0123456789abcdef0123456789abcdef").for_tenant("t")
    redacted = hasher.redact(text.encode()).decode()
    assert re.sub("<email:[0-9a-f]{32}>", "<email>", redacted) == expected
    assert hasher.redact_emails(pl.Series([text, None])).to_list() == [redacted, None]


def test_one_address_has_one_hash_however_it_is_written():
    hasher = HashKey("k1", b"0123456789abcdef0123456789abcdef").for_tenant("t")
    spellings = (b"Ann@Post.example.org", b"ann@post.example.org", b"ann%40post.example.org")
    assert len({hasher.redact(text) for text in spellings}) == 1
    assert sha256_of_email("Ann@Post.example.org") == hashlib.sha256(b"ann@post.example.org").hexdigest()


def test_a_cut_address_is_left_out():
    assert without_partial_emails('cookie_id is "xx ann@post.exam..."') == 'cookie_id is "xx <email>"'
