"""A run that trains in a second: a few synthetic people, a network of a few channels."""

import dataclasses
import io
from pathlib import Path
from typing import Any

from rich.console import Console

from sphereface_jax.training.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
    ValConfig,
)


def quiet() -> Console:
    """Returns a console that keeps what it is told to itself, `console.file.getvalue()`."""
    return Console(file=io.StringIO(), width=1000)


def tiny_config(out: Path, **changes: Any) -> TrainConfig:
    """Returns a config of 12 steps; changes replace its top-level fields."""
    config = TrainConfig(
        out=out,
        data=DataConfig(image_size=(24, 16), synthetic_identities=6, synthetic_views=4),
        model=ModelConfig(name="spherenet4", embedding_dim=8, channels=(4, 4, 8, 8)),
        optimizer=OptimizerConfig(learning_rate=0.02),
        steps=12,
        batch_size=8,
        log_every=1,
        checkpoint_every=4,
    )
    return dataclasses.replace(config, **changes)


def as_flags(config: TrainConfig) -> list[str]:
    """Returns the command-line options of a config made by `tiny_config`."""
    flags = [f"--out={config.out}", f"--steps={config.steps}", f"--batch-size={config.batch_size}"]
    flags += [f"--log-every={config.log_every}", f"--checkpoint-every={config.checkpoint_every}"]
    height, width = config.data.image_size
    flags += ["--data.image-size", str(height), str(width), f"--seed={config.seed}"]
    flags += [f"--data.synthetic-identities={config.data.synthetic_identities}"]
    flags += [f"--data.synthetic-views={config.data.synthetic_views}"]
    flags += [f"--model.name={config.model.name}"]
    flags += [f"--model.embedding-dim={config.model.embedding_dim}"]
    flags += ["--model.channels", *map(str, config.model.channels)]
    return [*flags, f"--optimizer.learning-rate={config.optimizer.learning_rate}"]


def folder_config(faces: Path, out: Path) -> TrainConfig:
    """Returns a config that learns from a folder of images, half of its people held out."""
    config = tiny_config(
        out,
        val=ValConfig(fraction=0.5, every=6, pairs=20),
        optimizer=OptimizerConfig(learning_rate=0.02, ema_decay=0.5),
        batch_size=16,
    )
    return dataclasses.replace(config, data=dataclasses.replace(config.data, train=str(faces)))
