"""One sentence, three ways to say it: the choice between dense, streaming and class-parallel.

Besides losses, whatever reduces over the classes can be said so: `nearest` finds each example's
strongest rival with a reduction of its own.
"""

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from sphereface_jax import _checks
from sphereface_jax.heads.class_parallel import AnyMesh, class_parallel_loss, context_mesh
from sphereface_jax.heads.dense import dense_loss
from sphereface_jax.heads.engine import Combine, Margin
from sphereface_jax.heads.streaming import streaming_loss
from sphereface_jax.margins import identity

Array = jax.Array


def loss_over_classes(
    margin: Margin,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
    **options: Any,
) -> tuple[Array, Any]:
    """Loss of a margin by the head that its arguments ask for.

    Args:
      margin: the margin.
      embeddings: [B, D].
      prototypes: [C, D], or [C, K, D] with sub-centres.
      labels: [B].
      class_block: classes that are looked at together; None: all that a device has.
      mesh: devices to share them; None: those of `jax.set_mesh`, if it has an axis "model".
      **options: num_classes, state and bias, which every head takes.

    Returns:
      Losses [B] and the state, updated.

    Raises:
      ValueError: if class_block is not a number of classes, or the mesh cannot cut the batch.
    """
    if class_block is not None:
        is_count = isinstance(class_block, numbers.Integral) and class_block >= 1
        _checks.require(is_count, "class_block", "None or an integer of at least 1", class_block)
    arguments = margin, embeddings, prototypes, labels
    mesh = mesh or context_mesh()
    if mesh is not None:
        return class_parallel_loss(*arguments, mesh=mesh, class_block=class_block, **options)
    if class_block is not None:
        return streaming_loss(*arguments, class_block=class_block, **options)
    return dense_loss(*arguments, **options)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _StrongestRival:
    """The target beside the largest of the others."""

    def accumulate(self, others: Array) -> Array:
        return jnp.max(others, axis=1, initial=-jnp.inf)

    def merge(self, parts: Array, maximum: Combine, total: Combine) -> Array:
        del total
        return maximum(parts)

    def finish(self, accumulated: Array, target: Array) -> Array:
        return jnp.stack((target, accumulated), axis=1)

    def slope(self, accumulated: Array, target: Array, others: Array) -> Array:
        raise NotImplementedError("the strongest rival is not differentiated")


def nearest(
    embeddings: Array, prototypes: Array, labels: Array, *, num_classes: int, **options: Any
) -> tuple[Array, Array]:
    """How near every example is to its own class, and whether no other class is nearer.

    Args:
      embeddings: [B, D].
      prototypes: [C, D], or [C, K, D] with sub-centres.
      labels: [B].
      num_classes: rows of prototypes from here on are no classes.
      **options: class_block and mesh, as `loss_over_classes` takes them.

    Returns:
      The cosine with the own class [B], and whether it is the largest [B].
    """
    margin = Margin(target=identity, scale=1.0, reduction=_StrongestRival())
    pairs, _ = loss_over_classes(
        margin, embeddings, prototypes, labels, num_classes=num_classes, **options
    )
    return pairs[:, 0], pairs[:, 0] >= pairs[:, 1]
