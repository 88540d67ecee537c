"""The constants of docs/scaling.md, measured on this machine.

    python -m experiments.benchmarks.scaling

Three parts, each in processes of its own; `experiments.scaling` draws what follows from them.

layouts:  the train step of SphereNet-20 is compiled for eight virtual CPU devices laid out in every
          way, never run: XLA says what a device holds, and the program what it sends.
rates:    one device trains SphereNet-20, differentiates the head alone and updates prototypes.
loopback: two processes sum numbers over all, few for the latency, many for the bandwidth.
"""

import dataclasses
import json
import math
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import ROOT, seconds
from experiments.pages import RESULTS
from sphereface_jax import sphereface_loss
from sphereface_jax.training.config import (
    LossConfig,
    MeshConfig,
    ModelConfig,
    ProcessConfig,
    TrainConfig,
)
from sphereface_jax.training.distributed import Agreement, join_processes
from sphereface_jax.training.optimizer import caffe_sgd
from sphereface_jax.training.partition import make_mesh
from sphereface_jax.training.trainer import Trainer, make_trainer

Part = Literal["layouts", "rates", "loopback"]
DEVICES = 8
COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
    r".*?replica_groups=(mesh\[.*?\] \{.*?\}|\[.*?\]|\{\{.*?\})"
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    network: str = "spherenet20"
    """The backbone."""
    num_classes: int = 100_000
    """C of the layouts and of the head alone."""
    class_block: int = 4096
    """Classes that a device looks at together."""
    images_a_device: int = 32
    """Images a device of the layouts, and twice that."""
    batch_size: int = 16
    """Images a step of the rates."""
    head_batch_size: int = 64
    """Examples a step of the head alone."""
    rounds: int = 3
    """The best of so many counts."""
    megabytes: int = 64
    """What the two processes sum up."""
    out: Path = RESULTS / "scaling.json"
    """Results file."""
    part: Part | None = None
    """Measure this part alone, in this process, and print it."""
    processes: ProcessConfig = dataclasses.field(default_factory=ProcessConfig)
    """Of the loopback."""


def trainer_of(config: Config, mesh: MeshConfig, batch_size: int) -> Trainer:
    """The trainer of a layout."""
    run = TrainConfig(
        model=ModelConfig(name=config.network),
        loss=LossConfig(class_block=config.class_block),
        mesh=mesh,
        batch_size=batch_size,
    )
    return make_trainer(run, config.num_classes)


def batch_of(trainer: Trainer) -> dict[str, np.ndarray]:
    """Random faces."""
    rng, size = np.random.default_rng(0), trainer.config.batch_size
    shape = (size, *trainer.config.data.image_size, 3)
    return {
        "image": rng.integers(0, 256, shape, np.uint8),
        "label": rng.integers(0, trainer.objective.num_classes, size, np.int32),
    }


def layouts(config: Config) -> dict[str, Any]:
    """What a device holds and sends in every layout of eight."""
    found = []
    for model in (1, 2, 4, 8):
        for shard_optimizer in (False, True):
            mesh = MeshConfig(DEVICES // model, model, shard_optimizer)
            found.append(layout(config, mesh, config.images_a_device))
    found.append(layout(config, MeshConfig(DEVICES, 1), 2 * config.images_a_device))
    trainer = trainer_of(config, MeshConfig(), DEVICES * config.images_a_device)
    weights = sum(leaf.size for leaf in jax.tree.leaves(trainer.like.params))
    return {"weights": weights, "layouts": found}


def layout(config: Config, mesh: MeshConfig, images: int) -> dict[str, Any]:
    """What a device holds and sends, by XLA's own account."""
    trainer = trainer_of(config, mesh, DEVICES * images)
    compiled = trainer.step.lower(trainer.like, batch_of(trainer)).compile()
    memory = compiled.memory_analysis()
    return dataclasses.asdict(mesh) | {
        "images_a_device": images,
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "collectives": collectives(compiled.as_text()),
    }


def collectives(program: str) -> dict[str, dict[str, int]]:
    """Number of each collective by the size of its groups, and the bytes of its results."""
    found: dict[str, dict[str, int]] = {}
    for shapes, operation, groups in COLLECTIVE.findall(program):
        kind = found.setdefault(f"{operation} of {group_size(groups)}", {"count": 0, "bytes": 0})
        kind["count"] += 1
        for bits, shape in re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", shapes):
            kind["bytes"] += int(bits) // 8 * math.prod(int(x) for x in shape.split(",") if x)
    return dict(sorted(found.items()))


def group_size(groups: str) -> int:
    """How many devices take part, from one of the three ways in which XLA writes groups."""
    if groups.startswith("mesh"):  # mesh['a'=4,'b'=2] {'a'}: of the axes, those along which
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", groups))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'(?!=)", groups))
    if groups.startswith("["):  # [4,2]: 4 groups of 2
        return int(groups[1:-1].split(",")[-1])
    return groups.count(",") + 1  # {{0,2,4,6}, of which this is the first


def best_of(rounds: int, function: Callable[[], Any]) -> float:
    """Seconds of the quickest call but the first."""
    calls = (seconds(lambda: jax.block_until_ready(function())) for _ in range(1 + rounds))
    return min([took for _, took, _ in calls][1:])


def rates(config: Config) -> dict[str, float]:
    """Seconds an image of the network, a similarity of the head, a weight of the update."""
    few_classes = dataclasses.replace(config, num_classes=256)
    trainer = trainer_of(few_classes, MeshConfig(), config.batch_size)
    state, batch = trainer.init(), batch_of(trainer)

    def step() -> Any:
        nonlocal state
        state, metrics = trainer.step(state, batch)
        return metrics

    by_image = best_of(config.rounds, step) / trainer.config.batch_size
    dim = trainer.config.model.embedding_dim
    shape = config.num_classes, dim
    keys = jax.random.split(jax.random.key(0))
    embeddings = jax.random.normal(keys[0], (config.head_batch_size, dim))
    prototypes = jax.random.normal(keys[1], shape)
    labels = jnp.arange(config.head_batch_size)

    def mean(embeddings: jax.Array, prototypes: jax.Array) -> jax.Array:
        return sphereface_loss(
            embeddings, prototypes, labels, class_block=config.class_block
        ).mean()

    head = jax.jit(jax.grad(mean, (0, 1)))
    by_similarity = best_of(config.rounds, lambda: head(embeddings, prototypes))
    tx = caffe_sgd(0.1, weight_decay=5e-4)
    update = jax.jit(tx.update)
    opt_state = tx.init(prototypes)
    by_weight = best_of(config.rounds, lambda: update(prototypes, opt_state, prototypes))
    return {
        "seconds_an_image": by_image,
        "seconds_a_similarity": by_similarity / (config.head_batch_size * config.num_classes),
        "seconds_a_weight": by_weight / np.prod(shape),
    }


def loopback(config: Config) -> dict[str, float]:
    """Seconds of a sum over two processes, of one number and of many."""
    join_processes(config.processes)
    mesh = make_mesh(MeshConfig(), batch_size=2)
    agreement = Agreement(mesh)
    agreement(0)
    latency = best_of(10 * config.rounds, lambda: agreement(0))
    count = config.megabytes * 10**6 // 4
    cut = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    numbers = jax.make_array_from_process_local_data(cut, np.ones((1, count), np.float32))
    total = jax.jit(lambda numbers: numbers.sum(axis=0), out_shardings=whole)
    took = best_of(config.rounds, lambda: total(numbers))
    # A ring of two: each process sends half of the sum's terms, then half of the sum.
    return {"seconds_a_collective": latency, "seconds_a_byte": took / (4 * count)}


PARTS = {"layouts": layouts, "rates": rates, "loopback": loopback}


def measure(part: Part, config: list[str], count: int = 1) -> dict[str, Any]:
    """Runs a part in fresh processes and returns what the first one printed."""
    flags = "--xla_force_host_platform_device_count=8" if part == "layouts" else ""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{listener.getsockname()[1]}"
    processes = []
    for index in range(count):
        command = [
            sys.executable,
            "-m",
            "experiments.benchmarks.scaling",
            *config,
            f"--part={part}",
        ]
        if count > 1:
            command += [f"--processes.coordinator={coordinator}"]
            command += [f"--processes.num-processes={count}", f"--processes.process-id={index}"]
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"{part}: a process failed; its error is above")
    return json.loads(outputs[0].splitlines()[-1])


def main(config: Config) -> None:
    """Measures all parts, or prints one."""
    if config.part is not None:
        print(json.dumps(PARTS[config.part](config)))
        return
    machine, flags = describe_machine(), sys.argv[1:]
    results = {
        **measure("layouts", flags),
        **measure("rates", flags),
        **measure("loopback", flags, count=2),
    }
    settings = {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in ("out", "part", "processes")
    }
    write_results(
        config.out,
        {"benchmark": "scaling", **settings, **results, "machine": machine},
    )


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
