"""The data of a run, as its config names it."""

import dataclasses
from typing import Any

from sphereface_jax.data.open import open_source
from sphereface_jax.data.source import FaceSource, exclude_identities, split_identities
from sphereface_jax.data.transforms import FaceTransform
from sphereface_jax.training.config import DataConfig, TrainConfig


def face_transform(config: DataConfig) -> FaceTransform:
    """Returns crop, colour order and augmentation: the fields of the same names."""
    names = (field.name for field in dataclasses.fields(FaceTransform))
    return FaceTransform(**{name: getattr(config, name) for name in names})


def open_training_data(config: TrainConfig) -> tuple[FaceSource, FaceSource | None]:
    """Returns the faces to train on, and those of the identities that are held out, if any.

    Raises:
      FileNotFoundError: there is nothing of that name.
      ValueError: it is not a set of faces, or has too few identities.
    """
    synthetic: dict[str, Any] = {}
    if config.data.train == "synthetic":
        synthetic = {
            "num_identities": config.data.synthetic_identities,
            "views_per_identity": config.data.synthetic_views,
            "image_size": config.data.image_size,
            "seed": config.seed,
        }
    source = open_source(
        config.data.train,
        split=config.data.split,
        data_dir=config.data.data_dir,
        root=config.data.root,
        **synthetic,
    )
    if config.data.exclude:
        source = exclude_identities(source, config.data.exclude)
    if len(source.identities) < 2:
        raise ValueError(
            f"{config.data.train}: expected at least two identities to tell apart, "
            f"got {len(source.identities)}"
        )
    if not config.val.fraction:
        return source, None
    return split_identities(source, config.val.fraction, config.seed)
