"""Backward-compatible training: vectors of the new network stay comparable with an old one's.

The embeddings of the new network are held against two sets of prototypes: its own, which learn, and
a frozen set of the old network. What is small against both lies where the old network put that
person, so that people enrolled with the old network need not be enrolled again.

Reference: Shen et al., "Towards Backward-Compatible Representation Learning",
https://arxiv.org/abs/2003.11942, 2020.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.console import Console

from sphereface_jax._console import counting, say
from sphereface_jax.data.source import FaceSource
from sphereface_jax.embedding import embed, embed_images
from sphereface_jax.geometry import normalize
from sphereface_jax.training.checkpoint import Checkpoints
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.input import face_transform
from sphereface_jax.training.run_folder import SavedRun, load_run, read_config
from sphereface_jax.training.state import padded_classes


def check_compatible(config: TrainConfig) -> None:
    """Refuses an old run whose vectors cannot be compared, before anything is written.

    Raises:
      FileNotFoundError: `config.compatible_with` is not a run, or has no checkpoint.
      ValueError: its embeddings have another length.
    """
    assert config.compatible_with is not None
    old = read_config(config.compatible_with)
    if old.model.embedding_dim != config.model.embedding_dim:
        raise ValueError(
            f"{config.compatible_with}: expected embeddings of {config.model.embedding_dim} "
            f"numbers, as this run's, got {old.model.embedding_dim}; give this run "
            f"--model.embedding-dim {old.model.embedding_dim}"
        )
    with Checkpoints(config.compatible_with / "checkpoints") as checkpoints:
        checkpoints.progress()


def frozen_prototypes(
    config: TrainConfig, source: FaceSource, description: dict[str, Any], console: Console
) -> np.ndarray:
    """Returns a prototype per identity by the old network `config.compatible_with`.

    They are the old run's own where it learnt the same identities. Otherwise they are the mean
    directions of its embeddings of each identity's images, as the paper makes them for people whom
    the old network does not know.

    Args:
      config: of the new run.
      source: the faces that it learns from.
      description: of the new run, by `describe_run`.
      console: where to say what was taken.

    Returns:
      float32 [C rounded up to a multiple of 256, D]; the rows past the last class are zero.
    """
    assert config.compatible_with is not None
    old = load_run(config.compatible_with)
    if old.identities == description["identities"] and old.prototypes.ndim == 2:
        say(console, f"Compatible with {old.path}: its own prototypes, of the same identities.")
        return np.asarray(old.prototypes)
    prototypes = _class_means(old, source, config.batch_size, console)
    say(console, f"Compatible with {old.path}: the means of its embeddings of each identity.")
    return prototypes


def _class_means(
    old: SavedRun, source: FaceSource, batch_size: int, console: Console
) -> np.ndarray:
    data = old.config.data
    apply = functools.partial(
        embed,
        old.graph,
        old.params,
        old.model_state,
        pixel_mean=data.pixel_mean,
        pixel_divisor=data.pixel_divisor,
        mirror=False,
    )
    with counting(console, f"embedding by {old.path.name}", "images", len(source)) as advance:
        embeddings = embed_images(
            apply,
            source,
            transform=face_transform(data),
            batch_size=min(batch_size, 64),
            advance=advance,
        )[:, 0]
    means = np.zeros((padded_classes(len(source.identities)), embeddings.shape[1]), np.float32)
    np.add.at(means, np.asarray(source.labels), normalize(jnp.asarray(embeddings)))
    return np.array(normalize(jnp.asarray(means)))
