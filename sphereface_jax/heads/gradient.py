"""The gradient of a head that walks over blocks: one more walk.

It computes a block's logits again, turns them into the loss's slopes by them, and writes the rows
of the prototypes' gradient into their place in one buffer, which is all that is as large as the
prototypes. What depends on the target (its logit, the state, the regularizer, the gradient of
Caffe's layer) is a function of the examples that JAX differentiates; it is added last, when the
walk has found how the other classes lean on the examples' quantities.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sphereface_jax.geometry import safe_norm
from sphereface_jax.heads.blocks import (
    Block,
    Head,
    Inputs,
    Residuals,
    Targets,
    Walk,
    finish,
    from_bits,
    score,
    to_bits,
    whole_batch,
)
from sphereface_jax.heads.engine import Examples, own_similarities, regularization
from sphereface_jax.heads.shard import Shard

Array = jax.Array


def backward(
    head: Head,
    inputs: Inputs,
    labels: Array,
    residuals: Residuals,
    cotangents: tuple[Array, Any],
    shard: Shard,
) -> Inputs:
    """The gradient by a shard's part of the inputs.

    Args:
      head: the loss.
      inputs: the shard's part of them.
      labels: the shard's part of them [B].
      residuals: what `blocks.forward` left.
      cotangents: of the losses [B] and of the state.
      shard: where it stands.

    Returns:
      The gradient, in the inputs' shapes and dtypes.
    """
    by_loss, by_state = cotangents
    walk = Walk(head, inputs, labels, shard)
    targets, margin = walk.targets, head.margin(inputs.numbers)
    examples, scored_vjp = _score_again(walk, residuals)
    by_others, by_examples = _walk_back(walk, residuals, examples, by_loss)
    by_examples = by_examples._replace(state=_add(by_examples.state, shard.once(by_state)))
    if margin.negatives is not None:
        total = shard.total_over_classes(by_examples.cosine)
        by_examples = by_examples._replace(cosine=targets.here(total))
    by_numbers, by_bias_y, *by_targets, by_cosine, by_state = scored_vjp(
        (by_examples, targets.here(by_loss))
    )
    _, own_vjp = jax.vjp(
        lambda *given: own_similarities(margin, *given), walk.embeddings, targets.prototypes
    )
    by_targets = _add(by_targets, list(own_vjp(targets.here(by_cosine))))
    if margin.regularizer is not None:
        more_numbers, *by_regularizer = _regularizer_gradient(walk, labels, by_loss, shard)
        by_numbers, by_targets = _add((by_numbers, by_targets), (more_numbers, by_regularizer))
    by_embeddings, by_rows = by_targets
    everywhere = _add(by_numbers, by_others.numbers), by_state
    by_numbers, by_state = shard.total_over_examples(shard.total_over_classes(everywhere))
    by_embeddings = shard.total_over_classes(by_others.embeddings + by_embeddings)
    by_bias = by_others.bias
    if by_bias is not None:
        by_bias = by_bias.at[targets.row].add(by_bias_y)
    by_prototypes = _add_to_rows(by_others.prototypes, targets, by_rows, inputs.prototypes.dtype)
    by_prototypes, by_bias = shard.total_over_examples((by_prototypes, by_bias))
    return Inputs(
        by_numbers,
        by_embeddings.astype(inputs.embeddings.dtype),
        by_prototypes,
        by_state,
        by_bias,
    )


def _score_again(walk: Walk, residuals: Residuals) -> tuple[Examples, Callable[..., Any]]:
    """The examples' quantities, and the gradient by what they and their losses depend on."""
    head, inputs = walk.head, walk.inputs

    def scored(numbers: list[Array], bias_y: Array | None, *given: Any) -> tuple[Examples, Array]:
        examples = score(head, residuals.seen, numbers, *given)
        return examples, finish(head, residuals.accumulated, numbers, examples.logit, bias_y)

    (examples, _), scored_vjp = jax.vjp(
        scored,
        inputs.numbers,
        residuals.bias_y,
        walk.embeddings,
        walk.targets.prototypes,
        residuals.cosine_y,
        inputs.state,
    )
    return examples, scored_vjp


def _add(left: Any, right: Any) -> Any:
    return jax.tree.map(jnp.add, left, right)


def _walk_back(
    walk: Walk, residuals: Residuals, examples: Examples, by_loss: Array
) -> tuple[Inputs, Examples]:
    """The gradient by way of the other classes' logits: by the inputs, and by the examples."""
    inputs, margin = walk.inputs, walk.head.margin(walk.inputs.numbers)
    target = examples.logit if residuals.bias_y is None else examples.logit + residuals.bias_y
    weight = (margin.weight * by_loss)[:, None]

    def visit(running: tuple[Inputs, Examples], block: Block) -> tuple[Any, None]:
        gradient, by_examples = running
        rows, bias = walk.prototypes(block), walk.bias(block)
        logits, logits_vjp = jax.vjp(
            walk.logits, inputs.numbers, walk.embeddings, examples, rows, bias
        )
        others = walk.others(logits, block)
        slopes = margin.reduction.slope(residuals.accumulated, target, others)
        by_numbers, by_embeddings, by_more, by_rows, by_bias = logits_vjp(weight * slopes)
        bits = to_bits(by_rows.astype(inputs.prototypes.dtype))
        gradient = Inputs(
            _add(gradient.numbers, by_numbers),
            gradient.embeddings + by_embeddings,
            _write(gradient.prototypes, bits, block),
            gradient.state,
            jax.tree.map(
                lambda buffer, values: _write(buffer, values, block), gradient.bias, by_bias
            ),
        )
        return (gradient, _add(by_examples, by_more)), None

    nothing = jax.tree.map(jnp.zeros_like, inputs)._replace(
        embeddings=jnp.zeros_like(walk.embeddings),
        prototypes=jnp.zeros_like(to_bits(inputs.prototypes)),
    )
    start = nothing, jax.tree.map(jnp.zeros_like, examples)
    return jax.lax.scan(visit, start, walk.blocks())[0]


def _write(buffer: Array, rows: Array, block: Block) -> Array:
    """Puts a block's rows in their place; the next block overwrites those that it shares."""
    return jax.lax.dynamic_update_slice_in_dim(buffer, rows, block.start, 0)


def _add_to_rows(bits: Array, targets: Targets, rows: Array, dtype: Any) -> Array:
    """Adds every example's row to that of its class, which may be that of other examples too."""
    is_same = (targets.row[:, None] == targets.row) & targets.is_here
    totals = jnp.tensordot(
        is_same.astype(rows.dtype), rows, axes=1, precision=jax.lax.Precision.HIGHEST
    )
    sums = from_bits(bits[targets.row], dtype).astype(rows.dtype) + totals
    return from_bits(bits.at[targets.row].set(to_bits(sums.astype(dtype))), dtype)


def _regularizer_gradient(
    walk: Walk, labels: Array, by_loss: Array, shard: Shard
) -> tuple[list[Array], Array, Array]:
    """The regularizer's gradient by the numbers, the embeddings and the targets' prototypes."""
    head, targets, size = walk.head, walk.targets, labels.size
    own_norms, norms_vjp = jax.vjp(safe_norm, walk.embeddings)
    norms, prototypes, labels = whole_batch(shard, own_norms, targets.prototypes, labels)

    def added(numbers: list[Array], norms: Array, prototypes: Array) -> Array:
        return regularization(head.margin(numbers), norms, prototypes, labels)

    _, added_vjp = jax.vjp(added, walk.inputs.numbers, norms, prototypes)
    by_numbers, by_norms, by_rows = added_vjp(shard.batch(by_loss))
    (by_embeddings,) = norms_vjp(targets.here(shard.part(by_norms, size)))
    return shard.once(by_numbers), by_embeddings, targets.here(shard.part(by_rows, size))
