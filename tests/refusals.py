"""Assertions about messages that leave the wording free: the error's class, and the names in it."""

import pytest


def absent(text: str, *names: str) -> list[str]:
    """Those of the names (files, options, numbers, key words) that a text does not contain.

    >>> absent("'a.png' is empty (0 bytes)", "a.png", "truncated")
    ['truncated']
    """
    return [name for name in names if name not in text]


def refused(error: type[Exception], *names: str) -> pytest.RaisesExc[Exception]:
    """Assert that a block raises this very class, not one derived from it, and names these.

    >>> with refused(ValueError, "x.txt", "3"):
    ...     raise ValueError("3 lines of 'x.txt' are empty")
    """

    def check(raised: Exception) -> bool:
        assert type(raised) is error, repr(raised)
        assert not absent(str(raised), *names), str(raised)
        return True

    return pytest.raises(error, check=check)
