"""What is asked of XLA's compiler for the networks here, beyond its defaults.

On a CPU, XLA gives 3×3 convolutions to YNNPACK where it can. Its own convolutions (Eigen's) are
faster for the shapes of face networks, above all in the gradient of the weights:
`python -m experiments.benchmarks.layers` measures it.
"""

import functools
import logging

import jax

OWN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def compiler_options() -> dict[str, str]:
    """Returns the `compiler_options` of `jax.jit` for the device at hand: none but on a CPU.

    A jaxlib that does not know the option goes without it, which a log message says.

    Example:
      >>> import jax
      >>> jax.jit(lambda x: x + 1, compiler_options=compiler_options())(1).item()
      2
    """
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0, compiler_options=OWN_CONVOLUTIONS).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        logging.getLogger(__name__).info("This jaxlib chooses convolutions itself: %s", error)
        return {}
    return OWN_CONVOLUTIONS
