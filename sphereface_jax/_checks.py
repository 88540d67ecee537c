"""Contracts of the public functions: a wrong argument is named, with what was expected and got.

Shapes and dtypes are known even while JAX traces a function, so those checks cost nothing at run
time. Values are checked only where they are concrete: inside `jax.jit` labels pass unchecked.
"""

import numbers
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


def _shape_and_dtype(argument: str, value: Any, expected: str) -> tuple[tuple[int, ...], Any]:
    require(hasattr(value, "shape") and hasattr(value, "dtype"), argument, expected, type(value))
    return tuple(value.shape), value.dtype


def require_floating(argument: str, value: Any, axes: str) -> tuple[int, ...]:
    """Checks that an array is floating point and has one axis a name, and returns its shape.

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
    expected = f"shape [{batch}], one label an embedding"
    require(shape == (batch,), argument, expected, f"shape {list(shape)}")
    require(jnp.issubdtype(dtype, jnp.integer), argument, "an integer dtype", f"{dtype}")
    if batch and not isinstance(labels, jax.core.Tracer):
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


def require_integer_margin(margin: Any) -> int:
    """Checks that a margin is an integer of at least 1, and returns it as an int.

    Args:
      margin: the multiplier of the target's angle.

    Returns:
      The margin.

    Raises:
      ValueError: if it is anything else, a traced value included.
    """
    expected = "an integer of at least 1, known when the function is traced"
    is_number = isinstance(margin, numbers.Real) and not isinstance(margin, bool)
    require(is_number, "margin", expected, f"{margin!r}")
    require(margin >= 1 and float(margin).is_integer(), "margin", expected, margin)
    return int(margin)
