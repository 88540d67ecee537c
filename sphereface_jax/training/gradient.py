"""The gradient of a batch's mean loss, at once or part by part.

A mean over a batch is the mean of the means over equal parts of it. So a gradient may be gathered
part after part, in the memory of one, and the update be the same; unless something looks at the
batch as a whole, as batch normalisation does: `require_separable` refuses that.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import with_sharding_constraint
from jax.sharding import Mesh, NamedSharding

from sphereface_jax.data.transforms import PerChannel, normalize_pixels
from sphereface_jax.heads.reductions import Nearest
from sphereface_jax.training.collapse import collapse_metrics
from sphereface_jax.training.freezing import FineTuning
from sphereface_jax.training.objective import Objective
from sphereface_jax.training.partition import batch_sharding, replicated
from sphereface_jax.training.state import TrainState
from sphereface_jax.training.step_classes import StepClasses


class BatchGradient(NamedTuple):
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


Gradient = Callable[[dict[str, Any], TrainState, StepClasses, jax.Array], BatchGradient]


def make_gradient(
    graph: nnx.GraphDef,
    objective: Objective,
    *,
    pixel_mean: PerChannel = 127.5,
    pixel_divisor: PerChannel = 128.0,
    tuning: FineTuning = FineTuning(),
    per_example: bool = False,
    mesh: Mesh | None = None,
) -> Gradient:
    """Makes the function (trained, state, classes, images) -> BatchGradient.

    On a mesh it says where the network ends and where its gradient is whole. Left to itself, XLA
    takes the cuts of the head and of the optimiser into the network and gathers its activations.

    Args:
      graph: the network's static part, of `nnx.split`.
      objective: the loss.
      pixel_mean: what is subtracted from a pixel, a number or one a channel.
      pixel_divisor: what it is divided by then, likewise.
      tuning: what of the network is frozen.
      per_example: whether to return also how each example lies.
      mesh: the devices; None: one.

    Returns:
      The function; images are uint8 [B, H, W, 3], and what is trained is a dictionary of parts, by
      which the gradient is taken.
    """

    def place(values: Any, sharding: Callable[[Mesh], NamedSharding]) -> Any:
        return values if mesh is None else with_sharding_constraint(values, sharding(mesh))

    def mean_loss(
        trained: dict[str, Any], state: TrainState, classes: StepClasses, images: jax.Array
    ) -> tuple[jax.Array, BatchGradient]:
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
        return loss, BatchGradient(
            {}, metrics, examples if per_example else None, loss_state, model_state
        )

    def gradient(
        trained: dict[str, Any], state: TrainState, classes: StepClasses, images: jax.Array
    ) -> BatchGradient:
        by, rest = jax.grad(mean_loss, has_aux=True)(trained, state, classes, images)
        return rest._replace(by=by | {"params": place(by["params"], replicated)})

    return gradient


def accumulated(gradient: Gradient, parts: int, *, unroll: bool = False) -> Gradient:
    """Returns the same gradient, accumulated over `parts` equal parts of a batch.

    Part i holds the examples i, i + parts, i + 2 · parts, ...: every device has its part of each,
    and no image moves.

    Args:
      gradient: of a batch.
      parts: how many.
      unroll: whether to write the parts out one after another instead of a loop.

    Returns:
      The function of a whole batch. Of two parts or more, it leaves the loss's state and the
      network's other variables as they are.
    """
    if parts == 1:
        return gradient

    def cut(values: jax.Array) -> jax.Array:
        return values.reshape(-1, parts, *values.shape[1:]).swapaxes(0, 1)

    def gathered(
        trained: dict[str, Any], state: TrainState, classes: StepClasses, images: jax.Array
    ) -> BatchGradient:
        def add(total: Any, part: tuple[jax.Array, ...]) -> tuple[Any, Any]:
            images, labels, keys = part
            part_classes = dataclasses.replace(classes, labels=labels, keys=keys)
            found = gradient(trained, state, part_classes, images)
            return jax.tree.map(jnp.add, total, found.by), (found.metrics, found.examples)

        start = jax.tree.map(jnp.zeros_like, trained)
        parts_of = cut(images), cut(classes.labels), cut(classes.keys)
        total, (metrics, examples) = jax.lax.scan(add, start, parts_of, unroll=unroll)
        return BatchGradient(
            by=jax.tree.map(lambda leaf: leaf / parts, total),
            metrics=jax.tree.map(jnp.mean, metrics),
            examples=jax.tree.map(lambda values: values.T.reshape(-1), examples),
            loss_state=state.loss_state,
            model_state=state.model_state,
        )

    return gathered


def require_separable(
    objective: Objective, model_state: nnx.State, *, network: str, parts: int
) -> None:
    """Checks that a batch may be taken part by part.

    Args:
      objective: the loss.
      model_state: the network's variables besides its weights.
      network: what the user calls it.
      parts: how many.

    Raises:
      ValueError: the loss or the network looks at the batch as a whole.
    """
    if parts == 1:
        return
    for culprit, whole in [
        (f"the loss {objective.config.name}", objective.looks_at_whole_batch),
        (f"the network {network} with its batch normalisation", _normalizes(model_state)),
    ]:
        if whole:
            raise ValueError(
                f"accumulate: expected what treats each example by itself, got {culprit}, which "
                "looks at the batch as a whole; use --accumulate 1"
            )


def require_batch(model_state: nnx.State, *, network: str, batch_size: int) -> None:
    """Checks that a network that normalises over the batch gets more than one image at a time.

    The statistics are those of the whole batch, whatever the devices: one image on each of several
    devices is a batch of several.

    Args:
      model_state: the network's variables besides its weights.
      network: what the user calls it.
      batch_size: images per update, over all devices.

    Raises:
      ValueError: it gets one, whose embedding would be zero: it is its own mean.
    """
    if batch_size == 1 and _normalizes(model_state):
        raise ValueError(
            f"batch_size: expected at least 2 for {network}, whose batch normalisation subtracts "
            "the mean of the batch, got 1"
        )


def _normalizes(model_state: nnx.State) -> bool:
    return bool(jax.tree.leaves(nnx.filter_state(model_state, nnx.BatchStat)))
