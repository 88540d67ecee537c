"""Reductions: how the logits of one example become its loss.

A reduction runs over the *other* classes first, in one block or many, and takes in the target's
logit last. What a block of classes contributes is `accumulate`d, what several blocks or devices
contributed is `merge`d, and `finish` makes the loss. So the dense head, which has one block, and
the blockwise head, which has many, compute the same sum.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Array = jax.Array
Scalar = float | jax.Array
Combine = Callable[[Array], Array]


class Reduction(Protocol):
    """A pytree with these three methods; its leaves are scalars or [B]."""

    def accumulate(self, others: Array, classes: Array) -> Any:
        """Reduces a block of other classes.

        Args:
          others: logits [B, c]; −∞ marks one that is left out.
          classes: [c], the number of each class.

        Returns:
          A tree of arrays whose first dimension is B.
        """

    def merge(self, parts: Any, maximum: Combine, total: Combine) -> Any:
        """Merges accumulated parts, over whatever the two functions combine.

        Args:
          parts: what `accumulate` returned for several blocks or devices.
          maximum: the largest of an array's values over them.
          total: the sum of an array's values over them.

        Returns:
          One of the same structure.
        """

    def finish(self, accumulated: Any, target: Array) -> Any:
        """Takes in the target's logit.

        Args:
          accumulated: of all other classes.
          target: the target's logit [B].

        Returns:
          The loss [B], or whatever the reduction looks for, with B in front.
        """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftmaxCrossEntropy:
    """log(1 + Σ_j exp(f_j − f_y)), the sum being over the other classes."""

    def accumulate(self, others: Array, classes: Array) -> tuple[Array, Array]:
        """Returns the largest logit and the sum of exponentials relative to it."""
        del classes
        lowest = jnp.finfo(others.dtype).min
        largest = jax.lax.stop_gradient(jnp.max(others, axis=1, initial=lowest))
        return largest, jnp.sum(jnp.exp(others - largest[:, None]), axis=1)

    def merge(
        self, parts: tuple[Array, Array], maximum: Combine, total: Combine
    ) -> tuple[Array, Array]:
        """Returns the largest of all and the sum of exponentials relative to it."""
        largest = maximum(parts[0])
        return largest, total(parts[1] * jnp.exp(parts[0] - largest))

    def finish(self, accumulated: tuple[Array, Array], target: Array) -> Array:
        """Returns the cross entropy, to full relative precision however small it is."""
        largest_other, total = accumulated
        largest = jnp.maximum(largest_other, target)
        others = total * jnp.exp(largest_other - largest)
        return jnp.log1p(jnp.expm1(target - largest) + others) + (largest - target)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class BinaryCrossEntropy:
    """w₊ softplus(−f_y) + w₋ Σ_j softplus(f_j), the sum being over the other classes."""

    positive_weight: Scalar = 1.0
    negative_weight: Scalar = 1.0

    def accumulate(self, others: Array, classes: Array) -> Array:
        """Returns the sum of the other classes' losses."""
        del classes
        return jnp.sum(jax.nn.softplus(others), axis=1)

    def merge(self, parts: Array, maximum: Combine, total: Combine) -> Array:
        """Returns the sum of the parts."""
        del maximum
        return total(parts)

    def finish(self, accumulated: Array, target: Array) -> Array:
        """Returns the weighted sum of binary cross entropies."""
        return self.positive_weight * jax.nn.softplus(-target) + self.negative_weight * accumulated


class Nearest(NamedTuple):
    """How an example lies among the prototypes, without any margin.

    Attributes:
      cosine: cosine with the prototype of its target class [B].
      other_class: the nearest other class [B]; −1 where C = 1.
      other_cosine: the cosine with that class's prototype [B]; −∞ where C = 1.
    """

    cosine: Array
    other_class: Array
    other_cosine: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestOther:
    """The largest logit among the other classes, and whose it is."""

    def accumulate(self, others: Array, classes: Array) -> tuple[Array, Array]:
        """Returns the largest logit and its class; of equal ones the class that comes last."""
        largest = jnp.max(others, axis=1, initial=-jnp.inf)
        is_largest = (others == largest[:, None]) & (others > -jnp.inf)
        return largest, jnp.max(jnp.where(is_largest, classes[None], -1), axis=1, initial=-1)

    def merge(
        self, parts: tuple[Array, Array], maximum: Combine, total: Combine
    ) -> tuple[Array, Array]:
        """Returns the largest logit of all and its class."""
        del total
        largest = maximum(parts[0])
        return largest, maximum(jnp.where(parts[0] == largest, parts[1], -1))

    def finish(self, accumulated: tuple[Array, Array], target: Array) -> Nearest:
        """Returns the target beside the nearest other class."""
        return Nearest(target, accumulated[1], accumulated[0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetOnly:
    """The target's logit alone; the compiler drops what was computed of the others."""

    def accumulate(self, others: Array, classes: Array) -> Array:
        """Returns zeros [B]."""
        del classes
        return jnp.zeros(others.shape[0], others.dtype)

    def merge(self, parts: Array, maximum: Combine, total: Combine) -> Array:
        """Returns zeros [B]."""
        del maximum, total
        return parts

    def finish(self, accumulated: Array, target: Array) -> Array:
        """Returns the target's logit."""
        del accumulated
        return target
