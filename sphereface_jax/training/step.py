"""One update: images to embeddings, embeddings to loss, loss to new weights, in one jitted call."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.lax import with_sharding_constraint
from jax.sharding import Mesh

from sphereface_jax.compilation import compiler_options
from sphereface_jax.data.transforms import PerChannel
from sphereface_jax.training.freezing import FineTuning
from sphereface_jax.training.gradient import accumulated, make_gradient
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.partition import (
    batch_sharding,
    platform_of,
    replicated,
    update_sharding,
)
from sphereface_jax.training.state import TrainState, trained_parts
from sphereface_jax.training.step_classes import choose_classes

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def make_train_step(
    graph: nnx.GraphDef,
    objective: Objective,
    tx: optax.GradientTransformation,
    *,
    pixel_mean: PerChannel = 127.5,
    pixel_divisor: PerChannel = 128.0,
    clip_norm: float | None = None,
    ema_decay: float = 0.0,
    accumulate: int = 1,
    tuning: FineTuning = FineTuning(),
    per_example: bool = False,
    platform: str | None = None,
    mesh: Mesh | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Makes the pure function (state, batch) -> (state, metrics) of one update.

    The batch holds "image" uint8 [B, H, W, 3] and "label" int32 [B]. The metrics are scalars of
    this very step, before its update: loss, accuracy without margin, mean angle to the target
    prototype in degrees, mean length of the embeddings, and the gradient's global norm. Where
    classes are sampled, they are those among the sample, which is drawn once for the batch. On a
    mesh, every device embeds its part of the batch.

    With `per_example` they also hold how each example lies, [B] each, before the update: its own
    "cosine", the nearest "other_class" and its "other_cosine", without margin; where classes are
    sampled, the nearest among those drawn. Nothing of it is computed or sent unless asked for.

    Args:
      graph: the network's static part, of `nnx.split`.
      objective: the loss.
      tx: the optimiser.
      pixel_mean: what is subtracted from a pixel, a number or one a channel.
      pixel_divisor: what it is divided by then, likewise.
      clip_norm: the largest global norm of the gradient; None: any.
      ema_decay: of the weights' moving average, in [0, 1), where the state keeps one.
      accumulate: parts that a batch is taken in.
      tuning: what is frozen, and how fast the head learns.
      per_example: whether the metrics hold examples.
      platform: of the devices that the step is compiled for; None: of those at hand.
      mesh: the devices; None: one.

    Returns:
      The function, not compiled.
    """
    gradient = make_gradient(
        graph,
        objective,
        pixel_mean=pixel_mean,
        pixel_divisor=pixel_divisor,
        tuning=tuning,
        per_example=per_example,
        mesh=mesh,
    )
    # XLA's CPU backend loses its fast convolutions inside a loop: 30 times as long a step.
    gradient = accumulated(
        gradient, accumulate, unroll=(platform or jax.default_backend()) == "cpu"
    )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        classes = choose_classes(state, batch["label"], objective)
        trained = trained_parts(state, objective) | {"prototypes": classes.prototypes}
        opt_state = state.opt_state | {"prototypes": classes.opt_state}
        found = gradient(trained, state, classes, batch["image"])
        grads = found.by
        if mesh is not None and objective.config.sample_rate == 1:
            grads["prototypes"] = with_sharding_constraint(
                grads["prototypes"], update_sharding(mesh, grads["prototypes"].shape[0])
            )
        norm = optax.tree.norm(grads)
        grads = _clipped(grads, norm, clip_norm)
        trained["prototypes"], grads["prototypes"] = classes.to_update(state, grads["prototypes"])
        updated = {}
        for name, weights in trained.items():
            before = opt_state[name]
            updates, after = tx.update(grads[name], before, weights)
            updates, opt_state[name] = tuning.limit(name, state.step, updates, after, before)
            updated[name] = optax.apply_updates(weights, updates)
        prototypes, opt_state["prototypes"] = classes.put_back(
            state, objective.project(updated["prototypes"]), opt_state["prototypes"]
        )
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=updated["params"],
            model_state=found.model_state,
            prototypes=prototypes,
            loss_state=updated.get("loss_state", found.loss_state),
            opt_state=opt_state,
            ema_params=_averaged(state.ema_params, updated["params"], ema_decay),
        )
        examples = {} if found.examples is None else found.examples._asdict()
        return new_state, found.metrics | {"gradient_norm": norm} | examples

    return train_step


def _clipped(grads: Any, norm: jax.Array, clip_norm: float | None) -> Any:
    if clip_norm is None:
        return grads
    return jax.tree.map(lambda g: g * jnp.minimum(1.0, clip_norm / norm), grads)


def _averaged(ema_params: Any, params: Any, decay: float) -> Any:
    return None if ema_params is None else optax.incremental_update(params, ema_params, 1 - decay)


def compile_train_step(
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    sharding: TrainState,
    mesh: Mesh,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Jits an update over the mesh; the state that goes in is donated.

    Args:
      train_step: of `make_train_step`.
      sharding: of each leaf of the state.
      mesh: of `make_mesh`.

    Returns:
      The same function, compiled when first called.
    """
    # The first device of a mesh may be another process's; those at hand are like it, if any are.
    is_here = platform_of(mesh) == jax.default_backend()
    device = None if is_here else mesh.devices.flat[0]
    return jax.jit(
        train_step,
        donate_argnums=0,
        in_shardings=(sharding, batch_sharding(mesh)),
        out_shardings=(sharding, replicated(mesh)),
        compiler_options=compiler_options(device),
    )
