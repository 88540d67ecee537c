"""The parts of a run besides its state, built from its config."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from sphereface_jax.compilation import run_arithmetic
from sphereface_jax.losses.table import Loss
from sphereface_jax.training.config import TrainConfig
from sphereface_jax.training.distributed import make_mesh, platform_of, state_sharding
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.optimizer import FineTuning, make_optimizer
from sphereface_jax.training.partial_fc import is_rowwise, require_rowwise
from sphereface_jax.training.state import (
    ROWS_OF_A_TILE,
    TrainState,
    abstract,
    create_state,
    make_model,
)
from sphereface_jax.training.step import Batch, Metrics, compile_train_step, make_train_step


@dataclass(frozen=True)
class Trainer:
    """What a run is made of besides its state.

    Attributes:
      config: of the run.
      mesh: of the devices.
      graph: the network's static part.
      objective: the loss.
      init: returns the state before the first step.
      step: the compiled update.
      like: the state's shapes and shardings.
    """

    config: TrainConfig
    mesh: Mesh
    graph: nnx.GraphDef
    objective: Objective
    init: Callable[[], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    like: TrainState


def make_init(
    config: TrainConfig, objective: Objective, tx: optax.GradientTransformation
) -> Callable[[], TrainState]:
    """Makes the function of no arguments that computes the state before the first step.

    Args:
      config: of the run.
      objective: the loss.
      tx: the optimiser.

    Returns:
      The function.
    """

    def init() -> TrainState:
        model_key, head_key = jax.random.split(jax.random.key(config.seed))
        model = make_model(config.model, config.data.image_size, rngs=nnx.Rngs(model_key))
        return create_state(config, model, objective, tx, key=head_key)

    return init


def state_shapes(
    config: TrainConfig, objective: Objective, tx: optax.GradientTransformation
) -> tuple[nnx.GraphDef[nnx.Module], TrainState]:
    """What the function of `make_init` would return, in shapes: nothing is computed.

    Args:
      config: of the run.
      objective: the loss.
      tx: the optimiser.

    Returns:
      The network's static part, and the state with a `jax.ShapeDtypeStruct` per array.
    """
    graph, variables = nnx.split(make_model(config.model, config.data.image_size, rngs=None))

    def create(variables: nnx.State) -> TrainState:
        model = nnx.merge(graph, variables)
        return create_state(config, model, objective, tx, key=jax.random.key(config.seed))

    return graph, jax.eval_shape(create, variables)


@run_arithmetic()
def make_trainer(
    config: TrainConfig,
    num_classes: int,
    *,
    tx: optax.GradientTransformation | None = None,
    loss: Loss | Callable[..., Any] | None = None,
    class_counts: np.ndarray | None = None,
    target: Sequence[jax.Device] | None = None,
) -> Trainer:
    """Builds the parts of a run: nothing is computed and no file is touched.

    Args:
      config: of the run.
      num_classes: identities to learn.
      tx: an optimiser that takes the place of the config's.
      loss: a loss of one's own, that the config names; see `sphereface_jax.Loss`.
      class_counts: images per class [num_classes], for the losses whose margins follow them.
      target: devices that the step is compiled for; None: all that are here. Those of a topology
        (`jax.experimental.topologies`) need not be here: the step can be compiled, not called.

    Returns:
      The trainer.

    Raises:
      ValueError: a name or a number in the config is not one that can be built.
    """
    mesh = make_mesh(
        config.mesh, batch_size=config.batch_size, accumulate=config.accumulate, target=target
    )
    shares = config.mesh.model > 1 or config.loss.class_block is not None
    own = loss if loss is None or isinstance(loss, Loss) else Loss(loss)
    objective = Objective(
        config.loss, num_classes, mesh if shares and mesh.size > 1 else None, own, class_counts
    )
    if config.compatible_with is not None and len(objective.prototypes_shape(1)) > 2:
        raise ValueError(
            "compatible_with: expected a loss with one prototype per class, got "
            f"{config.loss.name}, which has sub-centres"
        )
    name = config.optimizer.name if tx is None else "the one given"
    tx = tx or make_optimizer(config.optimizer, config.steps)
    if config.loss.sample_rate < 1 and config.loss.sampling == "partial_fc":
        require_rowwise(tx, name)
    init = make_init(config, objective, tx)
    graph, shapes = state_shapes(config, objective, tx)
    _check_batch(config, objective, shapes.model_state)
    optimizer = config.optimizer
    tuning = FineTuning(config.freeze, optimizer.head_rate, optimizer.head_first)
    tuning.check(shapes.params)
    sharding = state_sharding(
        shapes,
        mesh,
        shard_optimizer=config.mesh.shard_optimizer,
        sampled=config.loss.sample_rate < 1,
    )
    train_step = make_train_step(
        graph,
        objective,
        tx,
        pixel_mean=config.data.pixel_mean,
        pixel_divisor=config.data.pixel_divisor,
        clip_norm=config.optimizer.clip_norm,
        ema_decay=config.optimizer.ema_decay,
        accumulate=config.accumulate,
        tuning=tuning,
        platform=platform_of(mesh),
        mesh=mesh if mesh.size > 1 else None,
        in_place=_updates_in_place(config, objective, shapes.prototypes.shape, tx),
    )
    return Trainer(
        config=config,
        mesh=mesh,
        graph=graph,
        objective=objective,
        init=jax.jit(init, out_shardings=sharding),
        step=compile_train_step(train_step, sharding, mesh),
        like=abstract(shapes, sharding),
    )


def _updates_in_place(
    config: TrainConfig,
    objective: Objective,
    shape: tuple[int, ...],
    tx: optax.GradientTransformation,
) -> bool:
    """Whether prototypes that devices along "data" share are summed and updated in place.

    It takes a head that is laid out over the mesh, all classes, one prototype a class, an optimiser
    that treats each row by itself, and as many whole tiles of rows on every device: of others a TPU
    makes copies.
    """
    mesh = objective.mesh
    if mesh is None or mesh.shape["data"] == 1 or config.loss.sample_rate < 1:
        return False
    if len(shape) > 2 or shape[0] % (ROWS_OF_A_TILE * mesh.size):
        return False
    return is_rowwise(tx)


def _check_batch(config: TrainConfig, objective: Objective, model_state: nnx.State) -> None:
    """Refuses parts of a batch where it is looked at as a whole, and a batch of one to normalise.

    Batch normalisation takes its statistics of the whole batch, whatever the devices; the embedding
    of a single image would be zero, for it is its own mean.
    """
    network = config.model.name
    normalizes = bool(jax.tree.leaves(nnx.filter_state(model_state, nnx.BatchStat)))
    for culprit, whole in [
        (f"the loss {config.loss.name}", objective.row.whole_batch),
        (f"the network {network} with its batch normalisation", normalizes),
    ]:
        if whole and config.accumulate > 1:
            raise ValueError(
                f"accumulate: expected what treats each example by itself, got {culprit}, which "
                "looks at the batch as a whole; use --accumulate 1"
            )
    if normalizes and config.batch_size == 1:
        raise ValueError(
            f"batch_size: expected at least 2 for {network}, whose batch normalisation subtracts "
            "the mean of the batch, got 1"
        )
