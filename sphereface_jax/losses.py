"""The losses by their papers' names: embeddings, prototypes, labels in, a value an example out.

Every loss is the same sentence: cosines between embeddings and class prototypes; change the
target's; scale; reduce over the classes. Take the mean of what it returns.
"""

from functools import partial

import jax

from sphereface_jax._checks import require_head_inputs, require_integer_margin
from sphereface_jax.heads.dense import Margin, dense_logits, dense_loss
from sphereface_jax.margins import sphereface

Array = jax.Array


def sphereface_logits(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: int = 4,
    annealing_lambda: jax.typing.ArrayLike = 0.0,
    num_classes: int | None = None,
) -> Array:
    """Logits of SphereFace's angular softmax (A-Softmax).

    f_y = ‖x‖ (c_y + (ψ(c_y) − c_y) / (1 + λ)) for the target and f_j = ‖x‖ c_j for the others,
    c_j being the cosine between the embedding x and prototype j, and ψ(cos θ) the monotone
    extension of cos(mθ). Lengths of prototypes do not matter; there is no bias.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], one row a class.
      labels: [B], integers in [0, num_classes).
      margin: m, an integer of at least 1; 1 is the plain softmax over ‖x‖ c_j.
      annealing_lambda: λ ≥ 0; see `annealed_lambda`.
      num_classes: rows of prototypes from here on are no classes and get logit −∞; all are by
        default.

    Returns:
      Logits [B, C].

    Raises:
      ValueError: if a rank, width, dtype, the margin or (where labels are concrete) a label is
        not as above.

    References:
      Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017,
      https://arxiv.org/abs/1704.08063.
    """
    num_classes = require_head_inputs(embeddings, prototypes, labels, num_classes)
    target = partial(
        sphereface, margin=require_integer_margin(margin), annealing_lambda=annealing_lambda
    )
    return dense_logits(Margin(target), embeddings, prototypes, labels, num_classes=num_classes)


def sphereface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    margin: int = 4,
    annealing_lambda: jax.typing.ArrayLike = 0.0,
    num_classes: int | None = None,
) -> Array:
    """SphereFace's angular softmax loss (A-Softmax): the cross entropy of `sphereface_logits`.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], one row a class.
      labels: [B], integers in [0, num_classes).
      margin: m, an integer of at least 1; 1 is the plain softmax over ‖x‖ c_j.
      annealing_lambda: λ ≥ 0; see `annealed_lambda`.
      num_classes: rows of prototypes from here on are no classes: they never take part and get
        gradient zero; all are classes by default.

    Returns:
      Losses [B]; take the mean.

    Raises:
      ValueError: if a rank, width, dtype, the margin or (where labels are concrete) a label is
        not as above.

    Example:
      >>> import jax.numpy as jnp
      >>> from sphereface_jax import sphereface_loss
      >>> embeddings = jnp.array([[3.0, 0.0], [0.0, 2.0]])
      >>> prototypes = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> print(sphereface_loss(embeddings, prototypes, jnp.array([0, 1])).round(3))
      [0.049 0.127]

    References:
      Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017,
      https://arxiv.org/abs/1704.08063.
    """
    num_classes = require_head_inputs(embeddings, prototypes, labels, num_classes)
    target = partial(
        sphereface, margin=require_integer_margin(margin), annealing_lambda=annealing_lambda
    )
    return dense_loss(Margin(target), embeddings, prototypes, labels, num_classes=num_classes)
