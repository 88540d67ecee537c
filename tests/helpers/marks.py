"""Cases of a test that wait for the slower suites."""

from collections.abc import Iterable
from typing import Any

import pytest


def marked(
    names: Iterable[str], *, slow: Iterable[str] = (), parity_full: Iterable[str] = ()
) -> Any:
    """The names as cases; those of `slow` and `parity_full` have their turn with these."""
    marks = dict.fromkeys(slow, pytest.mark.slow)
    marks |= dict.fromkeys(parity_full, pytest.mark.parity_full)
    return [pytest.param(name, marks=marks.get(name, ())) for name in names]
