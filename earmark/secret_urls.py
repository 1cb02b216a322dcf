"""How the address of a file is shown and kept: without what opens it.

A URL can carry a secret as user and password or in its query, as signed ones do. Messages, the ledger and the log
get it as ``shown``; who opens the file asks ``real``, in the process that was given it.
"""

import re
from typing import Final
from urllib.parse import unquote

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")
_VALUE: Final = re.compile(r"=[^&#]*")
_PIECE: Final = re.compile(r"[/?&=@:#]")
_SHORTEST: Final = 3  # of a piece that is looked for in texts
_REAL: Final[dict[str, str]] = {}


def shown(url: str) -> str:
    """Return the address without user, password and the values of its query; a path stays as it is."""
    scheme = _SCHEME.match(url)
    if scheme is None:
        return url
    rest = url[scheme.end() :]
    # Up to the last @: a password may hold a / or ? that should have been encoded.
    if re.match(r"[^/?#]*@|[^/?#@]*:[^@]*@", rest):
        rest = rest[rest.rindex("@") + 1 :]
    place, mark, query = rest.partition("#")[0].partition("?")
    return scheme[0] + place + mark + (_VALUE.sub("=***", query) if "=" in query else "***" if query else "")


def remember(url: str) -> str:
    """Return the address as it is shown, and note for this process what it stands for."""
    name = shown(url)
    if name != url:
        _REAL[name] = url
    return name


def real(name: str) -> str:
    """Return the address that is opened under this name; what is below a folder is opened as the folder is."""
    if name in _REAL:
        return _REAL[name]
    for known, url in _REAL.items():
        folder = known.rstrip("/") + "/"
        if "?" not in known and name.startswith(folder):
            return url.rstrip("/") + "/" + name.removeprefix(folder)
    return name


def without_secrets(error: object, name: str) -> str:
    """Return what a driver says about an address, in one line and without the secrets of it."""
    text, url = " ".join(str(error).split()), real(name)
    text = text.replace(url, name)
    secrets = set(_PIECE.split(url)) - set(_PIECE.split(name))
    secrets |= {unquote(piece) for piece in secrets}
    for piece in sorted(secrets, key=len, reverse=True):
        if len(piece) >= _SHORTEST:
            text = text.replace(piece, "***")
    return text


def cause(error: Exception, name: str) -> Exception | None:
    """Return the error to name as a cause: none where its text could hold a secret of the address."""
    return error if real(name) == name else None
