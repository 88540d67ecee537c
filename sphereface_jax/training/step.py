"""One update: images to embeddings, embeddings to loss, loss to new weights, in one jitted call.

The gradient of a batch's mean loss is taken at once or part by part. A mean over a batch is the
mean of the means over equal parts of it, so the update is the same, in the memory of one part;
unless something looks at the batch as a whole, as batch normalisation does: the trainer refuses
that.
"""

import dataclasses
import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.lax import with_sharding_constraint
from jax.sharding import Mesh, NamedSharding

from sphereface_jax.compilation import compiler_options
from sphereface_jax.data.transforms import PerChannel, normalize_pixels
from sphereface_jax.geometry import normalize
from sphereface_jax.heads.blockwise import gradient_unsummed
from sphereface_jax.heads.reductions import Nearest
from sphereface_jax.training.distributed import (
    batch_sharding,
    platform_of,
    replicated,
    update_sharding,
)
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.optimizer import FineTuning
from sphereface_jax.training.partial_fc import StepClasses, choose_classes
from sphereface_jax.training.rows_update import add_summed, unsummed_gradient, update_in_place
from sphereface_jax.training.state import TrainState, trained_parts

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
    in_place: bool = False,
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
      in_place: whether the prototypes' gradient is summed and they are updated by
        `rows_update.update_in_place`.

    Returns:
      The function, not compiled.
    """
    gradient = _make_gradient(
        graph,
        objective,
        pixel_mean=pixel_mean,
        pixel_divisor=pixel_divisor,
        tuning=tuning,
        per_example=per_example,
        mesh=mesh,
        in_place=in_place,
    )
    # XLA's CPU backend loses its fast convolutions inside a loop: 30 times as long a step.
    gradient = _accumulated(
        gradient,
        accumulate,
        unroll=(platform or jax.default_backend()) == "cpu",
        unsummed_over=mesh if in_place else None,
    )

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        classes = choose_classes(state, batch["label"], objective)
        trained = trained_parts(state, objective) | {"prototypes": classes.prototypes}
        opt_state = state.opt_state | {"prototypes": classes.opt_state}
        found = gradient(trained, state, classes, batch["image"])
        grads = found.by

        def update(name: str, by: Any, before: Any, weights: Any) -> tuple[Any, Any]:
            updates, after = tx.update(by, before, weights)
            updates, after = tuning.limit(name, state.step, updates, after, before)
            return optax.apply_updates(weights, updates), after

        def update_rows(by: jax.Array, before: Any, rows: jax.Array) -> tuple[jax.Array, Any]:
            rows, after = update("prototypes", by, before, rows)
            return objective.project(rows), after

        if in_place and mesh is not None:
            by, rows = grads.pop("prototypes"), trained.pop("prototypes")
            # What else reads the prototypes comes before they are written over.
            read = found.metrics, found.examples
            rows, (metrics, examples) = jax.lax.optimization_barrier((rows, read))
            found = found._replace(metrics=metrics, examples=examples)
            prototypes, opt_state["prototypes"], norm = update_in_place(
                rows,
                by,
                opt_state["prototypes"],
                update_rows=update_rows,
                other_norm=optax.tree.norm(grads),
                clip_norm=clip_norm,
                mesh=mesh,
            )
            grads = _clipped(grads, norm, clip_norm)
        else:
            if mesh is not None and objective.config.sample_rate == 1:
                grads["prototypes"] = with_sharding_constraint(
                    grads["prototypes"], update_sharding(mesh, grads["prototypes"].shape[0])
                )
            norm = optax.tree.norm(grads)
            grads = _clipped(grads, norm, clip_norm)
            rows, by = classes.to_update(state, grads.pop("prototypes"))
            del trained["prototypes"]
            prototypes, opt_state["prototypes"] = classes.put_back(
                state, *update_rows(by, opt_state["prototypes"], rows)
            )
        updated = {}
        for name, weights in trained.items():
            updated[name], opt_state[name] = update(name, grads[name], opt_state[name], weights)
        averaged = state.ema_params
        if averaged is not None:
            averaged = optax.incremental_update(updated["params"], averaged, 1 - ema_decay)
        new_state = dataclasses.replace(
            state,
            step=state.step + 1,
            params=updated["params"],
            model_state=found.model_state,
            prototypes=prototypes,
            loss_state=updated.get("loss_state", found.loss_state),
            opt_state=opt_state,
            ema_params=averaged,
        )
        examples = {} if found.examples is None else found.examples._asdict()
        return new_state, found.metrics | {"gradient_norm": norm} | examples

    return train_step


def _clipped(grads: Any, norm: jax.Array, clip_norm: float | None) -> Any:
    if clip_norm is None:
        return grads
    return jax.tree.map(lambda g: g * jnp.minimum(1.0, clip_norm / norm), grads)


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


class _BatchGradient(NamedTuple):
    """What a step learns from its batch.

    Attributes:
      by: the gradient of the mean loss, by each part that is trained.
      metrics: means over the batch, the loss among them.
      examples: where asked for, how each example of the batch lies; else None.
      loss_state: what the loss carries on.
      model_state: the network's other variables, afterwards.
    """

    by: dict[str, Any]
    metrics: dict[str, jax.Array]
    examples: Nearest | None
    loss_state: Any
    model_state: nnx.State


_Gradient = Callable[[dict[str, Any], TrainState, StepClasses, jax.Array], _BatchGradient]


def _make_gradient(
    graph: nnx.GraphDef,
    objective: Objective,
    *,
    pixel_mean: PerChannel,
    pixel_divisor: PerChannel,
    tuning: FineTuning,
    per_example: bool,
    mesh: Mesh | None,
    in_place: bool,
) -> _Gradient:
    """Makes the function (trained, state, classes, images) -> _BatchGradient.

    What is trained is a dictionary of parts, by which the gradient is taken; with `in_place` that
    by the prototypes is [data, C, D], every device's own. On a mesh the function says where the
    network ends and where its gradient is whole. Left to itself, XLA takes the cuts of the head and
    of the optimiser into the network and gathers its activations.
    """

    def place(values: Any, sharding: Callable[[Mesh], NamedSharding]) -> Any:
        return values if mesh is None else with_sharding_constraint(values, sharding(mesh))

    def mean_loss(
        trained: dict[str, Any],
        unsummed: jax.Array | None,
        state: TrainState,
        classes: StepClasses,
        images: jax.Array,
    ) -> tuple[jax.Array, _BatchGradient]:
        model = nnx.merge(graph, tuning.hold(trained["params"]), state.model_state, copy=True)
        model.train()
        pixels = normalize_pixels(images, mean=pixel_mean, divisor=pixel_divisor)
        embeddings = model(pixels)
        embeddings = place(embeddings, batch_sharding)
        head_loss = functools.partial(
            objective.loss,
            embeddings,
            labels=classes.labels,
            state=trained.get("loss_state", state.loss_state),
            step=state.step,
            num_classes=classes.num_classes,
            keys=classes.keys,
            class_margins=classes.class_margins,
        )
        with nullcontext() if unsummed is None else gradient_unsummed(unsummed):
            losses, loss_state = head_loss(trained["prototypes"])
        if classes.frozen_prototypes is not None:
            losses += head_loss(classes.frozen_prototypes)[0]
        loss = losses.mean()
        found = objective.nearest(
            embeddings, classes.prototypes, classes.labels, num_classes=classes.num_classes
        )
        metrics = {"loss": loss}
        metrics |= objective.metrics(jax.lax.stop_gradient(embeddings), found)
        metrics |= collapse_metrics(jax.lax.stop_gradient(embeddings), classes.labels)
        model_state = tuning.keep(nnx.state(model, nnx.Not(nnx.Param)), state.model_state)
        examples = found._replace(other_class=classes.numbers(found.other_class))
        return loss, _BatchGradient(
            {}, metrics, examples if per_example else None, loss_state, model_state
        )

    def gradient(
        trained: dict[str, Any], state: TrainState, classes: StepClasses, images: jax.Array
    ) -> _BatchGradient:
        unsummed = None
        if in_place and mesh is not None:
            unsummed = unsummed_gradient(mesh, trained["prototypes"])
        (by, parts), rest = jax.grad(mean_loss, (0, 1), has_aux=True)(
            trained, unsummed, state, classes, images
        )
        by["params"] = place(by["params"], replicated)
        if parts is not None:
            by["prototypes"] = add_summed(parts, by["prototypes"])
        return rest._replace(by=by)

    return gradient


def _accumulated(
    gradient: _Gradient, parts: int, *, unroll: bool, unsummed_over: Mesh | None
) -> _Gradient:
    """Returns the same gradient, accumulated over `parts` equal parts of a batch.

    Part i holds the examples i, i + parts, i + 2 · parts, ...: every device has its part of each,
    and no image moves. Of two parts or more, it leaves the loss's state and the network's other
    variables as they are. `unroll` writes the parts out one after another instead of a loop. Over
    the devices of `unsummed_over`, the prototypes' gradient is not summed.
    """
    if parts == 1:
        return gradient

    def cut(values: jax.Array) -> jax.Array:
        return values.reshape(-1, parts, *values.shape[1:]).swapaxes(0, 1)

    def gathered(
        trained: dict[str, Any], state: TrainState, classes: StepClasses, images: jax.Array
    ) -> _BatchGradient:
        def add(total: Any, part: tuple[jax.Array, ...]) -> tuple[Any, Any]:
            images, labels, keys = part
            part_classes = dataclasses.replace(classes, labels=labels, keys=keys)
            found = gradient(trained, state, part_classes, images)
            return jax.tree.map(jnp.add, total, found.by), (found.metrics, found.examples)

        start = jax.tree.map(jnp.zeros_like, trained)
        if unsummed_over is not None:
            start["prototypes"] = unsummed_gradient(unsummed_over, trained["prototypes"])
        parts_of = cut(images), cut(classes.labels), cut(classes.keys)
        total, (metrics, examples) = jax.lax.scan(add, start, parts_of, unroll=unroll)
        return _BatchGradient(
            by=jax.tree.map(lambda leaf: leaf / parts, total),
            metrics=jax.tree.map(jnp.mean, metrics),
            examples=jax.tree.map(lambda values: values.T.reshape(-1), examples),
            loss_state=state.loss_state,
            model_state=state.model_state,
        )

    return gathered


# Collapsed are embeddings that are all shorter, or whose cosines between people are all larger.
_LENGTH, _COSINE = 1e-6, 0.999

_MOST_ROWS = 512  # of the matrix of cosines

_MESSAGES = {
    "all_zero": f"all embeddings are shorter than {_LENGTH:g}",
    "all_alike": f"the embeddings of different people all have cosines above {_COSINE:g}",
}


def collapse_metrics(embeddings: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    """Whether a batch's embeddings are all zero, and whether they are all alike.

    The loss of a collapsed network is finite and so are its gradients; nothing else says that it
    has stopped telling people apart. Of more than 512 examples, the first 512 are compared with
    all. Where a batch is accumulated in parts, it counts as collapsed only if every part does.

    Args:
      embeddings: [B, D].
      labels: [B], the person of each.

    Returns:
      "all_zero" and "all_alike", float32 [], 0 or 1.
    """
    lengths = jnp.linalg.norm(embeddings, axis=1)
    unit = normalize(embeddings)
    cosines = jnp.matmul(unit[:_MOST_ROWS], unit.T, precision=jax.lax.Precision.HIGHEST)
    differ = labels[:_MOST_ROWS, None] != labels[None, :]
    alike = jnp.any(differ) & jnp.all(jnp.where(differ, cosines > _COSINE, True))
    flags = {"all_zero": jnp.all(lengths < _LENGTH), "all_alike": alike}
    return {name: flag.astype(jnp.float32) for name, flag in flags.items()}


def pop_collapse(metrics: dict[str, float]) -> str | None:
    """Takes `collapse_metrics` out of a step's metrics, and returns what they say, or None."""
    flags = {name: metrics.pop(name) for name in _MESSAGES}
    return next((_MESSAGES[name] for name, flag in flags.items() if flag == 1), None)
