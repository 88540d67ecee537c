"""Blocks of classes: a walk over them makes the loss, and never looks at two at a time.

Each block of prototypes gives a block of logits, of which the reduction keeps what it accumulates.
So nothing of the size [B, C] exists. The last block reaches back where the classes are no multiple
of a block, and the rows that it shares are left out of the block before it: no prototypes are
padded or copied. A shard of a mesh does all this with its own classes and examples, and adds up
with the others where a sentence asks for all classes or for the whole batch.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sphereface_jax.geometry import safe_norm
from sphereface_jax.heads.engine import (
    Examples,
    Margin,
    own_similarities,
    regularization,
    score_others,
    score_targets,
    similarities,
    updated_state,
)
from sphereface_jax.heads.shard import Shard

Array = jax.Array


class Inputs(NamedTuple):
    """What a loss has gradients by.

    Attributes:
      numbers: the margin's hyper-parameters that are arrays.
      embeddings: [B, D].
      prototypes: [C, D] or [C, K, D].
      state: what the loss carries through training.
      bias: added to the logits [C], or None.
    """

    numbers: list[Array]
    embeddings: Array
    prototypes: Array
    state: Any
    bias: Array | None


class Residuals(NamedTuple):
    """What a walk leaves to the gradient's.

    Attributes:
      cosine_y: similarity of the examples with their own classes [B].
      bias_y: the bias of their own classes [B], or None.
      seen: cosine_y and norms of the whole batch, if the state follows it.
      accumulated: the reduction over all other classes.
    """

    cosine_y: Array
    bias_y: Array | None
    seen: tuple[Array, Array] | None
    accumulated: Any


class _Array:
    """Stands where a margin holds an array."""


_ARRAY = _Array()


@dataclasses.dataclass(frozen=True)
class Head:
    """The part of a loss that JAX does not trace; it is hashable.

    Attributes:
      structure: the margin's tree.
      constants: the margin's leaves; a mark in place of those that are arrays.
      num_classes: rows from here on are no classes.
      class_block: classes that are looked at together; None: all of a shard.
      dtype: what is computed in.
    """

    structure: Any
    constants: tuple[Any, ...]
    num_classes: int
    class_block: int | None
    dtype: Any

    def margin(self, numbers: list[Array]) -> Margin:
        """Puts the arrays back into the margin."""
        arrays: Iterator[Array] = iter(numbers)
        leaves = [next(arrays) if leaf is _ARRAY else leaf for leaf in self.constants]
        return jax.tree.unflatten(self.structure, leaves)


def split_margin(
    margin: Margin, *, num_classes: int, class_block: int | None, dtype: Any
) -> tuple[Head, list[Array]]:
    """Separates what JAX traces in a margin, which may have a gradient, from what it does not.

    Args:
      margin: the margin.
      num_classes: rows of prototypes from here on are no classes.
      class_block: classes that are looked at together; None: all of a shard.
      dtype: what is computed in.

    Returns:
      The head, and the arrays that `Head.margin` takes.
    """
    leaves, structure = jax.tree.flatten(margin)
    is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    pairs = list(zip(leaves, is_array, strict=True))
    constants = tuple(_ARRAY if array else leaf for leaf, array in pairs)
    numbers = [jnp.asarray(leaf, dtype) for leaf, array in pairs if array]
    return Head(structure, constants, num_classes, class_block, dtype), numbers


def as_inputs(
    numbers: list[Array],
    embeddings: Array,
    prototypes: Array,
    state: Any,
    bias: Array | None,
    dtype: Any,
) -> Inputs:
    """The inputs of a head as arrays, with one bias a class where there is any."""
    if bias is not None:
        bias = jnp.broadcast_to(jnp.asarray(bias, dtype), prototypes.shape[:1])
    embeddings, prototypes, state = jax.tree.map(jnp.asarray, (embeddings, prototypes, state))
    return Inputs(numbers, embeddings, prototypes, state, bias)


class Targets(NamedTuple):
    """The examples' own classes, as far as they are on this shard.

    Attributes:
      row: row of an example's class [B]; some row where it is on another shard.
      is_here: whether it is on this shard [B].
      prototypes: its prototype [B, D]; zero where it is on another shard.
    """

    row: Array
    is_here: Array
    prototypes: Array

    def here(self, values: Array) -> Array:
        """The values of the examples whose class is on this shard, zero for the others."""
        is_here = self.is_here.reshape(-1, *(1,) * (values.ndim - 1))
        return jnp.where(is_here, values, 0)


class Block(NamedTuple):
    """A block of classes.

    Attributes:
      start: its first row.
      end: the row after the last that counts; the rows from there on are the next block's too.
    """

    start: Array
    end: Array


class Walk:
    """The blocks of a shard's classes, one after another.

    Args:
      head: the loss.
      inputs: this shard's part of them.
      labels: this shard's part of them [B].
      shard: where it stands.
    """

    def __init__(self, head: Head, inputs: Inputs, labels: Array, shard: Shard):
        self.head = head
        self.inputs = inputs
        self.embeddings = inputs.embeddings.astype(head.dtype)
        self.rows = inputs.prototypes.shape[0]
        self.size = min(head.class_block or self.rows, self.rows)
        self.first_class = shard.first_class(self.rows)
        self.targets = self._find(labels - self.first_class)

    def _find(self, row: Array) -> Targets:
        is_here = (row >= 0) & (row < self.rows)
        row = jnp.clip(row, 0, self.rows - 1)
        prototypes = self.inputs.prototypes[row].astype(self.head.dtype)
        targets = Targets(row, is_here, prototypes)
        return targets._replace(prototypes=targets.here(prototypes))

    def blocks(self) -> Block:
        """All blocks, stacked."""
        starts = jnp.arange(0, self.rows, self.size, dtype=jnp.int32)
        starts = jnp.minimum(starts, self.rows - self.size)
        return Block(starts, jnp.append(starts[1:], self.rows))

    def prototypes(self, block: Block) -> Array:
        """A block's prototypes [c, D], in the dtype that is computed in."""
        bits = jax.lax.dynamic_slice_in_dim(to_bits(self.inputs.prototypes), block.start, self.size)
        return from_bits(bits, self.inputs.prototypes.dtype).astype(self.head.dtype)

    def bias(self, block: Block) -> Array | None:
        """A block's bias [c]."""
        if self.inputs.bias is None:
            return None
        return jax.lax.dynamic_slice_in_dim(self.inputs.bias, block.start, self.size)

    def logits(
        self,
        numbers: list[Array],
        embeddings: Array,
        examples: Examples,
        prototypes: Array,
        bias: Array | None,
    ) -> Array:
        """Logits [B, c] of a block, as if none of its classes were a target."""
        margin = self.head.margin(numbers)
        logits = score_others(margin, examples, similarities(margin, embeddings, prototypes))
        return logits if bias is None else logits + bias

    def others(self, logits: Array, block: Block) -> Array:
        """A block's logits, −∞ for targets, for what is no class and for the next block's."""
        ids = block.start + jnp.arange(self.size)
        is_left_out = (ids >= block.end) | (ids + self.first_class >= self.head.num_classes)
        is_target = (ids == self.targets.row[:, None]) & self.targets.is_here[:, None]
        return jnp.where(is_target | is_left_out, -jnp.inf, logits)


def to_bits(values: Array) -> Array:
    """16-bit floats as integers: XLA's CPU backend would slice a float32 copy of the whole."""
    is_short = jnp.issubdtype(values.dtype, jnp.floating) and values.dtype.itemsize == 2
    return jax.lax.bitcast_convert_type(values, jnp.uint16) if is_short else values


def from_bits(bits: Array, dtype: Any) -> Array:
    """The floats of `to_bits`."""
    return bits if bits.dtype == dtype else jax.lax.bitcast_convert_type(bits, dtype)


def score(
    head: Head,
    seen: tuple[Array, Array] | None,
    numbers: list[Array],
    embeddings: Array,
    target_prototypes: Array,
    cosine_y: Array,
    state: Any,
) -> Examples:
    """The examples' quantities, with the state that follows the whole batch."""
    margin = head.margin(numbers)
    if seen is not None:
        state = updated_state(margin, *seen, state)
    return score_targets(margin, embeddings, target_prototypes, cosine_y, state)


def finish(
    head: Head, accumulated: Any, numbers: list[Array], logit: Array, bias_y: Array | None
) -> Array:
    """The losses [B] from the target's logit, without what a regularizer adds."""
    margin = head.margin(numbers)
    if bias_y is not None:
        logit = logit + bias_y
    return margin.weight * margin.reduction.finish(accumulated, logit)


def whole_batch(
    shard: Shard, norms: Array, target_prototypes: Array, labels: Array
) -> tuple[Array, Array, Array]:
    """What a regularizer looks at."""
    return shard.batch((norms, shard.total_over_classes(target_prototypes), labels))


def forward(
    head: Head, inputs: Inputs, labels: Array, shard: Shard
) -> tuple[tuple[Array, Any], Residuals]:
    """The loss of a shard's examples.

    Args:
      head: the loss.
      inputs: the shard's part of them.
      labels: the shard's part of them [B].
      shard: where it stands.

    Returns:
      The losses [B] with the state, updated, and what `gradient.backward` needs.
    """
    walk, margin = Walk(head, inputs, labels, shard), head.margin(inputs.numbers)
    targets, embeddings, norms = walk.targets, walk.embeddings, safe_norm(walk.embeddings)
    cosine_y = targets.here(own_similarities(margin, embeddings, targets.prototypes))
    bias_y = None if inputs.bias is None else targets.here(inputs.bias[targets.row])
    cosine_y, bias_y = shard.total_over_classes((cosine_y, bias_y))
    seen = None if margin.update is None else shard.batch((cosine_y, norms))
    examples = score(
        head, seen, inputs.numbers, embeddings, targets.prototypes, cosine_y, inputs.state
    )
    accumulated = _accumulate(walk, examples)
    accumulated = margin.reduction.merge(
        accumulated, shard.maximum_over_classes, shard.total_over_classes
    )
    losses = finish(head, accumulated, inputs.numbers, examples.logit, bias_y)
    if margin.regularizer is not None:
        batch = whole_batch(shard, norms, targets.prototypes, labels)
        losses += shard.part(regularization(margin, *batch), labels.size)
    return (losses, examples.state), Residuals(cosine_y, bias_y, seen, accumulated)


def _accumulate(walk: Walk, examples: Examples) -> Any:
    """The reduction over the shard's other classes."""
    numbers, embeddings = walk.inputs.numbers, walk.embeddings
    reduction = walk.head.margin(numbers).reduction

    def visit(running: Any, block: Block) -> tuple[Any, None]:
        rows, bias = walk.prototypes(block), walk.bias(block)
        logits = walk.logits(numbers, embeddings, examples, rows, bias)
        part = reduction.accumulate(walk.others(logits, block))
        both = jax.tree.map(lambda *values: jnp.stack(values), running, part)
        return reduction.merge(
            both, lambda v: jnp.max(v, axis=0), lambda v: jnp.sum(v, axis=0)
        ), None

    nothing = reduction.accumulate(jnp.zeros((embeddings.shape[0], 0), embeddings.dtype))
    return jax.lax.scan(visit, nothing, walk.blocks())[0]
