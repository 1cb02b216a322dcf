"""How the address of a file is shown and kept: without what opens it.

A URL can carry a secret as user and password or in its query, as signed ones do. Messages, the ledger and the log
get the form of ``shown``; who opens the file asks ``real``.
"""

import re
from typing import Final
from urllib.parse import unquote

_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*://)")
_LOGIN: Final = re.compile(r"^(?:.*@)?")
_VALUE: Final = re.compile(r"=[^&#]*")
_SHORTEST: Final = 3
_REAL: dict[str, str] = {}


def shown(url: str) -> str:
    """Return the address without user, password and the values of its query; a path stays as it is."""
    scheme = _URL.match(url)
    if scheme is None:
        return url
    rest = url[scheme.end() :]
    rest, _, fragment = rest.partition("#")
    place, mark, query = rest.partition("?")
    if "@" in query or ("@" in fragment):  # a password with ? or # in it
        place, mark, query = rest[rest.rindex("@") + 1 :] if "@" in rest else "", "", ""
    # All up to the last @: a password may hold / as well, and an @ in a path is rare.
    place = _LOGIN.sub("", place, count=1) if re.search(r"^[^/]*@|:[^@]*@", place) else place
    if query:
        query = _VALUE.sub("=***", query) if "=" in query else "***"
    return scheme[1] + place + mark + query


def remember(url: str) -> str:
    """Return the address as it is shown, and note for this process what it stands for."""
    name = shown(url)
    if name != url:
        _REAL[name] = url
    return name


def real(name: str) -> str:
    """Return the address that is opened under this name: files below a folder are opened as the folder is."""
    if name in _REAL or not _REAL:
        return _REAL.get(name, name)
    for known, url in _REAL.items():
        if "?" not in known and name.startswith(known.rstrip("/") + "/"):
            return url.rstrip("/") + name[len(known.rstrip("/")) :]
    return name


def without_secrets(error: object, name: str) -> str:
    """Return what a driver says about an address, in one line and without the secrets of it."""
    text = " ".join(str(error).split())
    url = real(name)
    text = text.replace(url, shown(url))
    if shown(url) != url:
        secrets = {part for part in re.split(r"[/?&=@:#]", url) if len(part) >= _SHORTEST} - set(
            re.split(r"[/?&=@:#]", shown(url))
        )
        for part in sorted({*secrets, *(unquote(part) for part in secrets)}, key=len, reverse=True):
            text = text.replace(part, "***")
    return text
