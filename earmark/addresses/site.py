"""What this site does with a client's address: the secret that it is hashed under, and what it is looked up in."""

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final

from earmark.addresses.networks import Networks, list_files, read_networks
from earmark.addresses.privacy import HashKey
from earmark.addresses.proxies import Proxies
from earmark.settings import PROJECT_ROOT, Settings, SettingsError

_SHORTEST_KEY: Final = 16
NETWORKS_SEED: Final = PROJECT_ROOT / "seeds" / "network_ranges.csv"


@dataclass(frozen=True, slots=True)
class Lookups:
    """What is asked of an address before it is hashed: whom a proxy speaks for, and whose network it is."""

    proxies: Proxies = field(default_factory=Proxies)
    networks: Networks = field(default_factory=Networks)


def hash_key(settings: Settings) -> HashKey:
    """Return the secret under which client addresses are hashed.

    Without ``EARMARK_HASH_KEY`` it is made once and kept in ``<EARMARK_HOME>/hash_key``, readable by its owner
    only. The database keeps a fingerprint of it and refuses rows that are hashed under another.

    Raises:
        SettingsError: the file cannot be read, or holds no key any more.

    """
    if settings.hash_key is not None:
        return HashKey(settings.hash_key_id, settings.hash_key.get_secret_value().encode())
    path = settings.home / "hash_key"
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        _write_once(path)
        key = path.read_bytes().strip()
    except OSError as error:
        raise SettingsError(
            f"{path}, which holds the key that addresses are hashed under, cannot be used ({error.strerror}): "
            "make it readable, or set EARMARK_HASH_KEY."
        ) from None
    if len(key) < _SHORTEST_KEY:
        raise SettingsError(
            f"{path} holds no key of {_SHORTEST_KEY} characters or more: put the one back that rows were hashed "
            "under, or, where nothing is loaded yet, remove the file."
        )
    return HashKey(settings.hash_key_id, key)


def lookups(settings: Settings) -> Lookups:
    """Return the trusted proxies and the networks of the project's own list and of ``<EARMARK_HOME>/networks``.

    The lists are read again when one of them has changed.

    Raises:
        NetworkListError: a list is wrong.

    """
    files = list_files(NETWORKS_SEED, networks_folder(settings))
    return Lookups(Proxies(settings.trusted_proxies), _networks(tuple((path, _stamp(path)) for path in files)))


def networks_folder(settings: Settings) -> Path:
    """Return the folder of the lists of networks that are the site's own or were fetched."""
    return settings.home / "networks"


def _stamp(path: Path) -> tuple[int, int, int]:
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


@lru_cache(maxsize=1)
def _networks(files: tuple[tuple[Path, tuple[int, int, int]], ...]) -> Networks:
    return read_networks(path for path, _ in files)


def _write_once(path: Path) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    if path.exists():
        return
    try:
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
        with suppress(FileExistsError):
            path.hardlink_to(draft)  # the first of several processes wins
    finally:
        draft.unlink(missing_ok=True)
