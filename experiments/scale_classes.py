"""A million identities: what a whole training step costs with each way to hold the classes.

Network, head and optimiser learn from synthetic faces of as many people as there are classes, the
faces drawn while training. `dense` materialises all logits [B, C], `streaming` walks over blocks of
classes and never does, streaming over a tenth compares each batch with its own classes and a random
share of the others (PartialFC). Dense and streaming must lose the same from step to step. Each runs
in a process of its own, whose peak memory is the system's own account.

Measured on two cores of an AMD EPYC beside other work, 64 images a step, fastest step: dense 2.3 s,
streaming 1.5 s, a tenth 0.39 s. Dense and streaming losses differ by 7e-7 at most. Each process
peaks at 3.0 GiB.

    python -m experiments.scale_classes          # cpu: 1,000,000 people, 128 dimensions
    python -m experiments.scale_classes --preset paper     # 512 dimensions, SphereNet-20, batch 512
"""

import dataclasses
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.study import CPU, PAPER, SMOKE, Options, start
from sphereface_jax.data.pipeline import make_pipeline
from sphereface_jax.training.config import LossConfig, TrainConfig, to_dict
from sphereface_jax.training.distributed import shard_batch
from sphereface_jax.training.input import face_transform, open_training_data
from sphereface_jax.training.trainer import make_trainer

HEADS = {
    "dense": LossConfig(margin=4),
    "streaming": LossConfig(margin=4, class_block=4096),
    "a tenth, streaming": LossConfig(margin=4, sample_rate=0.1, class_block=4096),
}
NOT_TIMED = 2


def base_config(options: Options) -> TrainConfig:
    """The config that the heads share."""
    base, people, dim, steps, batch = options.choose(
        {
            "smoke": (SMOKE, 600, 8, 4, 8),
            "cpu": (CPU, 1_000_000, 128, 12, 64),
            "paper": (PAPER, 1_000_000, 512, 200, 512),
        }
    )
    return dataclasses.replace(
        base,
        data=dataclasses.replace(
            base.data, exclude=(), synthetic_identities=people, synthetic_views=2
        ),
        model=dataclasses.replace(base.model, embedding_dim=dim),
        optimizer=dataclasses.replace(base.optimizer, schedule="constant", clip_norm=5.0),
        steps=steps,
        batch_size=batch,
    )


def measure(config: TrainConfig) -> dict[str, Any]:
    """Makes the steps of a config and returns losses, times and the process's peak memory."""
    source, _ = open_training_data(config)
    trainer = make_trainer(config, len(source.identities))
    state, losses, seconds = trainer.init(), [], []
    pipeline = make_pipeline(
        source,
        batch_size=config.batch_size,
        seed=config.seed,
        transform=face_transform(config.data),
    )
    with closing(pipeline):
        for _ in range(config.steps):
            batch = shard_batch(next(pipeline), trainer.mesh)
            began = time.perf_counter()
            state, metrics = trainer.step(state, batch)
            losses.append(float(metrics["loss"]))
            seconds.append(time.perf_counter() - began)
    jax.block_until_ready(state)
    timed = seconds[NOT_TIMED:]
    return {
        "losses": [round(loss, 5) for loss in losses],
        "seconds_per_step": round(float(np.median(timed)), 4),
        "fastest_step": round(min(timed), 4),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def in_own_process(config: TrainConfig) -> dict[str, Any]:
    """Measures a config where nothing was in memory before."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(measure, config).result()


def main(options: Options) -> None:
    """Measures every head and writes what it took."""
    out, machine, began = (
        options.results_file("scale_classes"),
        describe_machine(),
        time.perf_counter(),
    )
    base, rows = base_config(options), {}
    for name, loss in HEADS.items():
        rows[name] = in_own_process(dataclasses.replace(base, loss=loss))
        print(f"{name}: {rows[name]}", flush=True)
    dense, streaming = (np.array(rows[name]["losses"]) for name in ("dense", "streaming"))
    results = {
        "experiment": "scale_classes",
        "preset": options.preset,
        "people": base.data.synthetic_identities,
        "chance_loss": round(float(np.log(base.data.synthetic_identities)), 4),
        "largest_relative_difference": float(np.max(np.abs(streaming / dense - 1))),
        "variants": rows,
        "config": to_dict(base),
        "machine": machine,
        "seconds": round(time.perf_counter() - began, 1),
    }
    write_results(out, results)


if __name__ == "__main__":
    start(main, Options, __doc__)
