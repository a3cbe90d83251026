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

import os


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


def quoted(name: object) -> str:
    """The name of a file, a folder or a class in a message: in quotes and on one line. What does
    not print, such as a line break or a terminal's escape sequence, becomes \\x.. codes.

    >>> print(quoted("caf\u00e9\\n\\x1b[31m.jpg"))
    'caf\u00e9\\n\\x1b[31m.jpg'
    """
    text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else str(name)
    return f"'{printable(str(text))}'"


def printable(text: str, keep: str = "") -> str:
    """Text from a disk or a file, safe to print: control characters, escape sequences and lone
    surrogates become \\x.. codes; `keep` is exempt.

    >>> print(printable("a\\x1b[31mb"))
    a\\x1b[31mb
    """
    if text.isprintable():
        return text
    import unicodedata

    # control, format, surrogate, private, separators of lines and paragraphs
    unsafe = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
    return "".join(
        c
        if c in keep or unicodedata.category(c) not in unsafe
        else c.encode("unicode_escape", "surrogatepass").decode()
        for c in text
    )
