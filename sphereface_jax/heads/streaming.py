"""The streaming head: the dense head's numbers, a block of classes at a time.

The logits of a million classes for 512 embeddings are 2 GB, and a softmax holds several of them.
This head never holds more than a block [B, class_block]: `blocks` walks over them to the loss, and
`gradient` once more to its gradient.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from sphereface_jax.heads.blocks import Head, Inputs, Residuals, as_inputs, forward, split_margin
from sphereface_jax.heads.engine import Margin, head_dtype
from sphereface_jax.heads.gradient import backward
from sphereface_jax.heads.shard import Shard

Array = jax.Array

_HERE = Shard()


def streaming_loss(
    margin: Margin,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    num_classes: int,
    class_block: int | None,
    state: Any = None,
    bias: Array | None = None,
) -> tuple[Array, Any]:
    """Loss of a margin, a block of classes at a time; it has no forward derivative.

    Args:
      margin: the margin.
      embeddings: [B, D].
      prototypes: [C, D], or [C, K, D] with sub-centres.
      labels: [B].
      num_classes: rows of prototypes from here on are no classes; they never take part.
      class_block: classes that are looked at together, also more than C; None: all.
      state: what the loss carries through training.
      bias: added to the logits, [C] or a scalar.

    Returns:
      Losses [B] and the state, updated.
    """
    dtype = head_dtype(embeddings, prototypes)
    head, numbers = split_margin(
        margin, num_classes=num_classes, class_block=class_block, dtype=dtype
    )
    inputs = as_inputs(numbers, embeddings, prototypes, state, bias, dtype)
    return _compiled_loss(head, inputs, jnp.asarray(labels, jnp.int32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(head: Head, inputs: Inputs, labels: Array) -> tuple[Array, Any]:
    return forward(head, inputs, labels, _HERE)[0]


def _loss_forward(head: Head, inputs: Inputs, labels: Array) -> tuple[tuple[Array, Any], Any]:
    results, residuals = forward(head, inputs, labels, _HERE)
    return results, (inputs, labels, residuals)


def _loss_backward(
    head: Head,
    saved: tuple[Inputs, Array, Residuals],
    cotangents: tuple[Array, Any],
) -> tuple[Inputs, None]:
    return backward(head, *saved, cotangents, _HERE), None


_loss.defvjp(_loss_forward, _loss_backward)
_compiled_loss = jax.jit(_loss, static_argnums=0)
