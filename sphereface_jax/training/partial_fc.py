"""The classes that a step looks at: all, or a sample of them.

By "partial_fc" the optimiser sees the drawn rows only, of the prototypes and of whatever it keeps
for each of them. The others stay as they are to the last bit: no decay, no momentum; what it counts
goes on for all. By "partial_fc_v2" it sees all rows, those not drawn with gradient zero, so that
they decay and go on by their momentum.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sphereface_jax.heads.sampling import Sample, Sampler
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.state import TrainState, padded_classes


@dataclass(frozen=True)
class StepClasses:
    """What a step sees of the classes: all of them, or a sample.

    Attributes:
      prototypes: their rows.
      opt_state: what the optimiser keeps for them.
      labels: the batch's, among these rows.
      keys: a PRNG key per example of this step, whichever part of the batch it is in [B].
      class_margins: of each row, for a loss that takes them; else None.
      frozen_prototypes: an older network's rows for the same classes, or None.
      num_classes: how many of the rows are classes.
      sampler: took the rows; None: they are all.
      sample: which they are, likewise.
      coast: whether the rows that are not drawn go on by their decay and momentum.
    """

    prototypes: jax.Array
    opt_state: optax.OptState
    labels: jax.Array
    keys: jax.Array
    class_margins: jax.Array | None
    frozen_prototypes: jax.Array | None
    num_classes: int
    sampler: Sampler | None = None
    sample: Sample | None = None
    coast: bool = False

    def numbers(self, rows: jax.Array) -> jax.Array:
        """Returns which classes these rows [B] are; −1 stays −1."""
        if self.sampler is None or self.sample is None:
            return rows
        first = jnp.arange(self.sampler.shards)[:, None] * self.sampler.rows_per_shard
        drawn = (self.sample.rows + first).reshape(-1)
        return jnp.where(rows < 0, -1, drawn[rows]).astype(rows.dtype)

    def to_update(self, state: TrainState, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The rows that the optimiser updates, and their gradient.

        Args:
          state: before the update.
          gradient: by the rows of `prototypes`.

        Returns:
          Rows and gradient, of one shape.
        """
        if self.sampler is None or self.sample is None or not self.coast:
            return self.prototypes, gradient
        zeros = jnp.zeros_like(state.prototypes)
        return state.prototypes, self.sampler.put(self.sample, zeros, gradient)

    def put_back(
        self, state: TrainState, prototypes: jax.Array, opt_state: optax.OptState
    ) -> tuple[jax.Array, optax.OptState]:
        """All prototypes and the optimiser's whole state, given what became of these.

        Args:
          state: before the update.
          prototypes: the rows of `to_update`, updated.
          opt_state: what the optimiser keeps for them, updated.

        Returns:
          Both, of the shapes in the state.
        """
        sampler, sample, shape = self.sampler, self.sample, state.prototypes.shape
        if sampler is None or sample is None or self.coast:
            return prototypes, opt_state

        def put(whole: jax.Array, drawn: jax.Array) -> jax.Array:
            return sampler.put(sample, whole, drawn) if jnp.shape(whole) == shape else drawn

        whole = state.prototypes, state.opt_state["prototypes"]
        return jax.tree.map(put, whole, (prototypes, opt_state))


def make_sampler(objective: Objective, batch_size: int) -> Sampler:
    """Makes what draws the classes of a step; at a rate of 1, all of them.

    Args:
      objective: the loss, with the rate and the mesh.
      batch_size: B.

    Returns:
      The sampler.
    """
    return Sampler(
        rows=padded_classes(objective.num_classes),
        num_classes=objective.num_classes,
        rate=objective.config.sample_rate,
        batch_size=batch_size,
        mesh=objective.mesh,
    )


def choose_classes(state: TrainState, labels: jax.Array, objective: Objective) -> StepClasses:
    """The classes of a step: all, or those that its number and the run's key draw.

    Args:
      state: before the update.
      labels: the batch's, int32 [B].
      objective: the loss.

    Returns:
      The classes, with the labels as rows of theirs.
    """
    prototypes, opt_state = state.prototypes, state.opt_state["prototypes"]
    key = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
    example_keys = jax.random.split(jax.random.fold_in(key, 1), labels.shape)
    margins = None
    if objective.class_margins is not None:
        missing = prototypes.shape[0] - objective.num_classes
        margins = jnp.pad(objective.class_margins, (0, missing))
    if objective.config.sample_rate == 1:
        return StepClasses(
            prototypes=prototypes,
            opt_state=opt_state,
            labels=labels,
            keys=example_keys,
            class_margins=margins,
            frozen_prototypes=state.frozen_prototypes,
            num_classes=objective.num_classes,
        )
    sampler = make_sampler(objective, labels.size)
    sample = sampler.draw(key, labels)

    def take(leaf: jax.Array) -> jax.Array:
        return sampler.take(sample, leaf) if jnp.shape(leaf) == prototypes.shape else leaf

    coast = objective.config.sampling == "partial_fc_v2"
    return StepClasses(
        prototypes=take(prototypes),
        opt_state=opt_state if coast else jax.tree.map(take, opt_state),
        labels=sample.labels,
        keys=example_keys,
        class_margins=None if margins is None else sampler.take(sample, margins),
        frozen_prototypes=None
        if state.frozen_prototypes is None
        else sampler.take(sample, state.frozen_prototypes),
        num_classes=sampler.classes_drawn,
        sampler=sampler,
        sample=sample,
        coast=coast,
    )


def require_rowwise(tx: optax.GradientTransformation, name: str) -> None:
    """Checks that an optimiser treats every row of a matrix as if it were alone.

    Args:
      tx: the optimiser.
      name: what the user calls it.

    Raises:
      ValueError: if what it does to a row depends on the others.
    """
    if not is_rowwise(tx):
        raise ValueError(
            f"loss.sample_rate: expected an optimizer that treats each prototype by itself, "
            f"got {name}, which mixes rows; use --optimizer.name sgd or adamw"
        )


def is_rowwise(tx: optax.GradientTransformation) -> bool:
    """Whether an optimiser treats every row of a matrix as if it were alone, as tried on a few."""
    rng = np.random.default_rng(0)
    weights, *gradients = (jnp.asarray(rng.normal(size=(4, 3)), jnp.float32) for _ in range(4))
    rows = jnp.array([0, 2])

    def run(weights: jax.Array, gradients: list[jax.Array]) -> jax.Array:
        state = tx.init(weights)
        for gradient in gradients:
            updates, state = tx.update(gradient, state, weights)
            weights = optax.apply_updates(weights, updates)
        return weights

    def is_whole(leaf: jax.Array) -> bool:
        return jnp.ndim(leaf) == 0 or jnp.shape(leaf) == weights.shape

    whole = run(weights, gradients)[rows]
    alone = run(weights[rows], [gradient[rows] for gradient in gradients])
    is_alike = np.allclose(whole, alone, rtol=1e-5, atol=1e-6)
    return bool(is_alike and jax.tree.all(jax.tree.map(is_whole, tx.init(weights))))
