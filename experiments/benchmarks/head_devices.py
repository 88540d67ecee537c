"""What a device holds of a million classes, when 1, 2, 4 or 8 devices share them.

    python -m experiments.benchmarks.head_devices

Forward and both gradients of `sphereface_loss` with a mesh are compiled for virtual CPU devices,
never run: XLA says what a device needs. Arguments and results are the embeddings, the prototypes
and their gradients; temporaries are all else.
"""

import os

os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.pages import RESULTS
from sphereface_jax import sphereface_loss


def memory(devices: int, classes: int, batch: int, width: int, class_block: int) -> dict[str, Any]:
    """Bytes of one of so many devices."""
    mesh = jax.make_mesh(
        (1, devices),
        ("data", "model"),
        axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[:devices],
    )

    def mean(x: jax.Array, prototypes: jax.Array, labels: jax.Array) -> jax.Array:
        return sphereface_loss(x, prototypes, labels, class_block=class_block, mesh=mesh).mean()

    def array(shape: tuple[int, ...], spec: P, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    arguments = (
        array((batch, width), P("data")),
        array((classes, width), P("model")),
        array((batch,), P("data"), jnp.int32),
    )
    where = None, (arguments[0].sharding, arguments[1].sharding)
    step = jax.jit(jax.value_and_grad(mean, (0, 1)), out_shardings=where)
    found = step.lower(*arguments).compile().memory_analysis()
    parts = {
        "arguments": found.argument_size_in_bytes,
        "results": found.output_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
    }
    return {"devices": devices, **parts, "total": sum(parts.values())}


def main(
    classes: int = 1_000_000,
    batch: int = 128,
    width: int = 512,
    class_block: int = 4096,
    out: Path | None = None,
) -> None:
    """Compiles for 1, 2, 4 and 8 devices and writes what each needs.

    Args:
      classes: C.
      batch: B.
      width: D.
      class_block: classes that a device looks at together.
      out: results file, experiments/results/head_devices.json by default.
    """
    size = {"classes": classes, "batch": batch, "width": width, "class_block": class_block}
    bytes_of_a_device = [memory(devices, **size) for devices in (1, 2, 4, 8)]
    for found in bytes_of_a_device:
        print(found)
    write_results(
        out or RESULTS / "head_devices.json",
        {
            "benchmark": "head_devices",
            **size,
            "bytes_of_a_device": bytes_of_a_device,
            "machine": describe_machine(),
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
