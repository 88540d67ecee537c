"""What is asked of JAX and of XLA's compiler for the networks here, beyond their defaults.

On a CPU, XLA gives 3×3 convolutions to YNNPACK where it can. Its own convolutions (Eigen's) are
faster for the shapes of face networks, above all in the gradient of the weights:
`python -m experiments.benchmarks.layers` measures it.

On a TPU, XLA hides the gathering of updated prototypes behind the rest of the step, and keeps two
copies of them for all that time. Left where it stands, it is written in place.
"""

import contextlib
import functools
import logging
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

OWN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}
GATHERS_IN_PLACE = {"xla_tpu_enable_async_collective_fusion_fuse_all_gather": "false"}


@functools.cache
def compiler_options(device: jax.Device | None = None) -> dict[str, str]:
    """Returns the `compiler_options` of `jax.jit` for a device: some for a CPU and for a TPU.

    A compiler that does not know an option goes without it, which a log message says.

    Args:
      device: that is compiled for, and need not be here; None: the first of those at hand.

    Example:
      >>> import jax
      >>> jax.jit(lambda x: x + 1, compiler_options=compiler_options())(1).item()
      2
    """
    device = device or jax.local_devices()[0]
    options = {"cpu": OWN_CONVOLUTIONS, "tpu": GATHERS_IN_PLACE}.get(device.platform, {})
    if not options:
        return {}
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=SingleDeviceSharding(device))
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(number).compile()
    except jax.errors.JaxRuntimeError as error:
        logging.getLogger(__name__).info("This compiler knows no such option: %s", error)
        return {}
    return options


@contextlib.contextmanager
def run_arithmetic() -> Iterator[None]:
    """Computes in float32 and draws from threefry keys, whatever JAX's flags say outside.

    What a run computes in and the type of its keys belong to the run: it is the same under
    `JAX_ENABLE_X64` and `JAX_DEFAULT_PRNG_IMPL`. Where a caller forbids promotion of ranks or
    types, that holds for the caller's own code: the layers of Flax and the transformations of Optax
    promote both. Who calls `make_trainer` alone enters the context around its steps. No flag of the
    caller is changed. A context, and a decorator as `@run_arithmetic()`.

    Example:
      >>> import jax.numpy as jnp
      >>> with jax.enable_x64(True):
      ...     with run_arithmetic():
      ...         inside = jnp.zeros(2)
      ...     (inside.dtype, jnp.zeros(2).dtype)
      (dtype('float32'), dtype('float64'))
    """
    with (
        jax.enable_x64(False),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
    ):
        yield
