"""The same run by one process on one device and by two processes of two devices, side by side.

    python -m experiments.two_processes

The two meet over loopback, lay their four devices out as data 2 × model 2, share the prototypes and
what the optimiser keeps, and take each batch in two parts. Exits with 1 where a loss differs by
more than rounding. Takes about a minute on two CPU cores.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

COMMAND = [
    *(sys.executable, "-m", "sphereface_jax.cli", "train", "--data.train=synthetic"),
    *("--data.image-size", "56", "48", "--data.synthetic-identities=300", "--val.fraction=0.3"),
    *("--model.name=spherenet4", "--model.channels", "16", "32", "64", "128"),
    *("--model.embedding-dim=64", "--batch-size=32", "--optimizer.learning-rate=0.05"),
]
TOGETHER = ["--mesh.data=2", "--mesh.model=2", "--mesh.shard-optimizer", "--accumulate=2"]
PROCESSES, DEVICES = 2, 2


@dataclass(frozen=True)
class Config:
    """What to run."""

    steps: int = 20
    """Updates of each run."""
    log_every: int = 2
    """Steps between two lines."""
    tolerance: float = 1e-4
    """Largest relative difference of a loss."""


def start(out: Path, config: Config, *flags: str, devices: int = 1) -> subprocess.Popen:
    """Starts training in a process of its own, which keeps what it says to itself."""
    steps = [f"--steps={config.steps}", f"--log-every={config.log_every}"]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [*COMMAND, *steps, f"--val.every={config.steps}", f"--out={out}", *flags]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def start_together(out: Path, config: Config) -> list[subprocess.Popen]:
    """Starts the processes that train one run."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    meeting = [f"--coordinator=127.0.0.1:{port}", f"--num-processes={PROCESSES}"]
    return [
        start(out, config, *TOGETHER, *meeting, f"--process-id={index}", devices=DEVICES)
        for index in range(PROCESSES)
    ]


def records(path: Path) -> list[dict]:
    """Reads what a run logged."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def main(config: Config) -> None:
    """Runs both and prints them side by side."""
    with tempfile.TemporaryDirectory() as directory:
        alone, together = Path(directory) / "alone", Path(directory) / "together"
        start(alone, config).wait()
        for process in start_together(together, config):
            process.wait()
        logged = [records(run / "metrics.jsonl") for run in (alone, together)]
        scores = [records(run / "validation.jsonl")[-1] for run in (alone, together)]
    print(f"{'':<17}  {'1 process, 1 device':>22}  {'2 processes, 4 devices':>22}")
    for one, two in zip(*logged, strict=True):
        print(f"loss, step {one['step']:<6}  {one['loss']:>22.8f}  {two['loss']:>22.8f}")
    accuracies = [score["accuracy_10_fold"] for score in scores]
    print(f"held-out accuracy  {accuracies[0]:>22.4%}  {accuracies[1]:>22.4%}")
    gap = max(abs(one["loss"] / two["loss"] - 1) for one, two in zip(*logged, strict=True))
    print(f"largest relative difference of a loss: {gap:.1e}")
    sys.exit(gap > config.tolerance)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
