"""Where files are: local or on any fsspec address. What is in them is not here (``formats``).

Whoever may write into a landing folder is a stranger: of what stands there only regular files are opened, never
by way of a link, so that nothing outside of the folder is read; and nothing is opened that could make us wait (a
pipe, a device). A remote file is copied to a temporary local file first, so that every reader reads a local one
and the file cannot change under it.
"""

import errno
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

import fsspec

from earmark import secret_urls
from earmark.ingestion.errors import (
    FileChangedError,
    NoRegularFileError,
    NoRoomError,
    UnreachableFileError,
)

MAX_URI: Final = 2000  # bytes: the ledger's index takes 2,700
_CHUNK: Final = 1 << 20
_UNFINISHED: Final = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~")
# Control characters, line ends of any kind, and what stands for bytes that are no UTF-8.
_NOT_WRITABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_OPEN: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link, and links are not followed here: put the file itself there"),
    (stat.S_ISFIFO, "a pipe: write what comes out of it into a file"),
    (stat.S_ISSOCK, "a socket, not a file"),
    (stat.S_ISCHR, "a device, not a file"),
    (stat.S_ISBLK, "a device, not a file"),
    (stat.S_ISDIR, "a folder, not a file"),
)


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it stands: ``version`` differs whenever its bytes may differ (an ETag, else times and inode)."""

    uri: str
    bytes: int
    modified_at: datetime | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """What stands in a folder: a file, or with ``fault`` what is none or cannot be looked at, and why.

    ``parts`` is its path below the folder, cut at the slashes.
    """

    state: FileState
    parts: tuple[str, ...]
    fault: str | None = None


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


def shown(uri: str) -> str:
    """Return an address as it can be written down anywhere; a digest tells apart those that had to change."""
    if not _NOT_WRITABLE.search(uri) and len(uri.encode()) <= MAX_URI:
        return uri
    plain = _NOT_WRITABLE.sub(lambda found: ascii(found[0])[1:-1], uri)
    return f"{plain[: MAX_URI // 8]}...#{hashlib.sha256(uri.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def bad_name(uri: str) -> str | None:
    """Say what is wrong with the name of a file, None where nothing is."""
    if any("\ud800" <= character <= "\udfff" for character in uri):
        return "its name is not UTF-8: rename it"
    if _NOT_WRITABLE.search(uri):
        return "its name holds a line end or another control character: rename it"
    if len(uri.encode()) > MAX_URI:
        return f"its name is {len(uri.encode())} bytes long with its folders; {MAX_URI} are allowed: shorten it"
    return None


def filesystem(uri: str) -> tuple[Any, str]:
    """Return the fsspec filesystem of an address and the path on it.

    Raises:
        UnreachableFileError: there is no such kind of address, or its driver is not installed.

    """
    try:
        return fsspec.core.url_to_fs(secret_urls.real(uri))  # type: ignore[no-any-return]
    except (ValueError, ImportError) as error:
        reason = secret_urls.without_secrets(error, uri)
        raise UnreachableFileError(f"{uri}: cannot be opened ({reason})") from secret_urls.cause(error, uri)


def is_local(system: Any) -> bool:  # noqa: ANN401  (fsspec has no types)
    """Say whether a filesystem of fsspec is this machine's own."""
    return "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,))


def listing(root: str) -> list[Listed]:
    """Return what stands below a folder, in the order of the names; hidden and unfinished files are left out.

    Of a local folder no link is followed, and what is no regular file is listed with its fault.

    Raises:
        UnreachableFileError: the folder is not there or cannot be listed.

    """
    system, path = filesystem(root)
    if is_local(system):
        if not Path(path).is_dir():
            raise UnreachableFileError(f"{root}: there is no such folder")
        found = list(_walk(path))
    else:
        found = list(_find(system, root, path))
    return sorted(found, key=lambda item: item.parts)


def _walk(root: str) -> Iterator[Listed]:
    folders: list[tuple[str, ...]] = [()]
    while folders:
        above = folders.pop()
        folder = os.path.join(root, *above)  # noqa: PTH118  (a Path would normalise what the ledger knows)
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            if not above:
                raise UnreachableFileError(f"{root}: cannot be listed ({error.strerror})") from error
            if not isinstance(error, FileNotFoundError):
                yield Listed(FileState(folder, 0, None), above, f"cannot be listed ({error.strerror})")
            continue
        for entry in found:
            parts = (*above, entry.name)
            if not is_finished(entry.name):
                continue
            try:
                info = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                yield Listed(FileState(shown(entry.path), 0, None), parts, f"cannot be read ({error.strerror})")
                continue
            fault = bad_name(entry.path)
            if fault is None and stat.S_ISDIR(info.st_mode):
                folders.append(parts)
                continue
            fault = fault or _fault(info)
            yield Listed(_local_state(shown(entry.path), info), parts, fault)


def _find(system: Any, root: str, path: str) -> Iterator[Listed]:  # noqa: ANN401
    try:
        system.invalidate_cache()
        infos = system.find(path, detail=True).values() if system.isdir(path) else None
    except Exception as error:  # noqa: BLE001  (each driver raises errors of its own)
        reason = secret_urls.without_secrets(f"{type(error).__name__}: {error}", root)
        raise UnreachableFileError(f"{root}: cannot be listed ({reason})") from secret_urls.cause(error, root)
    if infos is None:
        raise UnreachableFileError(f"{root}: there is no such folder")
    top = path.rstrip("/")
    for info in infos:
        parts = tuple(info["name"].removeprefix(top).strip("/").split("/"))
        if info["type"] == "file" and all(is_finished(part) for part in parts):
            uri = f"{root.rstrip('/')}/{'/'.join(parts)}"
            yield Listed(_state_of(shown(uri), info), parts, bad_name(uri))


def state(uri: str) -> FileState:
    """Look at a file.

    Raises:
        UnreachableFileError: it is not there, is a folder, or may not be read.
        NoRegularFileError: it is a pipe, a device or the like.

    """
    system, path = filesystem(uri)
    try:
        if is_local(system):
            info = Path(path).stat()
            _refuse_irregular(uri, info)
            return _local_state(uri, info)
        system.invalidate_cache(path)
        found = system.info(path)
    except FileNotFoundError as error:
        raise UnreachableFileError(f"{uri}: there is no such file") from secret_urls.cause(error, uri)
    except (OSError, ValueError) as error:
        reason = secret_urls.without_secrets(error, uri)
        raise UnreachableFileError(f"{uri}: cannot be read ({reason})") from secret_urls.cause(error, uri)
    if found["type"] == "directory":
        raise NoRegularFileError(f"{uri}: is a folder, not a file")
    return _state_of(uri, found)


def _local_state(uri: str, info: os.stat_result) -> FileState:
    version = f"{info.st_dev} {info.st_ino} {info.st_mtime_ns} {info.st_ctime_ns}"
    return FileState(uri, info.st_size, _time(info.st_mtime), version)


def _time(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):  # file systems hold years that Python does not
        return None


def _fault(info: os.stat_result) -> str | None:
    if stat.S_ISREG(info.st_mode):
        return None
    return "is " + next((text for is_it, text in _KINDS if is_it(info.st_mode)), "no regular file")


def _refuse_irregular(uri: str, info: os.stat_result) -> None:
    fault = _fault(info)
    if fault is not None:
        raise NoRegularFileError(f"{uri}: {fault}")


def _state_of(uri: str, info: dict[str, Any]) -> FileState:
    """Return the state that a listing of fsspec tells."""
    modified = info.get("mtime") or info.get("LastModified") or info.get("created")
    if isinstance(modified, (int, float)):
        modified = _time(modified)
    if isinstance(modified, datetime) and modified.tzinfo is None:
        modified = modified.replace(tzinfo=UTC)
    version = str(info.get("ETag") or info.get("etag") or modified)
    return FileState(uri, int(info.get("size") or 0), modified, version)


@contextmanager
def local_copy(uri: str, below: str | None = None) -> Iterator[LocalCopy]:
    """Give a local path to read the file at, with its digest; a temporary copy is removed afterwards.

    With ``below``, the folder that it was found in, no link is followed on the way from there to the file. Without
    it the address is the user's own, who may name a link.

    Raises:
        UnreachableFileError: it is not there or cannot be read.
        NoRegularFileError: it is a link, a pipe, a device or the like, or has a name that cannot be written down.
        FileChangedError: it changed while it was copied.
        NoRoomError: there is no room for a temporary copy.

    """
    fault = bad_name(uri)
    if fault is not None:
        raise NoRegularFileError(f"{shown(uri)}: {fault}")
    system, path = filesystem(uri)
    if is_local(system):
        top = None if below is None else filesystem(below)[1]
        with os.fdopen(_open(uri, path, top), "rb") as stream:
            try:
                before = _local_state(uri, os.fstat(stream.fileno()))
                digest = hashlib.file_digest(stream, "sha256").digest()
            except OSError as error:
                raise UnreachableFileError(f"{uri}: cannot be read ({error.strerror})") from error
            # Opened again by its descriptor it is the same file, whatever its path leads to by now.
            again = _DESCRIPTORS / str(stream.fileno())
            yield LocalCopy(again if _DESCRIPTORS.is_dir() else Path(path), digest, before)
        return
    before = state(uri)
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        copy = Path(folder) / "file"
        _fetch(uri, system, path, copy)
        with copy.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").digest()
        refuse_changed(before)
        yield LocalCopy(copy, digest, before)


def _open(uri: str, path: str, below: str | None) -> int:
    """Open a regular file and nothing else, without waiting; returns its descriptor."""
    *folders, name = Path(path).relative_to(below).parts if below is not None else (os.path.realpath(path),)
    opened: list[int] = []
    try:
        above = None
        for folder in (below, *folders) if below is not None else ():
            # The landing folder itself may well be a link.
            follow = 0 if opened else os.O_NOFOLLOW
            above = os.open(folder, (_OPEN | os.O_DIRECTORY) & ~follow, dir_fd=above)
            opened.append(above)
        _refuse_irregular(uri, os.stat(name, dir_fd=above, follow_symlinks=False))
        descriptor = os.open(name, _OPEN, dir_fd=above)
        try:
            _refuse_irregular(uri, os.fstat(descriptor))
        except NoRegularFileError:
            os.close(descriptor)
            raise
    except FileNotFoundError as error:
        raise UnreachableFileError(f"{uri}: there is no such file") from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NoRegularFileError(f"{uri}: is {_KINDS[0][1]}") from error
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise UnreachableFileError(f"{uri}: cannot be read ({error.strerror})") from error
    finally:
        for folder_descriptor in opened:
            os.close(folder_descriptor)
    return descriptor


def _fetch(uri: str, system: Any, path: str, copy: Path) -> None:  # noqa: ANN401
    with copy.open("wb") as target:
        try:
            with system.open(path, "rb") as source:
                while piece := source.read(_CHUNK):
                    _write(uri, target, piece)
        except NoRoomError:
            raise
        except Exception as error:  # noqa: BLE001  (each driver raises errors of its own)
            reason = secret_urls.without_secrets(f"{type(error).__name__}: {error}", uri)
            raise UnreachableFileError(f"{uri}: cannot be read ({reason})") from secret_urls.cause(error, uri)


def _write(uri: str, target: BinaryIO, piece: bytes) -> None:
    try:
        target.write(piece)
        target.flush()
    except OSError as error:
        raise NoRoomError(
            f"{uri}: cannot be copied to {tempfile.gettempdir()} ({error.strerror}); nothing was loaded. "
            "Make room there, or set TMPDIR to a folder that has some"
        ) from error


def refuse_changed(before: FileState) -> None:
    """Raise unless the file still stands as it did.

    Raises:
        FileChangedError: it has another size, time or ETag, or is gone.

    """
    try:
        now = state(before.uri)
    except (UnreachableFileError, NoRegularFileError) as error:
        raise FileChangedError(f"{before.uri}: was removed while it was read; nothing was loaded") from error
    if now != before:
        raise FileChangedError(
            f"{before.uri}: changed while it was read; nothing was loaded. "
            "Load it again once it is complete (write it under a name that ends in .part and rename it)"
        )
