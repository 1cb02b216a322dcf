"""Whose fault an error is: whatever reading one file raises is that file's refusal, and never stops another.

One place for all of it: ``reading`` stands around everything that reads a file and turns what it raises into a
``LoadError``; ``database_refusal`` says which errors of the database are about the rows of one file. What is not
the file's goes on as it is: an interrupt, a lost database, a full disk, our own mistakes in talking to it.
"""

import errno
import hashlib
import re
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Final

import polars as pl
import psycopg

from earmark.ingestion.errors import (
    DatabaseLoadError,
    LoadError,
    NoRoomError,
    RowsRefusedError,
    UnforeseenError,
    UnreachableFileError,
)

_HERE: Final = Path(__file__).parent
_READ_WITH: Final = ("polars", "lxml", "orjson", "zstandard", "numpy")
_KEPT: Final = 200  # characters of an unforeseen error's own text
_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE))
_UNPRINTABLE: Final = re.compile(r"[^ -~\u00a0-\ud7ff\ue000-\uffff]+")


@contextmanager
def reading(uri: str, redact: Callable[[bytes], bytes] = lambda text: text) -> Iterator[None]:
    """Turn whatever is raised within into the refusal of the file at ``uri``, its text without client addresses.

    No statement of the database belongs within.

    Raises:
        LoadError: anything went wrong; one that stops only where the fault is not the file's.

    """
    try:
        yield
    except LoadError as error:
        error.args = (_redacted(uri, str(error), redact),)
        raise
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise NoRoomError(
                f"{uri}: cannot be read ({error.strerror}); nothing was loaded. Make room in "
                f"{tempfile.gettempdir()} or raise the limit of open files"
            ) from error
        raise UnreachableFileError(f"{uri}: cannot be read ({error.strerror or type(error).__name__})") from error
    except (Exception, pl.exceptions.PanicException) as error:  # polars panics are no Exception
        raise UnforeseenError(_redacted(uri, _unforeseen(uri, error), redact)) from error


def _unforeseen(uri: str, error: BaseException) -> str:
    ours = [frame for frame in traceback.extract_tb(error.__traceback__) if _HERE in Path(frame.filename).parents]
    place = f" in {Path(ours[-1].filename).name}, line {ours[-1].lineno}" if ours else ""
    text = _UNPRINTABLE.sub("?", str(error).strip().split("\n", 1)[0])[:_KEPT]
    what = f"{type(error).__name__}{place}{': ' if text else ''}{text}"
    return (
        f"{uri}: cannot be read ({what}); nothing was loaded. Please report this: it is tried again when the file "
        "changes or earmark does"
    )


def _redacted(uri: str, text: str, redact: Callable[[bytes], bytes]) -> str:
    """Hash the addresses in a text, but not those in the file's own name."""
    parts = text.split(uri) if uri else [text]
    return uri.join(redact(part.encode("utf-8", "replace")).decode("utf-8", "replace") for part in parts)


def database_refusal(uri: str, error: psycopg.Error, *, lost: bool) -> LoadError:
    """Return what an error of the database means for a file: its refusal, or the end of all loading."""
    # Only the primary message: the context of an error may quote a row.
    reason = error.diag.message_primary or str(error).strip().split("\n", 1)[0]
    if lost:
        fix = "Load it again once the database can be reached"
        return DatabaseLoadError(f"{uri}: the database stopped the load ({reason}); nothing was loaded. {fix}")
    match error:
        case psycopg.errors.OutOfMemory():
            return RowsRefusedError(
                f"{uri}: the database ran out of memory for it ({reason}); nothing was loaded. If it spans years, "
                "raise max_locks_per_transaction on the server and touch the file, or load it in parts by time"
            )
        case psycopg.DataError() | psycopg.IntegrityError() | psycopg.errors.ProgramLimitExceeded():
            # Its own text may quote a value.
            what = " ".join(filter(None, (type(error).__name__, error.diag.constraint_name)))
            return RowsRefusedError(
                f"{uri}: the database does not take its rows ({what}); nothing was loaded. "
                "Please report this: it is tried again when the file changes or earmark does"
            )
        case psycopg.errors.DiskFull():
            fix = "Make room on the database server's disk and load it again"
        case psycopg.errors.InsufficientPrivilege():
            fix = "Load as a role that is a member of earmark_loader"
        case (
            psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedColumn() | psycopg.errors.InvalidSchemaName()
        ):
            fix = "Bring the database up to date with: earmark migrate"
        case psycopg.OperationalError() | psycopg.InterfaceError():
            fix = "Load it again once the database can be reached"
        case _:
            fix = "Please report this"
    return DatabaseLoadError(f"{uri}: the database stopped the load ({reason}); nothing was loaded. {fix}")


@cache
def reader() -> str:
    """Name the code that reads files, ours and the libraries': another name may read what this one could not."""
    digest = hashlib.sha256()
    for path in sorted(_HERE.rglob("*.py")):
        digest.update(path.read_bytes())
    for name in _READ_WITH:
        digest.update(f"{name} {version(name)}\n".encode())
    return digest.hexdigest()[:12]
