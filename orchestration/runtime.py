"""What the command line and Dagster both make of the settings: the secret that addresses are hashed under."""

import os
import secrets
from pathlib import Path

from orchestration.lib.ingestion.privacy import HashKey
from orchestration.settings import Settings


def hash_key(settings: Settings) -> HashKey:
    """Return the secret under which client addresses are hashed.

    Without ``EARMARK_HASH_KEY`` it is made once and kept in ``<EARMARK_HOME>/hash_key``, readable by its owner
    only. The database keeps a fingerprint of it and refuses rows that are hashed under another.
    """
    if settings.hash_key is not None:
        return HashKey(settings.hash_key_id, settings.hash_key.get_secret_value().encode())
    path = settings.home / "hash_key"
    settings.home.mkdir(parents=True, exist_ok=True)
    _write_once(path)
    return HashKey(settings.hash_key_id, path.read_text(encoding="ascii").strip().encode())


def _write_once(path: Path) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    if path.exists():
        return
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
    try:
        path.hardlink_to(draft)  # the first of several processes wins
    except FileExistsError:
        pass
    finally:
        draft.unlink()
