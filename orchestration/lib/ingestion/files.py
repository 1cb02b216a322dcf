"""Where files are: local or on any fsspec address. What is in them is not here (``formats``).

A remote file is copied to a temporary local file first, so that every reader reads a local one and the file
cannot change under it.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import fsspec

from orchestration.lib.ingestion import shown
from orchestration.lib.ingestion.errors import FileChangedError, UnreachableFileError

_CHUNK: Final = 1 << 20
_UNFINISHED: Final = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~")


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it stands: ``version`` differs whenever its bytes may differ (an ETag, else the time)."""

    uri: str
    bytes: int
    modified_at: datetime | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """A file that can be read: where, its sha256, and its state when that was taken."""

    path: Path
    digest: bytes
    state: FileState


def is_finished(name: str) -> bool:
    """Say whether a file name is one to load: not hidden and not of a transfer under way."""
    base = name.rsplit("/", 1)[-1]
    return not base.startswith((".", "_")) and not base.lower().endswith(_UNFINISHED)


def filesystem(uri: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of an address and the path on it.

    Raises:
        UnreachableFileError: there is no such kind of address, or its driver is not installed.

    """
    try:
        return fsspec.core.url_to_fs(shown.real(uri))  # type: ignore[no-any-return]
    except (ValueError, ImportError) as error:
        reason = shown.without_secrets(error, uri)
        raise UnreachableFileError(f"{uri}: cannot be opened ({reason})") from shown.cause(error, uri)


def state(uri: str) -> FileState:
    """Look at a file.

    Raises:
        UnreachableFileError: it is not there, is a folder, or may not be read.

    """
    system, path = filesystem(uri)
    try:
        system.invalidate_cache(path)
        info = system.info(path)
    except FileNotFoundError as error:
        raise UnreachableFileError(f"{uri}: there is no such file") from shown.cause(error, uri)
    except (OSError, ValueError) as error:
        reason = shown.without_secrets(error, uri)
        raise UnreachableFileError(f"{uri}: cannot be read ({reason})") from shown.cause(error, uri)
    if info["type"] == "directory":
        raise UnreachableFileError(f"{uri}: is a folder, not a file")
    return state_of(uri, info)


def state_of(uri: str, info: dict[str, Any]) -> FileState:
    """Return the state that a listing of fsspec tells."""
    modified = info.get("mtime") or info.get("LastModified") or info.get("created")
    if isinstance(modified, (int, float)):
        modified = datetime.fromtimestamp(modified, UTC)
    if isinstance(modified, datetime) and modified.tzinfo is None:
        modified = modified.replace(tzinfo=UTC)
    version = str(info.get("ETag") or info.get("etag") or modified)
    return FileState(uri, int(info.get("size") or 0), modified, version)


@contextmanager
def local_copy(uri: str) -> Iterator[LocalCopy]:
    """Give a local path to read the file at, with its digest; a temporary copy is removed afterwards.

    Raises:
        UnreachableFileError: it is not there or cannot be read.
        FileChangedError: it changed while it was copied.

    """
    system, path = filesystem(uri)
    before = state(uri)
    if "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,)):
        try:
            with Path(path).open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            raise UnreachableFileError(f"{uri}: cannot be read ({error.strerror})") from error
        yield LocalCopy(Path(path), digest, before)
        return
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        copy = Path(folder) / "file"
        try:
            with system.open(path, "rb") as source, copy.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK)
        except OSError as error:
            reason = shown.without_secrets(error, uri)
            raise UnreachableFileError(f"{uri}: cannot be read ({reason})") from shown.cause(error, uri)
        with copy.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
        refuse_changed(before)
        yield LocalCopy(copy, digest, before)


def refuse_changed(before: FileState) -> None:
    """Raise unless the file still stands as it did.

    Raises:
        FileChangedError: it has another size, time or ETag, or is gone.

    """
    try:
        now = state(before.uri)
    except UnreachableFileError as error:
        raise FileChangedError(f"{before.uri}: was removed while it was read; nothing was loaded") from error
    if now != before:
        raise FileChangedError(
            f"{before.uri}: changed while it was read; nothing was loaded. "
            "Load it again once it is complete (write it under a name that ends in .part and rename it)"
        )
