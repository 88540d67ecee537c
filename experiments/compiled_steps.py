"""What compilers say of training steps on many devices: docs/scaling.md's numbers.

    pip install '.[plan]' && python -m experiments.compiled_steps [--target h100x8]

Compiles each cell that experiments/results/compiled_steps.json does not hold yet, and writes the
file after each. GPU steps take seconds, TPU ones minutes. No accelerator is needed.
"""

import dataclasses
import json
import sys

import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.pages import RESULTS
from sphereface_jax.plan.search import ask_compiler
from sphereface_jax.plan.targets import find_target, keep_compilers_out
from sphereface_jax.training.config import LossConfig, MeshConfig, ModelConfig, TrainConfig

PATH = RESULTS / "compiled_steps.json"
KEPT = (
    *("memory", "total", "fits", "usable", "compiler", "flops", "collectives", "sent", "mesh"),
    *("batch_size", "devices", "seconds_at_least", "seconds_to_compile", "versions"),
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """A step to compile.

    Attributes:
      target: what for.
      num_classes: identities.
      way: of holding them, one of `WAYS`.
      network: the backbone; None: the head alone.
    """

    target: str
    num_classes: int
    way: str
    network: str | None = None

    @property
    def key(self) -> str:
        """Its name in the results."""
        return f"{self.target} {self.num_classes} {self.way} {self.network or 'head'}"

    def config(self) -> TrainConfig:
        """The run's config: 64 images a device, 32 on 256."""
        devices = find_target(self.target).devices
        block, cut, rate = WAYS[self.way]
        return TrainConfig(
            model=ModelConfig(name=self.network or "spherenet4", dtype="bfloat16"),
            loss=LossConfig(class_block=block, sample_rate=rate),
            mesh=MeshConfig(model=min(cut, devices)),
            batch_size=devices * (64 if devices < 256 else 32),
        )


WAYS = {
    "dense": (None, 1, 1.0),
    "blocks": (4096, 1, 1.0),
    "sharded by 4": (4096, 4, 1.0),
    "sharded by 8": (4096, 8, 1.0),
    "sharded by 16": (8192, 16, 1.0),
    "sharded by 256": (8192, 256, 1.0),
    "sharded by 8, a tenth": (4096, 8, 0.1),
    "sharded by 256, a tenth": (8192, 256, 0.1),
}
"""class-block, mesh.model and sample-rate."""

WHOLE = (
    Cell("h100x1", 10**4, "dense", "spherenet20"),
    Cell("h100x8", 10**4, "dense", "spherenet20"),
    Cell("h100x1", 10**6, "blocks", "spherenet20"),
    Cell("h100x8", 10**6, "sharded by 4", "spherenet20"),
    Cell("h100x8", 10**7, "sharded by 8", "spherenet20"),
    Cell("h100x8", 10**7, "sharded by 8, a tenth", "spherenet20"),
    Cell("v5e-4", 10**4, "dense", "spherenet20"),
    Cell("v5e-16", 10**6, "sharded by 4", "spherenet4"),
    Cell("v5e-16", 10**6, "sharded by 4", "spherenet20"),
    Cell("v5e-64", 10**7, "sharded by 16", "spherenet4"),
    Cell("v5e-256", 10**7, "sharded by 16", "spherenet4"),
    Cell("v5e-256", 10**8, "sharded by 256, a tenth", "spherenet4"),
)
HEADS = tuple(
    Cell("h100x8", classes, way)
    for way in ("dense", "blocks", "sharded by 8", "sharded by 8, a tenth")
    for classes in (10**5, 10**7)
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What to compile."""

    target: str = ""
    """Only cells of this target; all if empty."""
    heads: bool = True
    """Heads alone too."""


def main(config: Config) -> None:
    """Compiles what is missing."""
    keep_compilers_out()
    results = {"benchmark": "compiled_steps", "cells": {}}
    if PATH.is_file():
        results = json.loads(PATH.read_text(encoding="utf-8"))
    for cell in (*WHOLE, *(HEADS if config.heads else ())):
        if config.target not in ("", cell.target) or cell.key in results["cells"]:
            continue
        said = ask_compiler(
            cell.config(),
            cell.num_classes,
            find_target(cell.target),
            head_alone=cell.network is None,
        )
        results["cells"][cell.key] = {name: said[name] for name in KEPT if name in said}
        print(cell.key, f"{said.get('total', 0) / 2**30:.2f} GiB", file=sys.stderr, flush=True)
        write_results(PATH, results | {"machine": describe_machine()})


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
