"""What is to be measured where a GPU is lent, in pieces of less than eight minutes.

    python -m experiments.on_a_gpu [--list] [--pieces step-spherenet20-bfloat16 head-1000000]

Runs each piece that experiments/results/on_a_gpu_<card>.json does not hold yet, in a process of
its own that is stopped after `--minutes`, and writes the file after each: so a lease that ends
costs one piece, and the same command goes on. Needs nothing but the device: faces are synthetic.
A step's temporaries and operations stand beside its time, as `sphereface plan --target h100x1
--batch-size 256` predicts them; the parent holds no device while a piece runs.
"""

import dataclasses
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.machine import describe_machine, write_results
from experiments.benchmarks.measure import ROOT
from experiments.pages import RESULTS
from sphereface_jax import sphereface_loss
from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.plan.program import count_flops
from sphereface_jax.training.config import DataConfig, LossConfig, ModelConfig, TrainConfig
from sphereface_jax.training.trainer import make_trainer


@dataclasses.dataclass(frozen=True)
class Config:
    """What to run."""

    pieces: tuple[str, ...] = ()
    """Names of pieces; all by default."""
    list: bool = False
    """Name the pieces and what is done already."""
    smoke: bool = False
    """Tiny sizes, to try the script on a CPU."""
    minutes: float = 8.0
    """A piece is stopped after so many."""
    out: Path = RESULTS
    """Folder of the results."""
    piece: str | None = None
    """Run this piece in this process and print it."""


def seconds_each(function: Callable[[], Any], *, rounds: int) -> list[float]:
    """Seconds of each of some calls, after two that warm up."""
    times = []
    for number in range(rounds + 2):
        start = time.perf_counter()
        jax.block_until_ready(function())
        if number >= 2:
            times.append(time.perf_counter() - start)
    return times


def peak_of_device() -> int | None:
    """Bytes at most in use on the first device so far, where it says."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


@run_arithmetic()
def step(smoke: bool, network: str, dtype: str, classes: str, block: str) -> dict[str, Any]:
    """An update, as `sphereface train` makes it, 256 images."""
    config = TrainConfig(
        data=DataConfig(image_size=(16, 16) if smoke else (112, 96)),
        model=ModelConfig(
            name="spherenet4" if smoke else network,
            dtype=dtype,
            channels=(8, 8, 8, 8) if smoke else (64, 128, 256, 512),
        ),
        loss=LossConfig(class_block=int(block) or None),
        batch_size=8 * jax.device_count() if smoke else 256,
    )
    num_classes = 512 if smoke else int(classes)
    trainer = make_trainer(config, num_classes)
    rng, shape = np.random.default_rng(0), (config.batch_size, *config.data.image_size, 3)
    batch = {
        "image": jnp.asarray(rng.integers(0, 256, shape, np.uint8)),
        "label": jnp.asarray(rng.integers(0, num_classes, shape[0], np.int32)),
    }
    start = time.perf_counter()
    traced = trainer.step.trace(trainer.like, batch)  # type: ignore[attr-defined]
    compiled = traced.lower().compile()
    took, memory = time.perf_counter() - start, compiled.memory_analysis()
    state = trainer.init()

    def update() -> Any:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics

    times = seconds_each(update, rounds=3 if smoke else 30)
    flops = sum(count_flops(traced.jaxpr).values())
    return {
        "seconds": times,
        "images_a_second": config.batch_size / float(np.median(times)),
        "flops": flops,
        "flops_a_second": flops / float(np.median(times)),
        "seconds_to_compile": took,
        "state_bytes": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "peak_bytes": peak_of_device(),
    }


def head(smoke: bool, classes: str) -> dict[str, Any]:
    """A-Softmax alone and both its gradients, dense and in blocks, beside the bare products."""
    count, batch, dim, block = (512, 8, 16, 128) if smoke else (int(classes), 512, 512, 4096)
    keys = jax.random.split(jax.random.key(0))
    x = jax.random.normal(keys[0], (batch, dim))
    w, labels = jax.random.normal(keys[1], (count, dim)), jnp.arange(batch)

    def products(x: jax.Array, w: jax.Array) -> Any:
        logits = x @ w.T
        return logits @ w, logits.T @ x

    def loss(x: jax.Array, w: jax.Array, **options: Any) -> jax.Array:
        return sphereface_loss(x, w, labels, **options).mean()

    contenders = {
        "bare products": products,
        "blocks": jax.grad(lambda x, w: loss(x, w, class_block=block), (0, 1)),
    }
    if count <= 100_000:
        contenders["dense"] = jax.grad(loss, (0, 1))
    found = {}
    for name, function in contenders.items():
        jitted = jax.jit(function)
        found[name] = seconds_each(lambda f=jitted: f(x, w), rounds=3 if smoke else 20)  # type: ignore[misc]
    return {"batch": batch, "classes": count, "seconds": found, "peak_bytes": peak_of_device()}


def run(smoke: bool, steps: str) -> dict[str, Any]:
    """A training run on synthetic faces, input pipeline and all, scored on unseen people."""
    import tempfile

    from sphereface_jax.training.config import OptimizerConfig, ValConfig
    from sphereface_jax.training.loop import train

    count = 3 if smoke else int(steps)
    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            out=Path(folder) / "run",
            data=DataConfig(
                image_size=(16, 16) if smoke else (112, 96),
                synthetic_identities=20 if smoke else 2000,
                synthetic_views=4 if smoke else 50,
            ),
            model=ModelConfig(
                name="spherenet4" if smoke else "spherenet20",
                dtype="bfloat16",
                channels=(8, 8, 8, 8) if smoke else (64, 128, 256, 512),
            ),
            optimizer=OptimizerConfig(learning_rate=0.05),
            val=ValConfig(fraction=0.2, every=count, pairs=20 if smoke else 3000),
            steps=count,
            batch_size=8 * jax.device_count() if smoke else 256,
            checkpoint_every=count,
        )
        start = time.perf_counter()
        record = train(config)
        scores = [
            json.loads(line) for line in (config.out / "validation.jsonl").read_text().splitlines()
        ]
        return {
            "seconds": time.perf_counter() - start,
            "last": record,
            "unseen people": scores[-1:],
        }


PIECES: dict[str, tuple[Callable[..., dict[str, Any]], tuple[str, ...]]] = {
    **{
        f"step-{network}-{dtype}": (step, (network, dtype, "10572", "0"))
        for dtype in ("bfloat16", "float32")
        for network in ("spherenet4", "spherenet20", "spherenet64", "mobilefacenet")
    },
    "step-million": (step, ("spherenet20", "bfloat16", "1000000", "4096")),
    **{f"head-{count}": (head, (str(count),)) for count in (10_572, 100_000, 1_000_000)},
    "run": (run, ("1500",)),
}
"""Each piece's function and its arguments."""


def results_path(folder: Path, machine: dict[str, Any]) -> Path:
    """The results file of the device that is here."""
    card = re.sub(r"[^a-z0-9]+", "_", machine["device"].lower()).strip("_")
    return folder / f"on_a_gpu_{card}.json"


def main(config: Config) -> None:
    """Runs what is missing, or one piece."""
    if config.piece == "machine":
        print(json.dumps(describe_machine()))
        return
    if config.piece is not None:
        function, arguments = PIECES[config.piece]
        print(json.dumps(function(config.smoke, *arguments), default=float))
        return
    unknown = set(config.pieces) - set(PIECES)
    if unknown:
        raise SystemExit(
            f"pieces: expected some of {', '.join(PIECES)}, got {sorted(unknown)[0]!r}"
        )
    # Asked in a process of its own: a JAX that has found a GPU takes most of its memory.
    asked = subprocess.run(
        [sys.executable, "-m", "experiments.on_a_gpu", "--piece=machine"],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    machine = json.loads(asked.stdout.splitlines()[-1])
    path = results_path(config.out, machine)
    results: dict[str, Any] = {"pieces": {}, "machine": machine}
    if path.is_file():
        results = json.loads(path.read_text(encoding="utf-8"))
    for name in config.pieces or PIECES:
        if config.list or name in results["pieces"]:
            print(f"{name}: {'done' if name in results['pieces'] else 'to do'}", flush=True)
            continue
        command = [sys.executable, "-m", "experiments.on_a_gpu", f"--piece={name}"]
        command += ["--smoke"] if config.smoke else []
        try:
            done = subprocess.run(
                command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=60 * config.minutes
            )
        except subprocess.TimeoutExpired:
            print(f"{name}: stopped after {config.minutes:g} minutes", flush=True)
            continue
        if done.returncode:
            print(f"{name}: failed; its error is above", flush=True)
            continue
        results["pieces"][name] = json.loads(done.stdout.splitlines()[-1])
        write_results(path, results)
        print(f"{name}: done", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
