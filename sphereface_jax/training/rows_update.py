"""The update of prototypes on a mesh, where they lie and a few rows at a time.

Devices along "data" hold the same prototypes and each its own part of the gradient. Their sum as
one collective is an array beside the gradient, and what the updated rows are gathered into another
beside the prototypes. Here a few rows at a time are summed onto the device that updates them
(`jax.lax.psum_scatter`) and written over the gradient, updated, gathered, and written over the
prototypes: a step holds the gradient and nothing else of that size. As many bytes are sent.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from sphereface_jax.training.state import ROWS_OF_A_TILE

BYTES = 2**25
"""The most that devices exchange at once."""

UpdateRows = Callable[[jax.Array, Any, jax.Array], tuple[jax.Array, Any]]
"""(gradient, what the optimiser keeps, rows) -> (rows, what the optimiser keeps)."""


def unsummed_gradient(mesh: Mesh, prototypes: jax.Array) -> jax.Array:
    """Zeros in the shape of every device's own gradient [data, C, D]; nothing is allocated.

    Args:
      mesh: with axes "data" and "model".
      prototypes: [C, D].

    Returns:
      The zeros, sharded over both.
    """
    zeros = jnp.zeros((mesh.shape["data"], *prototypes.shape), prototypes.dtype)
    return jax.lax.with_sharding_constraint(zeros, NamedSharding(mesh, P("data", "model")))


def add_summed(unsummed: jax.Array, summed: jax.Array) -> jax.Array:
    """Adds a gradient that is summed already to the part of the first device along "data".

    Args:
      unsummed: [data, C, D].
      summed: [C, D].

    Returns:
      The sum [data, C, D].
    """
    first = jnp.arange(unsummed.shape[0]) == 0
    return unsummed + jnp.where(first[:, None, None], summed[None], 0)


def update_in_place(
    prototypes: jax.Array,
    unsummed: jax.Array,
    opt_state: Any,
    *,
    update_rows: UpdateRows,
    other_norm: jax.Array,
    clip_norm: float | None,
    mesh: Mesh,
) -> tuple[jax.Array, Any, jax.Array]:
    """Sums the gradient of prototypes, takes its norm, and updates them.

    Args:
      prototypes: [C, D], sharded over "model"; on every device as many whole tiles of rows.
      unsummed: every device's own gradient [data, C, D].
      opt_state: what the optimiser keeps for them; rows of it are sharded over both axes.
      update_rows: the optimiser, which treats each row by itself.
      other_norm: of the gradient of all else [].
      clip_norm: the largest norm of both gradients together; None: any.
      mesh: with axes "data" and "model".

    Returns:
      Prototypes, what the optimiser keeps, and the norm of both gradients.
    """
    shape, data = prototypes.shape, mesh.shape["data"]
    held = shape[0] // mesh.shape["model"]  # rows of a device's prototypes
    own = held // data  # that it updates

    def of_rows(leaf: jax.Array) -> bool:
        return jnp.shape(leaf) == shape

    is_rows = jax.tree.map(of_rows, opt_state)
    where = jax.tree.map(lambda whole: P(("model", "data")) if whole else P(), is_rows)
    a_row = prototypes.dtype.itemsize * shape[1]
    pieces = -(-own // max(BYTES // (a_row * data), ROWS_OF_A_TILE))
    size = min(-(-own // (ROWS_OF_A_TILE * pieces)) * ROWS_OF_A_TILE, own)
    starts = jnp.arange(0, own, size)

    def update(
        prototypes: jax.Array, gradient: jax.Array, opt_state: Any, other_norm: jax.Array
    ) -> tuple[jax.Array, Any, jax.Array]:
        me = jax.lax.axis_index("data")

        def place(start: jax.Array) -> tuple[jax.Array, jax.Array]:
            """Where some rows begin, and which were not done before: the last reach back."""
            begin = jnp.minimum(start, own - size)
            fresh = begin + jnp.arange(size) >= start
            return begin, fresh[:, None]

        def take(values: jax.Array, begin: jax.Array, axis: int = 0) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(values, begin, size, axis)

        def rows_of(values: jax.Array, part: jax.Array | int, begin: jax.Array) -> jax.Array:
            """Some rows of a part; a slice of the part alone would be a copy of it."""
            return jax.lax.dynamic_slice(values, (part, begin, 0), (1, size, shape[1]))[0]

        def put(values: jax.Array, rows: jax.Array, begin: jax.Array, axis: int = 0) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(values, rows, begin, axis)

        def add_up(gradient: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
            begin, fresh = place(start)
            rows = take(gradient, begin, 1)
            added = jax.lax.psum_scatter(rows, "data", scatter_dimension=0)
            added = jnp.where(fresh, added, rows[0])
            square = jnp.sum(jnp.square(jnp.where(fresh, added, 0)))
            return put(gradient, added[None], begin, 1), square

        gradient = gradient.reshape(data, own, shape[1])
        gradient, squares = jax.lax.scan(add_up, gradient, starts)
        square = jax.lax.psum(jnp.sum(squares), ("data", "model"))
        norm = jnp.sqrt(square + other_norm**2)
        factor = 1.0 if clip_norm is None else jnp.minimum(1.0, clip_norm / norm)

        def visit(carry: tuple[jax.Array, Any], start: jax.Array) -> tuple[Any, None]:
            prototypes, kept = carry
            begin, fresh = place(start)
            rows = rows_of(prototypes, me, begin)
            # What is not of rows, as a count of steps, moves on once however many pieces there are.
            before = jax.tree.map(
                lambda whole, values, first: take(values, begin) if whole else first,
                is_rows,
                kept,
                opt_state,
            )
            by = rows_of(gradient, 0, begin) * factor
            after, found = update_rows(by, before, rows)
            after = jnp.where(fresh, after, rows)
            kept = jax.tree.map(
                lambda whole, values, new, old: (
                    put(values, jnp.where(fresh, new, old), begin) if whole else new
                ),
                is_rows,
                kept,
                found,
                before,
            )
            return (put(prototypes, jax.lax.all_gather(after, "data"), begin, 1), kept), None

        start = prototypes.reshape(data, own, shape[1]), opt_state
        (prototypes, opt_state), _ = jax.lax.scan(visit, start, starts)
        return prototypes.reshape(held, shape[1]), opt_state, norm

    return jax.shard_map(
        update,
        mesh=mesh,
        in_specs=(P("model"), P("data", "model"), where, P()),
        out_specs=(P("model"), where, P()),
        check_vma=False,  # JAX does not know that what is gathered is the same everywhere
    )(prototypes, unsummed, opt_state, other_norm)
