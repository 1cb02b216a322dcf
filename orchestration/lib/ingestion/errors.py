"""What can go wrong with a file as a whole. A row that is refused is not an error: it is a reject (``checks``).

The text of each error is what the user reads: it names the file, what is wrong with it and what to do.
"""


class LoadError(Exception):
    """A file cannot be loaded. Nothing of it was loaded."""


class UnknownTenantError(LoadError):
    """The tenant is not registered."""


class UnknownDatasetError(LoadError):
    """There is no such dataset or source, or it does not follow from the file which one is meant."""


class NotThisSourceError(LoadError):
    """The file does not look like what it was said to be."""


class DamagedFileError(LoadError):
    """The file is truncated, corrupt or in a form that is not read."""


class FileChangedError(LoadError):
    """The file changed while it was read."""


class UnreachableFileError(LoadError):
    """The file is not there or cannot be read."""


class HashKeyError(LoadError):
    """Another secret was used before under the same key id."""


class DatabaseLoadError(LoadError):
    """The database refused or was lost on the way."""
