"""Kills a run with SIGKILL at three random moments and compares its end with an undisturbed run.

    python experiments/kill_and_resume.py

Both train SphereNet-4 with A-Softmax for 200 steps on synthetic faces, and must print the same last
loss to the bit. Takes about two minutes on two CPU cores.
"""

import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

COMMAND = [
    *(sys.executable, "-m", "sphereface_jax.cli", "train", "--data.train=synthetic"),
    *("--data.image-size", "56", "48", "--data.synthetic-identities=100"),
    *("--model.name=spherenet4", "--model.channels", "16", "32", "64", "128"),
    *("--model.embedding-dim=64", "--batch-size=64", "--optimizer.learning-rate=0.05"),
]


@dataclass(frozen=True)
class Config:
    """What to try."""

    steps: int = 200
    """Updates of each run."""
    kills: int = 3
    """How often the second run is killed."""
    checkpoint_every: int = 20
    """Steps between two checkpoints."""
    seed: int = 0
    """Of the moments."""


def start(out: Path, config: Config) -> subprocess.Popen:
    """Starts training in a process of its own."""
    flags = [f"--steps={config.steps}", f"--checkpoint-every={config.checkpoint_every}"]
    return subprocess.Popen([*COMMAND, *flags, f"--out={out}"], stdout=subprocess.DEVNULL)


def last_step(out: Path) -> int:
    """Returns the newest step that the run has logged."""
    metrics = out / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    return json.loads(lines[-1])["step"] if lines else 0


def run_killed(out: Path, config: Config) -> None:
    """Trains to the end through kills at random steps."""
    moments = random.Random(config.seed).sample(range(10, config.steps - 10), config.kills)
    for moment in sorted(moments):
        process = start(out, config)
        while last_step(out) < moment and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        process.wait()
        print(f"killed at step {last_step(out)}")
    start(out, config).wait()


def main(config: Config) -> None:
    """Runs both and compares."""
    with tempfile.TemporaryDirectory() as directory:
        undisturbed, killed = Path(directory) / "undisturbed", Path(directory) / "killed"
        start(undisturbed, config).wait()
        run_killed(killed, config)
        losses = [
            json.loads((out / "result.json").read_text())["loss"] for out in (undisturbed, killed)
        ]
    print(f"undisturbed  {losses[0]!r}\nkilled       {losses[1]!r}")
    sys.exit(losses[0] != losses[1])


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
