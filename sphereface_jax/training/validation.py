"""Verification on identities that training never sees, scored while it runs."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.experimental.multihost_utils import process_allgather

from sphereface_jax.data.source import FaceSource, ImageView
from sphereface_jax.embedding import embed, embed_images
from sphereface_jax.evaluation.draw_pairs import verification_pairs
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.verification import lfw_authors
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.input import face_transform
from sphereface_jax.training.state import TrainState

PEOPLE_PER_FOLD = 8


class Validator:
    """Scores a state by the authors' protocol on pairs of held-out identities.

    Ten folds, or fewer where there are not eight people for each. Every process embeds its part of
    the images, on one of its devices.

    Args:
      source: faces of the held-out identities.
      config: of the run; its seed draws the pairs.
      graph: the network's static part.

    Raises:
      ValueError: there are too few identities or images to draw the pairs from.
    """

    def __init__(self, source: FaceSource, config: TrainConfig, graph: nnx.GraphDef):
        num_folds = min(10, max(2, len(source.identities) // PEOPLE_PER_FOLD))
        left, right, is_same, folds = verification_pairs(
            source.labels,
            pairs_per_fold=max(2, config.val.pairs // num_folds // 2 * 2),
            num_folds=num_folds,
            seed=config.seed,
        )
        used, positions = np.unique(np.concatenate([left, right]), return_inverse=True)
        left, right = np.split(positions, 2)
        self.pairs = Pairs(left, right, is_same=is_same, folds=folds)
        self._count, processes = len(used), jax.process_count()
        share = -(-len(used) // processes)
        padded = np.pad(used, (0, share * processes - len(used)), mode="edge")
        self._images = ImageView(source, padded[share * jax.process_index() :][:share])
        self._transform = face_transform(config.data)
        self._batch_size = min(config.batch_size, 64)
        self._embed = functools.partial(
            embed,
            graph,
            pixel_mean=config.data.pixel_mean,
            pixel_divisor=config.data.pixel_divisor,
        )

    def score(
        self, state: TrainState, *, advance: Callable[[int], None] = lambda count: None
    ) -> dict[str, Any]:
        """Scores the averaged weights, or the weights if none are averaged.

        All processes must call it together.

        Args:
          state: of the run.
          advance: called with the number of images embedded since the last call.

        Returns:
          The protocol's numbers by name.
        """
        params = state.params if state.ema_params is None else state.ema_params
        whole = jax.device_put((params, state.model_state), state.step.sharding)
        here = jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)
        embeddings = embed_images(
            functools.partial(self._embed, *here),
            self._images,
            transform=self._transform,
            batch_size=self._batch_size,
            advance=advance,
        )
        embeddings = process_allgather(embeddings, tiled=True)[: self._count]
        return lfw_authors(embeddings.reshape(len(embeddings), -1), self.pairs).to_json()
