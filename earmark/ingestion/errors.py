"""What can go wrong with a file as a whole. A row that is refused is not an error: it is a reject (``checks``).

The text of each error is what the user reads: it names the file, what is wrong with it and what to do. Which
errors are one file's own, and which stop everything, is said here by each class; how the errors of others become
ours is in ``refusals``.
"""

from enum import StrEnum
from typing import ClassVar

from earmark.errors import EarmarkError


class Again(StrEnum):
    """When a file that was refused is tried again without having changed."""

    NEVER = "never"
    BY_OTHER_CODE = "by other code"  # ours was at fault: once earmark or a library that it reads with is another
    ALWAYS = "always"  # what was wrong lay outside of the file's bytes


class LoadError(EarmarkError):
    """A file cannot be loaded. Nothing of it was loaded.

    ``stops``: it is not this file's fault, and the next one would fare no better: nothing more is tried.
    """

    stops: ClassVar[bool] = False
    again: ClassVar[Again] = Again.NEVER


class UnknownTenantError(LoadError):
    """The tenant is not registered."""


class UnknownDatasetError(LoadError):
    """There is no such dataset or source, or it does not follow from the file which one is meant."""


class NotThisSourceError(LoadError):
    """The file does not look like what it was said to be."""


class DamagedFileError(LoadError):
    """The file is truncated, corrupt or in a form that is not read."""


class NoRowsError(LoadError):
    """The file holds no row, good or bad: nothing could have been read from it."""


class AmountsUnknownError(LoadError):
    """An amount holds a comma: whether that is a decimal one has to be judged over the whole file first."""


class NoRegularFileError(LoadError):
    """It is a link, a pipe, a device or the like, or has a name that cannot be written down."""


class FileChangedError(LoadError):
    """The file changed while it was read."""

    again = Again.ALWAYS


class UnreachableFileError(LoadError):
    """The file is not there or cannot be read."""

    again = Again.ALWAYS


class UnforeseenError(LoadError):
    """Reading the file raised what nobody foresaw: a fault of ours or of a library, which this file brings out."""

    again = Again.BY_OTHER_CODE


class RowsRefusedError(LoadError):
    """The database does not take the file's rows, although they passed every check."""

    again = Again.BY_OTHER_CODE


class HashKeyError(LoadError):
    """Another secret was used before under the same key id."""

    stops = True


class DatabaseLoadError(LoadError):
    """The database was lost on the way, or cannot be written to."""

    stops = True


class NoRoomError(LoadError):
    """The machine has run out of what every file needs: room for temporary files, open files."""

    stops = True
