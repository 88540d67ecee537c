"""What a field of a config says of itself: its range, and whether a resumed run may change it.

The fields of a frozen dataclass are made by `setting`, and `check_fields` checks them all.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sphereface_jax._checks import require

Resume = Literal["fixed", "free", "data"]
"""Whether a resumed run may change a field: "fixed" fields say what is learnt and may not; "free"
ones say where, when and how the work is done; "data" ones name the data, whose own fingerprint
decides."""


@dataclass(frozen=True)
class Range:
    """The finite numbers that a field may hold.

    Attributes:
      low: the smallest.
      high: the largest.
      open_low: whether `low` itself is out.
      open_high: whether `high` itself is out.
      besides: one more number.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    besides: float | None = None

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return math.isfinite(value) and ((above and below) or value == self.besides)

    def __str__(self) -> str:
        if self.high == math.inf:
            words = f"{'above' if self.open_low else 'of at least'} {self.low:g}"
        else:
            left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
            words = f"in {left}{self.low:g}, {self.high:.10g}{right}"
        return words if self.besides is None else f"{words}, or {self.besides:g}"


COUNT = Range(1)
NOT_NEGATIVE = Range(0)
POSITIVE = Range(0, open_low=True)
PIXEL = Range(0, 255)
PROBABILITY = Range(0, 1)
BELOW_ONE = Range(0, 1, open_high=True)


def setting(default: Any, resume: Resume, within: Range | None = None) -> Any:
    """The field of a config.

    Args:
      default: its default; a class stands for a new instance of it.
      resume: whether a resumed run may change it.
      within: the range of its numbers; of each of them, if it holds several.

    Returns:
      What `dataclasses.field` returns.
    """
    metadata = {"resume": resume, "within": within}
    if isinstance(default, type):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def ranged(default: Any, within: Range) -> Any:
    """The field of a command's options, with the range of its number.

    Args:
      default: its default.
      within: the range.

    Returns:
      What `dataclasses.field` returns.
    """
    return dataclasses.field(default=default, metadata={"within": within})


def check_options(options: Any) -> None:
    """Checks the numbers of a command's options, which `ranged` made.

    Raises:
      ValueError: one is outside its range; it is named as it is typed.
    """
    hints = typing.get_type_hints(type(options))
    for field in dataclasses.fields(options):
        if "within" in field.metadata:
            value = getattr(options, field.name)
            expected = _missing(hints[field.name], value, field.metadata["within"])
            name = f"--{field.name.replace('_', '-')}"
            require(expected is None, name, str(expected), repr(value))


def settings(cls: type, prefix: str = "") -> dict[str, dataclasses.Field[Any]]:
    """Every field of a config class that holds a value, by its full name.

    Args:
      cls: a dataclass.
      prefix: what to put before every name.

    Returns:
      The fields, nested ones as `loss.name`.

    Example:
      >>> @dataclasses.dataclass(frozen=True)
      ... class Example:
      ...     steps: int = setting(10, "fixed", COUNT)
      >>> settings(Example)["steps"].metadata["resume"]
      'fixed'
    """
    found: dict[str, dataclasses.Field[Any]] = {}
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint):
            found |= settings(typing.cast(type, hint), f"{name}.")
        else:
            found[name] = field
    return found


def check_fields(config: Any, prefix: str = "") -> None:
    """Checks that every field, of nested configs too, holds what its type and range allow.

    Args:
      config: a dataclass's instance.
      prefix: what to put before every name in an error.

    Raises:
      ValueError: one does not; it is named.
    """
    hints = typing.get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value, hint = f"{prefix}{field.name}", getattr(config, field.name), hints[field.name]
        if dataclasses.is_dataclass(hint):
            kind = typing.cast(type, hint)
            require(isinstance(value, kind), name, f"a {kind.__name__}", repr(value))
            check_fields(value, f"{name}.")
        else:
            expected = _missing(hint, value, field.metadata["within"])
            require(expected is None, name, str(expected), repr(value))


def _missing(hint: Any, value: Any, within: Range | None) -> str | None:
    """Returns what a type and a range expect, where a value is not that; else None."""
    arms = typing.get_args(hint)
    kind = typing.get_origin(hint) or hint
    if kind in (types.UnionType, typing.Union):
        if value is None and types.NoneType in arms:
            return None
        missing = [_missing(arm, value, within) for arm in arms if arm is not types.NoneType]
        if None in missing:
            return None
        # Of several shapes, the one that the value has says best what it lacks.
        return missing[1 if len(missing) > 1 and isinstance(value, tuple) else 0]
    if kind is Literal:
        return None if value in arms else f"one of {', '.join(map(repr, arms))}"
    if kind is tuple:
        is_open = arms[-1] is Ellipsis
        if not isinstance(value, tuple) or not (is_open or len(value) == len(arms)):
            return "a list" if is_open else f"{len(arms)} values"
        return next((m for item in value if (m := _missing(arms[0], item, within))), None)
    if kind in (int, float):
        is_number = isinstance(value, int if kind is int else int | float)
        word = "a whole number" if kind is int else "a number"
        is_fine = is_number and not isinstance(value, bool) and (within is None or value in within)
        return None if is_fine else word if within is None else f"{word} {within}"
    if kind is Path:
        return None if isinstance(value, str | Path) else "a path"
    return None if isinstance(value, kind) else f"a {kind.__name__}"
