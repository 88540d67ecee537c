"""What the kernels of a training step on an H100 read and write, beside the least that they must.

    pip install '.[plan]' && JAX_PLATFORMS=cpu python -m experiments.kernels

Compiles the step of SphereNet-20 in bfloat16 (64 images, 10,572 identities, dense head) for one
H100, which need not be there, and adds up the operands and results of every kernel: convolutions,
matrix products, and by what they touch the rest. The least is of a step whose every other
kernel reads what it needs once: an activation is read and written going forwards, going backwards
it and its gradient are read and the next gradient is written, and a skip connection is read once
each way; a weight, its gradient and its velocity are read, two of them written, and it is cast.
"""

import re
from collections import Counter

import jax
import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.pages import RESULTS
from sphereface_jax.models.residual import UNITS
from sphereface_jax.plan.compiled import compile_step, planned_trainer
from sphereface_jax.plan.program import array_bytes
from sphereface_jax.plan.targets import find_target
from sphereface_jax.training.config import ModelConfig, TrainConfig

PATH = RESULTS / "kernels.json"
DEPTH, BATCH, CLASSES = 20, 64, 10_572
NO_KERNELS = ("parameter", "constant", "get-tuple-element", "tuple", "bitcast")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([\w\-]+)\((.*)")


def kind_of(name: str, operation: str, shapes: str, rest: str) -> str:
    """What a kernel is for.

    Args:
      name: of the instruction.
      operation: what it does.
      shapes: of its results and operands.
      rest: of its line.
    """
    if "__cudnn$conv" in rest:
        return "convolutions"
    if name.startswith("gemm") or "cublas" in rest:
        return "matrix products"
    if re.search(rf"bf16\[{BATCH},\d+,\d+,\d+\]", shapes):
        backward = "transpose(jvp" in rest
        return "activations, backward" if backward else "activations, forward"
    return "copies of weights" if operation == "copy" else "weights and sums"


def moved(program: str) -> dict[str, dict[str, int]]:
    """Kernels of a compiled program's entry, and the bytes that they read and write, by kind."""
    shapes, kernels, total = {}, Counter[str](), Counter[str]()
    for line in program[program.index("\nENTRY") :].splitlines():
        if (match := _INSTRUCTION.match(line)) is None:
            continue
        name, shape, operation, rest = match.groups()
        shapes[name] = shape
        if operation in NO_KERNELS:
            continue
        operands = re.findall(r"%([\w.\-]+)", rest.split(")")[0])
        touched = " ".join([shape, *(shapes.get(operand, "") for operand in operands)])
        kind = kind_of(name, operation, touched, rest)
        kernels[kind] += 1
        total[kind] += array_bytes(touched)
    return {kind: {"kernels": kernels[kind], "bytes": total[kind]} for kind in kernels}


def least(parameters: int, weights: int) -> dict[str, int]:
    """The bytes of a step whose every kernel reads what it needs once.

    Args:
      parameters: what the optimiser updates.
      weights: those of them that are cast to bfloat16.
    """
    height, width, forward, backward = 112, 96, 0, 0
    for channels, units in zip((64, 128, 256, 512), UNITS[DEPTH], strict=True):
        height, width = height // 2, width // 2
        activation = 2 * BATCH * height * width * channels
        forward += activation * (2 * (1 + 2 * units) + units)
        backward += activation * (3 * (1 + 2 * units) + units)
    return {
        "activations, forward": forward,
        "activations, backward": backward,
        "weights and sums": 5 * 4 * parameters + 6 * weights,
    }


def main() -> None:
    """Compiles, counts and stores."""
    jax.config.update("jax_enable_compilation_cache", False)
    config = TrainConfig(model=ModelConfig(f"spherenet{DEPTH}", dtype="bfloat16"), batch_size=BATCH)
    trainer = planned_trainer(config, CLASSES, find_target("h100x1"))
    _, compiled = compile_step(trainer)
    weights = sum(leaf.size for leaf in jax.tree.leaves(trainer.like.params))
    write_results(
        PATH,
        {
            "moved": moved(compiled.as_text()),
            "least": least(weights + trainer.like.prototypes.size, weights),
            "machine": describe_machine(),
        },
    )


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
