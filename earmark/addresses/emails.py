"""E-mail addresses in text: found by their form, wherever they stand, and replaced by a keyed hash.

Also as URLs write them (``%40``). What is called an address here is what somebody could write to: a file name such
as ``logo@2x.png`` is none.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Final

import polars as pl

_AT: Final = r"(?:@|%(?:25)*40)"
_FILE: Final = r"(?:png|jpe?g|gif|webp|svg|ico|css|js|mjs|html?|json|xml|txt|pdf|wav|ogg|opus|aac|flac|aiff?)"
EMAIL: Final = re.compile(
    rf"(?<![\w])(?:[\w%+-][\w.!#$'*+^`{{|}}~%-]{{0,80}}?){_AT}(?:[^\W_](?:[\w-]{{0,61}}[^\W_])?\.){{1,8}}"
    rf"(?!{_FILE}\b)[^\W\d_][\w-]{{0,30}}[^\W_]",
    re.IGNORECASE,
)
# What a message or a cut line may hold of one.
_PARTIAL: Final = re.compile(rf"[^\s\"'<>()=,;:&?/@]+{_AT}[^\s\"'<>,;&]*", re.IGNORECASE)
# What stands before the @ of a URL's authority is no mailbox, and what stands after it is the host.
_USERINFO: Final = re.compile(r"https?://[^/\s@]*$", re.IGNORECASE)
_FAR: Final = 200  # characters before an address
_MAYBE: Final = r"@|%(?:25)*40"
_WHOLE: Final = re.compile(rf"^{EMAIL.pattern}$", re.IGNORECASE)


def replace_emails(text: str, digest: Callable[[str], str]) -> str:
    """Replace every e-mail address by ``<email:hex>``; ``digest`` makes the hexadecimal digits of one."""

    def hidden(found: re.Match[str]) -> str:
        if _USERINFO.search(text, max(0, found.start() - _FAR), found.start()):
            return found[0]
        return f"<email:{digest(canonical_email(found[0]))}>"

    return EMAIL.sub(hidden, text)


def without_partial_emails(text: str) -> str:
    """Take out of a cut text whatever may be a piece of an e-mail address."""
    return _PARTIAL.sub("<email>", text)


def canonical_email(text: str) -> str:
    """Return an address as it is hashed: with its @, without spaces around, in lower case."""
    return re.sub(_AT, "@", text.strip(), count=1, flags=re.IGNORECASE).lower()


def sha256_of_email(text: str) -> str | None:
    """Return the sha256 that advertisers give instead of an address, None where the text is no address."""
    if not _WHOLE.match(text):
        return None
    return hashlib.sha256(canonical_email(text).encode()).hexdigest()


def replace_in_column(texts: pl.Series, digest: Callable[[str], str]) -> pl.Series:
    """Replace every e-mail address in a column of text."""
    if not texts.str.contains("@", literal=True).any() and not texts.str.contains("40", literal=True).any():
        return texts
    suspicious = texts.str.contains(_MAYBE).fill_null(value=False)
    if not suspicious.any():
        return texts
    found = [replace_emails(text, digest) for text in texts.filter(suspicious).to_list()]
    return texts.scatter(suspicious.arg_true(), pl.Series(found, dtype=pl.String))
