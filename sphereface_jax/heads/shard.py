"""A shard of a mesh, and how it reaches the others.

Classes are cut along one mesh axis, examples along another. Each method is what one half of a
sentence such as "the largest logit over all classes" costs; on a single device it costs nothing.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Shard:
    """Which mesh axes the classes and the examples are cut along; None: they are all here."""

    classes: str | None = None
    examples: str | None = None

    def total_over_classes(self, values: Any) -> Any:
        """Adds up what the shards of the classes hold."""
        return values if self.classes is None else jax.lax.psum(values, self.classes)

    def maximum_over_classes(self, values: Array) -> Array:
        """The largest of what the shards of the classes hold."""
        return values if self.classes is None else jax.lax.pmax(values, self.classes)

    def total_over_examples(self, values: Any) -> Any:
        """Adds up what the shards of the examples hold."""
        return values if self.examples is None else jax.lax.psum(values, self.examples)

    def batch(self, values: Any) -> Any:
        """From values of this shard's examples to those of the whole batch."""
        if self.examples is None:
            return values
        return jax.lax.all_gather(values, self.examples, tiled=True)

    def part(self, values: Array, size: int) -> Array:
        """From values of the whole batch to those of this shard's examples."""
        if self.examples is None:
            return values
        start = jax.lax.axis_index(self.examples) * size
        return jax.lax.dynamic_slice_in_dim(values, start, size)

    def first_class(self, size: int) -> Array | int:
        """The number of this shard's first class, each shard having `size` of them."""
        return 0 if self.classes is None else jax.lax.axis_index(self.classes) * size

    def once(self, values: Any) -> Any:
        """The values on one shard and zeros on the others: what all have counts once."""
        axes = [axis for axis in (self.classes, self.examples) if axis is not None]
        if not axes:
            return values
        is_first = sum(jax.lax.axis_index(axis) for axis in axes) == 0
        return jax.tree.map(lambda value: jnp.where(is_first, value, 0), values)
