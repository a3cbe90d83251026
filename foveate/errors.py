"""The errors that users can cause or meet, as one tree.

    FoveateError           exit code 1
    ├── UsageError         2   an option, a name or a combination that does not exist
    ├── MissingExtraError  3   a dependency is not installed; the message has the install line
    ├── DataError          4   images, folders and tables: missing, unreadable, not enough
    │   └── ImageError     4   one image
    └── ArtefactError      5   a run, a model or a weights file: missing, damaged or unsafe

A message says what was expected, what was found, where, and what to do. Errors of the programmer
are `assert`s.
"""


class FoveateError(Exception):
    """Base class of all errors that Foveate raises on purpose."""

    exit_code = 1


class UsageError(FoveateError, ValueError):
    """An option, a name or a combination that does not exist."""

    exit_code = 2


class MissingExtraError(FoveateError, ImportError):
    """An optional dependency that is not installed."""

    exit_code = 3


class DataError(FoveateError, ValueError):
    """Images, folders and tables that cannot be used as they are."""

    exit_code = 4


class ImageError(DataError):
    """One image that cannot be decoded."""


class ArtefactError(FoveateError):
    """A run, a model or a weights file that is missing, damaged or unsafe."""

    exit_code = 5
