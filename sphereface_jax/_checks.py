"""Contracts of the public functions: a wrong argument is named, with what was expected and got.

Shapes and dtypes are known even while JAX traces a function, so those checks cost nothing at run
time. Values are checked only where they are concrete: inside `jax.jit` labels pass unchecked.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def require(condition: bool, argument: str, expected: str, got: object) -> None:
    """Raises ValueError naming the argument unless the condition holds.

    Args:
      condition: what must be true.
      argument: the argument's name in the public signature.
      expected: what it should have been.
      got: what it was.

    Raises:
      ValueError: if the condition is false.
    """
    if not condition:
        raise ValueError(f"{argument}: expected {expected}, got {got}")


def expect(condition: object, where: object, expected: str, found: object) -> None:
    """Raises ValueError naming a place in a file unless the condition holds.

    Args:
      condition: what must be true.
      where: the file, and the line or part of it.
      expected: what should be there.
      found: what is.

    Raises:
      ValueError: if the condition is false.
    """
    if not condition:
        raise ValueError(f"{where}: expected {expected}, found {found}")


def _shape_and_dtype(argument: str, value: Any, expected: str) -> tuple[tuple[int, ...], Any]:
    require(hasattr(value, "shape") and hasattr(value, "dtype"), argument, expected, type(value))
    return tuple(value.shape), value.dtype


def require_floating(argument: str, value: Any, axes: str) -> tuple[int, ...]:
    """Checks that an array is floating point and has one axis per name, and returns its shape.

    Args:
      argument: the argument's name in the public signature.
      value: the array.
      axes: names of its axes, as in "B, D".

    Returns:
      The array's shape.

    Raises:
      ValueError: if the rank or the dtype is another.
    """
    rank = len(axes.split(","))
    shape, dtype = _shape_and_dtype(argument, value, f"a floating-point array [{axes}]")
    require(len(shape) == rank, argument, f"shape [{axes}]", f"shape {list(shape)}")
    require(jnp.issubdtype(dtype, jnp.floating), argument, "a floating-point dtype", f"{dtype}")
    return shape


def is_concrete(value: Any) -> bool:
    """Whether a value is known now, which it is not while JAX traces."""
    return not isinstance(value, jax.core.Tracer)


def require_labels(argument: str, labels: Any, batch: int, num_classes: int) -> None:
    """Checks that labels are integers [B] and, where they are concrete, in [0, num_classes).

    Args:
      argument: the argument's name in the public signature.
      labels: the array.
      batch: B.
      num_classes: C.

    Raises:
      ValueError: if shape, dtype or range is another.
    """
    shape, dtype = _shape_and_dtype(argument, labels, "an integer array [B]")
    require(
        shape == (batch,), argument, f"shape [{batch}] (one per embedding)", f"shape {list(shape)}"
    )
    require(jnp.issubdtype(dtype, jnp.integer), argument, "an integer dtype", f"{dtype}")
    if batch and is_concrete(labels):
        values = np.asarray(labels)
        low, high = int(values.min()), int(values.max())
        require(
            low >= 0 and high < num_classes,
            argument,
            f"values from 0 to {num_classes - 1}, num_classes being {num_classes}",
            f"values from {low} to {high}",
        )


def require_head_inputs(
    embeddings: Any, prototypes: Any, labels: Any, num_classes: int | None, *, axes: str = "C, D"
) -> int:
    """Checks what every loss takes, and returns the number of classes.

    Args:
      embeddings: floating point [B, D].
      prototypes: floating point [C, D], or [C, K, D] with sub-centres.
      labels: integers [B].
      num_classes: how many of the C rows are classes; None means all.
      axes: names of the prototypes' axes.

    Returns:
      The number of classes.

    Raises:
      ValueError: if one of them is not so.
    """
    batch, width = require_floating("embeddings", embeddings, "B, D")
    shape = require_floating("prototypes", prototypes, axes)
    require(
        shape[-1] == width,
        "prototypes",
        f"width {width}, that of embeddings [{batch}, {width}]",
        f"width {shape[-1]} in shape {list(shape)}",
    )
    if num_classes is None:
        num_classes = shape[0]
    require(
        isinstance(num_classes, numbers.Integral) and 1 <= num_classes <= shape[0],
        "num_classes",
        f"an integer from 1 to {shape[0]}, the rows of prototypes",
        num_classes,
    )
    require_labels("labels", labels, batch, num_classes)
    return num_classes


def require_choice(argument: str, value: object, choices: Sequence[str]) -> None:
    """Checks that a value is one of some names.

    Args:
      argument: the argument's name in the public signature.
      value: the value.
      choices: the names.

    Raises:
      ValueError: if it is not one of them.
    """
    expected = f"one of {', '.join(repr(choice) for choice in choices)}"
    require(value in choices, argument, expected, repr(value))


def require_numbers(**values: Any) -> None:
    """Checks that hyper-parameters are numbers of at least 0, or floating-point arrays [] or [B].

    Entries of an array are looked at where they are concrete.

    Args:
      **values: the hyper-parameters by their names.

    Raises:
      ValueError: if one is of another kind, negative or NaN.
    """
    for name, value in values.items():
        if hasattr(value, "shape") and not isinstance(value, numbers.Real):
            is_number = jnp.issubdtype(value.dtype, jnp.number)
            require(is_number, name, "a number or an array of numbers", f"dtype {value.dtype}")
            if is_concrete(value):
                entries = np.asarray(value, np.float64)
                wrong = entries[~(entries >= 0)]
                require(wrong.size == 0, name, "entries of at least 0", wrong[:1].tolist())
        else:
            is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
            require(is_number and value >= 0, name, "a number of at least 0", repr(value))


def require_angles(**values: Any) -> None:
    """Checks that hyper-parameters are angles in radians, as numbers or arrays [] or [B].

    Args:
      **values: the angles by their names.

    Raises:
      ValueError: if one is not a number, is negative, NaN or above π.
    """
    require_numbers(**values)
    for name, value in values.items():
        if is_concrete(value):
            largest = float(np.max(np.asarray(value, np.float64), initial=0))
            if largest > math.pi:
                raise ValueError(
                    f"{name}: expected an angle in radians, at most π, got {largest:g}; "
                    f"{largest:g} degrees are {math.radians(largest):.4g}"
                )


def require_scale(scale: Any) -> None:
    """Checks that a scale is None, a number above 0, or an array [] or [B].

    Args:
      scale: the scale.

    Raises:
      ValueError: if it is something else.
    """
    if scale is not None:
        require_numbers(scale=scale)
        is_zero = isinstance(scale, numbers.Real) and scale == 0
        require(not is_zero, "scale", "a number above 0", repr(scale))


def require_like(argument: str, value: Any, pattern: Any) -> None:
    """Checks that a pytree has a pattern's structure and shapes.

    Args:
      argument: the argument's name in the public signature.
      value: the pytree.
      pattern: a pytree of `jax.ShapeDtypeStruct`.

    Raises:
      ValueError: if it differs.
    """
    leaves, structure = jax.tree.flatten(value)
    expected_leaves, expected_structure = jax.tree.flatten(pattern)
    shapes = [np.shape(leaf) for leaf in leaves]
    is_like = (str(structure), shapes) == (
        str(expected_structure),
        [x.shape for x in expected_leaves],
    )
    require(is_like, argument, f"{pattern}", f"{value!r:.80}")
