"""Heads alone, compiled for devices that are not here: what test_compiled_programs.py looks at."""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sphereface_jax.compilation import compiler_options
from sphereface_jax.plan.program import Collective, find_collectives, instructions
from sphereface_jax.training.config import LossConfig, MeshConfig
from sphereface_jax.training.distributed import make_mesh
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.partial_fc import make_sampler

CLASSES, DIM, BATCH, BLOCK = 65_536, 512, 256, 4096
WAYS = {
    "dense": (1, None, 1.0),
    "blocks": (1, BLOCK, 1.0),
    "class-parallel": (4, BLOCK, 1.0),
    "sampled": (4, BLOCK, 0.1),
}
"""Devices that share the classes, classes a block, and the sampled share."""


class Head(NamedTuple):
    """A compiled gradient of a loss by embeddings and prototypes.

    Attributes:
      text: of its program.
      temporaries: bytes of a device beyond what goes in and comes out.
      shard: bytes of prototypes on a device.
      mesh: sizes of its axes.
    """

    text: str
    temporaries: int
    shard: int
    mesh: dict[str, int]


def compile_head(name: str, way: str, devices: Sequence[jax.Device]) -> Head:
    """Compiles the gradient of a loss, held in one of `WAYS`."""
    model, block, rate = WAYS[way]
    mesh = make_mesh(MeshConfig(model=model), batch_size=BATCH, target=devices)
    objective = Objective(
        LossConfig(name, class_block=block, sample_rate=rate),
        CLASSES,
        mesh if block is not None else None,
        class_counts=np.ones(CLASSES, np.int64),
    )

    def array(shape: tuple[int, ...], spec: P, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    def gradients(x: jax.Array, w: jax.Array, labels: jax.Array, state: Any, key: Any) -> Any:
        key, count, margins = jax.random.wrap_key_data(key), CLASSES, objective.class_margins
        rows, margins = w, None if margins is None else jnp.asarray(margins)
        if rate < 1:
            sampler = make_sampler(objective, BATCH)
            sample = sampler.draw(key, labels)
            rows, labels, count = sampler.take(sample, w), sample.labels, sampler.classes_drawn
            margins = None if margins is None else sampler.take(sample, margins)

        def mean(x: jax.Array, rows: jax.Array) -> Any:
            losses, new = objective.loss(
                x,
                rows,
                labels,
                state,
                jnp.int32(0),
                num_classes=count,
                keys=jax.random.split(key, BATCH),
                class_margins=margins,
            )
            return losses.mean(), new

        return jax.grad(mean, (0, 1), has_aux=True)(x, rows)

    shape, examples = objective.prototypes_shape(DIM), P(("data", "model"))
    arguments = (
        array((BATCH, DIM), examples),
        array(shape, P("model")),
        array((BATCH,), examples, jnp.int32),
        jax.tree.map(
            lambda leaf: array(leaf.shape, P(), leaf.dtype), jax.eval_shape(objective.init_state)
        ),
        array((2,), P(), jnp.uint32),
    )
    where = (arguments[0].sharding, arguments[1].sharding), None
    step = jax.jit(
        gradients, out_shardings=where, compiler_options=compiler_options(mesh.devices.flat[0])
    )
    compiled = step.lower(*arguments).compile()
    return Head(
        text=compiled.as_text(),
        temporaries=compiled.memory_analysis().temp_size_in_bytes,
        shard=math.prod(shape) * 4 // model,
        mesh=dict(mesh.shape),
    )


MOVES = ("all-gather", "all-to-all", "collective-permute", "copy", "pad", "transpose", "gather")


def moved_whole(text: str, shard: int) -> list[str]:
    """What gathers, copies, pads or transposes a device's whole prototypes, or more.

    A TPU fetches what is small enough into its on-chip memory, S(1), ahead of its use; that is no
    copy beside the first one.
    """
    return [
        f"{operation} {shape}"
        for _, _, shape, operation, _ in instructions(text)
        if operation.removesuffix("-start") in MOVES
        and _largest(shape) >= shard
        and not (operation == "copy-start" and "S(1)" in shape)
    ]


def _largest(shape: str) -> int:
    """Bytes of the largest array of a shape."""
    arrays = re.findall(r"[a-z]+(\d+)\w*\[([\d,]*)\]", shape)
    return max(
        (
            int(bits) // 8 * math.prod(int(n) for n in sides.split(",") if n)
            for bits, sides in arrays
        ),
        default=0,
    )


def unexpected(head: Head, *, drawn: float = 1.0) -> list[Collective]:
    """Collectives that docs/scaling.md does not name.

    It names the prototypes' gradient, summed over data, and embeddings and numbers of the batch.
    """
    found = []
    for collective in find_collectives(head.text):
        is_gradient = (
            collective.kind in ("all-reduce", "reduce-scatter")
            and collective.devices == head.mesh["data"]
            and collective.bytes <= 1.05 * drawn * head.shard
        )
        is_of_the_batch = collective.bytes <= 2 * BATCH * (DIM + 8) * 4
        if not (is_gradient or is_of_the_batch):
            found.append(collective)
    return found
