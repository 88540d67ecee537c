"""Backbones: networks from images [B, H, W, 3] to embeddings [B, embedding_dim]."""

import functools
from collections.abc import Callable

from flax import nnx

from sphereface_jax.models.spherenet import UNITS, SphereNet

MODELS: dict[str, Callable[..., nnx.Module]] = {
    f"spherenet{depth}": functools.partial(SphereNet, depth) for depth in UNITS
}
"""Every backbone by the name that `--model.name` takes."""
