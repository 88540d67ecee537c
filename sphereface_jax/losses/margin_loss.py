"""The one engine behind every loss, open to a margin of one's own.

Every loss of the family is the same sentence: cosines between embeddings and class prototypes;
change the target's (and, for a few losses, the others'); scale; reduce over the classes. A margin
is a small function of a cosine; `margin_loss` does the rest, densely, in blocks of classes, or over
a mesh of devices.
"""

import numbers
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from sphereface_jax import _checks, margins
from sphereface_jax.heads.blockwise import AnyMesh, blockwise_loss, context_mesh
from sphereface_jax.heads.dense import dense_logits, dense_loss
from sphereface_jax.heads.reductions import (
    BinaryCrossEntropy,
    Nearest,
    NearestOther,
    Reduction,
    SoftmaxCrossEntropy,
    TargetOnly,
)
from sphereface_jax.heads.scoring import (
    Margin,
    Negatives,
    PrescribedGradient,
    Scalar,
    Settings,
    Target,
)

Array = jax.Array

_REDUCTIONS: dict[str, Reduction] = {
    "softmax": SoftmaxCrossEntropy(),
    "binary": BinaryCrossEntropy(),
}


def margin_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    target: Target,
    negatives: Negatives | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    scale: Scalar | None = 64.0,
    reduction: Literal["softmax", "binary"] | Reduction = "softmax",
    bias: Array | float | None = None,
    filter_threshold: Scalar | None = None,
    normalized: bool = True,
    gradient: Literal["exact", "detached"] | PrescribedGradient = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """Loss of any margin: cosines, the margin, a scale, a reduction over the classes.

    With c_j the cosine between an embedding x and the prototype of class j, and y its target class,
    f_y = s · target(c_y, ‖x‖) + b and f_j = s · negatives(c_j, c_y) + b; the softmax loss is
    log(1 + Σ_j exp(f_j − f_y)), the binary one softplus(−f_y) + Σ_j softplus(f_j).

    Whatever differs between examples goes through `hyperparameters`, not through a closure: the
    engine shards an array [B] with the batch, while an array captured by a function would reach
    every device whole. A loss with state is a function around this one, which makes the state's
    numbers hyper-parameters and returns the next state (see `target_cosine` and
    `curricularface_loss`); a regularizer is added to what this returns; sub-centres are prototypes
    [C, K, D], of which the nearest counts.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], or [C, K, D] with K sub-centres per class, floating point.
      labels: [B], integers from 0 to num_classes − 1. Under `jax.jit`, where values are not known,
        an example with another label has loss NaN.
      target: (cosine_y [B], norms [B], **hyperparameters) -> [B], what stands in place of cosine_y.
      negatives: (cosine [B, c], cosine_y [B, 1], **hyperparameters) -> [B, c], what stands in place
        of the other classes' cosines, elementwise; None: nothing changes. Hyper-parameters [B]
        come as [B, 1].
      hyperparameters: keyword arguments of both functions: Python values, which are compiled in,
        and arrays [] or [B], which are traced, may have a gradient, and are sharded like the batch.
      scale: s, a scalar or [B]; None: each embedding's own length ‖x‖.
      reduction: "softmax", "binary", or a `Reduction`.
      bias: b, a scalar or [C], or None.
      filter_threshold: other classes whose cosine is larger are left out, a scalar or [B]
        (interclass filtering); None: none is.
      normalized: whether c_j are cosines; else inner products.
      gradient: "exact": of the formula. "detached": of the plain cosine; the margin moves the value
        only. Or a function (cosine_y [B], norms [B], **hyperparameters) -> (a, b) that prescribes
        the gradient a·w + b·x of the target's logit by the embedding, w being the unit prototype;
        prototypes then count as rows of unit length.
      num_classes: rows of prototypes from here on are not classes: they never take part and get
        gradient zero; None: all are classes.
      class_block: classes per block, so that [B, C] never exists, at the price of computing it
        twice; None: all at once.
      mesh: devices over which prototypes are sharded along "model" and examples along "data"; None:
        that of `jax.set_mesh`, if it has an axis "model".

    Returns:
      Losses [B]; take the mean.

    Raises:
      ValueError: if an argument is not as above; the message names it.

    Example:
      >>> import jax.numpy as jnp
      >>> import numpy as np
      >>> from sphereface_jax import margin_loss
      >>> def half(cosine_y, norms, *, margin):
      ...     return cosine_y / 2 - margin
      >>> embeddings, prototypes = jnp.array([[3.0, 4.0], [1.0, 0.0]]), jnp.eye(2)
      >>> loss = margin_loss(embeddings, prototypes, jnp.array([1, 0]), target=half,
      ...                    hyperparameters={"margin": jnp.array([0.1, 0.2])}, scale=4.0)
      >>> print(np.asarray(loss, np.float64).round(2))
      [1.46 0.26]
    """
    if isinstance(reduction, str):
        _checks.require_choice("reduction", reduction, list(_REDUCTIONS))
        reduced_by = _REDUCTIONS[reduction]
    else:
        reduced_by = reduction
    settings = Settings(dict(hyperparameters or {}), scale, None, filter_threshold, reduced_by)
    return reduce_over_classes(
        _margin(target, negatives, gradient, normalized),
        settings,
        embeddings,
        prototypes,
        labels,
        bias=bias,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def margin_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    target: Target,
    negatives: Negatives | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
    scale: Scalar | None = 64.0,
    bias: Array | float | None = None,
    filter_threshold: Scalar | None = None,
    normalized: bool = True,
    gradient: Literal["exact", "detached"] | PrescribedGradient = "exact",
    num_classes: int | None = None,
) -> Array:
    """Logits [B, C] of any margin: what the reduction of `margin_loss` is given.

    Args:
      embeddings: [B, D], floating point.
      prototypes: [C, D], or [C, K, D] with sub-centres, floating point.
      labels: [B], integers from 0 to num_classes − 1.
      target: as in `margin_loss`.
      negatives: as in `margin_loss`.
      hyperparameters: as in `margin_loss`.
      scale: s, a scalar or [B]; None: each embedding's own length.
      bias: b, a scalar or [C], or None.
      filter_threshold: other classes whose cosine is larger get −∞; None: none does.
      normalized: whether cosines are taken; else inner products.
      gradient: as in `margin_loss`.
      num_classes: rows of prototypes from here on are not classes and get −∞; None: all are.

    Returns:
      Logits [B, C].

    Raises:
      ValueError: if an argument is not as above; the message names it.
    """
    reduction = SoftmaxCrossEntropy()
    settings = Settings(dict(hyperparameters or {}), scale, None, filter_threshold, reduction)
    num_classes = _check(settings, embeddings, prototypes, labels, bias, num_classes)
    settings, class_bias = _split_bias(settings, bias)
    return dense_logits(
        _margin(target, negatives, gradient, normalized),
        settings,
        *_as_arrays(embeddings, prototypes, labels),
        class_bias,
        num_classes=num_classes,
    )


def target_cosine(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    num_classes: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """Cosine of each embedding with the prototype of its target class.

    What a loss whose margin follows the batch starts from. On a mesh no prototype moves: one sum of
    [B] travels over "model".

    Args:
      embeddings: [B, D], floating point.
      prototypes: [C, D], or [C, K, D] with sub-centres.
      labels: [B], integers from 0 to num_classes − 1.
      num_classes: how many of the rows are classes; None: all.
      mesh: as in `margin_loss`.

    Returns:
      Cosines [B].

    Raises:
      ValueError: if an argument is not as above.

    Example:
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import target_cosine
      >>> print(target_cosine(jnp.array([[0.0, 4.0]]), jnp.eye(2), jnp.array([1])))
      [1.]
    """
    settings = Settings({}, 1.0, None, None, TargetOnly())
    return reduce_over_classes(
        Margin(margins.identity),
        settings,
        embeddings,
        prototypes,
        labels,
        num_classes=num_classes,
        class_block=max(len(prototypes), 1),  # the blockwise head looks at the target class alone
        mesh=mesh,
    )


def nearest(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Nearest:
    """How each example lies among the prototypes: its own cosine and the nearest other class.

    Args:
      embeddings: [B, D], floating point.
      prototypes: [C, D], or [C, K, D] with sub-centres.
      labels: [B], integers from 0 to num_classes − 1.
      num_classes: how many of the rows are classes; None: all.
      class_block: classes per block; None: all at once.
      mesh: as in `margin_loss`.

    Returns:
      cosine [B], other_class [B] and other_cosine [B]. It has no gradient.

    Raises:
      ValueError: if an argument is not as above.

    Example:
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import nearest
      >>> found = nearest(jnp.array([[0.0, 4.0]]), jnp.eye(2), jnp.array([1]))
      >>> print(found.cosine, found.other_class, found.other_cosine)
      [1.] [0] [0.]
    """
    settings = Settings({}, 1.0, None, None, NearestOther())
    return reduce_over_classes(
        Margin(margins.identity),
        settings,
        *jax.lax.stop_gradient((embeddings, prototypes)),
        labels,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def reduce_over_classes(
    margin: Margin,
    settings: Settings,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    bias: Array | float | None = None,
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Any:
    """Checks the arguments and runs the head that they ask for.

    Args:
      margin: the margin's functions.
      settings: its numbers, the bias aside.
      embeddings: [B, D], floating point.
      prototypes: [C, D], or [C, K, D] with sub-centres, floating point.
      labels: [B], integers from 0 to num_classes − 1.
      bias: as in `margin_loss`.
      num_classes: as in `margin_loss`.
      class_block: as in `margin_loss`.
      mesh: as in `margin_loss`.

    Returns:
      What the reduction makes of the logits, arrays [B]. Under `jax.jit` an example with another
      label gets NaN, or −1 among integers.

    Raises:
      ValueError: if an argument is not as above; the message names it.
    """
    num_classes = _check(settings, embeddings, prototypes, labels, bias, num_classes)
    if class_block is not None:
        is_count = isinstance(class_block, numbers.Integral) and class_block >= 1
        _checks.require(is_count, "class_block", "None or an integer of at least 1", class_block)
    settings, class_bias = _split_bias(settings, bias)
    embeddings, prototypes, labels = _as_arrays(embeddings, prototypes, labels)
    is_class = (labels >= 0) & (labels < num_classes)
    labels = jnp.clip(labels, 0, prototypes.shape[0] - 1)
    arguments = margin, settings, embeddings, prototypes, labels, class_bias
    mesh = mesh or context_mesh()
    if mesh is None and class_block is None:
        result = dense_loss(*arguments, num_classes=num_classes)
    else:
        result = blockwise_loss(
            *arguments, num_classes=num_classes, class_block=class_block, mesh=mesh
        )

    def blank(values: Array) -> Array:
        is_floating = jnp.issubdtype(values.dtype, jnp.floating)
        return jnp.where(is_class, values, jnp.nan if is_floating else -1)

    return jax.tree.map(blank, result)


def _margin(target: Target, negatives: Negatives | None, gradient: Any, normalized: bool) -> Margin:
    if not callable(gradient):
        _checks.require_choice("gradient", gradient, ("exact", "detached"))
    return Margin(target, negatives, gradient, normalized)


def _as_arrays(embeddings: Any, prototypes: Any, labels: Any) -> tuple[Array, Array, Array]:
    return jnp.asarray(embeddings), jnp.asarray(prototypes), jnp.asarray(labels, jnp.int32)


def _split_bias(settings: Settings, bias: Any) -> tuple[Settings, Array | None]:
    """A scalar bias is a setting; one per class is sharded with the classes."""
    if bias is None or jnp.ndim(bias) == 0:
        return settings._replace(bias=bias), None
    return settings, jnp.asarray(bias)


def _check(
    settings: Settings,
    embeddings: Any,
    prototypes: Any,
    labels: Any,
    bias: Any,
    num_classes: int | None,
) -> int:
    """Checks what every head takes, and returns the number of classes."""
    has_subcenters = np.ndim(prototypes) == 3
    axes = "C, K, D" if has_subcenters else "C, D"
    num_classes = _checks.require_head_inputs(
        embeddings, prototypes, labels, num_classes, axes=axes
    )
    _checks.require_scale(settings.scale)
    batch, rows = embeddings.shape[0], prototypes.shape[0]
    if bias is not None and jnp.ndim(bias):
        _checks.require_floating("bias", bias, "C")
        expected = f"shape [{rows}] (one per prototype)"
        _checks.require(bias.shape == (rows,), "bias", expected, f"shape {list(bias.shape)}")
    named = dict(settings.hyperparameters) | {
        "scale": settings.scale,
        "filter_threshold": settings.filter_threshold,
        "reduction": settings.reduction,
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(named):
        shape = np.shape(leaf)
        name = ".".join(str(getattr(key, "key", getattr(key, "name", key))) for key in path)
        if shape not in ((), (batch,)):
            expected = f"a scalar or shape [{batch}] (one per embedding)"
            raise ValueError(f"{name}: expected {expected}, got shape {list(shape)}")
        is_floating = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        if is_floating and shape and _checks.is_concrete(leaf):
            count = int(np.isnan(np.asarray(leaf, np.float64)).sum())
            _checks.require(count == 0, name, "no NaN", f"{count} of {batch}")
    return num_classes
