"""Client addresses become keyed hashes here, before anything reaches the database.

household = first 16 bytes of HMAC-SHA-256 of the address; listener = the same of address and user agent. The
key is the tenant's own, derived from the secret, so that two tenants can never be joined. IPv6 is cut to /64
first and IPv4-mapped IPv6 is IPv4; both as in IAB Tech Lab Podcast Technical Measurement Guidelines v2.3. A
surrogate that a measurement service gives in place of the address (``op3:...``) is hashed as it stands: it can
be counted, and never be joined to an address.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from earmark.addresses.emails import replace_emails, replace_in_column

HASH_BYTES: Final = 16
SURROGATE: Final = re.compile(r"^[a-z][a-z0-9]{1,15}:[0-9A-Za-z_=+/.-]{8,128}$")
UNIT_SEPARATOR: Final = "\x1f"
_MIN_SECRET: Final = 16

# Names of fields that hold a client's address or e-mail address: never kept among the properties.
_PRIVATE_NAME: Final = re.compile(
    r"^(.*[_-])?(ip|ipv4|ipv6|ips|ip_?addr(ess)?(es)?|remote_?addr(ess)?|client_?addr(ess)?|x?forwarded[_-]?for|"
    r"forwarded|true-?client-?ip|cf-?connecting-?ip|e-?mail(_?address)?|hashed_?ip(_?address)?|cookie|cs\(cookie\))$",
    re.IGNORECASE,
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
IPV4: Final = rf"^{_OCTET}(?:\.{_OCTET}){{3}}$"
# An address in brackets or an IPv4 address, each with or without a port, or one in quotes.
_AROUND: Final = re.compile(r'^"?(?:\[([^\[\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}|([^"]*))"?$')
_DRESSED: Final = r"[\[\]%\"]|\.[0-9]+:[0-9]"
# What may hold an address: four numbers with dots, or hexadecimal groups with at least two colons.
MAYBE_ADDRESS: Final = r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|:[0-9A-Fa-f]{0,4}:|%(?:25)*3[Aa]"
# Also in the middle of more numbers with dots: 9.203.0.113.9.203.0.113.9 holds two.
_IPV4_IN_TEXT: Final = re.compile(rf"(?<![0-9]){_OCTET}(?:\.{_OCTET}){{3}}(?![0-9])".encode())
_CANDIDATE: Final = re.compile(
    rb"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7}(?:(?:\.[0-9]{1,3}){3})?(?![0-9A-Za-z])|"
    + _IPV4_IN_TEXT.pattern
)
# IPv6 as a query holds it, its colons percent-encoded, once or more often.
_ENCODED: Final = re.compile(
    rb"(?<![0-9A-Za-z:.])[0-9A-Fa-f]{0,4}(?:%(?:25)*3[Aa][0-9A-Fa-f]{0,4}){2,7}(?:(?:\.[0-9]{1,3}){3})?(?![0-9A-Za-z])"
)
_COLON: Final = re.compile(rb"%(?:25)*3[Aa]")
_MAYBE_IN_AGENT: Final = (
    r"(?:^|[^0-9/.]|//)[0-9]{1,3}(?:\.[0-9]{1,3}){3}|:[0-9A-Fa-f]{0,4}:|%(?:25)*3[Aa][0-9A-Fa-f]{0,4}%"
)
# A version behind a product's slash (RFC 9110, section 10.1.5) may have the form of an address: Chrome/124.0.0.0.
_PRODUCT: Final = re.compile(rb"(?<![/:])/[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9])")


@dataclass(frozen=True, slots=True)
class HashKey:
    """The secret that addresses are hashed under, and the id that goes with each hash.

    Raises:
        ValueError: the secret is shorter than 16 bytes, or the id is empty.

    """

    key_id: str
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.key_id or len(self.secret) < _MIN_SECRET:
            raise ValueError(
                f"a hash key needs an id and a secret of at least {_MIN_SECRET} bytes: "
                "make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
            )

    @property
    def fingerprint(self) -> bytes:
        """Tells two secrets apart without telling either."""
        return hmac.digest(self.secret, b"earmark fingerprint", "sha256")

    def for_tenant(self, tenant_id: str) -> "Hasher":
        """Return what hashes the addresses of one tenant."""
        tenant_key = hmac.digest(self.secret, b"earmark tenant\x1f" + tenant_id.encode(), "sha256")
        return Hasher(self.key_id, tenant_key)


def bare_address(text: str) -> str:
    """Return an address without brackets, port, quotes and zone (RFC 3986, RFC 4007); any other text as it is."""
    text = text.strip()
    around = _AROUND.match(text)
    return (around[1] or around[2] or around[3] if around else text).partition("%")[0]


def canonical_address(text: str) -> str | None:
    """Return an address in the form that is hashed: IPv4 whole, IPv6 cut to /64; None where it is no address.

    Surrogates (``op3:<hash>``) are returned as they stand.
    """
    text = text.strip()
    try:
        address = ipaddress.ip_address(bare_address(text))
    except ValueError:
        return text if SURROGATE.match(text) else None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"
    return str(address)


class Hasher:
    """Hashes the addresses of one tenant under one key: HMAC-SHA-256 (RFC 2104), its first 16 bytes.

    The two padded keys are hashed once and copied: twice as fast as a call of ``hmac`` for each value.
    """

    __slots__ = ("_inner", "_outer", "key_id")

    def __init__(self, key_id: str, key: bytes) -> None:
        self.key_id = key_id
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def household(self, address: str) -> bytes:
        """Return the household key of a canonical address."""
        return bytes.fromhex(self._hmac(b"household\x1f" + address.encode()))

    def listener(self, address: str, user_agent: str) -> bytes:
        """Return the listener key of a canonical address and a user agent (empty where there is none)."""
        return bytes.fromhex(self._hmac(f"listener\x1f{address}\x1f{user_agent}".encode()))

    def event(self, content: str) -> bytes:
        """Return the hash that identifies an event by its content.

        Keyed, for the content holds an address: a plain hash of it could be undone by trying every address.
        """
        return bytes.fromhex(self._hmac(b"event\x1f" + content.encode()))

    def hashes(self, label: str, texts: Iterable[str]) -> list[str]:
        """Return the hexadecimal hashes of many texts under a label."""
        hashed = self._hmac
        start = f"{label}\x1f"
        return [hashed((start + text).encode()) for text in texts]

    def _hmac(self, message: bytes) -> str:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.hexdigest()[: 2 * HASH_BYTES]

    def email(self, address: str) -> str:
        """Return the hexadecimal hash of an e-mail address in its canonical form."""
        return self._hmac(b"email\x1f" + address.encode("utf-8", "surrogateescape"))

    def redact(self, text: bytes) -> bytes:
        """Replace every client address in a text by ``<ip:hex>`` of its household key, e-mail ones likewise."""
        if b"%" in text:
            text = _ENCODED.sub(self._redacted, text)
        text = _CANDIDATE.sub(self._redacted, text)
        # Behind what only looks like IPv6, such as a time that runs into an address: 20:37:203.0.113.9.
        text = _IPV4_IN_TEXT.sub(self._redacted, text)
        if b"@" not in text and b"40" not in text:
            return text
        plain = text.decode("utf-8", "surrogateescape")
        return replace_emails(plain, self.email).encode("utf-8", "surrogateescape")

    def redact_emails(self, texts: pl.Series) -> pl.Series:
        """Replace every e-mail address in a column of text by ``<email:hex>``."""
        return replace_in_column(texts, self.email)

    def redact_agent(self, text: bytes) -> bytes:
        """Replace every address in a user agent; the version of a product is none, whatever its form."""
        pieces = []
        start = 0
        for version in _PRODUCT.finditer(text):
            pieces += [self.redact(text[start : version.start()]), version[0]]
            start = version.end()
        return b"".join([*pieces, self.redact(text[start:])])

    def _redacted(self, match: re.Match[bytes]) -> bytes:
        address = canonical_address(_COLON.sub(b":", match[0]).decode())
        if address is None or SURROGATE.match(address):
            return match[0]
        return b"<ip:" + self.household(address).hex().encode() + b">"


def is_private(name: str) -> bool:
    """Say whether a field of that name holds an address or the like and must not be kept as it stands."""
    return _PRIVATE_NAME.match(_CAMEL.sub("_", name)) is not None


def add_keys(
    frame: pl.DataFrame, hasher: Hasher, kinds: Callable[[pl.Series], pl.Series] | None = None
) -> pl.DataFrame:
    """Replace column ``ip`` by ``household_key``, ``listener_key`` (hexadecimal bytea text) and ``key_id``.

    Each distinct value is hashed once. ``kinds`` looks distinct addresses up and fills column ``network``, while
    they are still whole. Column ``_listener``, where there is one, stands for the user agent (a
    measurement service's own audience id). A row without an address has no keys. Adds ``_bad_ip``: true where
    ``ip`` holds something that is no address.
    """
    if "ip" not in frame.columns:
        none = pl.lit(None, pl.String)
        return frame.with_columns(
            household_key=none, listener_key=none, key_id=none, network=none, _bad_ip=pl.lit(value=False)
        )
    ips = frame["ip"].drop_nulls().unique()
    canonical = _canonical(ips)
    network = pl.lit(None, pl.String) if kinds is None else kinds(canonical["ip"])
    canonical = canonical.with_columns(network.alias("network"))
    addresses = canonical["_address"].drop_nulls().unique()
    households = pl.DataFrame(
        {
            "_address": addresses,
            "household_key": pl.Series(hasher.hashes("household", addresses.to_list()), dtype=pl.String),
        }
    )
    canonical = canonical.join(households, on="_address", how="left")
    frame = frame.join(canonical, on="ip", how="left", maintain_order="left")
    agent = next((name for name in ("_listener", "user_agent") if name in frame.columns), None)
    user_agent = pl.col(agent).cast(pl.String).fill_null("") if agent else pl.lit("")
    # Null where there is no address; such rows have no listener key.
    listeners = frame.select(pl.concat_str("_address", user_agent, separator=UNIT_SEPARATOR)).to_series()
    frame = frame.with_columns(
        (pl.lit("\\x") + pl.col("household_key")).alias("household_key"),
        ("\\x" + _per_distinct(listeners, lambda texts: hasher.hashes("listener", texts))).alias("listener_key"),
        pl.when(pl.col("household_key").is_not_null()).then(pl.lit(hasher.key_id)).alias("key_id"),
        (pl.col("ip").is_not_null() & pl.col("_address").is_null()).alias("_bad_ip"),
    )
    return frame.drop("_address")


def _per_distinct(texts: pl.Series, compute: Callable[[list[str]], list[str]]) -> pl.Series:
    """Compute each distinct text once; null stays null."""
    texts = texts.alias("text")
    distinct = texts.drop_nulls().unique()
    if len(distinct) > len(texts) // 2:
        # Nearly all differ: finding them again costs more than it saves.
        given = texts.is_not_null()
        values = pl.Series(compute(texts.drop_nulls().to_list()), dtype=pl.String)
        return (
            values
            if given.all()
            else pl.Series([None] * len(texts), dtype=pl.String).scatter(given.arg_true(), values)
        )
    found = pl.DataFrame({"text": distinct, "value": pl.Series(compute(distinct.to_list()), dtype=pl.String)})
    return texts.to_frame().join(found, on="text", how="left", maintain_order="left")["value"]


def _canonical(ips: pl.Series) -> pl.DataFrame:
    plain = ips.str.contains(IPV4)
    others = ips.filter(~plain)
    return pl.concat(
        [
            pl.DataFrame({"ip": ips.filter(plain), "_address": ips.filter(plain)}),
            pl.DataFrame(
                {"ip": others, "_address": [canonical_address(text) for text in others.to_list()]},
                schema={"ip": pl.String, "_address": pl.String},
            ),
        ]
    )


def hide_address(frame: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """Replace a row's own ``ip`` by its hash wherever it stands in other text columns of that row.

    Needs ``household_key`` and ``ip``; a URL or user agent that carries the client's address loses it.
    """
    if "ip" not in frame.columns:
        return frame
    changes = []
    for name in columns:
        if name not in frame.columns:
            continue
        carries = frame.select(
            (
                pl.col(name).str.contains(pl.col("ip"), literal=True)
                & pl.col("household_key").is_not_null()
                & ~pl.col("ip").str.contains("^[a-z][a-z0-9]+:.*[^0-9a-f:.]")
            ).fill_null(value=False)
        ).to_series()
        if not carries.any():
            continue
        hidden = frame.filter(carries).select(name, "ip", "household_key").rows()
        texts = [text.replace(ip, f"<ip:{key[2:]}>") for text, ip, key in hidden]
        changes.append(frame[name].scatter(carries.arg_true(), pl.Series(texts, dtype=pl.String)).alias(name))
    return frame.with_columns(changes)


def clean_addresses(texts: pl.Series) -> pl.Series:
    """Take brackets, ports, quotes and zones off a column of addresses; what is none stays as it is.

    The address that stands for none (``0.0.0.0``, ``::``) becomes null.
    """
    texts = texts.cast(pl.String).str.strip_chars()
    texts = texts.set((texts == "") | (texts == "0.0.0.0") | (texts == "::"), None)  # noqa: S104
    if not texts.str.contains(r"[^0-9.]").any():
        return texts  # as nearly all are
    dressed = texts.str.contains(_DRESSED).fill_null(value=False)
    if not dressed.any():
        return texts
    bare = [bare_address(text) for text in texts.filter(dressed).to_list()]
    return texts.scatter(dressed.arg_true(), pl.Series(bare, dtype=pl.String))


def redact_clients(frame: pl.DataFrame, hasher: Hasher) -> pl.DataFrame:
    """Replace every address in the query of ``url``, in ``referrer`` and in ``user_agent``.

    The host and the path of a URL say which file was asked for: what looks like an address there is the server's,
    or a version.
    """
    changes = []
    for name, suspect, redact in (
        ("url", rf"\?.*(?:{MAYBE_ADDRESS})", lambda text: _in_query(text, hasher)),
        ("referrer", MAYBE_ADDRESS, hasher.redact),
        ("user_agent", MAYBE_ADDRESS, hasher.redact_agent),
    ):
        if name not in frame.columns or frame[name].dtype != pl.String:
            continue
        suspicious = frame[name].str.contains(suspect).fill_null(value=False)
        if name == "user_agent" and suspicious.any():
            # Most of these are versions: the longer pattern knows them, and is asked of few.
            at = suspicious.arg_true()
            likely = frame[name].gather(at).str.contains(_MAYBE_IN_AGENT)
            suspicious = suspicious.scatter(at, likely)
        if suspicious.any():
            # Each text once: the same ones come again and again.
            known: dict[str, str] = {}
            texts = frame[name].filter(suspicious).to_list()
            for text in texts:
                if text not in known:
                    known[text] = redact(text.encode()).decode()
            plain = pl.Series([known[text] for text in texts], dtype=pl.String)
            changes.append(frame[name].scatter(suspicious.arg_true(), plain).alias(name))
    return frame.with_columns(changes) if changes else frame


def _in_query(text: bytes, hasher: Hasher) -> bytes:
    path, mark, query = text.partition(b"?")
    return path + mark + hasher.redact(query)


def redact_column(texts: pl.Series, hasher: Hasher) -> pl.Series:
    """Replace every address in a column of text, of clients and of e-mail."""
    texts = hasher.redact_emails(texts)
    suspicious = texts.str.contains(MAYBE_ADDRESS).fill_null(value=False)
    if not suspicious.any():
        return texts
    redacted = [hasher.redact(text.encode()).decode() for text in texts.filter(suspicious).to_list()]
    return texts.scatter(suspicious.arg_true(), pl.Series(redacted, dtype=pl.String))
