"""Verification on identities that training never sees, scored while it runs."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import nnx

from sphereface_jax.data.sources import FaceSource
from sphereface_jax.embedding import embed, embed_images
from sphereface_jax.evaluation.pairs import Pairs
from sphereface_jax.evaluation.pairs_sampling import verification_pairs
from sphereface_jax.evaluation.verification import lfw_authors
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.input import face_transform
from sphereface_jax.training.state import TrainState

PEOPLE_PER_FOLD = 8


class Validator:
    """Scores a state by the authors' protocol on pairs of held-out identities.

    Ten folds, or fewer where there are not eight people for each.

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
            folds=num_folds,
            seed=config.seed,
        )
        used, positions = np.unique(np.concatenate([left, right]), return_inverse=True)
        left, right = np.split(positions, 2)
        self.pairs = Pairs(left, right, is_same=is_same, folds=folds)
        self._images = _Chosen(source, used)
        self._transform = face_transform(config.data)
        self._batch_size = min(config.batch_size, 64)
        self._graph = graph
        self._pixel_divisor = config.data.pixel_divisor

    def score(
        self, state: TrainState, *, advance: Callable[[int], None] = lambda count: None
    ) -> dict[str, Any]:
        """Returns the protocol's numbers for the averaged weights, or the weights if none are.

        Args:
          state: of the run.
          advance: called with the number of images embedded since the last call.
        """
        params = state.params if state.ema_params is None else state.ema_params
        embeddings = embed_images(
            functools.partial(
                embed, self._graph, params, state.model_state, pixel_divisor=self._pixel_divisor
            ),
            self._images,
            transform=self._transform,
            batch_size=self._batch_size,
            advance=advance,
        )
        return lfw_authors(embeddings.reshape(len(embeddings), -1), self.pairs).to_json()


class _Chosen:
    """The images of a source at some indices."""

    def __init__(self, source: FaceSource, indices: np.ndarray):
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self._indices[index])]

    def describe(self, index: int) -> str:
        return self._source.describe(int(self._indices[index]))
