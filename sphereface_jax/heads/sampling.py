"""PartialFC: a batch is compared with its labels' classes and a random fraction of the others.

Every shard of the classes draws for itself, as many as every other, so that no shape depends on
what is drawn. What is drawn stays in the order of the classes; so rows that are not classes, which
are drawn only where a shard has no more classes, come last of all, and their number is known.

References:
  An et al., Killing Two Birds with One Stone: Efficient and Robust Training of Face Recognition
  CNNs by Partial FC, CVPR 2022, https://arxiv.org/abs/2203.15565.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from sphereface_jax import _checks
from sphereface_jax.heads.blockwise import CLASSES

Array = jax.Array


class Sample(NamedTuple):
    """The classes of one step.

    Attributes:
      rows: which of its own rows each shard drew [shards, S], ascending.
      labels: the batch's labels among all drawn rows, shard after shard [B].
    """

    rows: Array
    labels: Array


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Draws classes, and takes and puts their rows.

    Attributes:
      rows: of the prototypes, a multiple of the shards.
      num_classes: rows from here on are not classes.
      rate: fraction of the classes that is drawn; at least room for the batch's classes.
      batch_size: B.
      mesh: whose axis "model" the rows are sharded over; None: they are all on every device.

    Raises:
      ValueError: if the rate is not in (0, 1].
    """

    rows: int
    num_classes: int
    rate: float
    batch_size: int
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        _checks.require(0 < self.rate <= 1, "rate", "a fraction in (0, 1]", self.rate)

    @property
    def shards(self) -> int:
        """How many parts the rows are cut into."""
        return 1 if self.mesh is None else self.mesh.shape.get(CLASSES, 1)

    @property
    def rows_per_shard(self) -> int:
        """How many rows a shard holds."""
        return self.rows // self.shards

    @property
    def drawn_per_shard(self) -> int:
        """S, how many rows a shard draws."""
        own = min(self.batch_size, self.rows_per_shard)
        asked = math.ceil(self.rate * self.num_classes / self.shards)
        return min(max(asked, own), self.rows_per_shard)

    @property
    def classes_drawn(self) -> int:
        """How many of the drawn rows, the first ones, are classes."""
        held = (self.num_classes - i * self.rows_per_shard for i in range(self.shards))
        return sum(min(max(classes, 0), self.drawn_per_shard) for classes in held)

    def draw(self, key: Array, labels: Array) -> Sample:
        """Draws the labels' classes and others with equal chances, without replacement.

        Args:
          key: decides what is drawn, together with the labels and the number of shards.
          labels: [B].

        Returns:
          The sample.
        """
        chances = jax.vmap(lambda shard: jax.random.uniform(shard, (self.rows_per_shard,)))(
            jax.random.split(key, self.shards)
        ).reshape(-1)
        is_class = jnp.arange(self.rows) < self.num_classes
        chances = jnp.where(is_class, chances, -1).at[labels].set(2)
        chances = chances.reshape(self.shards, -1)
        rows = jnp.sort(jax.lax.top_k(chances, self.drawn_per_shard)[1], axis=1)
        first = jnp.arange(self.shards)[:, None] * self.rows_per_shard
        places = jnp.searchsorted((rows + first).reshape(-1), labels)
        return Sample(rows, places.astype(labels.dtype))

    def take(self, sample: Sample, values: Array) -> Array:
        """The drawn rows of an array.

        Args:
          sample: what was drawn.
          values: [rows, ...], sharded as the prototypes are.

        Returns:
          [shards · S, ...], shard after shard.
        """
        return self._on_shards(lambda rows, values: values[rows[0]], sample.rows, values)

    def put(self, sample: Sample, values: Array, drawn: Array) -> Array:
        """Returns the array with the drawn rows put back in place.

        Args:
          sample: what was drawn.
          values: [rows, ...], sharded as the prototypes are.
          drawn: [shards · S, ...], as `take` returns them.

        Returns:
          [rows, ...]; the rows that were not drawn stay as they are.
        """

        def put(rows: Array, values: Array, drawn: Array) -> Array:
            return values.at[rows[0]].set(drawn, indices_are_sorted=True, unique_indices=True)

        return self._on_shards(put, sample.rows, values, drawn)

    def _on_shards(self, function: Callable[..., Array], *values: Array) -> Array:
        """Runs a function where the rows are: no row leaves its device."""
        if self.shards == 1:
            return function(*values)
        return jax.shard_map(
            function,
            mesh=self.mesh,
            in_specs=P(CLASSES),
            out_specs=P(CLASSES),
            check_vma=False,
        )(*values)
