"""Can XLA's CPU backend be made to call oneDNN's convolutions?

    python -m experiments.benchmarks.onednn

jaxlib 0.10.2 holds oneDNN and the code that runs `__onednn$convolution`, but not the passes that
write such calls into a program: `xla_cpu_experimental_onednn_custom_call` therefore changes none.
Here the call is written by hand, in XLA's private format, and measured against XLA's own
convolution and the library's grouped one, forward only, for nothing there calls oneDNN's gradients.
A field that is wrong ends the process.
"""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.extend.core import Primitive

from experiments.benchmarks.layers import STAGES
from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import seconds
from experiments.pages import RESULTS
from sphereface_jax.compilation import compiler_options
from sphereface_jax.models.convolution import convolve

LAYOUT = ("NHWC", "HWIO", "NHWC")
DEPTHWISE = ((56, 56, 128), (28, 28, 128), (14, 14, 256))
_call = Primitive("onednn_convolution")


@_call.def_abstract_eval
def _shape(x: Any, kernel: Any, *, groups: int) -> Any:
    return jax.core.ShapedArray((*x.shape[:3], kernel.shape[-1]), x.dtype)


def _lower(context: Any, x: Any, kernel: Any, *, groups: int) -> Any:
    from jax._src.interpreters import mlir

    image = {"data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}
    filters = {"input_feature_dim": 2, "output_feature_dim": 3, "spatial_dims": [0, 1]}
    ones = [1, 1]
    config = {
        "dims": 4,
        "feature_groups": groups,
        "input": image,
        "kernel": {"filter": filters},
        "output": image,
        "window": {"size": [3, 3], "pad_left": ones, "pad_right": ones, "strides": ones}
        | {"window_dilations": ones},
    }
    found = mlir.custom_call(
        "__onednn$convolution",
        result_types=[mlir.aval_to_ir_type(context.module_context, context.avals_out[0])],
        operands=[x, kernel],
        backend_config=json.dumps({"onednn_conv_config": config}),
        api_version=2,
    )
    return found.results


jax.interpreters.mlir.register_lowering(_call, _lower)


def measure(size: tuple[int, int, int], batch: int, groups: int, rounds: int) -> dict[str, Any]:
    """Best times in milliseconds, and by how much the results differ."""
    *shape, channels = size
    x = jax.random.normal(jax.random.key(0), (batch, *shape, channels))
    kernel = 0.01 * jax.random.normal(jax.random.key(1), (3, 3, channels // groups, channels))

    def own(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            ((1, 1), (1, 1)),
            dimension_numbers=LAYOUT,
            feature_group_count=groups,
        )

    found: dict[str, Any] = {}
    results = []
    contenders = {"own": own, "onednn": lambda x, kernel: _call.bind(x, kernel, groups=groups)}
    if groups > 1:
        contenders["library"] = lambda x, kernel: convolve(
            x,
            kernel,
            (1, 1),
            ((1, 1), (1, 1)),
            feature_group_count=groups,
            dimension_numbers=LAYOUT,
        )
    for name, function in contenders.items():
        compiled = jax.jit(function, compiler_options=compiler_options())
        results.append(np.asarray(compiled(x, kernel)))
        times = [seconds(lambda: compiled(x, kernel).block_until_ready()) for _ in range(rounds)]  # noqa: B023
        found[f"{name}_ms"] = round(1e3 * min(time for _, time, _ in times), 2)
        found[f"{name}_processor_ms"] = round(1e3 * min(time for *_, time in times), 2)
    error = np.abs(results[0] - results[1]).max() / np.abs(results[0]).max()
    return found | {"relative_error": float(f"{error:.1e}")}


def main(batch: int = 32, rounds: int = 9, out: Path = RESULTS / "onednn.json") -> None:
    """Measures and writes everything.

    Args:
      batch: images.
      rounds: how often each is run.
      out: results file.
    """
    machine = describe_machine()
    x = jnp.ones((4, 8, 8, 16))
    asked = {"xla_cpu_experimental_onednn_custom_call": True}
    program = jax.jit(jnp.matmul, compiler_options=asked | compiler_options())
    found: dict[str, Any] = {}
    for size in STAGES:
        found["×".join(map(str, size))] = measure(size, batch, 1, rounds)
    for size in DEPTHWISE:
        found["×".join(map(str, size)) + ", depthwise"] = measure(size, batch, size[-1], rounds)
    for name, row in found.items():
        print(f"{name:24} {row}")
    results = {
        "benchmark": "onednn",
        "batch": batch,
        "layers": found,
        "option_writes_calls": "onednn" in program.lower(x, x.mT).compile().as_text().lower(),
        "machine": machine,
    }
    write_results(out, results)


if __name__ == "__main__":
    tyro.cli(main)
