"""The blockwise head: the dense head's loss, one block of classes at a time, on any mesh.

The logits of a million classes for 512 embeddings are 2 GB, and a softmax holds several of them.
This head scans over blocks of `class_block` prototypes and holds one block of logits;
`jax.checkpoint` computes a block again for the gradient, which JAX derives. The last block reaches
back where the classes are not a multiple of a block, and the rows that it shares are masked in the
block before it, so no prototypes are padded or copied.

On a mesh the same scan runs in `jax.shard_map`: prototypes are sharded over the axis "model",
embeddings over "data", and no prototype moves. The sum of the target's similarity, a maximum and a
sum per example travel over "model", with the embeddings' gradient; the prototypes' gradient over
"data", as in any data-parallel training, or it stays where it arose (`gradient_unsummed`).
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sphereface_jax import _checks
from sphereface_jax.geometry import safe_norm
from sphereface_jax.heads.scoring import (
    Margin,
    Settings,
    as_dtype,
    head_dtype,
    is_array,
    other_logits,
    own_similarities,
    similarities,
    target_logit,
)

Array = jax.Array
AnyMesh = Mesh | AbstractMesh

CLASSES, EXAMPLES = "model", "data"


class Axes(NamedTuple):
    """Mesh axes that classes and examples are sharded over; None: they are all here."""

    classes: str | None = None
    examples: str | None = None


class _Static(NamedTuple):
    """What the head is compiled for: the settings' tree with its Python values, and sizes."""

    margin: Margin
    structure: Any
    constants: tuple[Any, ...]
    num_classes: int
    class_block: int | None
    axes: Axes
    mesh: AnyMesh | None


class _Operands(NamedTuple):
    """What the head is given."""

    arrays: list[Array]
    embeddings: Array
    prototypes: Array
    labels: Array
    class_bias: Array | None
    unsummed: Array | None


_UNSUMMED: ContextVar[Array | None] = ContextVar("unsummed", default=None)


@contextlib.contextmanager
def gradient_unsummed(like: Array) -> Iterator[None]:
    """Leaves the gradient of prototypes unsummed over "data", as the gradient of another array.

    The sum of a gradient is an array of its own beside it. Who differentiates the losses computed
    in this context by `like` gets every device's own part of the gradient by the prototypes, and
    can sum it as it likes.

    Args:
      like: [data, C, D], of any values, sharded over "data" and "model" in its first two
        dimensions; C is a multiple of the axis "model".
    """
    token = _UNSUMMED.set(like)
    try:
        yield
    finally:
        _UNSUMMED.reset(token)


@jax.custom_vjp
def _collect(prototypes: Array, unsummed: Array) -> Array:
    """Returns a shard's prototypes, whose gradient becomes that of its part of `unsummed`."""
    del unsummed
    return prototypes


def _collect_forward(prototypes: Array, unsummed: Array) -> tuple[Array, None]:
    return _collect(prototypes, unsummed), None


def _collect_backward(_: None, gradient: Array) -> tuple[None, Array]:
    return None, gradient[None]


_collect.defvjp(_collect_forward, _collect_backward)


def blockwise_loss(
    margin: Margin,
    settings: Settings,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    class_bias: Array | None,
    *,
    num_classes: int,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Any:
    """Loss of a margin, a block of classes at a time.

    Args:
      margin: the margin.
      settings: its numbers; arrays [B] are sharded over "data".
      embeddings: [B, D], sharded over "data"; B is a multiple of that axis.
      prototypes: [C, D], or [C, K, D] with sub-centres, sharded over "model". Where C is not a
        multiple of that axis they are padded, which costs a copy.
      labels: [B], from 0 to C − 1, sharded over "data".
      class_bias: added to the logits of each class [C], sharded over "model", or None.
      num_classes: rows of prototypes from here on are not classes and never take part.
      class_block: classes per block; None: all that a device has.
      mesh: has the axis "model", "data", or both; None: a single device.

    Returns:
      What the reduction makes of the logits: losses [B], sharded over "data".

    Raises:
      ValueError: if the mesh has neither axis, or the batch is not divisible by "data".
    """
    settings = as_dtype(settings, head_dtype(embeddings, prototypes))
    leaves, structure = jax.tree.flatten(settings)
    constants = tuple(None if is_array(leaf) else leaf for leaf in leaves)
    operands = _Operands(
        [leaf for leaf in leaves if is_array(leaf)],
        embeddings,
        prototypes,
        labels,
        class_bias,
        _UNSUMMED.get(),
    )
    axes = Axes()
    if mesh is not None:
        operands, axes = _lay_out(operands, mesh)
    static = _Static(margin, structure, constants, num_classes, class_block, axes, mesh)
    return _blockwise(static, operands)


def context_mesh() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`, if it has an axis "model" that is not in use by a shard_map."""
    mesh = jax.sharding.get_abstract_mesh()
    if CLASSES not in mesh.axis_names or AxisType.Manual in mesh.axis_types:
        return None
    return mesh


def _lay_out(operands: _Operands, mesh: AnyMesh) -> tuple[_Operands, Axes]:
    """Pads the classes to the mesh, and places the arrays where the mesh's axes are explicit."""
    sizes = dict(zip(mesh.axis_names, mesh.axis_sizes, strict=True))
    is_known = bool(sizes.keys() & {CLASSES, EXAMPLES})
    _checks.require(is_known, "mesh", f"an axis {CLASSES!r} or {EXAMPLES!r}", f"{sizes}")
    parts, batch = sizes.get(EXAMPLES, 1), operands.embeddings.shape[0]
    if batch % parts:
        raise ValueError(
            f"embeddings: batch size {batch} is not divisible by the {parts} devices on mesh axis "
            f"{EXAMPLES!r}"
        )
    missing = -operands.prototypes.shape[0] % sizes.get(CLASSES, 1)
    if missing:
        bias = operands.class_bias
        operands = operands._replace(
            prototypes=_pad(operands.prototypes, missing),
            class_bias=None if bias is None else _pad(bias, missing),
        )
    # What is on one device needs no collective.
    axes = Axes(*(name if sizes.get(name, 1) > 1 else None for name in (CLASSES, EXAMPLES)))
    if AxisType.Explicit in mesh.axis_types:  # there, nothing moves unasked
        operands = jax.tree.map(
            lambda leaf, spec: jax.reshard(leaf, NamedSharding(mesh, spec)),
            operands,
            _specs(operands, axes),
        )
    return operands, axes


def _pad(values: Array, rows: int) -> Array:
    return jnp.pad(values, [(0, rows)] + [(0, 0)] * (values.ndim - 1))


def _specs(operands: _Operands, axes: Axes) -> _Operands:
    classes, examples = P(axes.classes), P(axes.examples)
    return _Operands(
        [examples if leaf.ndim else P() for leaf in operands.arrays],  # type: ignore[misc]
        examples,  # type: ignore[arg-type]
        classes,  # type: ignore[arg-type]
        examples,  # type: ignore[arg-type]
        None if operands.class_bias is None else classes,  # type: ignore[arg-type]
        P(EXAMPLES, axes.classes) if operands.unsummed is not None else None,  # type: ignore[arg-type]
    )


def _blockwise_loss(static: _Static, operands: _Operands) -> Any:
    def loss_of_shard(operands: _Operands) -> Any:
        return _loss_of_shard(static, operands)

    if static.mesh is None:
        return loss_of_shard(operands)
    return jax.shard_map(
        loss_of_shard,
        mesh=static.mesh,
        in_specs=(_specs(operands, static.axes),),
        out_specs=P(static.axes.examples),
    )(operands)


_blockwise = jax.jit(_blockwise_loss, static_argnums=0)


def _vary(tree: Any, axes: set[str]) -> Any:
    """Marks arrays as different on every device of the axes, where they are not yet.

    The gradient of an array is summed over the devices here, once; where JAX marks it by itself,
    inside the scan, each block would be summed by itself.
    """

    def vary(leaf: Array) -> Array:
        missing = tuple(sorted(axes - _varying(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, tree)


def _varying(tree: Any) -> set[str]:
    """The axes of enclosing shard_maps that some array differs along."""
    types = map(jax.typeof, jax.tree.leaves(tree))
    # `vma` of older releases is `mat.varying` in newer ones.
    return set().union(*(t.mat.varying if hasattr(t, "mat") else t.vma for t in types))


def _loss_of_shard(static: _Static, operands: _Operands) -> Any:
    """The loss of a shard's examples, given its part of the operands."""
    margin, axes = static.margin, static.axes
    unsummed = operands.unsummed
    everywhere = _varying(operands)
    per_example = everywhere - {axes.classes}
    operands = _Operands(
        _vary(operands.arrays, per_example),
        _vary(operands.embeddings, per_example),
        _vary(operands.prototypes, everywhere),
        _vary(operands.labels, per_example),
        _vary(operands.class_bias, everywhere),
        None,
    )
    if unsummed is not None:
        collected = _collect(operands.prototypes, _vary(unsummed, everywhere))
        operands = operands._replace(prototypes=collected)
    dtype = head_dtype(operands.embeddings, operands.prototypes)
    embeddings, rows = operands.embeddings.astype(dtype), operands.prototypes.shape[0]
    settings = _join(static, operands.arrays)

    def total(values: Any) -> Any:
        return values if axes.classes is None else jax.lax.psum(values, axes.classes)

    def maximum(values: Array) -> Array:
        return values if axes.classes is None else jax.lax.pmax(values, axes.classes)

    first = 0 if axes.classes is None else jax.lax.axis_index(axes.classes) * rows
    row = operands.labels - first
    is_here = (row >= 0) & (row < rows)
    row = jnp.clip(row, 0, rows - 1)
    everyone = _vary(embeddings, everywhere)
    own = _rows(operands.prototypes, row).astype(dtype)
    cosines = [own_similarities(margin, everyone, own)]
    if callable(margin.gradient):
        cosines.append(own_similarities(margin, everyone, jax.lax.stop_gradient(own)))
    cosine_y, *cosine_by_x = total(jnp.where(is_here[None], jnp.stack(cosines), 0))
    target = target_logit(margin, settings, embeddings, cosine_y, next(iter(cosine_by_x), None))
    if operands.class_bias is not None:
        target += total(jnp.where(is_here, operands.class_bias.astype(dtype)[row], 0))

    others = _Others(
        margin=margin,
        settings=_join(static, _vary(operands.arrays, everywhere)),
        embeddings=everyone,
        norms=safe_norm(everyone) if settings.scale is None else None,
        cosine_y=None if margin.negatives is None else _vary(cosine_y, everywhere),
        target_row=jnp.where(is_here, row, -1),
        first=first,
        num_classes=static.num_classes,
    )
    accumulated = _scan_blocks(others, operands, static.class_block, everywhere)
    accumulated = settings.reduction.merge(accumulated, maximum, total)
    return settings.reduction.finish(accumulated, target)


def _rows(prototypes: Array, row: Array) -> Array:
    """Prototypes of classes, [B, D] or [B, K, D].

    A TPU holds [C, K, D] with K outermost, but scatters the gradient of `prototypes[row]` in
    another layout, which costs four copies of the prototypes; rows of sub-centres cost one.
    """
    if prototypes.ndim == 2:
        return prototypes[row]

    def as_rows(prototypes: Array, row: Array) -> Array:
        classes, centers, dim = prototypes.shape
        first = classes * jnp.arange(centers)
        return prototypes.transpose(1, 0, 2).reshape(-1, dim)[row[:, None] + first]

    return jax.lax.platform_dependent(
        prototypes, row, tpu=as_rows, default=lambda prototypes, row: prototypes[row]
    )


def _join(static: _Static, arrays: list[Array]) -> Settings:
    """The settings with their arrays in place."""
    rest = iter(arrays)
    leaves = [next(rest) if leaf is None else leaf for leaf in static.constants]
    return jax.tree.unflatten(static.structure, leaves)


class _Others(NamedTuple):
    """What each block of classes needs to know of a shard's examples."""

    margin: Margin
    settings: Settings
    embeddings: Array
    norms: Array | None
    cosine_y: Array | None
    target_row: Array
    first: Array | int
    num_classes: int

    def accumulate(
        self, prototypes: Array, bias: Array | None, start: Array | int, end: Array | int
    ) -> Any:
        """Reduces over a block of prototypes [c, D], of which rows `start` to `end` count."""
        similarity = similarities(self.margin, self.embeddings, prototypes)
        logits = other_logits(self.margin, self.settings, self.norms, self.cosine_y, similarity)
        if bias is not None:
            logits += bias[None]
        row = start + jnp.arange(prototypes.shape[0])
        is_in = (row < end) & (row + self.first < self.num_classes)
        is_target = row[None] == self.target_row[:, None]
        logits = jnp.where(is_in[None] & ~is_target, logits, -jnp.inf)
        return self.settings.reduction.accumulate(logits, row + self.first)


def _scan_blocks(
    others: _Others, operands: _Operands, class_block: int | None, varying: set[str]
) -> Any:
    """Reduces over all other classes of the shard, a block at a time."""
    prototypes, bias = operands.prototypes, operands.class_bias
    rows, dtype = prototypes.shape[0], others.embeddings.dtype
    size = min(class_block or rows, rows)
    if size == rows:
        bias = None if bias is None else bias.astype(dtype)
        return others.accumulate(prototypes.astype(dtype), bias, 0, rows)
    starts = jnp.minimum(jnp.arange(0, rows, size), rows - size)
    ends = jnp.append(starts[1:], rows)

    @jax.checkpoint
    def visit(running: Any, block: tuple[Array, Array]) -> tuple[Any, None]:
        start, end = block
        part = others.accumulate(
            jax.lax.dynamic_slice_in_dim(prototypes, start, size).astype(dtype),
            None if bias is None else jax.lax.dynamic_slice_in_dim(bias, start, size).astype(dtype),
            start,
            end,
        )
        both = jax.tree.map(lambda *values: jnp.stack(values), running, part)
        merged = others.settings.reduction.merge(
            both,
            lambda values: jnp.max(values, axis=0, keepdims=True),
            lambda values: jnp.sum(values, axis=0, keepdims=True),
        )
        return jax.tree.map(lambda values: values[0], merged), None

    nothing = jnp.full((others.embeddings.shape[0], 1), -jnp.inf, dtype)
    start = others.settings.reduction.accumulate(nothing, jnp.full(1, -1, starts.dtype))
    return jax.lax.scan(visit, _vary(start, varying), (starts, ends))[0]


def target_prototypes(prototypes: Array, labels: Array, mesh: AnyMesh | None) -> Array:
    """The prototype of each example's class, whole on every device.

    On a mesh one sum of [B, D] travels over "model", and nothing for the gradient.

    Args:
      prototypes: [C, D], or [C, K, D] with sub-centres.
      labels: [B], integers; those outside 0 to C − 1 count as the nearest within.
      mesh: the devices; None: one.

    Returns:
      Rows [B, D] or [B, K, D], in the order of the labels.
    """
    rows = prototypes.shape[0]
    labels = jnp.clip(replicate(labels, mesh), 0, rows - 1)
    if (
        mesh is None
        or dict(zip(mesh.axis_names, mesh.axis_sizes, strict=True)).get(CLASSES, 1) == 1
    ):
        return replicate(prototypes, mesh)[labels]

    def take(prototypes: Array, labels: Array) -> Array:
        held = prototypes.shape[0]
        row = labels - jax.lax.axis_index(CLASSES) * held
        is_here = ((row >= 0) & (row < held)).reshape(-1, *(1,) * (prototypes.ndim - 1))
        found = prototypes[jnp.clip(row, 0, held - 1)]
        return jax.lax.psum(jnp.where(is_here, found, 0), CLASSES)

    padded = _pad(prototypes, -rows % mesh.shape[CLASSES])
    if AxisType.Explicit in mesh.axis_types:
        padded = jax.reshard(padded, NamedSharding(mesh, P(CLASSES)))
    return jax.shard_map(take, mesh=mesh, in_specs=(P(CLASSES), P()), out_specs=P())(padded, labels)


def replicate(tree: Any, mesh: AnyMesh | None) -> Any:
    """The whole batch on every device.

    Args:
      tree: arrays of any shape.
      mesh: the devices; None: nothing moves.

    Returns:
      The tree, every array whole on every device of the mesh.
    """
    if mesh is None:
        return tree
    place = (
        jax.reshard if AxisType.Explicit in mesh.axis_types else jax.lax.with_sharding_constraint
    )
    return jax.tree.map(lambda leaf: place(leaf, NamedSharding(mesh, P())), tree)
