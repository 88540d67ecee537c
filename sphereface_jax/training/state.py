"""Everything that changes during training, in one pytree."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from sphereface_jax._checks import require
from sphereface_jax.models import FOLDABLE, MODELS, abstract_model
from sphereface_jax.training.config import ModelConfig, TrainConfig
from sphereface_jax.training.objective import Objective

PROTOTYPE_MULTIPLE = 256
"""Prototypes are padded to a multiple of this, so that they fit any mesh that divides it."""

ROWS_OF_A_TILE = 8
"""The rows of a tile of a TPU's memory."""

_MANY_CLASSES = 2**18


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of a run after `step` updates.

    Attributes:
      step: int32 [], updates done.
      params: the network's trained weights.
      model_state: the network's other variables, such as batch statistics.
      prototypes: float32 [C rounded up to a multiple of 256, D], one row per class; the rows past
        the last class are zero and stay so.
      loss_state: what the loss carries from step to step; None for most.
      opt_state: of the optimiser, by the name of the field that it updates.
      ema_params: moving average of params, or None.
      rng: uint32 [2], the key of the run's random choices on the device; never changes, each
        step folds its number in.
      frozen_prototypes: of an older network, shaped like prototypes; they never change. None for
        most.
    """

    step: jax.Array
    params: nnx.State
    model_state: nnx.State
    prototypes: jax.Array
    loss_state: Any
    opt_state: dict[str, optax.OptState]
    ema_params: nnx.State | None
    rng: jax.Array
    frozen_prototypes: jax.Array | None = None


def padded_classes(num_classes: int) -> int:
    """Returns num_classes rounded up to a multiple of 256, from 262,144 classes on of 2,048.

    A TPU copies and shifts parts that are not whole tiles wherever devices exchange them, which
    matters where they are large: of 10^7 classes on 64 devices, each would have 156,252 rows.

    Example:
      >>> padded_classes(300), padded_classes(10**7)
      (512, 10000384)
    """
    multiple = PROTOTYPE_MULTIPLE * (ROWS_OF_A_TILE if num_classes >= _MANY_CLASSES else 1)
    return -(-num_classes // multiple) * multiple


def make_model(
    config: ModelConfig, image_size: tuple[int, int], *, rngs: nnx.Rngs | None
) -> nnx.Module:
    """Builds the backbone that a config names.

    Args:
      config: of the network.
      image_size: height and width in pixels.
      rngs: for the weights, and for what draws in training; None: nothing is computed, and the
        network has shapes in place of arrays.

    Returns:
      The network, from pixels [B, H, W, 3] to embeddings [B, D].

    Raises:
      ValueError: there is no backbone of that name, or it cannot be folded.
    """
    require(config.name in MODELS, "model.name", f"one of {', '.join(MODELS)}", repr(config.name))
    if config.folded and MODELS[config.name].func not in FOLDABLE:
        raise ValueError(
            f"model.folded: expected a network with normalisation, got {config.name}; leave it out"
        )
    options = {
        "embedding_dim": config.embedding_dim,
        "image_size": image_size,
        "channels": config.channels,
        "remat": config.remat,
        "dtype": jnp.dtype(config.dtype),
        **({"folded": True} if config.folded else {}),
    }
    if rngs is None:
        return abstract_model(config.name, **options)
    return MODELS[config.name](**options, rngs=rngs)


def init_prototypes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Xavier-uniform prototypes, padded with zero rows to a multiple of 256.

    Args:
      key: a PRNG key.
      shape: [C, D], or [C, K, D] with sub-centres.

    Returns:
      float32, C rounded up.
    """
    classes, *others = shape
    limit = (6 / (classes + shape[-1])) ** 0.5
    drawn = jax.random.uniform(key, shape, minval=-limit, maxval=limit)
    return jnp.zeros((padded_classes(classes), *others)).at[:classes].set(drawn)


def trained_parts(state: TrainState, objective: Objective) -> dict[str, Any]:
    """The fields that the optimiser updates.

    Args:
      state: of a run.
      objective: says whether the loss's state is learnt.

    Returns:
      The fields by name.
    """
    parts = {"params": state.params, "prototypes": state.prototypes}
    return parts | ({"loss_state": state.loss_state} if objective.row.learns_state else {})


def create_state(
    config: TrainConfig,
    model: nnx.Module,
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    key: jax.Array,
) -> TrainState:
    """The state before the first step.

    Args:
      config: of the run; says whether a moving average of the weights is kept, and whether there is
        room for the prototypes of an older network, zeros until they are put there.
      model: with its initial weights.
      objective: the loss.
      tx: the optimiser.
      key: a PRNG key; draws the prototypes, and what steps draw by.

    Returns:
      The state, after 0 updates.
    """
    prototype_key, run_key = jax.random.split(key)
    params = nnx.state(model, nnx.Param)
    shape = objective.prototypes_shape(config.model.embedding_dim)
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=nnx.state(model, nnx.Not(nnx.Param)),
        prototypes=objective.project(init_prototypes(prototype_key, shape)),
        loss_state=objective.init_state(),
        opt_state={},
        ema_params=jax.tree.map(jnp.copy, params) if config.optimizer.ema_decay > 0 else None,
        rng=jax.random.key_data(run_key),
        frozen_prototypes=None
        if config.compatible_with is None
        else jnp.zeros((padded_classes(shape[0]), *shape[1:])),
    )
    parts = trained_parts(state, objective)
    return dataclasses.replace(
        state, opt_state={name: tx.init(part) for name, part in parts.items()}
    )


def abstract(state: TrainState, sharding: TrainState) -> TrainState:
    """The shapes, types and shardings of a state, as `Checkpoints.restore` wants them.

    Args:
      state: possibly abstract itself.
      sharding: of each of its leaves.

    Returns:
      The state, of `jax.ShapeDtypeStruct`.
    """
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        state,
        sharding,
    )


class NonFiniteLossError(RuntimeError):
    """The loss, its gradient or the weights stopped being numbers.

    Attributes:
      step: the step whose loss, gradient or new weights these are.
    """

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step
