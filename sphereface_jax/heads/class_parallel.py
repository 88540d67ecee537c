"""The class-parallel head: prototypes cut along one mesh axis, the batch along another.

Every device streams its own classes for its own examples; no prototype moves. Over the axis
"model" travel the target's similarity, a maximum and a sum an example, and the embeddings'
gradient; over "data" the prototypes' gradient, as in any data-parallel training. A loss whose state
or regularizer looks at the whole batch gathers that besides.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sphereface_jax import _checks
from sphereface_jax.heads.blocks import Head, Inputs, Residuals, as_inputs, forward, split_margin
from sphereface_jax.heads.engine import Margin, head_dtype
from sphereface_jax.heads.gradient import backward
from sphereface_jax.heads.shard import Shard

Array = jax.Array
AnyMesh = Mesh | AbstractMesh

CLASSES, EXAMPLES = "model", "data"


def context_mesh() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`, if it has an axis "model" that is not in use by a shard_map."""
    mesh = jax.sharding.get_abstract_mesh()
    if CLASSES not in mesh.axis_names or AxisType.Manual in mesh.axis_types:
        return None
    return mesh


def class_parallel_loss(
    margin: Margin,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    mesh: AnyMesh,
    num_classes: int,
    class_block: int | None = None,
    state: Any = None,
    bias: Array | None = None,
) -> tuple[Array, Any]:
    """Loss of a margin over a mesh; it has no forward derivative.

    Args:
      margin: the margin.
      embeddings: [B, D], cut along "data"; B is a multiple of that axis.
      prototypes: [C, D], or [C, K, D] with sub-centres, cut along "model". Where C is no multiple
        of that axis, they are padded, which costs a copy.
      labels: [B], cut along "data".
      mesh: has the axis "model", "data", or both.
      num_classes: rows of prototypes from here on are no classes; they never take part.
      class_block: classes that a device looks at together; None: all of its own.
      state: what the loss carries through training.
      bias: added to the logits, [C] or a scalar.

    Returns:
      Losses [B], cut along "data", and the state, updated.

    Raises:
      ValueError: if the mesh has neither axis or cannot cut the batch evenly.
    """
    axes = dict(zip(mesh.axis_names, mesh.axis_sizes, strict=True))
    is_known = bool(axes.keys() & {CLASSES, EXAMPLES})
    _checks.require(is_known, "mesh", f"an axis {CLASSES!r} or {EXAMPLES!r}", f"{axes}")
    shards, batch = axes.get(EXAMPLES, 1), embeddings.shape[0]
    expected = f"a batch that {shards} devices along {EXAMPLES!r} can share evenly"
    _checks.require(batch % shards == 0, "embeddings", expected, f"{batch} of them")
    dtype = head_dtype(embeddings, prototypes)
    head, numbers = split_margin(
        margin, num_classes=num_classes, class_block=class_block, dtype=dtype
    )
    inputs = as_inputs(numbers, embeddings, prototypes, state, bias, dtype)
    missing = -prototypes.shape[0] % axes.get(CLASSES, 1)
    if missing:
        inputs = inputs._replace(
            prototypes=_pad(inputs.prototypes, missing),
            bias=None if inputs.bias is None else _pad(inputs.bias, missing),
        )
    placed = _Layout(mesh).place(inputs, jnp.asarray(labels, jnp.int32))
    return _compiled_loss(head, mesh, *placed)


def _pad(values: Array, rows: int) -> Array:
    return jnp.pad(values, [(0, rows)] + [(0, 0)] * (values.ndim - 1))


class _Layout:
    """How a mesh cuts what the walks take and return."""

    def __init__(self, mesh: AnyMesh):
        sizes = dict(zip(mesh.axis_names, mesh.axis_sizes, strict=True))
        # What is on one device needs no collective.
        cut = [name if sizes.get(name, 1) > 1 else None for name in (CLASSES, EXAMPLES)]
        classes, examples = cut
        self.mesh = mesh
        self.shard = Shard(classes, examples)
        self.examples = P(examples)
        self.inputs = Inputs(P(), P(examples), P(classes), P(), P(classes))  # type: ignore[arg-type]
        self.results = P(examples), P()
        self.residuals = Residuals(P(examples), P(examples), P(), P(examples))  # type: ignore[arg-type]

    def map(self, function: Any, in_specs: Any, out_specs: Any) -> Any:
        """Runs a function on every device, with the shard that the device is."""
        return jax.shard_map(
            functools.partial(function, shard=self.shard),
            mesh=self.mesh,
            in_specs=in_specs,
            out_specs=out_specs,
            check_vma=False,
        )

    def place(self, inputs: Inputs, labels: Array) -> tuple[Inputs, Array]:
        """Cuts the arrays where the mesh's axes are explicit: there, nothing moves unasked."""
        if AxisType.Explicit not in self.mesh.axis_types:
            return inputs, labels

        def place(spec: P, part: Any) -> Any:
            return jax.reshard(part, jax.tree.map(lambda _: NamedSharding(self.mesh, spec), part))

        specs = (self.inputs, self.examples)
        return jax.tree.map(place, specs, (inputs, labels), is_leaf=lambda x: isinstance(x, P))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _loss(head: Head, mesh: AnyMesh, inputs: Inputs, labels: Array) -> tuple[Array, Any]:
    return _loss_forward(head, mesh, inputs, labels)[0]


def _loss_forward(
    head: Head, mesh: AnyMesh, inputs: Inputs, labels: Array
) -> tuple[tuple[Array, Any], Any]:
    layout = _Layout(mesh)
    walk = layout.map(
        functools.partial(forward, head),
        (layout.inputs, layout.examples),
        (layout.results, layout.residuals),
    )
    results, residuals = walk(inputs, labels)
    return results, (inputs, labels, residuals)


def _loss_backward(
    head: Head,
    mesh: AnyMesh,
    saved: tuple[Inputs, Array, Residuals],
    cotangents: tuple[Array, Any],
) -> tuple[Inputs, None]:
    layout = _Layout(mesh)
    walk = layout.map(
        functools.partial(backward, head),
        (layout.inputs, layout.examples, layout.residuals, layout.results),
        layout.inputs,
    )
    return walk(*saved, cotangents), None


_loss.defvjp(_loss_forward, _loss_backward)
_compiled_loss = jax.jit(_loss, static_argnums=(0, 1))
