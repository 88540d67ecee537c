"""ElasticFace: the margin of every example is drawn, so that no two steps pull equally hard.

The draws are a pure function of a key. The trainer derives one per example from the seed, the step
and the example's place in the batch, so that a run resumes to the same bits on any mesh.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from sphereface_jax import _checks, margins
from sphereface_jax.heads.blockwise import AnyMesh, context_mesh, replicate
from sphereface_jax.heads.scoring import Scalar
from sphereface_jax.losses.margin_loss import margin_loss, target_cosine
from sphereface_jax.losses.table import Loss

Array = jax.Array

Ranking = Literal["cosine", "released"]


def elastic_arcface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    key: Array,
    margin: Scalar = 0.5,
    sigma: Scalar = 0.05,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """ElasticFace-Arc: ArcFace whose margin is drawn for every example.

    f_y = s cos(θ_y + m_i) and f_j = s c_j, m_i ~ N(m, σ²).

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      key: PRNG key [], split over the batch, or one key per example [B]: what is drawn depends on
        it alone.
      margin: m in radians, the mean of the margins, a scalar or [B].
      sigma: σ, their standard deviation, a scalar or [B].
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger are left out (interclass filtering), a
        scalar or [B]; None: none is.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes: they never take part and get
        gradient zero; None: all are classes.
      class_block: classes per block, so that [B, C] never exists; None: all at once.
      mesh: devices over which prototypes are sharded along "model" and examples along "data"; None:
        that of `jax.set_mesh`, if it has an axis "model".

    Returns:
      Losses [B]; take the mean.

    Raises:
      ValueError: if an argument is not as above; the message names it.

    References:
      Boutros et al., ElasticFace: Elastic Margin Loss for Deep Face Recognition, CVPR Workshops
        2022, https://arxiv.org/abs/2109.09416.
    """
    draws = _draw(key, labels, margin, sigma)
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.arcface,
        hyperparameters={"margin": draws},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def elastic_arcface_plus_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    key: Array,
    margin: Scalar = 0.5,
    sigma: Scalar = 0.0175,
    ranking: Ranking = "cosine",
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """ElasticFace-Arc+: the largest of the drawn margins go to the smallest cosines.

    f_y = s cos(θ_y + m_i) and f_j = s c_j; the batch's draws of N(m, σ²) are sorted so that the
    example with the smallest c_y has the largest margin.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      key: PRNG key [], split over the batch, or one key per example [B]: what is drawn depends on
        it alone.
      margin: m in radians, the mean of the margins, a scalar or [B].
      sigma: σ, their standard deviation, a scalar or [B].
      ranking: 'cosine': as above. 'released': as the authors' released code indexes the sorted
        margins, by the order of the cosines instead of their ranks.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger are left out (interclass filtering), a
        scalar or [B]; None: none is.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes: they never take part and get
        gradient zero; None: all are classes.
      class_block: classes per block, so that [B, C] never exists; None: all at once.
      mesh: devices over which prototypes are sharded along "model" and examples along "data"; None:
        that of `jax.set_mesh`, if it has an axis "model".

    Returns:
      Losses [B]; take the mean.

    Raises:
      ValueError: if an argument is not as above; the message names it.

    References:
      Boutros et al., ElasticFace: Elastic Margin Loss for Deep Face Recognition, CVPR Workshops
        2022, https://arxiv.org/abs/2109.09416.
    """
    draws = _draw(key, labels, margin, sigma)
    draws = _ranked(draws, embeddings, prototypes, labels, ranking, num_classes, mesh=mesh)
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.arcface,
        hyperparameters={"margin": draws},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def elastic_cosface_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    key: Array,
    margin: Scalar = 0.35,
    sigma: Scalar = 0.05,
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """ElasticFace-Cos: CosFace whose margin is drawn for every example.

    f_y = s (c_y − m_i) and f_j = s c_j, m_i ~ N(m, σ²).

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      key: PRNG key [], split over the batch, or one key per example [B]: what is drawn depends on
        it alone.
      margin: m, the mean of the margins, a scalar or [B].
      sigma: σ, their standard deviation, a scalar or [B].
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger are left out (interclass filtering), a
        scalar or [B]; None: none is.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes: they never take part and get
        gradient zero; None: all are classes.
      class_block: classes per block, so that [B, C] never exists; None: all at once.
      mesh: devices over which prototypes are sharded along "model" and examples along "data"; None:
        that of `jax.set_mesh`, if it has an axis "model".

    Returns:
      Losses [B]; take the mean.

    Raises:
      ValueError: if an argument is not as above; the message names it.

    References:
      Boutros et al., ElasticFace: Elastic Margin Loss for Deep Face Recognition, CVPR Workshops
        2022, https://arxiv.org/abs/2109.09416.
    """
    draws = _draw(key, labels, margin, sigma)
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.cosface,
        hyperparameters={"margin": draws},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def elastic_cosface_plus_loss(
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    *,
    key: Array,
    margin: Scalar = 0.35,
    sigma: Scalar = 0.02,
    ranking: Ranking = "cosine",
    scale: Scalar | None = 64.0,
    filter_threshold: Scalar | None = None,
    gradient: Literal["exact", "detached"] = "exact",
    num_classes: int | None = None,
    class_block: int | None = None,
    mesh: AnyMesh | None = None,
) -> Array:
    """ElasticFace-Cos+: the largest of the drawn margins go to the smallest cosines.

    f_y = s (c_y − m_i) and f_j = s c_j; the batch's draws of N(m, σ²) are sorted so that the
    example with the smallest c_y has the largest margin.

    Args:
      embeddings: [B, D], floating point; computed with in float32 at least.
      prototypes: [C, D], floating point; their lengths do not matter.
      labels: [B], integers from 0 to num_classes − 1.
      key: PRNG key [], split over the batch, or one key per example [B]: what is drawn depends on
        it alone.
      margin: m, the mean of the margins, a scalar or [B].
      sigma: σ, their standard deviation, a scalar or [B].
      ranking: 'cosine': as above. 'released': as the authors' released code indexes the sorted
        margins, by the order of the cosines instead of their ranks.
      scale: s, above 0, a scalar or [B]; None: each embedding's own length ‖x‖.
      filter_threshold: other classes whose cosine is larger are left out (interclass filtering), a
        scalar or [B]; None: none is.
      gradient: "exact": of the formula; "detached": of the plain cosine, the margin moves the value
        only.
      num_classes: rows of prototypes from here on are not classes: they never take part and get
        gradient zero; None: all are classes.
      class_block: classes per block, so that [B, C] never exists; None: all at once.
      mesh: devices over which prototypes are sharded along "model" and examples along "data"; None:
        that of `jax.set_mesh`, if it has an axis "model".

    Returns:
      Losses [B]; take the mean.

    Raises:
      ValueError: if an argument is not as above; the message names it.

    References:
      Boutros et al., ElasticFace: Elastic Margin Loss for Deep Face Recognition, CVPR Workshops
        2022, https://arxiv.org/abs/2109.09416.
    """
    draws = _draw(key, labels, margin, sigma)
    draws = _ranked(draws, embeddings, prototypes, labels, ranking, num_classes, mesh=mesh)
    return margin_loss(
        embeddings,
        prototypes,
        labels,
        target=margins.cosface,
        hyperparameters={"margin": draws},
        scale=scale,
        filter_threshold=filter_threshold,
        gradient=gradient,
        num_classes=num_classes,
        class_block=class_block,
        mesh=mesh,
    )


def _draw(key: Array, labels: Array, margin: Scalar, sigma: Scalar) -> Array:
    """Margins [B] ~ N(m, σ²)."""
    _checks.require_numbers(margin=margin, sigma=sigma)
    is_key = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    expected = "a key of jax.random.key, or one per embedding"
    _checks.require(is_key, "key", expected, getattr(key, "dtype", type(key)))
    shape = jnp.shape(labels)
    keys = key if key.ndim else jax.random.split(key, shape)
    _checks.require(keys.shape == shape, "key", f"shape [] or {list(shape)}", list(keys.shape))
    return margin + sigma * jax.vmap(lambda key: jax.random.normal(key, (), jnp.float32))(keys)


def _ranked(
    draws: Array,
    embeddings: Array,
    prototypes: Array,
    labels: Array,
    ranking: str,
    num_classes: int | None,
    *,
    mesh: AnyMesh | None = None,
) -> Array:
    """The draws in the order of the batch's cosines."""
    _checks.require_choice("ranking", ranking, ("cosine", "released"))
    mesh = mesh or context_mesh()
    cosine_y = target_cosine(embeddings, prototypes, labels, num_classes=num_classes, mesh=mesh)
    cosine_y, draws = replicate(jax.lax.stop_gradient((cosine_y, draws)), mesh)
    order = jnp.argsort(-cosine_y)  # the largest cosine first
    return jnp.sort(draws)[order if ranking == "released" else jnp.argsort(order)]


LOSSES = {
    "elastic_arcface": Loss(elastic_arcface_loss, title="ElasticFace-Arc"),
    "elastic_arcface_plus": Loss(
        elastic_arcface_plus_loss, title="ElasticFace-Arc+", whole_batch=True
    ),
    "elastic_cosface": Loss(elastic_cosface_loss, title="ElasticFace-Cos"),
    "elastic_cosface_plus": Loss(
        elastic_cosface_plus_loss, title="ElasticFace-Cos+", whole_batch=True
    ),
}
