"""What the tests of disturbed runs share: what a reader gets, and whether two runs end alike."""

import jax
import numpy as np
from rich.console import Console

from sphereface_jax.data.files import read_records
from sphereface_jax.training.checkpoint import Checkpoints
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.state import TrainState
from sphereface_jax.training.trainer import make_trainer


def warnings(console: Console) -> list[str]:
    return [line for line in console.file.getvalue().splitlines() if line.startswith("warning")]


def restore(config: TrainConfig) -> tuple[TrainState, list[str]]:
    """The state that a reader gets, and what it is told."""
    said: list[str] = []
    with Checkpoints(config.out / "checkpoints", warn=said.append) as checkpoints:
        return checkpoints.restore(make_trainer(config, 6).like), said


def assert_same_end(ours: TrainConfig, theirs: TrainConfig) -> None:
    states = [restore(config)[0] for config in (ours, theirs)]
    for leaf, other in zip(*map(jax.tree.leaves, states), strict=True):
        assert np.asarray(leaf).tobytes() == np.asarray(other).tobytes()
    losses = [
        [(record["step"], record["loss"]) for record in read_records(out / "metrics.jsonl")]
        for out in (ours.out, theirs.out)
    ]
    assert losses[0] == losses[1]
